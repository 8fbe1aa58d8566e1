"""How the service starts, fails and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconcile.errors import Failed
from reconcile.ports.store import Change
from reconcile.runtime.manager import Manager
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Run
from tests.support.bench import KIND, Bench, bench, manifest


class Journal:
    """Timers that only say when they start and stop."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def start(self) -> None:
        self.lines.append("timers start")

    def stop(self) -> None:
        self.lines.append("timers stop")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def managed(world: Bench, lines: list[str] | None = None, grace: float = 5.0) -> Manager:
    return Manager(world.store, [world.controller], Journal(lines if lines is not None else []), grace)  # type: ignore[arg-type]


async def test_what_exists_is_passed_once_and_the_end_of_the_pass_is_told(world: Bench) -> None:
    for name in "abc":
        await world.declare(manifest(name))
    manager = managed(world)
    async with manager.running():
        await manager.drained()
        assert world.reconciler.runs == 3
        await world.declare(manifest("d"))
        await manager.drained()
        assert world.reconciler.runs == 4
    assert manager.failed is None


async def test_it_starts_and_stops_in_order(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    watch = world.store.watch

    async def watched(kinds: Sequence[str]) -> AsyncIterator[Change]:
        lines.append("watch starts")
        try:
            async for change in watch(kinds):
                yield change
        finally:
            lines.append("watch ends")

    async def stop() -> None:
        lines.append("queue stops")

    work = world.controller.work

    async def worker() -> None:
        lines.append("worker starts")
        try:
            await work()
        finally:
            lines.append("worker ends")

    monkeypatch.setattr(world.store, "watch", watched)
    monkeypatch.setattr(world.controller.queue, "stop", stop)
    monkeypatch.setattr(world.controller, "work", worker)
    manager = managed(world, lines)
    async with manager.running():
        await manager.drained()
    assert lines == [
        "timers start",
        "worker starts",
        "worker starts",
        "watch starts",
        "timers stop",
        "watch ends",
        "queue stops",
        "worker ends",
        "worker ends",
    ]


async def test_a_running_pass_may_end_within_the_grace(world: Bench) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(run: Run) -> Success:
        begun.set()
        await go.wait()
        return Success("fine")

    world.reconciler.outcome = slow
    await world.declare()
    manager = managed(world)
    async with manager.running():
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert world.conditions(await world.get()) == [("Ready", "True", "Succeeded", "fine")]


async def test_a_pass_that_does_not_end_is_cancelled_after_the_grace(world: Bench) -> None:
    begun, ended = asyncio.Event(), []

    async def hangs(run: Run) -> Success:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return Success("never")

    world.reconciler.outcome = hangs
    await world.declare()
    manager = managed(world, grace=0.05)
    async with manager.running():
        await begun.wait()
    assert ended == ["cancelled"]
    assert manager.failed is None


async def test_while_it_stops_nothing_new_begins(world: Bench) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(run: Run) -> Success:
        begun.set()
        world.controller.add(run.resource.key)
        await go.wait()
        return Success("fine")

    world.reconciler.outcome = slow
    await world.declare()
    manager = managed(world)
    async with manager.running():
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert world.reconciler.runs == 1


@pytest.mark.parametrize("part", ["worker", "watch"])
@pytest.mark.parametrize("end", ["raises", "returns", "is cancelled"])
async def test_a_part_that_ends_ends_the_waiting_with_its_error(
    world: Bench, monkeypatch: pytest.MonkeyPatch, part: str, end: str
) -> None:
    async def ends(*_: Any) -> None:
        if end == "raises":
            raise KeyError("bug")
        if end == "is cancelled":
            raise asyncio.CancelledError

    async def watch(kinds: Sequence[str]) -> AsyncIterator[Change]:
        await ends()
        for nothing in ():
            yield nothing

    if part == "worker":
        monkeypatch.setattr(world.controller, "work", ends)
    else:
        monkeypatch.setattr(world.store, "watch", watch)
    manager = managed(world)
    expected: Any = KeyError if end == "raises" else RuntimeError
    async with manager.running():
        with pytest.raises(expected, match="bug" if end == "raises" else f"{part}.* ended"):
            await manager.wait()
    assert isinstance(manager.failed, expected)


async def test_a_single_pass_does_not_wait_for_a_service_that_has_failed(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> None:
        raise KeyError("bug")

    await world.declare()
    monkeypatch.setattr(world.controller, "work", fails)
    manager = managed(world)
    async with manager.running():
        with pytest.raises(KeyError):
            await manager.drained()


async def test_a_pass_that_waits_for_a_mapper_is_not_over(world: Bench) -> None:
    go = asyncio.Event()

    async def slow_mapper(change: Change) -> list[Any]:
        await go.wait()
        return []

    world.controller.watches[KIND] = slow_mapper
    await world.declare()
    manager = managed(world)
    async with manager.running():
        done = asyncio.create_task(manager.drained(quiet=0.001))
        await asyncio.sleep(0.05)
        assert not done.done()
        go.set()
        await done
    assert world.reconciler.runs == 1


async def test_failures_of_objects_are_not_failures_of_the_service(world: Bench) -> None:
    for name in "ab":
        await world.declare(manifest(name))
    world.reconciler.outcome = Failed("Broken", "it broke")
    manager = managed(world)
    async with manager.running():
        await manager.drained()
    assert (world.reconciler.runs, manager.failed) == (2, None)
