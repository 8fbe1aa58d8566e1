"""What a metric is measured with, and what a measurement says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from reconcile.errors import ReconcileError


class NoValues(ReconcileError):
    """The query was answered, with nothing."""

    def __init__(self) -> None:
        super().__init__("no values found")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: the value that counts, and how many values or series came."""

    value: float
    count: int = 1


class Provider(Protocol):
    """A metrics backend at one address with one set of credentials."""

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        """Run a resolved query.

        Args:
            text: In the backend's language.
            interval: Of the metric, a Go duration (`1m`); empty when the metric has none.
            now: The present moment.

        Raises:
            NoValues: There is nothing to judge.
            ReconcileError: Anything else, in Flagger's words where it has some; never with credentials.
        """
        ...

    async def online(self) -> None:
        """Raises ReconcileError when the backend cannot be used."""
        ...


class Verdict(StrEnum):
    """What a check says."""

    PASS = "Pass"  # noqa: S105 - not a password
    FAIL = "Fail"
    NO_DATA = "NoData"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Check:
    """One metric in one tick.

    Attributes:
        metric: Name in the manifest.
        query: As it was sent; empty when it could not be made.
        value: What came, in the unit of the threshold; None when nothing did.
        threshold: The bounds in words: `>= 99`, `<= 500ms`, `0.5..90`.
        verdict: What follows.
        text: For the event when the verdict is not Pass, in Flagger's words.
        at: When.
    """

    metric: str
    query: str
    value: float | None
    threshold: str
    verdict: Verdict
    text: str
    at: datetime
    count: int = 0
    """How many series or points the value was chosen from."""
