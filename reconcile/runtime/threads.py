"""The one door to blocking code: bounded pools whose threads never outlive the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A bounded pool of threads with a name. The blocking call must have a timeout of its own: a cancelled wait does not stop
    a thread."""

    def __init__(self, name: str, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, run in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Let running calls end; forget those that have not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
