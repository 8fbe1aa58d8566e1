"""The real scheduler: it fires, replaces, cancels; and the virtual one of the tests does the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from reconcile.ports.clock import SystemClock
from reconcile.runtime.schedule import Schedule
from tests.support.clock import VirtualClock


@pytest.fixture
async def schedule() -> AsyncIterator[Schedule]:
    made = Schedule(SystemClock())
    made.start()
    yield made
    made.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_timer_fires_once_and_in_the_loop(schedule: Schedule) -> None:
    fired: list[Any] = []
    schedule.later("a", 0.01, lambda: fired.append(asyncio.get_running_loop()))
    await until(lambda: bool(fired))
    schedule.later("end", 0.01, lambda: fired.append("end"))
    await until(lambda: fired[-1] == "end")
    assert fired == [asyncio.get_running_loop(), "end"]
    assert len(schedule) == 0


async def test_a_timer_of_the_same_name_is_replaced(schedule: Schedule) -> None:
    fired: list[str] = []
    schedule.later("a", 3600, lambda: fired.append("late"))
    schedule.later("a", 0.02, lambda: fired.append("first"))
    schedule.later("a", 0.01, lambda: fired.append("second"))
    schedule.later("end", 0.05, lambda: fired.append("end"))
    await until(lambda: "end" in fired)
    assert fired == ["second", "end"]


async def test_a_cancelled_timer_does_not_fire(schedule: Schedule) -> None:
    fired: list[str] = []
    schedule.later("a", 0.01, lambda: fired.append("a"))
    schedule.cancel("a")
    schedule.cancel("nobody")
    schedule.later("end", 0.03, lambda: fired.append("end"))
    await until(lambda: "end" in fired)
    assert fired == ["end"]


async def test_a_call_may_ask_for_its_own_name_again(schedule: Schedule) -> None:
    fired: list[int] = []

    def again() -> None:
        fired.append(len(fired))
        if len(fired) < 20:
            schedule.later("a", 0.0, again)

    schedule.later("a", 0.0, again)
    await until(lambda: len(fired) == 20)


async def test_many_timers_due_at_once_all_fire(schedule: Schedule) -> None:
    fired: set[int] = set()
    for n in range(300):
        schedule.later(str(n), 0.01, lambda n=n: fired.add(n))
    await until(lambda: len(fired) == 300)


@pytest.mark.parametrize("seconds", [1e7, 9.2e9, 1e30, float("inf")])
async def test_a_timer_beyond_the_calendar_is_kept(schedule: Schedule, seconds: float) -> None:
    schedule.later("a", seconds, lambda: None)
    assert len(schedule) == 1


async def test_a_moment_in_the_past_is_now(schedule: Schedule) -> None:
    fired: list[str] = []
    schedule.later("a", -5.0, lambda: fired.append("a"))
    await until(lambda: fired == ["a"])


async def test_a_stopped_schedule_fires_nothing() -> None:
    fired: list[str] = []
    schedule = Schedule(SystemClock())
    schedule.start()
    schedule.later("a", 0.01, lambda: fired.append("a"))
    schedule.stop()
    schedule.stop()
    schedule.later("b", 0.0, lambda: fired.append("b"))
    await asyncio.sleep(0.05)
    assert fired == []


async def test_virtual_time_fires_in_order_and_wakes_sleepers() -> None:
    clock, seen = VirtualClock(), list[tuple[str, float]]()
    clock.later("b", 20, lambda: seen.append(("b", clock.monotonic())))
    clock.later("a", 10, lambda: (seen.append(("a", clock.monotonic())), clock.later("a", 5, lambda: seen.append(("again", 15)))))  # type: ignore[func-returns-value]
    clock.later("c", 5, lambda: seen.append(("c", 5)))
    clock.cancel("c")
    sleeper = asyncio.create_task(clock.sleep(12))
    await asyncio.sleep(0)
    clock.advance(19)
    await sleeper
    assert seen == [("a", 10), ("again", 15)]
    assert clock.due == {"b": 1}
    clock.advance(1)
    assert seen[-1] == ("b", 20)


class SetClock(SystemClock):
    """A clock whose date somebody sets."""

    shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


async def test_a_timer_does_not_wait_for_a_date_that_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dates(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + clock.shift

    clock = SetClock()
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Dates)
    monkeypatch.setattr("reconcile.runtime.schedule.LOOK", 0.01)
    schedule = Schedule(clock)
    schedule.start()
    try:
        fired: list[str] = []
        schedule.later("a", 0.2, lambda: fired.append("a"))
        schedule.later("b", 0.2, lambda: fired.append("b"))
        schedule.cancel("b")
        clock.shift = timedelta(days=-1)
        await until(lambda: fired == ["a"])
        clock.shift = timedelta(days=1)
        schedule.later("c", 0.01, lambda: fired.append("c"))
        await until(lambda: fired == ["a", "c"])
        assert len(schedule) == 0
    finally:
        schedule.stop()
