"""The clock that wakes objects: one timer per key, on APScheduler's asyncio scheduler. Jobs only enqueue, they do no work.

APScheduler knows dates, not durations. When the date of the machine is set back, what was to come in an hour would come an hour
and a day later; so the date is compared with the seconds that have really passed, and after such a jump all timers are set anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from reconcile.ports.clock import Clock

LONGEST = 10 * 365 * 86400.0
"""Seconds that a timer runs at most, so that no interval leads beyond what a date can say."""


LOOK = 5.0
"""Seconds between two looks at whether the date of the machine was set back."""
TOLERANCE = 2.0
"""Seconds by which the date may move without anything being done; so late a timer may be."""


class Timers(Protocol):
    """One timer per name."""

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call once after `seconds`; replaces the timer of this name."""
        ...

    def cancel(self, name: str) -> None:
        """Forget the timer of this name, if there is one."""
        ...


class Schedule:
    """`Timers` on APScheduler; a missed moment is caught up, never skipped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scheduler = AsyncIOScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 16, "misfire_grace_time": None}
        )
        self._waiting: dict[str, tuple[float, Callable[[], None]]] = {}
        self._offset = self._apart()
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start; needs a running loop."""
        self._scheduler.start()
        self._offset = self._apart()
        self._look = asyncio.get_running_loop().call_later(LOOK, self._compare)

    def stop(self) -> None:
        """End; timers that have not fired are forgotten."""
        if self._look is not None:
            self._look.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._waiting.clear()

    def _apart(self) -> float:
        """Seconds between the date and the seconds that have passed; the same as long as nobody sets the date."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _compare(self) -> None:
        """Set the timers anew when the date was set back; when it was set forward they come by themselves."""
        offset, before = self._apart(), self._offset
        self._offset = offset
        if offset < before - TOLERANCE:
            now = self._clock.monotonic()
            for name, (due, call) in list(self._waiting.items()):
                self.later(name, due - now, call)
        self._look = asyncio.get_running_loop().call_later(LOOK, self._compare)

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call once after `seconds`; replaces the timer of this name."""
        seconds = min(max(seconds, 0.0), LONGEST)
        moment = self._clock.now() + timedelta(seconds=seconds)
        self._waiting[name] = self._clock.monotonic() + seconds, call

        def fire() -> None:
            self._waiting.pop(name, None)
            call()

        # A call may ask for the same name again before its job has ended: with one instance allowed that timer would be dropped.
        # An async job runs on the loop itself; a plain function would be sent to a thread.
        async def job() -> None:
            fire()

        self._scheduler.add_job(job, DateTrigger(moment, timezone="UTC"), id=name, replace_existing=True)

    def cancel(self, name: str) -> None:
        """Forget the timer of this name, if there is one."""
        if self._waiting.pop(name, None) is not None:
            try:
                self._scheduler.remove_job(name)
            except JobLookupError:  # fired between our check and the removal
                return

    def __len__(self) -> int:
        return len(self._waiting)
