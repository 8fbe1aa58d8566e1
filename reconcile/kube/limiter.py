"""How many requests a second may go to the API server: a token bucket, as `--kube-api-qps` and `--kube-api-burst` say."""

from __future__ import annotations

from reconcile.ports.clock import Clock

QPS, BURST = 100.0, 500
"""Twice upstream, which has two processes for what is one here."""
RESERVE = 0.25
"""Part of the burst that requests which give way leave to others."""
PATIENCE = 10.0
"""Seconds for which they give way."""
PAUSE = 0.05
"""Seconds after which they look again, at least."""


class Limiter:
    """A token bucket: `burst` requests at once, then `qps` in a second.

    Each request takes its token at once and waits until that token exists, so that the order is that of the calls. An urgent one
    (renewing the lease) takes a token without waiting: those behind it wait a moment longer. A spare one (an event) takes a token
    only when there are more than the others may need in a moment, or when it has given way for long enough.
    """

    def __init__(self, clock: Clock, qps: float = QPS, burst: int = BURST) -> None:
        self._clock, self._qps, self._burst = clock, qps, float(burst)
        self._tokens = float(burst)
        self._filled = clock.monotonic()

    async def take(self, *, urgent: bool = False, spare: bool = False) -> float:
        """Wait for this request's turn; the seconds that it took."""
        began = self._clock.monotonic()
        if spare:
            await self._give_way(began + PATIENCE)
        self._fill()
        self._tokens -= 1
        if self._tokens < 0 and not urgent:
            try:
                await self._clock.sleep(-self._tokens / self._qps)
            except BaseException:
                self._tokens += 1  # nobody uses it
                raise
        return self._clock.monotonic() - began

    async def _give_way(self, until: float) -> None:
        wanted = min(self._burst, self._burst * RESERVE + 1)
        while True:
            self._fill()
            missing, left = wanted - self._tokens, until - self._clock.monotonic()
            if missing <= 0 or left <= 0:
                return
            await self._clock.sleep(min(left, max(PAUSE, missing / self._qps)))

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._qps)
        self._filled = now
