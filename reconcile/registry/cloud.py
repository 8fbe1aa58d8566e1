"""Cloud logins: a registry host in, a short-lived credential out, kept for most of its life.

Each provider is one file beside this one and follows the provider's documented HTTP exchanges; none needs an SDK. What they share
is here: the cache, reading answers, reading token files. Identity comes from the environment of the process (workload identity,
instance metadata, key files), as the SDKs find it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import httpx
import orjson

from reconcile.net.client import Client
from reconcile.net.errors import NetworkError
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import IDEMPOTENT
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.errors import CredentialError, body_text
from reconcile.registry.keychain import Credential

T = TypeVar("T")

MAX_FILE = 256 * 1024
MAX_ANSWER = 256 * 1024


@dataclass(frozen=True)
class Issued:
    """A credential and how long it is good for.

    Attributes:
        credential: what to show to the registry.
        life: seconds from now.
    """

    credential: Credential
    life: float


@dataclass(frozen=True)
class Channels:
    """How a login talks to the outside.

    Attributes:
        http: client for public endpoints; takes the proxy.
        direct: client for metadata services on this machine or network; never takes a proxy and does not wait long.
    """

    http: Client
    direct: Client


OpenChannels = Callable[[], AbstractAsyncContextManager[Channels]]


class Provider(Protocol):
    """One cloud."""

    name: str

    def key(self, registry: str) -> str:
        """What credentials for `registry` have in common; raises `CredentialError` when the host does not fit the provider."""
        ...

    async def log_in(self, registry: str, channels: Channels) -> Issued:
        """A fresh credential; raises `CredentialError`."""
        ...


@dataclass
class Kept(Generic[T]):
    """What logins gave, dropped at a share of its life; the least recently used goes first.

    Attributes:
        max_entries: credentials kept; 0 keeps none.
        max_age: seconds after which one is dropped whatever its life.
        share: part of its life that a credential is used for.
        clock: time.
    """

    max_entries: int = 100
    max_age: float = 3600.0
    share: float = 0.8
    clock: Clock = field(default_factory=SystemClock)
    _entries: OrderedDict[Hashable, tuple[T, float]] = field(default_factory=OrderedDict, repr=False)
    _locks: dict[Hashable, asyncio.Lock] = field(default_factory=dict, repr=False)

    async def get(self, key: Hashable, log_in: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        """What is kept under `key`, else what `log_in` gives, with its life in seconds; one login at a time for a key."""
        found = self._get(key)
        if found is not None:
            return found
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                found = self._get(key)
                if found is not None:
                    return found
                fresh, life = await log_in()
                self._put(key, fresh, life)
                return fresh
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)

    def _get(self, key: Hashable) -> T | None:
        found, until = self._entries.get(key, (None, 0.0))
        if found is None or self.clock.monotonic() >= until:
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return found

    def _put(self, key: Hashable, fresh: T, life: float) -> None:
        self._entries[key] = fresh, self.clock.monotonic() + min(life * self.share, self.max_age)
        while len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)


class LoginCache(Kept[Credential]):
    """Credentials for registries."""

    async def credential(self, provider: Provider, registry: str, channels: OpenChannels) -> Credential:
        """The credential for `registry`; one login at a time for what shares a key.

        Raises:
            CredentialError: the host does not fit the provider, or the login failed.
        """

        async def log_in() -> tuple[Credential, float]:
            async with channels() as open_channels:
                try:
                    issued = await provider.log_in(registry, open_channels)
                except NetworkError as error:
                    raise CredentialError(f"{provider.name} login: {error}") from error
            return issued.credential, issued.life

        return await self.get((provider.name, provider.key(registry)), log_in)


async def exchange(
    client: Client,
    method: str,
    url: str,
    *,
    what: str,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    content: bytes | None = None,
    repeatable: bool = True,
) -> httpx.Response:
    """One request of a login; the answer must be 200.

    Args:
        client: who sends it.
        method: HTTP method.
        url: where to.
        what: names the step in errors, for instance `aws: web identity`.
        headers: headers.
        form: body as a form; may hold secrets.
        content: body as bytes.
        repeatable: whether a POST may be sent again after a temporary failure.

    Raises:
        CredentialError: another status; the answer is quoted short and without secrets.
        NetworkError: no answer.
    """
    request = client.build_request(
        method,
        url,
        headers=dict(headers or {}),
        data=dict(form) if form is not None else None,
        content=content,
        extensions={BODY_LIMIT: MAX_ANSWER, IDEMPOTENT: repeatable},
    )
    response = await client.send(request, follow_redirects=False)
    if response.status_code != 200:
        text = body_text(response.content, response.headers.get("content-type", ""))
        where = request.url.copy_with(query=None, userinfo=None)
        raise CredentialError(
            f"{what}: {method} {where}: unexpected status code {response.status_code}: {_reason(response) or text}"
        )
    return response


def read_json(response: httpx.Response, what: str) -> dict[str, Any]:
    """The JSON object in `response`; raises `CredentialError` without quoting it, since it may hold secrets."""
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise CredentialError(f"{what}: the answer is not JSON") from error
    if not isinstance(document, dict):
        raise CredentialError(f"{what}: the answer is not a JSON object")
    return document


def text_of(document: Mapping[str, Any], name: str, what: str) -> str:
    """The non-empty text `document[name]`; raises `CredentialError`."""
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise CredentialError(f"{what}: the answer has no '{name}'")
    return value


def read_file(path: str, what: str) -> bytes:
    """A small file, for instance a projected token; raises `CredentialError`."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise CredentialError(f"{what}: cannot read '{path}': {error.strerror}") from error
    if len(content) > MAX_FILE:
        raise CredentialError(f"{what}: '{path}' is larger than {MAX_FILE} bytes")
    return content


def read_token(path: str, what: str) -> str:
    """The token in a small text file; raises `CredentialError`."""
    try:
        return read_file(path, what).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise CredentialError(f"{what}: '{path}' does not hold a token") from error


def _reason(response: httpx.Response) -> str:
    """The error description that OAuth, Azure and Google answers carry, if any."""
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(document, dict):
        return ""
    error = document.get("error")
    parts = [error.get("message") if isinstance(error, dict) else error, document.get("error_description")]
    return body_text(": ".join(part for part in parts if isinstance(part, str)).encode())
