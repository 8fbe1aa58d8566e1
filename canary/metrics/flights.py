"""Equal questions that are asked at the same moment are asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

MAX_FLIGHTS: Final = 2048
"""Questions under way that others may join; what comes beyond is asked on its own."""


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Flights(Generic[T]):
    """Who asks what is being asked already waits for that answer; nothing is remembered once it has come."""

    def __init__(self, limit: int = MAX_FLIGHTS) -> None:
        self._limit = limit
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def share(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of `ask`, or that of another caller with an equal `key`; ends with the last of those who wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._limit:
                return await ask()
            flight = _Flight(asyncio.create_task(ask(), name="shared query"))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
