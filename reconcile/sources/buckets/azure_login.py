"""How requests to Azure Blob Storage show who sends them: shared key, shared access signature, Entra token, or nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from reconcile.errors import Invalid
from reconcile.net.proxy import parse_ip
from reconcile.ports.clock import Clock

_STANDARD = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account's address.

    Attributes:
        base: URL without query, without a slash at the end.
        name: name of the account: the first label of the host, or the first folder where the host is an address (emulators).
        query: query of the endpoint, which may hold a shared access signature.
    """

    base: str
    name: str
    query: str = field(default="", repr=False)


def account_of(endpoint: str) -> Account:
    """The account that `endpoint` names; raises Invalid when it is no http or https URL."""
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        raise Invalid("the endpoint is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise Invalid("the endpoint must be an http or https URL, such as 'https://ACCOUNT.blob.core.windows.net'")
    path = url.path.strip("/")
    local = parse_ip(url.host) is not None or "." not in url.host
    name = path.partition("/")[0] if local else url.host.partition(".")[0]
    base = str(url.copy_with(query=None, fragment=None, userinfo=None)).rstrip("/")
    return Account(base, name, url.query.decode("ascii"))


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Nobody in particular, or whoever the endpoint's own query says."""

    async def sign(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Nothing is added."""
        return url, dict(headers)


@dataclass(frozen=True, slots=True)
class Sas:
    """A shared access signature: a query that goes with every request."""

    query: str = field(repr=False)

    async def sign(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The query is added to the URL."""
        return f"{url}{'&' if '?' in url else '?'}{self.query}", dict(headers)


@dataclass(frozen=True, slots=True)
class Bearer:
    """An Entra token, asked for again when it ends."""

    token: Callable[[], Awaitable[str]]
    """Gives the token; empty is anonymous."""

    async def sign(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The token is added to the headers."""
        token = await self.token()
        return url, {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)


@dataclass(frozen=True, slots=True)
class SharedKey:
    """The key of the account: every request is signed (Azure documentation, "Authorize with Shared Key")."""

    account: str
    key: bytes = field(repr=False)
    clock: Clock = field(repr=False)

    async def sign(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Date and signature are added to the headers."""
        dated = {**headers, "x-ms-date": format_datetime(self.clock.now(), usegmt=True)}
        text = string_to_sign("GET", url, dated, self.account)
        signature = base64.b64encode(hmac.digest(self.key, text.encode(), hashlib.sha256)).decode()
        return url, {**dated, "Authorization": f"SharedKey {self.account}:{signature}"}


def string_to_sign(method: str, url: str, headers: Mapping[str, str], account: str) -> str:
    """What the Shared Key scheme signs. Pure; of several values of one query parameter the order is that of their texts."""
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    own = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower) if name.startswith("x-ms-"))
    parts = urlsplit(url)
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        values.setdefault(name.lower(), []).append(value)
    resource = f"/{account}{parts.path or '/'}" + "".join(f"\n{name}:{','.join(sorted(values[name]))}" for name in sorted(values))
    return "\n".join((method, *(lower.get(name, "") for name in _STANDARD), own + resource))


def shared_key(account: str, text: bytes, clock: Clock) -> SharedKey:
    """The login for an account's key as the portal shows it, in base64; raises Invalid."""
    if not account:
        raise Invalid("failed to create shared credential: the endpoint does not name an account")
    try:
        return SharedKey(account, base64.b64decode(text.strip(), validate=True), clock)
    except (binascii.Error, ValueError):
        raise Invalid("failed to create shared credential: the account key is not base64") from None


def sas(text: bytes, endpoint_query: str) -> Sas:
    """The login for a shared access signature with or without its question mark; it goes before the endpoint's own query.

    Raises:
        Invalid: it is no query.
    """
    try:
        query = text.decode("ascii").strip().removeprefix("?")
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:  # covers texts that are not ASCII
        raise Invalid("unable to parse SAS token") from None
    if any(sign.isspace() or sign == "#" for sign in query):
        raise Invalid("unable to parse SAS token")
    names = {name for name, _ in pairs}
    rest = [part for part in endpoint_query.split("&") if part and unquote(part.partition("=")[0]) not in names]
    return Sas("&".join([query, *rest]))
