"""A loop whose passes are its own: what wakes an object, when it comes back, what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import ReconcileError
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.loop import KeyedLoop, Surroundings
from reconcile.runtime.manager import Manager
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Verdict
from reconcile.runtime.schedule import Schedule
from tests.support.bench import KEY, KIND, Bench, manifest
from tests.support.bench import bench as open_bench
from tests.support.clock import VirtualClock


class Ticks(KeyedLoop):
    """Its passes do what the test says; labels wake its objects, nothing else does."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(KIND, around, name="ticker", workers=2)
        self.result: Verdict | BaseException | None = Verdict(after=10.0)
        self.passes: list[Key] = []
        self.dropped: list[Key] = []

    async def _pass(self, key: Key) -> Verdict | None:
        self.passes.append(key)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def _wakes(self, change: Change) -> bool:
        return change.old is None or change.old.meta.labels != change.new.meta.labels

    async def _gone(self, resource: AnyResource) -> None:
        self.dropped.append(resource.key)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def ticks(bench: Bench, clock: VirtualClock) -> Ticks:
    return Ticks(Surroundings(bench.store, clock, clock, bench.sink, Metrics()))


async def take(loop: KeyedLoop) -> Key:
    """The next key that is woken, without a pass."""
    key = await loop.queue.take()
    loop.queue.done(key)
    return key


async def test_it_comes_back_when_the_pass_says(ticks: Ticks, clock: VirtualClock) -> None:
    await ticks.step(KEY)
    assert list(clock.due.values()) == [10.0]
    clock.advance(10.0)
    assert len(ticks.queue) == 1


async def test_a_pass_that_came_early_moves_the_timer(ticks: Ticks, clock: VirtualClock) -> None:
    await ticks.step(KEY)
    clock.advance(4.0)
    ticks.result = Verdict(after=6.0)
    await ticks.step(KEY)
    assert list(clock.due.values()) == [6.0]


@pytest.mark.parametrize("result", [None, Verdict()])
async def test_it_does_not_come_back_by_itself_otherwise(ticks: Ticks, clock: VirtualClock, result: Verdict | None) -> None:
    ticks.result = result
    await ticks.step(KEY)
    assert (ticks.passes, clock.due) == ([KEY], {})


@pytest.mark.parametrize("failure", [ReconcileError("the store is away"), KeyError("bug"), asyncio.CancelledError()])
async def test_a_failed_pass_is_repeated_later_and_later(ticks: Ticks, clock: VirtualClock, failure: BaseException) -> None:
    ticks.result = failure
    delays: list[float] = []
    for _ in range(3):
        await ticks.step(KEY)
        delays += clock.due.values()
    assert delays == [0.75, 1.5, 3.0]
    assert isinstance(ticks.outcomes[KEY], ReconcileError | KeyError | RuntimeError)
    ticks.result = Verdict(after=10.0)
    await ticks.step(KEY)
    assert (ticks.failures, list(clock.due.values())) == ({}, [10.0])


async def test_a_worker_that_is_stopped_during_a_pass_ends(bench: Bench, clock: VirtualClock) -> None:
    entered = asyncio.Event()

    class Endless(Ticks):
        async def _pass(self, key: Key) -> Verdict | None:
            entered.set()
            await asyncio.Event().wait()
            return None

    loop = Endless(Surroundings(bench.store, clock, clock, bench.sink, Metrics()))
    loop.add(KEY)
    worker = asyncio.create_task(loop.work())
    await entered.wait()
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker
    assert worker.cancelled()
    assert (loop.failures, loop.queue.idle) == ({}, True)


async def test_what_wakes_is_the_subclass_s_to_say(ticks: Ticks, bench: Bench) -> None:
    await bench.declare()
    old = await bench.get()
    await ticks.notice(Change(ChangeType.ADDED, None, old))
    assert await take(ticks) == KEY
    newer = replace(old, meta=old.meta.model_copy(update={"generation": 7}))
    await ticks.notice(Change(ChangeType.MODIFIED, old, newer))
    assert len(ticks.queue) == 0
    labelled = replace(old, meta=old.meta.model_copy(update={"labels": {"team": "a"}}))
    await ticks.notice(Change(ChangeType.MODIFIED, old, labelled))
    assert await take(ticks) == KEY


async def test_the_end_of_an_object_ends_its_timer(ticks: Ticks, bench: Bench, clock: VirtualClock) -> None:
    await bench.declare()
    held = await bench.get()
    await ticks.step(KEY)
    await ticks.notice(Change(ChangeType.DELETED, held, held))
    assert (clock.due, ticks.dropped, len(ticks.queue)) == ({}, [KEY], 0)


async def test_a_manager_runs_it(ticks: Ticks, bench: Bench, clock: VirtualClock) -> None:
    for name in ("a", "b"):
        await bench.declare(manifest(name))
    manager = Manager(bench.store, [ticks], Schedule(clock))
    async with manager.running():
        await manager.drained()
    assert sorted(ticks.passes) == [Key("default", "a"), Key("default", "b")]
