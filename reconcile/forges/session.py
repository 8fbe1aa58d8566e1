"""What the clients of all forges share: requests with credentials, bounded answers, and errors that people understand."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import httpx
import orjson

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError, TimedOut
from reconcile.forges import answers
from reconcile.forges.remote import Place
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import NetworkError
from reconcile.net.proxy import Proxy
from reconcile.net.retry import IDEMPOTENT, RetryPolicy
from reconcile.net.tls import Tls
from reconcile.ports.clock import Clock
from reconcile.ports.forge import AccessRefused, RateLimited
from reconcile.redact import redact

ANSWER_LIMIT = 4 * 1024 * 1024
TIMEOUT = 30.0
PATIENCE = 3
"""How many times as long one call with its retries may take as one wait for the network."""
REDIRECTS = 3
RETRY = RetryPolicy(attempts=3, waits=(0.5, 2.0), longest_wait=5.0)
_MOVED = frozenset({301, 302, 307, 308})

Observe = Callable[[str, str], None]
"""Told of every request: provider, and its outcome: a status code, or `error`."""


class Credentials(Protocol):
    """What shows the forge who asks."""

    @property
    def identity(self) -> str:
        """The same text for the same rights, and for no others; no secret."""
        ...

    @property
    def advice(self) -> str:
        """What to do when they are refused, for people."""
        ...

    async def headers(self) -> Mapping[str, str]:
        """Headers to send; raises ReconcileError."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """Texts that must not show anywhere."""
        ...


class Token:
    """A token of a Secret, in a header as the forge's documentation says."""

    def __init__(self, token: str, header: str, scheme: str, advice: str) -> None:
        self._token = token
        self._headers = MappingProxyType({header: f"{scheme} {token}"})
        self.identity = "token " + hashlib.sha256(token.encode()).hexdigest()
        self.advice = advice

    async def headers(self) -> Mapping[str, str]:
        """The header with the token."""
        return self._headers

    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self._token,)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: status code.
        headers: lower-case names.
        body: parsed JSON; None when there was no body.
    """

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def moment(self) -> datetime | None:
        """The forge's own time."""
        return answers.moment(self.headers.get("date", ""))


