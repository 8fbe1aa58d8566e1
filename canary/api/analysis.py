"""`spec.analysis` of a Canary: how a revision is tried out and what it is judged by. Data only.

Fields that Flagger does not have are marked `Extension:`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.config import JsonDict

from canary.api.service import StringMatch
from canary.api.values import Defaulted, Number, Period, Ruled, WholeNumber, required
from reconcile.api.duration import Duration
from reconcile.api.meta import ApiModel

OnNoData = Literal["Hold", "Pass", "Fail"]
WebhookType = Literal[
    "",
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-promotion",
    "post-rollout",
    "event",
    "rollback",
    "confirm-traffic-increase",
]
Severity = Literal["", "info", "warn", "error"]

MAX_AGE = 86400
MAX_KNOWN_GOOD = 10


class HeaderMatch(Ruled):
    """How the value of a header is matched in an A/B test."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [required("exact"), required("prefix"), required("suffix"), required("regex")]
    RULE: ClassVar[str] = "set exactly one of exact, prefix, suffix and regex"

    exact: str | None = None
    """The whole value."""
    prefix: str | None = None
    """How the value begins."""
    suffix: str | None = None
    """How the value ends."""
    regex: str | None = None
    """A regular expression (RE2) for the whole value."""


class AnalysisMatch(ApiModel):
    """Requests that go to the canary in an A/B test: all that is set must match."""

    headers: dict[str, HeaderMatch] | None = None
    """Headers that the request must have."""
    query_params: dict[str, StringMatch] | None = None
    """Query parameters that the request must have."""
    source_labels: dict[str, str] | None = None
    """Labels of the client's pod."""


class ThresholdRange(ApiModel):
    """The values that are good, bounds included."""

    min: Number | None = None
    """Least good value."""
    max: Number | None = None
    """Greatest good value."""


class CrossNamespaceRef(ApiModel):
    """Names an object, perhaps in another namespace."""

    name: str
    """Name of the object."""
    namespace: str | None = None
    """Its namespace; the Canary's own when unset."""


class Metric(ApiModel):
    """One measurement and the values of it that are good."""

    name: str
    """Name; request-success-rate and request-duration are built in."""
    interval: Period | None = None
    """Window that the query looks at; 1m when unset, and empty with a template."""
    threshold: Number | None = None
    """Bound of good values (old form of thresholdRange)."""
    threshold_range: ThresholdRange | None = None
    """The values that are good."""
    query: str | None = None
    """PromQL, asked of spec.metricsServer (old form of a template)."""
    template_ref: CrossNamespaceRef | None = None
    """The MetricTemplate that has the query."""
    template_variables: dict[str, str] | None = None
    """Values for the template, as variables."""
    min_samples: Annotated[int, Field(ge=0)] | None = None
    """Extension: fewer samples than this behind a value count as no data."""
    on_no_data: OnNoData | None = None
    """Extension: what no data means for this metric; as analysis.onNoData when unset."""


class Webhook(ApiModel):
    """An HTTP hook: a gate, a check or somebody to tell."""

    name: str
    """Name, as shown in events."""
    type: WebhookType | None = None
    """When it is called; rollout when unset or empty."""
    url: str
    """Address that is posted to."""
    timeout: Period | None = None
    """Limit of one call; 10s when unset."""
    metadata: dict[str, str] | None = None
    """Sent along in the payload."""
    retries: WholeNumber | None = None
    """Number of further tries."""
    disable_tls: Annotated[bool | None, Field(alias="disableTLS")] = None
    """Do not check the server's certificate."""
    mute_alert: bool | None = None
    """No alert while this gate is closed."""


class AlertRef(ApiModel):
    """Who is told what about this Canary."""

    name: str
    """Name of the entry."""
    severity: Severity | None = None
    """Least severity that is told: info, warn or error."""
    provider_ref: CrossNamespaceRef
    """The AlertProvider."""


class SessionAffinity(Defaulted):
    """Cookies that keep a client on the side that it was sent to first."""

    cookie_name: str
    """Name of the cookie of clients of the canary."""
    primary_cookie_name: str | None = None
    """Name of the cookie of clients of the primary; none is set when unset."""
    domain: str | None = None
    """Domain attribute of the cookies."""
    http_only: bool | None = None
    """Keep the cookies from scripts."""
    max_age: WholeNumber = MAX_AGE
    """Seconds that browsers keep the cookies; 0 means the default."""
    partitioned: bool | None = None
    """Keep the cookies apart by top-level site."""
    path: str | None = None
    """Path attribute of the cookies."""
    same_site: Literal["Strict", "Lax", "None"] | None = None
    """SameSite attribute of the cookies."""
    secure: bool | None = None
    """Send the cookies over HTTPS only."""


class Analysis(Ruled):
    """How a revision is tried out and what it is judged by."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [
        required("interval", "threshold", name) for name in ("iterations", "stepWeight", "stepWeights")
    ]
    RULE: ClassVar[str] = "needs interval and threshold, and exactly one of iterations, stepWeight and stepWeights"

    interval: Period | None = None
    """Time between two steps; at least 10s."""
    iterations: WholeNumber | None = None
    """Number of checks in a Blue/Green or A/B run."""
    threshold: WholeNumber | None = None
    """Failed checks after which the run is rolled back."""
    max_weight: WholeNumber | None = None
    """Weight at which the revision is promoted; 100 when unset. Ignored with stepWeights."""
    step_weight: WholeNumber | None = None
    """Percent of the traffic that each step adds."""
    step_weights: list[WholeNumber] | None = None
    """Percent of the traffic at each step."""
    step_weight_promotion: WholeNumber | None = None
    """Percent of each step back to the primary in the promotion; all at once when unset."""
    mirror: bool | None = None
    """Send copies of requests to the canary before any traffic is shifted."""
    mirror_weight: WholeNumber | None = None
    """Percent of the requests that are copied (Istio); all when unset."""
    primary_ready_threshold: WholeNumber | None = None
    """Percent of the primary's pods that must be available; 100 when unset."""
    canary_ready_threshold: WholeNumber | None = None
    """Percent of the canary's pods that must be available; 100 when unset."""
    match: list[AnalysisMatch] | None = None
    """Requests that go to the canary: with iterations, an A/B test."""
    metrics: list[Metric] | None = None
    """What the revision is judged by."""
    alerts: list[AlertRef] | None = None
    """Who is told."""
    webhooks: list[Webhook] | None = None
    """Gates, checks and listeners."""
    session_affinity: SessionAffinity | None = None
    """Keep clients on the side that they were sent to first."""
    on_no_data: OnNoData | None = None
    """Extension: what a metric without data means: Hold waits, Pass and Fail decide; a failed check when unset."""
    max_hold: Duration | None = None
    """Extension: how long a wait for data may last before it counts as a failed check; for ever when unset."""
    on_fail: Literal["Rollback", "Hold"] | None = None
    """Extension: what follows too many failed checks: Rollback (when unset), or Hold, which also takes the traffic back
    but keeps the target's pods for people to look at."""
    gate_deadline: Duration | None = None
    """Extension: longest wait at a closed confirm gate before the run is rolled back; for ever when unset."""
    known_good_revisions: Annotated[int, Field(ge=0, le=MAX_KNOWN_GOOD)] | None = None
    """Extension: a revision promoted within this many promotions skips the analysis; off when unset or 0."""
