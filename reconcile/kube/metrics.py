"""Metrics of the talk with the API server; declared once per service."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from reconcile.runtime.metrics import Metrics

WAIT_BUCKETS = (0.001, 0.05, 0.25, 1.0, 5.0, 15.0)


@dataclass(frozen=True, slots=True)
class KubeMetrics:
    """The metric families of this package; `rest_client_requests_total` is the one that dashboards for Flux know."""

    requests: Counter
    lists: Counter
    watches: Counter
    watch_events: Counter
    objects: Gauge
    unreadable: Gauge
    dropped_events: Counter
    waits: Histogram

    @staticmethod
    def declare(metrics: Metrics) -> KubeMetrics:
        """Declare the families; once for each `Metrics`."""
        return KubeMetrics(
            metrics.counter(
                "rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host.",
                "code", "method", "host",
            ),
            metrics.counter("imagebot_kube_lists_total", "Lists of a kind that were begun.", "kind"),
            metrics.counter("imagebot_kube_watches_total", "Watches of a kind that were begun.", "kind"),
            metrics.counter("imagebot_kube_watch_events_total", "Events that watches of a kind brought.", "kind", "type"),
            metrics.gauge("imagebot_kube_objects", "Objects of a kind in memory.", "kind"),
            metrics.gauge("imagebot_kube_unreadable_objects", "Objects of a kind that cannot be read and are left out.", "kind"),
            metrics.counter("imagebot_kube_dropped_events_total", "Events that were not written: too many.", "controller"),
            metrics.histogram(
                "imagebot_kube_request_wait_seconds", "Time that requests to the API server waited for the limit of ours.",
                "priority", buckets=WAIT_BUCKETS,
            ),
        )  # fmt: skip
