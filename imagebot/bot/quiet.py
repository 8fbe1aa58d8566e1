"""When changes that wait for more are committed. Pure: moments in, moments out.

A wait begins with the first change, and ends when for a quiet period nothing more has become due, or when the first change has
waited for as long as it may. Those who share a branch wait together: for the last change of any, and no longer than any may.
Moments are of a clock that people set: one that lies in the future is taken for now, so that no wait lasts longer than it may
from now on, whatever the clock did.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from reconcile.ports.clock import timestamp

LONGEST: Final = 3650 * 86400.0
"""Seconds that a wait may last at most, whatever is asked for."""
TIMES_LONGER: Final = 10
"""Quiet periods that a change may wait where the automation does not say."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One automation that waits: its first and its last change, seconds without a further one, seconds for the first at most."""

    since: datetime
    last: datetime
    quiet: float
    most: float

    @property
    def until(self) -> datetime:
        """When this one would be committed if it were alone."""
        return together([self])


def most_of(quiet: float, asked: float | None) -> float:
    """How long a change may wait, in seconds: as asked for, ten quiet periods otherwise."""
    return quiet * TIMES_LONGER if asked is None else asked


def waited(before: Wait | None, now: datetime, *, fresh: bool, quiet: float, most: float) -> Wait:
    """The wait after a look at what is due.

    Args:
        before: the wait up to now; None: nothing was due.
        now: when it was looked.
        fresh: whether something is due that was not before.
        quiet: seconds, as the spec has it now.
        most: seconds, as the spec has it now.
    """
    quiet, most = (min(max(seconds, 0.0), LONGEST) for seconds in (quiet, most))
    if before is None:
        return Wait(now, now, quiet, most)
    since = min(before.since, now)
    last = now if fresh else max(since, min(before.last, now))
    return Wait(since, last, quiet, most)


def restored(since: datetime, until: datetime, now: datetime, *, quiet: float, most: float) -> Wait:
    """The wait that a status tells of, after a restart: it ends when it was said to end."""
    quiet, most = (min(max(seconds, 0.0), LONGEST) for seconds in (quiet, most))
    begun = min(since, now)
    return Wait(begun, max(begun, min(until - timedelta(seconds=quiet), now)), quiet, most)


def together(waits: Collection[Wait]) -> datetime:
    """When all who wait for one branch are committed; there must be one."""
    calm = max(wait.last + timedelta(seconds=wait.quiet) for wait in waits)
    longest = min(wait.since + timedelta(seconds=wait.most) for wait in waits)
    return min(calm, longest)


def shown(moment: datetime) -> str:
    """A moment for the status, in whole seconds: not before it."""
    whole = moment.replace(microsecond=0)
    return timestamp(whole if whole == moment else whole + timedelta(seconds=1))


def message(changes: int, until: datetime, now: datetime) -> str:
    """What people are told: `3 changes wait until 12:00:05Z for more`; with the day where that is not today's."""
    text = shown(until)
    moment = text.partition("T")[2] if text[:10] == timestamp(now)[:10] else text
    return f"{changes} {'change waits' if changes == 1 else 'changes wait'} until {moment} for more"
