"""The life of the service: what starts in which order, what wakes whom, and how all of it ends.

Start order: timers, workers, then the watch that feeds them. Stop order is the reverse: the watch ends first so that no new work
comes in, workers finish the pass they are in within a grace period, then they are cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from reconcile.ports.store import Store
from reconcile.runtime.logs import get_logger
from reconcile.runtime.loop import KeyedLoop
from reconcile.runtime.schedule import Schedule

log = get_logger("manager")

GRACE = 20.0
"""Seconds that running passes have to come to an end when the service stops."""


class Manager:
    """Runs a set of controllers on one store."""

    def __init__(self, store: Store, controllers: Sequence[KeyedLoop], schedule: Schedule, grace: float = GRACE) -> None:
        self.store = store
        self.controllers = tuple(controllers)
        self.schedule = schedule
        self.failed: BaseException | None = None
        self._grace = grace
        self._seen = asyncio.Event()
        self._stopped = asyncio.Event()
        self._noticed = 0
        self._noticing = False
        self._stopping = False

    async def wait(self) -> None:
        """Wait until a root task fails, and raise what it raised; ends by being cancelled."""
        await self._stopped.wait()
        if self.failed is not None:
            raise self.failed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while inside."""
        self.schedule.start()
        workers = [
            asyncio.create_task(controller.work(), name=f"{controller.label} worker {n}")
            for controller in self.controllers
            for n in range(controller.workers)
        ]
        watch = asyncio.create_task(self._watch(), name="watch")
        for task in (*workers, watch):
            task.add_done_callback(self._root_ended)
        try:
            yield
        finally:
            await self._stop(watch, workers)

    def abandon(self) -> None:
        """Give passes that are under way no time at the end: what they are about to change is not ours to change any more."""
        self._grace = 0.0

    def _root_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._stopping and error is None:
            return
        # A root task has no end of its own: one that ends silently would leave objects without anybody who looks after them.
        error = error or RuntimeError(f"{task.get_name()} ended")
        log.error("task failed", task=task.get_name(), error=f"{type(error).__name__}: {error}")
        self.failed = self.failed or error
        self._stopped.set()

    async def _stop(self, watch: asyncio.Task[None], workers: Sequence[asyncio.Task[None]]) -> None:
        self._stopping = True
        self.schedule.stop()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([watch])
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*(controller.queue.stop() for controller in self.controllers))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _watch(self) -> None:
        kinds = sorted({c.kind for c in self.controllers} | {kind for c in self.controllers for kind in c.watches})
        async for change in self.store.watch(kinds):
            self._noticed += 1
            self._noticing = True
            for controller in self.controllers:
                await controller.notice(change)
            self._noticing = False

    async def drained(self, quiet: float = 0.02) -> None:
        """Wait until every queue has stayed empty while no change was on its way: the end of a single pass.

        Raises what a root task raised, if one fails meanwhile.
        """
        failure = asyncio.create_task(self.wait(), name="failure of a root task")
        work = asyncio.create_task(self._quiet(quiet), name="end of the pass")
        try:
            await asyncio.wait({failure, work}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            failure.cancel()
            work.cancel()
            await asyncio.gather(failure, work, return_exceptions=True)

    async def _quiet(self, quiet: float) -> None:
        while True:
            for controller in self.controllers:
                await controller.queue.drained()
            before = self._noticed
            await asyncio.sleep(quiet)
            calm = self._noticed == before and not self._noticing
            if calm and all(controller.queue.idle for controller in self.controllers):
                return
