"""Whether the checks of a commit have passed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum

GRACE = 60.0
"""Seconds that a forge has to begin its checks, before a commit without any counts as one that nobody checks."""

_PASSED = frozenset({"success", "neutral", "skipped", "warning"})


class Checks(Enum):
    """Of one commit, all together."""

    NONE = "none"
    PASSED = "passed"
    OPEN = "open"
    """At least one has not passed: it is running or has failed."""

    @classmethod
    def of(cls, states: Iterable[str]) -> Checks:
        """From the state of each: conclusions of GitHub's check runs, states of commit statuses."""
        known = set(states)
        if not known:
            return cls.NONE
        return cls.PASSED if known <= _PASSED else cls.OPEN


def settled(checks: Checks, now: datetime | None, changed: datetime | None) -> bool:
    """Whether a commit may be merged as far as its checks go.

    A pipeline takes seconds to appear after a push, so the absence of checks means something only after `GRACE`.

    Args:
        checks: what there is.
        now: the forge's time.
        changed: when the request last changed, by the forge's time.
    """
    if checks is Checks.NONE:
        return now is not None and changed is not None and (now - changed).total_seconds() >= GRACE
    return checks is Checks.PASSED
