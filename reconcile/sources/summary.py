"""What the conditions of a source come to: one verdict for Ready. Pure.

The rules are those of Flux's source-controller: conditions are put into groups by whether they are good news, the first group
that has any decides, and within it the first in the order of `DECLARED` gives reason and message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconcile.api.conditions import RECONCILING, STALLED, Conditions, drop
from reconcile.api.meta import Condition, ConditionStatus

STORAGE_OPERATION_FAILED = "StorageOperationFailed"
FETCH_FAILED = "FetchFailed"
INCLUDE_UNAVAILABLE = "IncludeUnavailable"
BUILD_FAILED = "BuildFailed"
ARTIFACT_OUTDATED = "ArtifactOutdated"
ARTIFACT_IN_STORAGE = "ArtifactInStorage"
SOURCE_VERIFIED = "SourceVerified"

DECLARED = (
    STORAGE_OPERATION_FAILED,
    FETCH_FAILED,
    INCLUDE_UNAVAILABLE,
    BUILD_FAILED,
    ARTIFACT_OUTDATED,
    ARTIFACT_IN_STORAGE,
    SOURCE_VERIFIED,
    STALLED,
    RECONCILING,
)
"""Every condition that counts, the weightiest first."""

FAILURES = (STORAGE_OPERATION_FAILED, FETCH_FAILED, INCLUDE_UNAVAILABLE, BUILD_FAILED)
"""Conditions that say which step of a pass failed."""

NEGATIVE = frozenset((*FAILURES, ARTIFACT_OUTDATED, STALLED, RECONCILING))
"""Conditions that are bad when they are True."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What Ready is to say."""

    status: ConditionStatus
    reason: str
    message: str


def summarize(conditions: Sequence[Condition]) -> Summary | None:
    """The verdict of all conditions but Ready; None when there is none to judge by."""
    known = sorted((c for c in conditions if c.type in DECLARED), key=lambda c: DECLARED.index(c.type))
    if not known:
        return None
    decisive = min(known, key=_group)  # min keeps the first of equals, which is the weightiest
    status: ConditionStatus = "Unknown" if decisive.status == "Unknown" else "False" if _group(decisive) < 2 else "True"
    return Summary(status, decisive.reason, decisive.message)


def _group(condition: Condition) -> int:
    """0 and 1: bad news; 2 and 3: good news; 4: no news."""
    if condition.status == "Unknown":
        return 4
    negative = condition.type in NEGATIVE
    if condition.status == "True":
        return 0 if negative else 2
    return 3 if negative else 1


def without_failures(conditions: Sequence[Condition], but: str = "") -> Conditions:
    """`conditions` without those that say which step failed, `but` excepted."""
    return drop(conditions, *(kind for kind in FAILURES if kind != but))


def failed(conditions: Sequence[Condition] | None) -> bool:
    """Whether a step is said to have failed."""
    return any(c.type in FAILURES and c.status == "True" for c in conditions or ())
