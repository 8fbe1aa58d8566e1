"""One request budget per registry: how many requests at once, how many a second, and pauses that the registry asks for.

A transport around a transport: each attempt, also a repeated one, waits here for its turn. A host that answered 429 or 503 with
`Retry-After` is left alone until then by everybody who shares the budget.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from reconcile.net.retry import retry_after
from reconcile.ports.clock import Clock, SystemClock
from reconcile.redact import redact_url
from reconcile.registry.errors import Paused


@dataclass(frozen=True)
class BudgetPolicy:
    """How much one registry is asked.

    Attributes:
        concurrency: requests under way at once.
        rate: requests a second, in the long run.
        burst: requests at once after a quiet time.
        longest_pause: seconds; a server's `Retry-After` beyond it is cut to this.
        patience: seconds somebody waits for a pause to end; a longer one is an error at once.
        hosts: registries remembered.
    """

    concurrency: int = 8
    rate: float = 100.0
    burst: float = 200.0
    longest_pause: float = 3600.0
    patience: float = 30.0
    hosts: int = 1_000


@dataclass
class _Host:
    slots: asyncio.Semaphore
    tokens: float
    refilled: float
    paused_until: float = 0.0
    users: int = 0


@dataclass
class Budget:
    """The budgets of all registries; share one among all clients.

    Attributes:
        policy: how much.
        clock: time for refills and pauses.
    """

    policy: BudgetPolicy = field(default_factory=BudgetPolicy)
    clock: Clock = field(default_factory=SystemClock)
    _hosts: OrderedDict[str, _Host] = field(default_factory=OrderedDict, repr=False)

    def around(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """`inner`, with every request waiting for its turn."""
        return BudgetTransport(inner, self)

    def pause(self, host: str, seconds: float) -> None:
        """Leave `host` alone for `seconds`, at most `longest_pause`; never shortens a pause."""
        entry = self._host(host)
        entry.paused_until = max(entry.paused_until, self.clock.monotonic() + min(seconds, self.policy.longest_pause))

    def paused(self, host: str) -> float:
        """Seconds until `host` may be asked again; 0 when it may now."""
        entry = self._hosts.get(host)
        return max(0.0, entry.paused_until - self.clock.monotonic()) if entry is not None else 0.0

    async def acquire(self, request: httpx.Request) -> None:
        """Wait for a turn at the request's host; pair with `release`.

        Raises:
            Paused: the host asked for a pause longer than `patience`.
        """
        host = _authority(request.url)
        entry = self._host(host)
        entry.users += 1
        try:
            await entry.slots.acquire()
        except BaseException:
            entry.users -= 1
            raise
        try:
            await self._turn(request, entry)
        except BaseException:
            self.release(request)
            raise

    def release(self, request: httpx.Request) -> None:
        """Give the turn back."""
        entry = self._hosts[_authority(request.url)]
        entry.users -= 1
        entry.slots.release()

    async def _turn(self, request: httpx.Request, entry: _Host) -> None:
        while True:
            now = self.clock.monotonic()
            pause = entry.paused_until - now
            if pause > self.policy.patience:
                what = f"{request.method} {redact_url(str(request.url))}"
                raise Paused(f"{what}: the registry asked for a pause; next request in {pause:.0f}s")
            entry.tokens = min(self.policy.burst, entry.tokens + (now - entry.refilled) * self.policy.rate)
            entry.refilled = now
            if pause <= 0 and entry.tokens >= 1:
                entry.tokens -= 1
                return
            await self.clock.sleep(max(pause, (1 - entry.tokens) / self.policy.rate, 0.001))

    def _host(self, host: str) -> _Host:
        entry = self._hosts.get(host)
        if entry is None:
            entry = _Host(asyncio.Semaphore(self.policy.concurrency), self.policy.burst, self.clock.monotonic())
            self._forget()
            self._hosts[host] = entry
        self._hosts.move_to_end(host)
        return entry

    def _forget(self) -> None:
        now = self.clock.monotonic()
        surplus = len(self._hosts) - self.policy.hosts + 1
        idle = [name for name, entry in self._hosts.items() if not entry.users and entry.paused_until <= now]
        for name in idle[: max(0, surplus)]:
            del self._hosts[name]


class BudgetTransport(httpx.AsyncBaseTransport):
    """Takes a turn from the budget for each request and gives it back when the answer's body is closed."""

    def __init__(self, inner: httpx.AsyncBaseTransport, budget: Budget) -> None:
        self._inner = inner
        self._budget = budget

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` when its turn has come."""
        await self._budget.acquire(request)
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException:
            self._budget.release(request)
            raise
        if response.status_code in {429, 503}:
            seconds = retry_after(response.headers, self._budget.clock.now())
            if seconds:
                self._budget.pause(_authority(request.url), seconds)
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an async transport has no other
        response.stream = _Turn(stream, self._budget, request)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


class _Turn(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, budget: Budget, request: httpx.Request) -> None:
        self._inner = inner
        self._budget = budget
        self._request: httpx.Request | None = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            yield piece

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            request, self._request = self._request, None
            if request is not None:
                self._budget.release(request)


def _authority(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")
