"""Short-lived credentials for Git servers: GitHub Apps, AWS CodeCommit, Azure DevOps.

Identities of the clouds come from the environment of the process; a GitHub App's from the Secret. What a login gave is kept for
most of its life, and never in a status, an event or a log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlsplit

import httpx
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconcile.errors import Invalid
from reconcile.git.auth import GitCredentials
from reconcile.net.client import Client, make_client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.proxy import Proxy, ProxyEnvironment
from reconcile.net.retry import IDEMPOTENT
from reconcile.net.tls import DEFAULT, tls_from_secret
from reconcile.ports.clock import Clock, SystemClock, parse_timestamp
from reconcile.registry.cloud import Channels, Kept
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_azure import Azure
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.git_access import CloudLogin

GITHUB = "https://api.github.com"
DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798"
"""Azure DevOps as a resource of Entra."""
CODECOMMIT = r"git-codecommit(?:-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?)"
_CODECOMMIT = re.compile(CODECOMMIT)
_DEVOPS_HOST = re.compile(r"(?:[a-z0-9-]+\.)?dev\.azure\.com|[a-z0-9-]+\.visualstudio\.com")
_SIGNATURE_LIFE = 900.0
_MAX_ANSWER = 256 * 1024
_METADATA_TIMEOUT = 5.0
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_TLS_KEYS = ("ca.crt", "tls.crt", "tls.key", "caFile", "certFile", "keyFile")


@dataclass(frozen=True, slots=True)
class GitHubApp:
    """What a Secret says about a GitHub App, checked."""

    base: str
    app: str
    key: rsa.RSAPrivateKey = field(repr=False)
    installation: str = ""
    owner: str = ""

    @classmethod
    def of(cls, secret: str, data: Mapping[str, bytes]) -> GitHubApp:
        """Read `githubAppID`, `githubAppPrivateKey`, `githubAppInstallationID` or `…InstallationOwner`, and `githubAppBaseURL`.

        Raises `Invalid`, naming Secret and key.
        """
        values = {name: data.get(f"githubApp{name}", b"").decode("utf-8", "replace").strip() for name in _APP_TEXTS}
        if not values["ID"].isascii() or not values["ID"].isalnum():
            raise Invalid(f"secret '{secret}': key 'githubAppID' is missing or not an id")
        installation, owner = values["InstallationID"], values["InstallationOwner"]
        if bool(installation) == bool(owner):
            raise Invalid(
                f"secret '{secret}': exactly one of 'githubAppInstallationID' and 'githubAppInstallationOwner' must be set"
            )
        if installation and not (installation.isascii() and installation.isdigit()):
            raise Invalid(f"secret '{secret}': key 'githubAppInstallationID' is not a number")
        if owner and not _OWNER.fullmatch(owner):
            raise Invalid(f"secret '{secret}': key 'githubAppInstallationOwner' is not the name of an owner")
        try:
            key = serialization.load_pem_private_key(data.get("githubAppPrivateKey", b"").strip(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Invalid(f"secret '{secret}': key 'githubAppPrivateKey' is not an RSA private key without passphrase")
        return cls(_base(secret, values["BaseURL"]), values["ID"], key, installation, owner)

    def token(self, now: float) -> str:
        """The JSON web token by which the app shows itself (RFC 7519): good from 30 s ago for 2 minutes from `now`."""
        claims = {"iat": int(now) - 30, "exp": int(now) + 120, "iss": self.app}
        signed = b".".join(_base64url(orjson.dumps(part)) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        return (signed + b"." + _base64url(self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()

    def identity(self) -> str:
        """The same text for the same app, key and installation, and for no others."""
        public = self.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        parts = (self.base, self.app, self.installation, self.owner, hashlib.sha256(public).hexdigest())
        return "github " + hashlib.sha256("\0".join(parts).encode()).hexdigest()


_APP_TEXTS = ("ID", "InstallationID", "InstallationOwner", "BaseURL")


def _base(secret: str, text: str) -> str:
    """The API's address: GitHub's own, or that of another server, whose API is below `/api/v3`."""
    if not text or text.rstrip("/") == GITHUB:
        return GITHUB
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(f"secret '{secret}': key 'githubAppBaseURL' is not an address")
    base = text.rstrip("/")
    return base if base.endswith("/api/v3") else f"{base}/api/v3"


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class GitHubLogin:
    """The provider `github`: an installation token of an app (documentation of GitHub: «Authenticating as an installation»)."""

    def __init__(self, clock: Clock | None = None, kept: Kept[str] | None = None, *, timeout: float = 30.0) -> None:
        self._clock = clock or SystemClock()
        self._kept = kept or Kept(clock=self._clock)
        self._timeout = timeout

    async def credentials(
        self,
        url: str,  # noqa: ARG002 - an app's token is good for all its repositories
        secret: str,
        data: Mapping[str, bytes],
        proxy: Proxy | None,
    ) -> GitCredentials:
        """User `x-access-token` with a token; raises ReconcileError."""
        app = GitHubApp.of(secret, data)
        tls = tls_from_secret(secret, data) if any(name in data for name in _TLS_KEYS) else DEFAULT
        identity = app.identity()

        async def log_in() -> tuple[str, float]:
            async with make_client(tls=tls, proxy=proxy, timeout=self._timeout, clock=self._clock) as client:
                return await self._log_in(app, client)

        token = await self._kept.get((identity, tls, proxy), log_in)
        return GitCredentials(username="x-access-token", password=token, identity=identity)

    async def _log_in(self, app: GitHubApp, client: Client) -> tuple[str, float]:
        token = app.token(self._clock.now().timestamp())
        installation = app.installation or await self._installation(app, client, token)
        path = f"/app/installations/{installation}/access_tokens"
        response = await self._ask(client, "POST", app.base + path, token)
        answer = _json(response)
        issued = answer.get("token")
        if response.status_code != 201 or not isinstance(issued, str) or not issued:
            raise Invalid(f"the GitHub App's token was refused: {_said(response, answer)}")
        try:
            life = parse_timestamp(str(answer.get("expires_at"))).timestamp() - self._clock.now().timestamp()
        except ValueError:
            raise Invalid("the answer to the GitHub App does not say when its token expires") from None
        return issued, max(0.0, life)

    async def _installation(self, app: GitHubApp, client: Client, token: str) -> str:
        for kind in ("orgs", "users"):
            response = await self._ask(client, "GET", f"{app.base}/{kind}/{quote(app.owner, safe='')}/installation", token)
            answer = _json(response)
            if response.status_code == 200 and isinstance(answer.get("id"), int):
                return str(answer["id"])
            if response.status_code != 404:
                raise Invalid(f"the installation of the GitHub App was refused: {_said(response, answer)}")
        raise Invalid(f"the GitHub App is not installed for '{app.owner}'")

    @staticmethod
    async def _ask(client: Client, method: str, url: str, token: str) -> httpx.Response:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        extensions = {BODY_LIMIT: _MAX_ANSWER, IDEMPOTENT: True}
        return await client.send(
            client.build_request(method, url, headers=headers, extensions=extensions), follow_redirects=False
        )


def _json(response: httpx.Response) -> dict[str, object]:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _said(response: httpx.Response, answer: Mapping[str, object]) -> str:
    message = answer.get("message")
    text = f": {message[:200]}" if isinstance(message, str) and message.isprintable() else ""
    return f"unexpected status code {response.status_code}{text}"


class CodeCommitLogin:
    """The provider `aws`: a signature over the repository's address as its password, as AWS's own helper for Git makes it."""

    def __init__(self, aws: Aws | None = None, kept: Kept[tuple[str, str]] | None = None) -> None:
        self._aws = aws or Aws()
        self._kept = kept or Kept(clock=self._aws.clock)

    async def credentials(self, url: str, secret: str, data: Mapping[str, bytes], proxy: Proxy | None) -> GitCredentials:  # noqa: ARG002
        """User and password for a repository of CodeCommit; raises ReconcileError."""
        parts = urlsplit(url)
        found = _CODECOMMIT.fullmatch(parts.hostname or "")
        if found is None or parts.scheme != "https":
            raise Invalid(f"the URL is not that of a repository of AWS CodeCommit: its host must match {CODECOMMIT}")
        host, region, domain = found[0], found[1], found[2]

        async def log_in() -> tuple[tuple[str, str], float]:
            async with _channels(proxy, self._aws.clock) as channels:
                keys = await self._aws.keys(region, domain, channels)
            return codecommit_login(keys, host, parts.path, region, self._aws.clock.now()), _SIGNATURE_LIFE

        username, password = await self._kept.get((host, parts.path, proxy), log_in)
        return GitCredentials(username=username, password=password, identity=f"aws {host}")


def codecommit_login(keys: AwsKeys, host: str, path: str, region: str, moment: datetime) -> tuple[str, str]:
    """User and password: Signature Version 4 of a request `GIT` of which only the host is signed. Pure; `moment` is in UTC."""
    stamp = moment.strftime("%Y%m%dT%H%M%S")
    scope = f"{stamp[:8]}/{region}/codecommit/aws4_request"
    canonical = f"GIT\n{path}\n\nhost:{host}\n\nhost\n"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    user = f"{keys.access_key}%{keys.session_token}" if keys.session_token else keys.access_key
    return user, f"{stamp}Z{signature}"


class DevOpsLogin:
    """The provider `azure`: a token of Entra for Azure DevOps."""

    def __init__(self, azure: Azure | None = None, kept: Kept[str] | None = None) -> None:
        self._azure = azure or Azure()
        self._kept = kept or Kept(clock=self._azure.clock)

    async def credentials(self, url: str, secret: str, data: Mapping[str, bytes], proxy: Proxy | None) -> GitCredentials:  # noqa: ARG002
        """A bearer token; raises ReconcileError."""

        async def log_in() -> tuple[str, float]:
            async with _channels(proxy, self._azure.clock) as channels:
                return await self._azure.token(DEVOPS, channels)

        # The token is the controller's own: whoever may write a GitRepository must not have it sent to a server of his.
        parts = urlsplit(url)
        if parts.scheme != "https" or not _DEVOPS_HOST.fullmatch(parts.hostname or ""):
            raise Invalid(f"the URL is not that of a repository of Azure DevOps: its host must match {_DEVOPS_HOST.pattern}")
        return GitCredentials(bearer_token=await self._kept.get((DEVOPS, proxy), log_in), identity="azure devops")


@asynccontextmanager
async def _channels(proxy: Proxy | None, clock: Clock) -> AsyncIterator[Channels]:
    """Clients for one login: one that takes the proxy, one for metadata services, which are never behind one."""
    direct = make_client(timeout=_METADATA_TIMEOUT, clock=clock, environment=ProxyEnvironment())
    async with make_client(proxy=proxy, clock=clock) as http, direct:
        yield Channels(http, direct)


def default_logins(clock: Clock | None = None, environment: Mapping[str, str] | None = None) -> dict[str, CloudLogin]:
    """Every provider by its name, with identities from `environment` (default: the process's variables)."""
    time = clock or SystemClock()
    variables = os.environ if environment is None else environment
    return {
        "github": GitHubLogin(time),
        "aws": CodeCommitLogin(Aws(environment=variables, clock=time)),
        "azure": DevOpsLogin(Azure(environment=variables, clock=time)),
    }