class Answers:
    """Answers by credentials and address, with their ETags, for conditional requests; the least recently used goes first."""

    def __init__(self, most: int = 256, largest: int = 64 * 1024) -> None:
        """`largest` is in bytes of a body: bigger ones are not kept."""
        self._most = most
        self._largest = largest
        self._kept: OrderedDict[tuple[str, str], tuple[str, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: tuple[str, str]) -> tuple[str, Answer] | None:
        """ETag and answer."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: tuple[str, str], answer: Answer, size: int) -> None:
        """Keep an answer that has an ETag."""
        etag = answer.headers.get("etag", "")
        if not etag or size > self._largest:
            self._kept.pop(key, None)
            return
        self._kept[key] = etag, answer
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as words for its errors.

    Attributes:
        what: what cannot be done when it fails: «open a pull request».
        right: what a token needs for it: «Pull requests: write».
    """

    what: str
    right: str = ""


class Session:
    """Requests to one forge for one repository, whose `name` is for messages. Closable."""

    def __init__(
        self,
        provider: str,
        name: str,
        credentials: Credentials,
        headers: Mapping[str, str],
        *,
        proxy: Proxy | None,
        tls: Tls,
        clock: Clock,
        kept: Answers,
        observe: Observe | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.name = name
        self.clock = clock
        self._provider = provider
        self._credentials = credentials
        self._headers = headers
        self._kept = kept
        self._observe = observe
        self._whole = PATIENCE * timeout
        limits = Limits(body=ANSWER_LIMIT, connections=4, idle_connections=2, idle=15.0)
        self._client: Client = make_client(
            tls=tls, proxy=proxy, timeout=timeout, limits=limits, retry=RETRY, clock=clock, around=self._counting
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        url: str,
        asked: Asked,
        *,
        query: Mapping[str, str | int] | None = None,
        json: Any = None,
        taken: Collection[int] = (),
        idempotent: bool = False,
    ) -> Answer:
        """Send one request; answers of 2xx and those whose status is in `taken` are returned.

        A GET is conditional where an earlier answer had an ETag. `idempotent` says that it may be repeated.

        Raises:
            ReconcileError: as `Forge` says.
        """
        content = None if json is None else orjson.dumps(json)
        target = str(httpx.URL(url, params=dict(query))) if query else url
        try:
            async with asyncio.timeout(self._whole):
                answer = await self._send(method, target, content, asked, idempotent=idempotent)
        except TimeoutError:
            raise TimedOut(f"{self.name}: cannot {asked.what}: no answer within {self._whole:.0f} seconds") from None
        if 200 <= answer.status < 300 or answer.status in taken:
            return answer
        raise self.refusal(answer, asked)

    def refusal(self, answer: Answer, asked: Asked) -> ReconcileError:
        """The error for an answer that says no."""
        said = redact(answers.said(answer.body), self._credentials.secrets())
        wait = answers.patience(answer.status, answer.headers, said, self.clock.now())
        start = f"{self.name}: cannot {asked.what}"
        told = f"{start}: {said or 'the forge answered with status'} ({answer.status})"
        if wait is not None:
            return RateLimited(f"{start}: the forge's rate limit is reached; it asks to wait {wait:.0f} seconds", wait)
        if answer.status == 401:
            return AccessRefused(f"{told}: the credentials are wrong, expired or revoked; {self._credentials.advice}")
        if answer.status == 403:
            needed = f"; they need the right to {asked.right}" if asked.right else ""
            return AccessRefused(f"{told}: the credentials do not allow it{needed}")
        if answer.status == 404:
            return NotFound(f"{told}: check the repository's address, and that the credentials may see it")
        if answer.status in _MOVED:
            return Invalid(f"{start}: the forge sends to another address; give the GitRepository the repository's present URL")
        if answer.status in (409, 412):
            return Conflict(told)
        if 400 <= answer.status < 500:
            return Invalid(told)
        return ReconcileError(told)

    async def _send(self, method: str, url: str, content: bytes | None, asked: Asked, *, idempotent: bool) -> Answer:
        key = (self._credentials.identity, url)
        known = self._kept.get(key) if method == "GET" else None
        for _ in range(REDIRECTS + 1):
            headers = {**self._headers, **await self._credentials.headers()}
            if content is not None:
                headers["Content-Type"] = "application/json"
            if known is not None:
                headers["If-None-Match"] = known[0]
            extensions = {IDEMPOTENT: True} if idempotent else {}
            request = self._client.build_request(method, url, headers=headers, content=content, extensions=extensions)
            response = await self._client.send(request, follow_redirects=False)
            if response.status_code == 304 and known is not None:
                fresh = {name: response.headers[name] for name in ("date",) if name in response.headers}
                return Answer(known[1].status, {**known[1].headers, **fresh}, known[1].body)
            onward = self._onward(request, response)
            if onward is None:
                break
            url = onward
        answer = Answer(response.status_code, dict(response.headers), self._parsed(response, asked))
        if method == "GET" and answer.status == 200:
            self._kept.put(key, answer, len(response.content))
        return answer

    @staticmethod
    def _onward(request: httpx.Request, response: httpx.Response) -> str | None:
        """Where to ask again: on the same server alone, because the credentials go along.

        GitHub («Best practices for using the REST API»: follow redirects) answers so for a repository that was renamed.
        """
        if response.status_code not in _MOVED or (request.method != "GET" and response.status_code in (301, 302)):
            return None
        target = request.url.join(response.headers.get("location", ""))
        here = (request.url.scheme, request.url.host, request.url.port)
        return str(target) if (target.scheme, target.host, target.port) == here and target != request.url else None

    def _parsed(self, response: httpx.Response, asked: Asked) -> Any:
        if not response.content.strip():
            return None
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            if response.status_code >= 300:
                return None
            raise ReconcileError(
                f"{self.name}: cannot {asked.what}: the answer is no JSON: is the address that of the forge's API?"
            ) from None

    def _counting(self, network: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return network if self._observe is None else _Counted(network, self._provider, self._observe)


class _Counted(httpx.AsyncBaseTransport):
    """Tells of every request that reaches the network."""

    def __init__(self, inner: httpx.AsyncBaseTransport, provider: str, observe: Observe) -> None:
        self._inner = inner
        self._provider = provider
        self._observe = observe

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises NetworkError."""
        try:
            response = await self._inner.handle_async_request(request)
        except NetworkError:
            self._observe(self._provider, "error")
            raise
        self._observe(self._provider, str(response.status_code))
        return response

    async def aclose(self) -> None:
        """Close the network."""
        await self._inner.aclose()


class Repository:
    """What all clients are: a repository on a forge, with a session. Closable."""

    def __init__(self, session: Session, place: Place) -> None:
        self._session = session
        self._place = place

    @property
    def name(self) -> str:
        """For messages: `github.com/acme/fleet`."""
        return self._place.name

    async def commit(self, branch: str, expected: str, files: Mapping[str, bytes], message: str) -> str:  # noqa: ARG002
        """Refused by forges that cannot be told what the head of the branch must be."""
        raise Invalid(f"{self.name}: provider '{self._place.provider}' makes no commits through its API: use commitThrough Git")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._session.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()
