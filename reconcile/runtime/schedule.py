"""The clock that wakes objects: one timer per key, on APScheduler's asyncio scheduler. Jobs only enqueue, they do no work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from reconcile.ports.clock import Clock

LONGEST = 10 * 365 * 86400.0
"""Seconds that a timer runs at most, so that no interval leads beyond what a date can say."""


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
        self._names: set[str] = set()

    def start(self) -> None:
        """Start; needs a running loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """End; timers that have not fired are forgotten."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._names.clear()

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call once after `seconds`; replaces the timer of this name."""
        moment = self._clock.now() + timedelta(seconds=min(max(seconds, 0.0), LONGEST))
        self._names.add(name)

        def fire() -> None:
            self._names.discard(name)
            call()

        # A call may ask for the same name again before its job has ended: with one instance allowed that timer would be dropped.
        # An async job runs on the loop itself; a plain function would be sent to a thread.
        async def job() -> None:
            fire()

        self._scheduler.add_job(job, DateTrigger(moment, timezone="UTC"), id=name, replace_existing=True)

    def cancel(self, name: str) -> None:
        """Forget the timer of this name, if there is one."""
        if name in self._names:
            self._names.discard(name)
            try:
                self._scheduler.remove_job(name)
            except JobLookupError:  # fired between our check and the removal
                return

    def __len__(self) -> int:
        return len(self._names)
