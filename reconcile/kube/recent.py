"""Remembers answers for a moment, so that many who ask the same at once ask the server once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

K = TypeVar("K")
V = TypeVar("V")

MAX_ENTRIES = 1024


class Recent(Generic[K, V]):
    """Values by key; each is dropped from memory `seconds` after it was loaded. Failures are not remembered."""

    def __init__(self, seconds: float, most: int = MAX_ENTRIES) -> None:
        self._seconds, self._most = seconds, most
        self._values: OrderedDict[K, tuple[V, asyncio.TimerHandle]] = OrderedDict()
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The value, loaded unless it is remembered; raises what `load` raises."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._values:
                value = await load()
                handle = asyncio.get_running_loop().call_later(self._seconds, self._drop, key)
                self._values[key] = (value, handle)
                while len(self._values) > self._most:
                    self._drop(next(iter(self._values)))
                return value
            return self._values[key][0]

    def clear(self) -> None:
        """Forget everything now."""
        for key in list(self._values):
            self._drop(key)

    def _drop(self, key: K) -> None:
        _, handle = self._values.pop(key)
        handle.cancel()
