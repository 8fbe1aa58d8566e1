"""GitHub Apps: what a Secret says of one, and tokens for one of its installations.

Follows GitHub's documentation «Generating a JSON Web Token (JWT) for a GitHub App» and «Authenticating as a GitHub App
installation»; the keys of the Secret are those of Flux source-controller.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconcile.errors import Invalid
from reconcile.net.client import Client, make_client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.proxy import Proxy
from reconcile.net.retry import IDEMPOTENT
from reconcile.net.tls import Tls
from reconcile.ports.clock import Clock, SystemClock, parse_timestamp
from reconcile.registry.cloud import Kept

GITHUB = "https://api.github.com"
TLS_KEYS = ("ca.crt", "tls.crt", "tls.key", "caFile", "certFile", "keyFile")
"""Keys of a Secret that say whom to trust and whom to show."""
_MAX_ANSWER = 256 * 1024
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")


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


class InstallationTokens:
    """Tokens of installations, each kept for most of its life and then fetched anew."""

    def __init__(self, clock: Clock | None = None, kept: Kept[str] | None = None, *, timeout: float = 30.0) -> None:
        self._clock = clock or SystemClock()
        self._kept = kept or Kept(clock=self._clock)
        self._timeout = timeout

    async def token(self, app: GitHubApp, tls: Tls, proxy: Proxy | None) -> str:
        """A token that is good for minutes at least; raises ReconcileError."""

        async def log_in() -> tuple[str, float]:
            async with make_client(tls=tls, proxy=proxy, timeout=self._timeout, clock=self._clock) as client:
                return await self._log_in(app, client)

        return await self._kept.get((app.identity(), tls, proxy), log_in)

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


class AppTokens:
    """Credentials for requests to the API: a token of the app's installation."""

    def __init__(self, tokens: InstallationTokens, app: GitHubApp, tls: Tls, proxy: Proxy | None) -> None:
        self._tokens = tokens
        self._app = app
        self._tls = tls
        self._proxy = proxy
        self._shown = ""
        self.identity = app.identity()
        self.advice = "check that the GitHub App is still installed for this repository"

    async def headers(self) -> Mapping[str, str]:
        """The header with the token; raises ReconcileError."""
        self._shown = await self._tokens.token(self._app, self._tls, self._proxy)
        return {"Authorization": f"Bearer {self._shown}"}

    def secrets(self) -> tuple[str, ...]:
        """The token that was shown last."""
        return (self._shown,)


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
