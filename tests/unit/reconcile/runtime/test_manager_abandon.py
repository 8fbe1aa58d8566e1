"""A service that may not change anything any more gives its passes no time at the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconcile.ports.clock import SystemClock
from reconcile.runtime.manager import Manager
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Run
from reconcile.runtime.schedule import Schedule
from tests.support.bench import bench, manifest


async def test_abandoned_passes_are_cancelled_at_once(tmp_path: Path) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_: Run) -> Success:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with bench(tmp_path) as world:
        world.reconciler.outcome = endless
        await world.declare(manifest("a"))
        manager = Manager(world.store, [world.controller], Schedule(SystemClock()), grace=3600.0)
        async with asyncio.timeout(60), manager.running():
            await began.wait()
            manager.abandon()
        assert cancelled.is_set()
