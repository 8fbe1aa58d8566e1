"""How many requests a second may go to the API server: a token bucket, as `--kube-api-qps` and `--kube-api-burst` say."""

from __future__ import annotations

from reconcile.ports.clock import Clock

QPS, BURST = 100.0, 500
"""Twice upstream, which has two processes for what is one here."""


class Limiter:
    """A token bucket: `burst` requests at once, then `qps` in a second.

    Each request takes its token at once and waits until that token exists, so that the order is that of the calls. An urgent one
    (renewing the lease) takes a token without waiting: those behind it wait a moment longer.
    """

    def __init__(self, clock: Clock, qps: float = QPS, burst: int = BURST) -> None:
        self._clock, self._qps, self._burst = clock, qps, float(burst)
        self._tokens = float(burst)
        self._filled = clock.monotonic()

    async def take(self, *, urgent: bool = False) -> None:
        """Wait for this request's turn."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._qps)
        self._filled = now
        self._tokens -= 1
        if self._tokens >= 0 or urgent:
            return
        try:
            await self._clock.sleep(-self._tokens / self._qps)
        except BaseException:
            self._tokens += 1  # nobody uses it
            raise
