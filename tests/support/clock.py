"""Time that jumps: a clock and timers for tests. Nothing here ever sleeps."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A `Clock` and `Timers` in one. Time stands still until `advance`."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed = 0.0
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    # --- Clock

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, self._count, future))
        await future

    # --- Timers

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = (self._passed + seconds, call)

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    # --- for tests

    @property
    def due(self) -> dict[str, float]:
        """Seconds until each timer fires."""
        return {name: at - self._passed for name, (at, _) in sorted(self._timers.items())}

    def advance(self, seconds: float) -> None:
        """Jump, firing on the way all that falls due, in order."""
        end = self._passed + seconds
        while True:
            timers = [(at, name) for name, (at, _) in self._timers.items() if at <= end]
            sleeper = self._sleepers[0][0] if self._sleepers and self._sleepers[0][0] <= end else None
            if timers and (sleeper is None or min(timers)[0] <= sleeper):
                at, name = min(timers)
                self._passed = max(self._passed, at)
                self._timers.pop(name)[1]()
            elif sleeper is not None:
                at, _, future = heapq.heappop(self._sleepers)
                self._passed = max(self._passed, at)
                if not future.done():
                    future.set_result(None)
            else:
                self._passed = end
                return
