"""The Canary: a workload whose new revisions are tried out before they get all traffic. Data only.

`flagger.app/v1beta1` as Flagger's own definition has it, and fields of ours, marked `Extension:`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from canary.api.analysis import MAX_KNOWN_GOOD, Analysis
from canary.api.service import CanaryService
from canary.api.values import Time, WholeNumber
from reconcile.api.crd import ServedKind
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus
from reconcile.api.resource import Resource
from reconcile.api.scheme import PrinterColumn

GROUP = "flagger.app"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
CONTROLLER = "flagger"
KEEP = (("helm.sh/resource-policy", "keep"),)
"""On the definitions: uninstalling a chart deletes nobody's Canaries."""

MAX_CHECKS = 32
"""Most entries of `status.checks`."""

Provider = Literal[
    "apisix",
    "appmesh",
    "appmesh:v1beta2",
    "contour",
    "gatewayapi:v1",
    "gatewayapi:v1beta1",
    "gloo",
    "istio",
    "knative",
    "kubernetes",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "smi:v1alpha1",
    "smi:v1alpha2",
    "smi:v1alpha3",
    "traefik",
]
Phase = Literal[
    "",
    "Initializing",
    "Initialized",
    "Waiting",
    "Progressing",
    "WaitingPromotion",
    "Promoting",
    "Finalising",
    "Succeeded",
    "Failed",
    "Terminating",
    "Terminated",
]


class TargetRef(ApiModel):
    """Names the workload under release."""

    api_version: str
    """Group and version of the workload."""
    kind: Literal["DaemonSet", "Deployment", "Service"]
    """Kind of the workload."""
    name: str
    """Name of the workload."""


class ScalerReplicas(ApiModel):
    """Bounds of the primary's autoscaler."""

    min_replicas: Annotated[int, Field(ge=1)] | None = None
    """Least number of pods."""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """Greatest number of pods."""


class AutoscalerRef(ApiModel):
    """Names the autoscaler of the target."""

    api_version: str
    """Group and version of the autoscaler."""
    kind: Literal["HorizontalPodAutoscaler", "ScaledObject"]
    """Kind of the autoscaler."""
    name: str
    """Name of the autoscaler."""
    primary_scaler_queries: dict[str, str] | None = None
    """Queries of the primary's triggers by name of the trigger (KEDA)."""
    primary_scaler_replicas: ScalerReplicas | None = None
    """Bounds of the primary's autoscaler; those of the target's when unset."""


class IngressRef(ApiModel):
    """Names the Ingress of the workload."""

    api_version: str
    """Group and version of the Ingress."""
    kind: Literal["Ingress"]
    """Kind of the Ingress."""
    name: str
    """Name of the Ingress."""


class RouteRef(ApiModel):
    """Names the ApisixRoute of the workload."""

    api_version: str
    """Group and version of the route."""
    kind: Literal["ApisixRoute"]
    """Kind of the route."""
    name: str
    """Name of the route."""


class UpstreamRef(ApiModel):
    """Names the Gloo Upstream whose settings are copied."""

    api_version: str
    """Group and version of the Upstream."""
    kind: Literal["Upstream"]
    """Kind of the Upstream."""
    name: str
    """Name of the Upstream."""
    namespace: str | None = None
    """Its namespace; the Canary's own when unset."""


class CanarySpec(CommonSpec):
    """Spec of a Canary."""

    suspend: bool | None = None
    """Stop all work on the Canary; traffic stays as it is."""
    provider: Provider | None = None
    """What routes the traffic; the default of the installation when unset."""
    metrics_server: str | None = None
    """Address of the Prometheus for built-in metrics and inline queries; the default of the installation when unset."""
    progress_deadline_seconds: WholeNumber | None = None
    """Seconds that a workload may take to become ready; 600 when unset."""
    target_ref: TargetRef
    """The workload under release."""
    autoscaler_ref: AutoscalerRef | None = None
    """The autoscaler of the target."""
    ingress_ref: IngressRef | None = None
    """The Ingress of the target; required by nginx and skipper."""
    route_ref: RouteRef | None = None
    """The ApisixRoute of the target; required by apisix."""
    upstream_ref: UpstreamRef | None = None
    """The Gloo Upstream whose settings are copied."""
    service: CanaryService | None = None
    """How the workload is exposed; only Knative's does without."""
    skip_analysis: bool | None = None
    """Promote without checks."""
    revert_on_deletion: bool | None = None
    """Give back the traffic and the pods of the target when the Canary is deleted."""
    analysis: Analysis
    """How a revision is tried out and what it is judged by."""


