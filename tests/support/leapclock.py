"""A clock that goes as the real one does, and leaps ahead when it is told to."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconcile.ports.clock import SystemClock


class LeapClock(SystemClock):
    """The real time and what was leapt over. Sleeps take as long as they take; timers that are set already do not leap."""

    def __init__(self, ahead: float = 0.0) -> None:
        """`ahead` is what it begins with, in seconds."""
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._ahead)

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def leap(self, seconds: float) -> None:
        """Go ahead at once; backwards with less than nothing, which only the date does in earnest."""
        self._ahead += seconds
