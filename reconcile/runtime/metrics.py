"""Every metric of the service, declared once with its help, on a registry of our own.

Names and labels that dashboards for the Flux controllers use are kept: `gotk_*`, `controller_runtime_*`, `workqueue_*`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from reconcile.api import conditions as cond
from reconcile.api.conditions import READY, STALLED
from reconcile.api.meta import Condition, Key

CONTENT_TYPE = CONTENT_TYPE_LATEST
RESULTS = ("success", "error", "requeue", "requeue_after")
CONDITION_SERIES = ((READY, "True"), (READY, "False"), (READY, "Unknown"), (STALLED, "True"))
"""The conditions of an object that are shown, as (type, status)."""

# Ten exponential buckets from 10 ms to 30 min, as upstream's.
_STEP = (1800 / 0.01) ** (1 / 9)
DURATION_BUCKETS = tuple(0.01 * _STEP**i for i in range(10))


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asks for
_WHOLE = re.compile(rb"(?m)^([^#\n].* -?\d+)\.0$")


class Metrics:
    """The metric families; one instance per service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._declared: dict[str, Counter] = {}
        ProcessCollector(registry=self.registry)
        self.duration = Histogram(
            "gotk_reconcile_duration_seconds",
            "The duration in seconds of a reconciliation.",
            ("kind", "name", "namespace"),
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.condition = self._gauge(
            "gotk_reconcile_condition",
            "The current condition status of a resource.",
            "kind",
            "name",
            "namespace",
            "type",
            "status",
        )
        self.suspended = self._gauge(
            "gotk_suspend_status", "The current suspend status of a resource.", "kind", "name", "namespace"
        )
        self.reconciles = self._counter(
            "controller_runtime_reconcile_total", "Total number of reconciliations per controller.", "controller", "result"
        )
        self.reconcile_errors = self._counter(
            "controller_runtime_reconcile_errors_total", "Total number of reconciliation errors per controller.", "controller"
        )
        self.reconcile_panics = self._counter(
            "controller_runtime_reconcile_panics_total", "Reconciliations that ended in an unexpected exception.", "controller"
        )
        self.reconcile_time = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation per controller.",
            ("controller",),
            registry=self.registry,
        )
        self.workers = self._gauge(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles per controller.",
            "controller",
        )
        self.active_workers = self._gauge(
            "controller_runtime_active_workers", "Number of currently used workers per controller.", "controller"
        )
        self.queue_depth = self._gauge("workqueue_depth", "Current depth of workqueue.", "name")
        self.queue_adds = self._counter("workqueue_adds_total", "Total number of adds handled by workqueue.", "name")
        self.queue_retries = self._counter("workqueue_retries_total", "Total number of retries handled by workqueue.", "name")
        self.status_writes = self._counter("imagebot_status_writes_total", "Status writes to the store.", "kind")
        self.store_conflicts = self._counter(
            "imagebot_store_conflicts_total", "Writes refused because the object had changed meanwhile.", "kind"
        )
        self.events = self._counter("imagebot_events_total", "Events emitted.", "kind", "type", "reason")
        self.file_problems = self._gauge("imagebot_local_problems", "Problems in the manifests of the watched folder.")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Declare a counter of a package; declared again, it is the same one."""
        if name not in self._declared:
            self._declared[name] = self._counter(name, text, *labels)
        return self._declared[name]

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Declare a gauge of a package."""
        return self._gauge(name, text, *labels)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS) -> Histogram:
        """Declare a histogram of a package."""
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def announce(self, controller: str, workers: int) -> None:
        """Set every series of a controller to zero, so that graphs have no holes."""
        for result in RESULTS:
            self.reconciles.labels(controller, result)
        self.reconcile_errors.labels(controller)
        self.reconcile_panics.labels(controller)
        self.workers.labels(controller).set(workers)
        self.active_workers.labels(controller).set(0)
        self.queue_depth.labels(controller).set(0)
        self.queue_adds.labels(controller)
        self.queue_retries.labels(controller)

    def show_conditions(self, kind: str, key: Key, conditions: Sequence[Condition]) -> None:
        """Set the series of an object's conditions.

        Ready has one for each status, of which one is 1; without the condition, Unknown is. Stalled, which is either True or
        absent, has one, which is 1 or 0.
        """
        for condition, status in CONDITION_SERIES:
            self.condition.labels(kind, key.name, key.namespace, condition, status).set(_status(conditions, condition) == status)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop the series of an object that is gone."""
        key = (kind, name, namespace)
        series = [(self.duration, key), (self.suspended, key), *((self.condition, (*key, *shown)) for shown in CONDITION_SERIES)]
        for family, labels in series:
            try:
                family.remove(*labels)
            except KeyError:
                continue

    def render(self) -> bytes:
        """The text exposition of all families, whole numbers as Go programs write them (`1`, not `1.0`): people compare texts."""
        return _WHOLE.sub(rb"\1", generate_latest(self.registry))


def _status(conditions: Sequence[Condition], kind: str) -> str:
    found = cond.get(conditions, kind)
    return found.status if found else "Unknown"
