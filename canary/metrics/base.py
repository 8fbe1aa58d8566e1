"""What a metric is measured with, and what a measurement says."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from reconcile.errors import ReconcileError
from reconcile.ports.clock import Clock, SystemClock

if TYPE_CHECKING:
    from canary.metrics.logins import Logins
    from reconcile.net.client import Client
    from reconcile.ports.cluster import Object
    from reconcile.ports.objects import Objects


RawApi = Callable[[str], "Awaitable[Object]"]
"""Reads what the cluster's API has at a path, which may end in `?` and parameters; raises ReconcileError."""


class NoValues(ReconcileError):
    """The query was answered, with nothing."""

    def __init__(self) -> None:
        super().__init__("no values found")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: the value that counts, and how many values or series came.

    Attributes:
        value: The one that Flagger takes; NaN only when there are others beside it (`extremes`).
        count: How many values or series it was taken from.
        extremes: The least and the greatest of all when several came; a value is good only when these are.
    """

    value: float
    count: int = 1
    extremes: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """The sample of several series, of which Flagger takes the last; those that are NaN have no value.

        Raises:
            NoValues: There are none, or all are NaN.
        """
        known = [value for value in values if not math.isnan(value)]
        if not known:
            raise NoValues
        return cls(values[-1], len(values), (min(known), max(known)) if len(values) > 1 else None)


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


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a provider is made from. Two are equal when they would give the same provider.

    Attributes:
        type: As MetricTemplates name it.
        address: Base URL of the API; empty when the template has none.
        headers: Sent along with each request (prometheus), name and values.
        region: Of a cloud.
        insecure_skip_verify: Whether any certificate will do.
        credentials: Content of the template's Secret, None when it names none.
        timeout: Seconds that one query may take in all.
        client: The shared HTTP client: bounded, without retries, with that choice about certificates; not the provider's to
            close. It follows no redirect.
        objects: Of the cluster, for providers whose values are objects; None without a cluster.
        api: The cluster's API, for values that are no objects; None without a cluster.
        logins: Of the clouds, with the identity of this process; shared, so that no query has to log in.
        clock: For providers that wait.
    """

    type: str
    address: str = ""
    headers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    region: str = ""
    insecure_skip_verify: bool = False
    credentials: tuple[tuple[str, bytes], ...] | None = field(default=None, repr=False)
    timeout: float = 5.0
    client: Callable[[], Client] | None = field(default=None, repr=False, compare=False)
    objects: Objects | None = field(default=None, repr=False, compare=False)
    api: RawApi | None = field(default=None, repr=False, compare=False)
    logins: Callable[[], Logins] | None = field(default=None, repr=False, compare=False)
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)

    @property
    def secret(self) -> Mapping[str, bytes]:
        """The Secret's content; empty when there is no Secret."""
        return dict(self.credentials or ())

    def http(self) -> Client:
        """The shared HTTP client."""
        if self.client is None:
            raise ReconcileError(f"{self.type} was given no HTTP client")
        return self.client()

    def clouds(self) -> Logins:
        """The shared logins."""
        if self.logins is None:
            raise ReconcileError(f"{self.type} was given no cloud logins")
        return self.logins()


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
