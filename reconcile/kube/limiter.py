"""How many requests may go to the API server: in a second, as `--kube-api-qps` and `--kube-api-burst` say, and at once."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext

from reconcile.ports.clock import Clock

QPS, BURST = 100.0, 500
"""Twice upstream, which has two processes for what is one here."""
SPARE = 0.5
"""What requests that give way (events) have of their own, as a part of both: so neither kind waits for the other's tokens."""
SLOTS = 16
"""Requests under way at once, watches apart. More make no server faster, but keep it from its other clients, the controllers
whose work a rollout waits for among them."""
PATIENCE = 0.25
"""Seconds for which requests that give way wait for a free slot before they queue for one like all others."""
PAUSE = 0.05
"""Seconds after which they look again."""


class _Bucket:
    """Each request takes its token at once and waits until that token exists, so that the order is that of the calls."""

    def __init__(self, clock: Clock, qps: float, burst: float) -> None:
        self._clock, self._qps, self._burst = clock, qps, max(1.0, burst)
        self._tokens = self._burst
        self._filled = clock.monotonic()

    async def take(self, *, wait: bool = True) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._qps)
        self._filled = now
        self._tokens -= 1
        if self._tokens >= 0 or not wait:
            return
        try:
            await self._clock.sleep(-self._tokens / self._qps)
        except BaseException:
            self._tokens += 1  # nobody uses it
            raise


class Limiter:
    """`burst` requests at once, then `qps` in a second, and half of that beside for those that give way; `SLOTS` under way.

    An urgent request (renewing the lease) waits for nothing: those behind it wait a moment longer.
    """

    def __init__(self, clock: Clock, qps: float = QPS, burst: int = BURST) -> None:
        self._clock = clock
        self._tokens, self._spare_tokens = _Bucket(clock, qps, burst), _Bucket(clock, qps * SPARE, burst * SPARE)
        self._slots = asyncio.Semaphore(SLOTS)

    def slot(self, *, urgent: bool = False) -> AbstractAsyncContextManager[None]:
        """Be one of the requests under way while inside."""
        return nullcontext() if urgent else self._slots

    async def take(self, *, urgent: bool = False, spare: bool = False) -> float:
        """Wait for this request's turn; the seconds that it took."""
        began = self._clock.monotonic()
        if spare:
            await self._spare_tokens.take()
            until = self._clock.monotonic() + PATIENCE
            while self._slots.locked() and self._clock.monotonic() < until:
                await self._clock.sleep(PAUSE)
        else:
            await self._tokens.take(wait=not urgent)
        return self._clock.monotonic() - began
