"""What the load tester shows at `/metrics`, under names of our own: Flagger's load tester shows nothing but its process.

The label `canary` is `NAMESPACE/NAME`, as in all `imagebot_canary_*` families.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from prometheus_client import Counter, Histogram

from canary.loadtester.gates import SPACES, Gates
from reconcile.api.meta import Key
from reconcile.runtime.metrics import Metrics

MAX_CANARIES = 500
"""Canaries with series of their own; callers choose these names, so there is an end to them."""
OTHER = "other"
NO_ANSWER = "none"
"""Value of the label `code` of a request without an answer."""

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TASK_BUCKETS = (0.1, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)

DONE, FAILED, ENDED, REFUSED, DUPLICATE = "done", "failed", "ended", "refused", "duplicate"
RESULTS = (DONE, FAILED, ENDED, REFUSED, DUPLICATE)
"""Values of the label `result`: ENDED is a task that was ended by its time, its caller or the load tester itself."""


@dataclass(frozen=True, slots=True)
class LoadMeasures:
    """The families of requests, for one Canary."""

    requests: Counter
    latency: Histogram
    late: Counter
    late_seconds: Counter
    canary: str

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(self.canary, str(status)).inc()
        self.latency.labels(self.canary).observe(seconds)

    def unanswered(self) -> None:
        """Count a request without an answer."""
        self.requests.labels(self.canary, NO_ANSWER).inc()

    def began_late(self, seconds: float) -> None:
        """Count a request that began after its time."""
        self.late.labels(self.canary).inc()
        self.late_seconds.labels(self.canary).inc(seconds)


class Measures:
    """The metric families of the load tester; one instance per process."""

    def __init__(self, metrics: Metrics) -> None:
        prefix = "imagebot_loadtester"
        self._metrics = metrics
        self._canaries: set[str] = set()
        self._requests = metrics.counter(
            f"{prefix}_requests_total", "Requests of the load generator by status of the answer.", "canary", "code"
        )
        self._latency = metrics.histogram(
            f"{prefix}_request_duration_seconds",
            "Seconds from the start of a request to the end of its answer.",
            "canary",
            buckets=LATENCY_BUCKETS,
        )
        self._late = metrics.counter(
            f"{prefix}_late_requests_total", "Requests that began later than the rate asks for.", "canary"
        )
        self._late_seconds = metrics.counter(f"{prefix}_late_seconds_total", "By how much requests began too late.", "canary")
        self._tasks = metrics.counter(f"{prefix}_tasks_total", "Tasks by type and what became of them.", "type", "result")
        self._duration = metrics.histogram(
            f"{prefix}_task_duration_seconds", "Seconds that a task ran.", "type", buckets=TASK_BUCKETS
        )
        self.running = metrics.gauge(f"{prefix}_tasks_running", "Tasks that run.")
        self.waiting = metrics.gauge(f"{prefix}_tasks_waiting", "Tasks that wait for their turn.")
        self._calls = metrics.counter(f"{prefix}_calls_total", "Calls by path and status of the answer.", "path", "code")

    def announce(self, kinds: Iterable[str]) -> None:
        """Set every series of these types of tasks to zero, so that graphs have no holes."""
        for kind in kinds:
            for result in RESULTS:
                self._tasks.labels(kind, result)

    def show_gates(self, gates: Gates) -> None:
        """Show how many gates are open."""
        family = self._metrics.gauge("imagebot_loadtester_open_gates", "Gates that are open.", "space")
        for space in SPACES:
            family.labels(space).set_function(partial(gates.count, space))

    def load_of(self, canary: Key) -> LoadMeasures:
        """Where the requests for a Canary are counted."""
        name = str(canary)
        if name not in self._canaries:
            if len(self._canaries) >= MAX_CANARIES:
                name = OTHER
            else:
                self._canaries.add(name)
        return LoadMeasures(self._requests, self._latency, self._late, self._late_seconds, name)

    def task(self, kind: str, result: str, seconds: float | None = None) -> None:
        """Count a task, and how long it ran if it did."""
        self._tasks.labels(kind, result).inc()
        if seconds is not None:
            self._duration.labels(kind).observe(seconds)

    def call(self, path: str, status: int) -> None:
        """Count a call; `path` is one that the load tester knows."""
        self._calls.labels(path, str(status)).inc()
