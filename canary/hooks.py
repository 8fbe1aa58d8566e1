"""Calls people's webhooks as Flagger calls them: what is sent, what counts as a yes, when a call is repeated, what an error says.

A call has three bounds: a number of attempts, a time for each of them, and a time for all of them with the pauses between. What a
receiver answers is read up to a limit, and only its beginning gets into messages.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import httpx
import orjson

from canary.api import Webhook
from canary.errors import Problem
from canary.exported import Exported
from canary.redirects import GoRedirects
from canary.site import Site
from reconcile.api.duration import parse_duration
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import DEADLINE, NetworkError, NetworkTimedOut, RedirectRefused, TlsFailed
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.retry import RetryPolicy, retry_after
from reconcile.ports.clock import Clock
from reconcile.redact import redact, redact_url

EventKind = Literal["Normal", "Warning"]

ROLLOUT: Final = "rollout"
EVENT: Final = "event"
DEFAULT_TIMEOUT = 10.0
"""Seconds of one attempt of a hook that does not say."""
LONGEST_CALL = 3600.0
"""Seconds of a call with all its attempts, unless a single attempt may take longer."""
LONGEST_PAUSE = 30.0
"""Seconds between two attempts, unless the receiver asks for more."""
MAX_ANSWER = 64 * 1024
"""Bytes that are read of an answer; the rest is left."""
MAX_TEXT = 1024
"""Characters of an answer that get into a message."""
SLOTS = 256
"""Attempts at a time; calls beyond wait. Posts of events have as many of their own: no gate that hangs can hold them up."""
SUCCESS_UP_TO = 202
"""Greatest status that means yes."""


class HookFailed(Problem):
    """A hook did not say yes; the text is the answer's own, or why there was none."""


@dataclass(frozen=True, slots=True)
class _Post:
    """One call, ready to go."""

    url: str
    body: bytes
    timeout: float
    attempts: int
    check_tls: bool

    @property
    def longest(self) -> float:
        """Seconds for all attempts and the pauses between them; who asks for a longer pause is not tried again."""
        return max(self.timeout, min(LONGEST_CALL, self.attempts * (self.timeout + LONGEST_PAUSE)))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back: the beginning of the body, and why it ended too early if it did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str


def payload(site: Site, *, phase: str, checksum: str, metadata: Mapping[str, str] | None) -> bytes:
    """The body of a hook call as Go's encoder orders it; without metadata there is no such key."""
    body: dict[str, object] = {"name": site.name, "namespace": site.namespace, "phase": phase, "checksum": checksum}
    if metadata:
        body["metadata"] = dict(sorted(metadata.items()))
    return orjson.dumps(body)


def event_metadata(own: Mapping[str, str] | None, kind: EventKind, message: str, at: datetime) -> dict[str, str]:
    """The metadata of an event: what is told, and the hook's own where the name is free."""
    told = {"eventMessage": message, "eventType": kind, "timestamp": str(int(at.timestamp() * 1000))}
    return {**(own or {}), **told}


