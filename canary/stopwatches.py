"""How long something has lasted that a status has the beginning of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from reconcile.api.meta import Key
from reconcile.ports.clock import parse_timestamp


class Stopwatches:
    """Seconds since moments that statuses keep, by a clock that does not jump.

    A moment that is met for the first time is placed by the wall clock, as it may be from before our start; from then on only our
    own steady clock counts, so that a jump of the wall clock lets no deadline pass.
    """

    def __init__(self, now: Callable[[], datetime], steady: Callable[[], float]) -> None:
        self._now, self._steady = now, steady
        self._begun: dict[tuple[Key, str], tuple[str, float]] = {}

    def elapsed(self, key: Key, name: str, since: str | None) -> float:
        """Seconds since the moment `since` (RFC 3339) of this name; 0 without one."""
        if not since:
            self._begun.pop((key, name), None)
            return 0.0
        known = self._begun.get((key, name))
        if known is None or known[0] != since:
            try:
                spent = max(0.0, (self._now() - parse_timestamp(since)).total_seconds())
            except ValueError:
                spent = 0.0
            known = self._begun[key, name] = (since, self._steady() - spent)
        return self._steady() - known[1]

    def forget(self, key: Key) -> None:
        """Forget the moments of an object."""
        for known in [entry for entry in self._begun if entry[0] == key]:
            del self._begun[known]
