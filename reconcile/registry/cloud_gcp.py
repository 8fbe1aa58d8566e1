"""Google Artifact Registry and Container Registry: an access token as the password of `oauth2accesstoken`.

The token comes from the file that GOOGLE_APPLICATION_CREDENTIALS names (service account key, workload identity federation, a
user's refresh token), from gcloud's own file, or from the metadata server.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from reconcile.ports.clock import Clock, SystemClock, parse_timestamp
from reconcile.registry.cloud import Channels, Issued, exchange, read_file, read_json, text_of
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential

USERNAME = "oauth2accesstoken"
PATTERN = r"^(((.+\.)?gcr\.io)|(.+-docker\.pkg\.dev)|(docker\.s3nsregistry\.fr))$"
SCOPES = "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email"

_HOST = re.compile(PATTERN)
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a grant type, not a secret
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_DEFAULT_LIFE = 3600.0


@dataclass(frozen=True)
class GcpEndpoints:
    """Where the services are; tests put their own here."""

    token: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a secret
    metadata: str = "http://metadata.google.internal"


@dataclass
class Gcp:
    """The provider `gcp`.

    Attributes:
        environment: environment variables.
        endpoints: where the services are.
        clock: time for assertions and lives.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    endpoints: GcpEndpoints = field(default_factory=GcpEndpoints)
    clock: Clock = field(default_factory=SystemClock)
    name: str = "gcp"

    def key(self, registry: str) -> str:
        """The provider: one token serves all its registries."""
        if not _HOST.match(registry):
            raise CredentialError(f"invalid GCP registry: '{registry}'. must match {PATTERN}")
        return self.name

    async def log_in(self, registry: str, channels: Channels) -> Issued:
        """The user for tokens and an access token."""
        self.key(registry)
        token, life = await self.token(channels)
        return Issued(Credential(USERNAME, token), life)

    async def token(self, channels: Channels) -> tuple[str, float]:
        """An access token of this process's identity and its life in seconds; raises `CredentialError`."""
        path = self._key_file()
        return await (self._metadata(channels) if path is None else self._from_file(path, channels))

    def _key_file(self) -> str | None:
        named = self.environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            return named
        home = self.environment.get("HOME")
        folder = self.environment.get("CLOUDSDK_CONFIG") or (f"{home}/.config/gcloud" if home else "")
        file = Path(folder, "application_default_credentials.json")
        return str(file) if folder and file.is_file() else None

    async def _metadata(self, channels: Channels) -> tuple[str, float]:
        what = "gcp: metadata server"
        host = self.environment.get("GCE_METADATA_HOST")
        base = f"http://{host}" if host else self.endpoints.metadata
        url = (
            f"{base}/computeMetadata/v1/instance/service-accounts/default/token?scopes={quote(SCOPES.replace(' ', ','), safe='')}"
        )
        response = await exchange(channels.direct, "GET", url, what=what, headers={"Metadata-Flavor": "Google"})
        if response.headers.get("metadata-flavor") != "Google":
            raise CredentialError(f"{what}: the answer does not come from a metadata server")
        return _token(read_json(response, what), what)

    async def _from_file(self, path: str, channels: Channels) -> tuple[str, float]:
        what = "gcp: credentials file"
        try:
            document = orjson.loads(read_file(path, what))
        except orjson.JSONDecodeError as error:
            raise CredentialError(f"{what}: '{path}' is not JSON") from error
        kind = document.get("type") if isinstance(document, dict) else None
        match kind:
            case "service_account":
                return await self.service_account(document, channels)
            case "external_account":
                return await self._external_account(document, channels)
            case "authorized_user":
                return await self._user(document, channels)
            case _:
                raise CredentialError(f"{what}: '{path}' has the unknown type {str(kind)[:40]!r}")

    async def service_account(self, document: Mapping[str, Any], channels: Channels) -> tuple[str, float]:
        """An access token for the content of a service account's key file and its life; raises `CredentialError`."""
        what = "gcp: service account key"
        url = _https(document.get("token_uri") or self.endpoints.token, self.endpoints.token, what)
        now = int(self.clock.now().timestamp())
        claims = {"iss": text_of(document, "client_email", what), "scope": SCOPES, "aud": url, "iat": now, "exp": now + 3600}
        header = {"alg": "RS256", "typ": "JWT", "kid": str(document.get("private_key_id") or "")}
        unsigned = b".".join(_base64(orjson.dumps(part)) for part in (header, claims))
        try:
            key = load_pem_private_key(text_of(document, "private_key", what).encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CredentialError(f"{what}: the private key cannot be read") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise CredentialError(f"{what}: the private key is not an RSA key")
        assertion = unsigned + b"." + _base64(key.sign(unsigned, padding.PKCS1v15(), hashes.SHA256()))
        form = {"grant_type": _JWT_GRANT, "assertion": assertion.decode("ascii")}
        return _token(read_json(await exchange(channels.http, "POST", url, what=what, form=form), what), what)

    async def _user(self, document: Mapping[str, Any], channels: Channels) -> tuple[str, float]:
        what = "gcp: user credentials"
        form = {"grant_type": "refresh_token"}
        form |= {name: text_of(document, name, what) for name in ("client_id", "client_secret", "refresh_token")}
        return _token(read_json(await exchange(channels.http, "POST", self.endpoints.token, what=what, form=form), what), what)

    async def _external_account(self, document: Mapping[str, Any], channels: Channels) -> tuple[str, float]:
        what = "gcp: workload identity federation"
        url = _https(text_of(document, "token_url", what), self.endpoints.token, what)
        impersonation = document.get("service_account_impersonation_url")
        form = {
            "grant_type": _TOKEN_EXCHANGE,
            "audience": text_of(document, "audience", what),
            "scope": SCOPES,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": await self._subject_token(document.get("credential_source"), channels),
            "subject_token_type": text_of(document, "subject_token_type", what),
        }
        token, life = _token(read_json(await exchange(channels.http, "POST", url, what=what, form=form), what), what)
        if not impersonation:
            return token, life
        return await self._impersonate(_https(str(impersonation), self.endpoints.token, what), token, channels)

    async def _subject_token(self, source: Any, channels: Channels) -> str:
        what = "gcp: subject token"
        if not isinstance(source, dict):
            raise CredentialError(f"{what}: no credential_source")
        if isinstance(source.get("file"), str):
            content = read_file(source["file"], what)
        elif isinstance(source.get("url"), str):
            headers = source.get("headers")
            wanted = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
            content = (await exchange(channels.direct, "GET", source["url"], what=what, headers=wanted)).content
        else:
            raise CredentialError(f"{what}: credential_source names neither file nor url; other sources are not supported")
        form = source.get("format")
        if not isinstance(form, dict) or form.get("type") != "json":
            return content.decode("utf-8", "replace").strip()
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise CredentialError(f"{what}: not JSON") from error
        return text_of(document if isinstance(document, dict) else {}, str(form.get("subject_token_field_name")), what)

    async def _impersonate(self, url: str, token: str, channels: Channels) -> tuple[str, float]:
        what = "gcp: service account impersonation"
        body = orjson.dumps({"scope": SCOPES.split(), "lifetime": "3600s"})
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        document = read_json(await exchange(channels.http, "POST", url, what=what, headers=headers, content=body), what)
        try:
            expires = parse_timestamp(text_of(document, "expireTime", what))
        except ValueError as error:
            raise CredentialError(f"{what}: the answer has no readable 'expireTime'") from error
        return text_of(document, "accessToken", what), (expires - self.clock.now()).total_seconds()


def _token(document: Mapping[str, Any], what: str) -> tuple[str, float]:
    life = document.get("expires_in")
    seconds = float(life) if isinstance(life, int | float) and not isinstance(life, bool) else _DEFAULT_LIFE
    return text_of(document, "access_token", what), seconds


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _https(url: str, like: str, what: str) -> str:
    """`url`, which comes from a file and gets a secret, if it is https (or as plain as `like`, where tests serve it)."""
    if url.startswith("https://") or (like.startswith("http://") and url.startswith("http://")):
        return url
    raise CredentialError(f"{what}: '{url[:100]}' is not an https URL")