class Hooks:
    """Calls webhooks; one instance per service, closed with `aclose()`."""

    def __init__(self, clock: Clock, exported: Exported, *, slots: int = SLOTS) -> None:
        self._clock, self._exported = clock, exported
        self._connections = slots
        self._calls, self._events = asyncio.Semaphore(slots), asyncio.Semaphore(slots)
        self._clients: dict[bool, Client] = {}

    async def call(self, site: Site, hook: Webhook, *, phase: str, checksum: str) -> None:
        """Ask one hook.

        Args:
            site: Whose hook it is.
            hook: What to call.
            phase: As the payload is to say it.
            checksum: Of the revision, as the payload is to say it.

        Raises:
            HookFailed: It did not answer with a status up to 202. The text is the body of an answer with 203 and above;
                for what is retried (no answer, 429, 5xx but 501) it is `POST <url> giving up after <n> attempt(s)`, with the
                cause behind when there was no answer. URLs are shown without credentials.
        """
        body = payload(site, phase=phase, checksum=checksum, metadata=hook.metadata)
        await self._measured(site, hook.type or ROLLOUT, _post(hook, body), self._calls)

    async def event(
        self, site: Site, receiver: Webhook | str, kind: EventKind, message: str, *, phase: str, checksum: str
    ) -> None:
        """Post one event to a hook of type `event` or to a URL; raises HookFailed as `call` does."""
        hook = Webhook(name=EVENT, type=EVENT, url=receiver) if isinstance(receiver, str) else receiver
        told = event_metadata(hook.metadata, kind, message, self._clock.now())
        body = payload(site, phase=phase, checksum=checksum, metadata=told)
        await self._measured(site, EVENT, _post(hook, body), self._events)

    async def aclose(self) -> None:
        """Close all connections."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def _measured(self, site: Site, kind: str, post: _Post, slots: asyncio.Semaphore) -> None:
        began, failed = self._clock.monotonic(), True
        try:
            await self._deliver(post, slots)
            failed = False
        finally:
            self._exported.hook(site, kind, self._clock.monotonic() - began, failed=failed)

    async def _deliver(self, post: _Post, slots: asyncio.Semaphore) -> None:
        deadline = self._clock.monotonic() + post.longest
        for attempt in range(1, post.attempts + 1):
            pause, cause = _pause(attempt), ""
            try:
                answer = await self._attempt(post, slots)
            except NetworkError as error:
                cause, final = f": {error}", not _may_help(error)
            else:
                if not _is_retried(answer.status):
                    _judge(answer)
                    return
                final = False
                if answer.status in {429, 503}:
                    asked = retry_after(answer.headers, self._clock.now())
                    pause = pause if asked is None else asked
            if final or attempt == post.attempts or self._clock.monotonic() + pause >= deadline:
                raise HookFailed(f"POST {redact_url(post.url)} giving up after {attempt} attempt(s){cause}")
            await self._clock.sleep(pause)

    async def _attempt(self, post: _Post, slots: asyncio.Semaphore) -> _Answer:
        """One request; raises NetworkError when no status line came."""
        client, head = self._client(check_tls=post.check_tls), None
        async with self._slot(slots):
            try:
                async with (
                    asyncio.timeout(post.timeout),
                    client.stream(
                        "POST",
                        post.url,
                        content=post.body,
                        headers={"Content-Type": "application/json"},
                        timeout=None,  # the time of the whole attempt is what counts
                        extensions={BODY_LIMIT: sys.maxsize},  # what is too long is cut here, where the client would refuse it
                    ) as head,
                ):
                    return _Answer(head.status_code, head.headers, await _beginning(head), "")
            except TimeoutError as error:
                if head is None:
                    text = f"{DEADLINE} (Client.Timeout exceeded while awaiting headers)"
                    raise NetworkTimedOut("POST", post.url, text, temporary=True) from error
                text = f"{DEADLINE} (Client.Timeout or context cancellation while reading body)"
                return _Answer(head.status_code, head.headers, b"", text)
            except NetworkError as error:
                if head is None:
                    raise
                return _Answer(head.status_code, head.headers, b"", error.detail)

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        self._exported.waiting_hooks.inc()
        try:
            await slots.acquire()
        finally:
            self._exported.waiting_hooks.dec()
        try:
            yield
        finally:
            slots.release()

    def _client(self, *, check_tls: bool) -> Client:
        client = self._clients.get(check_tls)
        if client is None:
            limits = Limits(connections=2 * self._connections)
            tls = ssl.create_default_context()
            if not check_tls:
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            client = make_client(tls=tls, limits=limits, retry=RetryPolicy(attempts=1), clock=self._clock, around=GoRedirects)
            self._clients[check_tls] = client
        return client


def _post(hook: Webhook, body: bytes) -> _Post:
    """The call that a hook asks for; raises HookFailed when its URL or timeout cannot be read."""
    try:
        url = httpx.URL(hook.url)
        port = url.port
    except (httpx.InvalidURL, ValueError) as error:
        raise HookFailed(f'parse "{redact_url(hook.url)}": {error}') from error
    if url.scheme not in {"http", "https"}:
        raise _impossible(hook.url, f'unsupported protocol scheme "{url.scheme}"')
    if not url.host or port == 0:
        raise _impossible(hook.url, "http: no Host in request URL")
    try:
        timeout = parse_duration(str(hook.timeout)) if hook.timeout else DEFAULT_TIMEOUT
    except ValueError as error:
        raise HookFailed(str(error)) from error
    return _Post(
        url=hook.url,
        body=body,
        timeout=timeout if timeout > 0 else LONGEST_CALL,
        attempts=1 + max(0, hook.retries or 0),
        check_tls=not hook.disable_tls,
    )


def _impossible(url: str, why: str) -> HookFailed:
    shown = redact_url(url)
    return HookFailed(f'POST {shown} giving up after 1 attempt(s): Post "{shown}": {why}')


def _pause(attempt: int) -> float:
    """Seconds after failed attempt number `attempt`, from 1."""
    return min(LONGEST_PAUSE, 2.0 ** min(attempt - 1, 10))


def _is_retried(status: int) -> bool:
    return status == 429 or (status >= 500 and status != 501)


def _may_help(error: NetworkError) -> bool:
    """Whether another attempt is made: not against a certificate that nobody trusts, nor round a ring of redirects."""
    if isinstance(error, TlsFailed):
        return "failed to verify certificate" not in error.detail
    return not isinstance(error, RedirectRefused) and "unsupported protocol scheme" not in error.detail


def _judge(answer: _Answer) -> None:
    """Nothing for a yes; raises HookFailed for everything else."""
    if answer.broken:
        raise HookFailed(f"error reading body: {answer.broken}")
    if answer.status > SUCCESS_UP_TO:
        text = redact(answer.body.decode("utf-8", "replace"))
        raise HookFailed(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")


async def _beginning(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= MAX_ANSWER:
            break
    return bytes(body[:MAX_ANSWER])
