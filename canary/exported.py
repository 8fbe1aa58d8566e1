"""What can be scraped: Flagger's own families under its names and labels, and ours beside them.

The label `name` of a `flagger_*` family holds the name of the target, as Flagger has it; an `imagebot_canary_*` family has
the label `canary`, `NAMESPACE/NAME`: a label `namespace` of ours would be renamed by scrapes that add the pod's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from canary.metrics.base import Verdict
from canary.site import Site
from reconcile import __version__
from reconcile.api.meta import Key
from reconcile.runtime.metrics import Metrics

COMPLETED, SKIPPED = "completed", "skipped"
"""Values of the label `analysis_status`."""

LATENESS_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WEBHOOK_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

_STATUS = {"Progressing": 0, "Failed": 2}
_OTHER_STATUS = 1

_Family = Counter | Gauge | Histogram
_Series = tuple[_Family, tuple[str, ...]]


def _canary(site: Site) -> str:
    """Value of the label `canary`."""
    return f"{site.namespace}/{site.name}"


@dataclass
class _Shown:
    """The series of one Canary, in the order of their first values, and the target that they are of."""

    target: str
    series: dict[_Series, None] = field(default_factory=dict)


class Exported:
    """The metric families of the canary controllers; one instance per service.

    A series appears with its first value and goes with its Canary, or when the target is another one.
    """

    def __init__(self, metrics: Metrics, mesh_provider: str) -> None:
        gauge, counter, histogram = metrics.gauge, metrics.counter, metrics.histogram
        self._of: dict[Key, _Shown] = {}
        self._counted: set[str] = set()
        info = gauge("flagger_info", "Flagger version and mesh provider information", "version", "mesh_provider")
        info.labels(__version__, mesh_provider).set(1)
        self._total = gauge("flagger_canary_total", "Total number of canary objects", "namespace")
        self._status = gauge("flagger_canary_status", "Last canary analysis result", "name", "namespace")
        self._weight = gauge(
            "flagger_canary_weight", "The virtual service destination weight current value", "workload", "namespace"
        )
        self._analysis = gauge(
            "flagger_canary_metric_analysis", "Last canary analysis result per metric", "name", "namespace", "metric"
        )
        self._duration = histogram(
            "flagger_canary_duration_seconds", "Seconds spent performing canary analysis.", "name", "namespace"
        )
        ends = ("name", "namespace", "deployment_strategy", "analysis_status")
        self._successes = counter("flagger_canary_successes_total", "Total number of canary successes", *ends)
        self._failures = counter("flagger_canary_failures_total", "Total number of canary failures", *ends)

        self._since = gauge(
            "imagebot_canary_phase_since_timestamp_seconds",
            "When the Canary came into its present phase, in seconds since 1970.",
            "canary",
            "phase",
        )
        self._verdicts = counter(
            "imagebot_canary_check_verdicts_total",
            "Metric checks by what they said: Pass, Fail, NoData or Error.",
            "canary",
            "metric",
            "verdict",
        )
        self._hook_failures = counter(
            "imagebot_canary_webhook_failures_total", "Webhook calls without success.", "canary", "type"
        )
        self._lost_events = counter(
            "imagebot_canary_lost_event_posts_total", "Events that an event webhook did not take.", "canary"
        )
        self._lost_alerts = counter(
            "imagebot_canary_lost_alerts_total", "Alerts that could not be sent to one receiver.", "canary"
        )
        self._hook_seconds = histogram(
            "imagebot_canary_webhook_seconds", "Time of a webhook call with its retries.", "type", buckets=WEBHOOK_BUCKETS
        )
        self.waiting_hooks = gauge("imagebot_canary_webhooks_waiting", "Webhook calls that wait for others to end.")
        self._lateness = histogram(
            "imagebot_canary_tick_lateness_seconds", "How long after its time a tick began.", buckets=LATENESS_BUCKETS
        )
        self._ticks = counter("imagebot_canary_ticks_total", "Ticks by result.", "result")

    # --- Flagger's

    def totals(self, canaries: Iterable[Key]) -> None:
        """Count the Canaries of each namespace; a namespace that had some and has none is shown with 0."""
        count = dict.fromkeys(self._counted, 0)
        for key in canaries:
            count[key.namespace] = count.get(key.namespace, 0) + 1
        for namespace, number in count.items():
            self.total(namespace, number)

    def total(self, namespace: str, number: int) -> None:
        """Set the number of Canaries in one namespace."""
        self._counted.add(namespace)
        self._total.labels(namespace).set(number)

    def status(self, site: Site, phase: str) -> None:
        """Show the phase: 0 while Progressing, 2 for Failed, 1 for everything else."""
        self._gauge(site, self._status, site.target, site.namespace).set(_STATUS.get(phase, _OTHER_STATUS))

    def weights(self, site: Site, primary: int, canary: int) -> None:
        """Show the shares of the traffic, in percent."""
        self._gauge(site, self._weight, site.primary, site.namespace).set(primary)
        self._gauge(site, self._weight, site.target, site.namespace).set(canary)

    def analysis(self, site: Site, metric: str, value: float) -> None:
        """Show the value of one metric; `request-duration` in seconds."""
        self._gauge(site, self._analysis, site.target, site.namespace, metric).set(value)

    def duration(self, site: Site, seconds: float) -> None:
        """Count the time of one tick that came as far as its checks."""
        labels = (site.target, site.namespace)
        self._remember(site, self._duration, labels)
        self._duration.labels(*labels).observe(seconds)

    def success(self, site: Site, strategy: str, analysis_status: str = COMPLETED) -> None:
        """Count a promotion; `strategy` is canary, ab-testing or blue-green."""
        self._counter(site, self._successes, site.target, site.namespace, strategy, analysis_status).inc()

    def failure(self, site: Site, strategy: str, analysis_status: str = COMPLETED) -> None:
        """Count a rollback or a failed promotion."""
        self._counter(site, self._failures, site.target, site.namespace, strategy, analysis_status).inc()

    # --- ours

    def phase(self, site: Site, phase: str, since: float) -> None:
        """Show since when (seconds since 1970) the Canary is in `phase`; the phase before is no longer shown."""
        wanted = (_canary(site), phase)
        self._gauge(site, self._since, *wanted).set(since)
        series = self._of[site.canary.key].series
        for old in [(family, labels) for family, labels in series if family is self._since and labels != wanted]:
            del series[old]
            self._drop(old)

    def verdict(self, site: Site, metric: str, verdict: str) -> None:
        """Count what one check said; what it did not say is shown with 0, so that the first time of anything is an increase."""
        for word in Verdict:
            self._counter(site, self._verdicts, _canary(site), metric, word.value)
        self._counter(site, self._verdicts, _canary(site), metric, verdict).inc()

    def hook(self, site: Site, kind: str, seconds: float, *, failed: bool) -> None:
        """Count one call of a webhook of type `kind` with all its attempts."""
        self._hook_seconds.labels(kind).observe(seconds)
        self._counter(site, self._hook_failures, _canary(site), kind).inc(int(failed))

    def event_post(self, site: Site, *, lost: bool) -> None:
        """Count an event for one receiver, and whether it did not get it."""
        self._counter(site, self._lost_events, _canary(site)).inc(int(lost))

    def alert(self, site: Site, *, lost: bool) -> None:
        """Count an alert for one receiver, and whether it did not get it."""
        self._counter(site, self._lost_alerts, _canary(site)).inc(int(lost))

    def tick(self, result: str, lateness: float) -> None:
        """Count a tick that began `lateness` seconds after its time; `result` is a word such as success, halted, error."""
        self._ticks.labels(result).inc()
        self._lateness.observe(max(0.0, lateness))

    def forget(self, canary: Key) -> None:
        """Remove every series of a Canary that is gone; histograms and counters of the service stay."""
        gone = self._of.pop(canary, None)
        for series in gone.series if gone is not None else ():
            self._drop(series)

    # --- which series belong to which Canary

    def _gauge(self, site: Site, family: Gauge, *labels: str) -> Gauge:
        self._remember(site, family, labels)
        return family.labels(*labels)

    def _counter(self, site: Site, family: Counter, *labels: str) -> Counter:
        self._remember(site, family, labels)
        return family.labels(*labels)

    def _remember(self, site: Site, family: _Family, labels: tuple[str, ...]) -> None:
        shown = self._of.get(site.canary.key)
        if shown is None or shown.target != site.target:
            self.forget(site.canary.key)
            shown = self._of[site.canary.key] = _Shown(site.target)
        shown.series[family, labels] = None

    def _drop(self, series: _Series) -> None:
        family, labels = series
        if any(series in shown.series for shown in self._of.values()):
            return  # another Canary has the same target
        family.remove(*labels)
