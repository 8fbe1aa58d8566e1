"""Azure Container Registry: a Microsoft Entra token from the environment, exchanged at the registry for its refresh token.

The Entra token comes from workload identity (a federated token file), a client secret, or the managed identity of the machine.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import orjson

from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.cloud import Channels, Issued, exchange, read_json, read_token, text_of
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential

USERNAME = "00000000-0000-0000-0000-000000000000"
"""The user that stands for a token (documentation of `az acr login --expose-token`)."""

PATTERN = r"^.+\.(azurecr\.io|azurecr\.cn|azurecr\.de|azurecr\.us)$"

_HOST = re.compile(PATTERN)
_RESOURCES = {"cn": "https://management.chinacloudapi.cn", "us": "https://management.usgovcloudapi.net"}
_AUTHORITIES = {"cn": "https://login.chinacloudapi.cn", "us": "https://login.microsoftonline.us"}
_DEFAULT_LIFE = 600.0

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""Kind of the proof that stands for a client secret."""


@dataclass(frozen=True)
class AzureEndpoints:
    """Where the services are; tests put their own here. `{registry}` is filled in."""

    authority: str = ""
    exchange: str = "https://{registry}/oauth2/exchange"
    metadata: str = "http://169.254.169.254"


@dataclass
class Azure:
    """The provider `azure`.

    Attributes:
        environment: environment variables.
        endpoints: where the services are.
        clock: time for lives.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    endpoints: AzureEndpoints = field(default_factory=AzureEndpoints)
    clock: Clock = field(default_factory=SystemClock)
    name: str = "azure"

    def key(self, registry: str) -> str:
        """The registry itself: refresh tokens are for one registry."""
        if not _HOST.match(registry) or ":" in registry:
            raise CredentialError(f"invalid Azure registry: '{registry}'. must match {PATTERN}")
        return registry

    async def log_in(self, registry: str, channels: Channels) -> Issued:
        """The user for tokens and the registry's refresh token."""
        self.key(registry)
        token = await self._entra_token(registry.rpartition(".")[2], channels)
        what = "azure: exchange at the registry"
        form = {"grant_type": "access_token", "service": registry, "access_token": token}
        url = self.endpoints.exchange.format(registry=registry)
        response = await exchange(channels.http, "POST", url, what=what, form=form)
        refresh = text_of(read_json(response, what), "refresh_token", what)
        return Issued(Credential(USERNAME, refresh), _expiry(refresh, what) - self.clock.now().timestamp())

    async def _entra_token(self, cloud: str, channels: Channels) -> str:
        resource = _RESOURCES.get(cloud, "https://management.azure.com")
        authority = _AUTHORITIES.get(cloud, "https://login.microsoftonline.com")
        return (await self.token(resource, channels, authority=authority))[0]

    async def token(
        self, resource: str, channels: Channels, *, authority: str = "https://login.microsoftonline.com"
    ) -> tuple[str, float]:
        """An Entra token of this process's identity for `resource` and its life in seconds; raises `CredentialError`.

        `authority` is asked where neither the endpoints nor AZURE_AUTHORITY_HOST name another.
        """
        environment = self.environment
        client, tenant = environment.get("AZURE_CLIENT_ID", ""), environment.get("AZURE_TENANT_ID", "")
        file, secret = environment.get("AZURE_FEDERATED_TOKEN_FILE"), environment.get("AZURE_CLIENT_SECRET")
        if not (client and tenant and (file or secret)):
            return await self.managed_identity(resource, client, channels)
        what = "azure: client secret" if secret else "azure: workload identity"
        if not re.fullmatch(r"[A-Za-z0-9.-]+", tenant):
            raise CredentialError(f"{what}: AZURE_TENANT_ID is not a tenant")
        form = {"grant_type": "client_credentials", "client_id": client, "scope": f"{resource}/.default"}
        if secret:
            form["client_secret"] = secret
        else:
            form |= {"client_assertion_type": ASSERTION, "client_assertion": read_token(file or "", what)}
        authority = self.endpoints.authority or environment.get("AZURE_AUTHORITY_HOST") or authority
        url = f"{authority.rstrip('/')}/{tenant}/oauth2/v2.0/token"
        return token_of(await exchange(channels.http, "POST", url, what=what, form=form), what)

    async def managed_identity(self, resource: str, client: str, channels: Channels) -> tuple[str, float]:
        """A token of the machine's identity, of the one with the client id `client` if given; as `token`."""
        what = "azure: managed identity"
        query = f"api-version=2018-02-01&resource={resource}/" + (f"&client_id={quote(client, safe='')}" if client else "")
        url = f"{self.endpoints.metadata}/metadata/identity/oauth2/token?{query}"
        return token_of(await exchange(channels.direct, "GET", url, what=what, headers={"Metadata": "true"}), what)


def token_of(response: httpx.Response, what: str) -> tuple[str, float]:
    """The token in an answer of Entra or of the metadata service, and its life in seconds; raises `CredentialError`."""
    document = read_json(response, what)
    life = document.get("expires_in")  # a number from Entra, text from the metadata service
    text = str(life) if isinstance(life, int | str) and not isinstance(life, bool) else ""
    return text_of(document, "access_token", what), float(text) if text.isascii() and text.isdigit() else _DEFAULT_LIFE


def _expiry(token: str, what: str) -> float:
    """Seconds since the epoch in the `exp` claim of a JSON web token, whose signature is the registry's business."""
    try:
        body = token.split(".")[1]
        expiry = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
    except (IndexError, KeyError, TypeError, binascii.Error, orjson.JSONDecodeError) as error:
        raise CredentialError(f"{what}: the refresh token has no readable expiry") from error
    if not isinstance(expiry, int | float):
        raise CredentialError(f"{what}: the refresh token has no readable expiry")
    return float(expiry)
