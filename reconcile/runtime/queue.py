"""A work queue that holds each key once.

Laws: a key is never given to two workers at once; a key added while it is worked on is given out once more afterwards; keys come
out in the order in which they were first added. Its size is bounded by the number of objects, since a key is in it once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class KeyQueue(Generic[T]):
    """Add keys, take them, say when they are done."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[T, None] = OrderedDict()
        self._working: set[T] = set()
        self._again: OrderedDict[T, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._resting = asyncio.Event()
        self._resting.set()
        self._stopped = False
        self.adds = 0

    def add(self, key: T) -> None:
        """Ask for a pass over `key`."""
        self.adds += 1
        if key in self._working:
            self._again[key] = None
        elif key not in self._waiting:
            self._waiting[key] = None
            self._wake.set()
        self._idle.clear()

    async def take(self) -> T:
        """The next key; waits for one. The taker must call `done`."""
        while self._stopped or not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        self._resting.clear()
        return key

    def done(self, key: T) -> None:
        """The pass over `key` has ended."""
        self._working.discard(key)
        if not self._working:
            self._resting.set()
        if key in self._again:
            del self._again[key]
            self._waiting[key] = None
            self._wake.set()
        if not self._waiting and not self._working:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until nothing is waiting or worked on."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Give out no more keys, and wait until those given out are done."""
        self._stopped = True
        await self._resting.wait()

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or worked on."""
        return self._idle.is_set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def working(self) -> int:
        """Number of keys that workers hold."""
        return len(self._working)
