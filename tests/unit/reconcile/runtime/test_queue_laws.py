"""The laws of the work queue."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconcile.runtime.queue import KeyQueue


def at_once(coroutine: Any) -> Any:
    """The result of a coroutine that has no reason to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class QueueMachine(RuleBasedStateMachine):
    """The queue beside the simplest model that could be right: a list, a set of those at work, a list of those to do again."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: KeyQueue[str] = KeyQueue()
        self.waiting: list[str] = []
        self.working: set[str] = set()
        self.again: set[str] = set()
        self.adds = 0

    @rule(key=st.sampled_from("abcd"))
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.adds += 1
        if key in self.working:
            self.again.add(key)
        elif key not in self.waiting:
            self.waiting.append(key)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        found = at_once(self.queue.take())
        expected = self.waiting.pop(0)
        assert found == expected  # in the order in which they were first added
        assert found not in self.working  # never two workers on one key
        self.working.add(found)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)
        if key in self.again:
            self.again.remove(key)
            self.waiting.append(key)  # exactly once more

    @invariant()
    def sizes_agree(self) -> None:
        assert (len(self.queue), self.queue.working, self.queue.adds) == (len(self.waiting), len(self.working), self.adds)
        assert self.queue.idle == (not self.waiting and not self.working)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))


async def test_many_workers_never_hold_one_key_at_once() -> None:
    queue: KeyQueue[int] = KeyQueue()
    held: set[int] = set()
    passes = 0

    async def worker() -> None:
        nonlocal passes
        while True:
            key = await queue.take()
            assert key not in held
            held.add(key)
            passes += 1
            await asyncio.sleep(0)
            held.remove(key)
            queue.done(key)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(5)]
        for n in range(200):
            queue.add(n % 7)
            if n % 3 == 0:
                await asyncio.sleep(0)
        await queue.drained()
        for task in workers:
            task.cancel()
    assert 7 <= passes <= 200


async def test_a_key_added_while_it_is_worked_on_runs_once_more() -> None:
    queue: KeyQueue[str] = KeyQueue()
    queue.add("a")
    assert await queue.take() == "a"
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.take() == "a"
    queue.done("a")
    assert queue.idle


async def test_a_stopped_queue_gives_out_nothing_and_waits_for_what_it_gave() -> None:
    queue: KeyQueue[str] = KeyQueue()
    queue.add("a")
    queue.add("b")
    held = await queue.take()
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not stopping.done()
    assert not taking.done()
    queue.done(held)
    await stopping
    assert not taking.done()
    taking.cancel()


async def test_drained_waits_for_work_and_for_work_that_came_meanwhile() -> None:
    queue: KeyQueue[str] = KeyQueue()
    await queue.drained()
    queue.add("a")
    waiting = asyncio.create_task(queue.drained())
    key = await queue.take()
    queue.add("a")
    queue.done(key)
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(await queue.take())
    await waiting


async def test_a_worker_that_is_cancelled_while_it_waits_loses_no_key() -> None:
    queue: KeyQueue[str] = KeyQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert await queue.take() == "a"
    queue.done("a")