class CanaryCondition(ApiModel):
    """One entry of `status.conditions`, in Flagger's own form."""

    type: str
    """Type of condition: Promoted."""
    status: str
    """Status of the condition, one of True, False, Unknown."""
    reason: str
    """Machine-readable reason: the phase."""
    message: str | None = None
    """Human-readable details."""
    last_update_time: Time | None = None
    """Last time the condition was written."""
    last_transition_time: Time | None = None
    """Last time the status changed."""


class MetricCheck(ApiModel):
    """What one metric said, and what followed."""

    metric: str
    """Name of the metric."""
    query: str | None = None
    """The query as it was asked."""
    value: str | None = None
    """The value found, as text; unset when there was none."""
    threshold: str | None = None
    """The bounds that it was held against."""
    verdict: str
    """What followed from it."""
    message: str | None = None
    """Human-readable details."""
    samples: int | None = None
    """How many series or points the value was found in."""
    time: Time | None = None
    """When it was asked."""


class CanaryStatus(CommonStatus):
    """Status of a Canary."""

    # What readers of kstatus would take for in progress between two ticks: Flagger's objects have none.
    observed_generation: ClassVar[None] = None  # type: ignore[misc]

    phase: Phase | None = None
    """Where the Canary stands."""
    failed_checks: WholeNumber | None = None
    """Failed checks of the current run."""
    canary_weight: WholeNumber | None = None
    """Percent of the traffic that was last sent to the canary."""
    iterations: WholeNumber | None = None
    """Checks done in a Blue/Green or A/B run."""
    tracked_configs: dict[str, str] | None = None
    """Checksums by `configmap/<name>` and `secret/<name>` of what the target uses."""
    last_applied_spec: str | None = None
    """Hash of the revision of the target that was last picked up."""
    last_promoted_spec: str | None = None
    """Hash of the revision that the primary has."""
    last_transition_time: Time | None = None
    """Last time the status was written."""
    session_affinity_cookie: str | None = None
    """Cookie, as name=value, of clients of the canary."""
    primary_session_affinity_cookie: str | None = None
    """Cookie, as name=value, of clients of the primary."""
    previous_session_affinity_cookie: str | None = None
    """Cookie of the last run, which is being deleted in browsers."""
    conditions: list[CanaryCondition] | None = None  # type: ignore[assignment]
    """Conditions of the Canary: Promoted."""
    last_handled_reconcile_at: str | None = None
    """Extension: the last value of the annotation reconcile.fluxcd.io/requestedAt that was handled."""
    checks: Annotated[list[MetricCheck], Field(max_length=MAX_CHECKS)] | None = None
    """Extension: what the metrics said at the last step."""
    phase_since: Time | None = None
    """Extension: when the phase began."""
    next_step_time: Time | None = None
    """Extension: when the next step is due."""
    not_ready_since: Time | None = None
    """Extension: since when the workload waited for is not ready."""
    hold_since: Time | None = None
    """Extension: since when the run waits for data."""
    gate_since: Time | None = None
    """Extension: since when a gate keeps the traffic from being increased."""
    target_generation: int | None = None
    """Extension: generation of the target that was last looked at."""
    known_good: Annotated[list[str], Field(max_length=MAX_KNOWN_GOOD)] | None = None
    """Extension: hashes of the revisions promoted last, newest first."""
    last_handled_action: str | None = None
    """Extension: the last value of the annotation that asks for an action."""
    failure: str | None = None
    """Extension: why the last run failed."""
    tracked_binary: dict[str, str] | None = None
    """Extension: checksums by `configmap/<name>#binaryData` of what the target uses, where there is any."""
    images: list[str] | None = None
    """Extension: images of the revision in analysis, each as container=image."""


Canary = Resource[CanarySpec, CanaryStatus]

CANARY = ServedKind(
    group=GROUP,
    kind="Canary",
    plural="canaries",
    versions=(VERSION,),
    spec=CanarySpec,
    status=CanaryStatus,
    categories=("all",),
    columns=(
        PrinterColumn("Status", ".status.phase"),
        PrinterColumn("Weight", ".status.canaryWeight"),
        PrinterColumn("Suspended", ".spec.suspend", "boolean", priority=1),
        PrinterColumn("FailedChecks", ".status.failedChecks", priority=1),
        PrinterColumn("Interval", ".spec.analysis.interval", priority=1),
        PrinterColumn("Mirror", ".spec.analysis.mirror", "boolean", priority=1),
        PrinterColumn("StepWeight", ".spec.analysis.stepWeight", priority=1),
        PrinterColumn("StepWeights", ".spec.analysis.stepWeights", priority=1),
        PrinterColumn("MaxWeight", ".spec.analysis.maxWeight", priority=1),
        PrinterColumn("LastTransitionTime", ".status.lastTransitionTime"),
    ),
    description="A Canary tries out new revisions of a workload step by step before they get all traffic.",
    controller=CONTROLLER,
    annotations=KEEP,
)
