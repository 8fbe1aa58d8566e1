"""MetricTemplate and AlertProvider: where values come from and where messages go. Data only; nothing writes their status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic.config import JsonDict

from canary.api.canary import CONTROLLER, GROUP, KEEP, VERSION
from canary.api.values import Ruled, required
from reconcile.api.crd import ServedKind
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus, LocalReference
from reconcile.api.resource import Resource
from reconcile.api.scheme import PrinterColumn


class _Static(CommonSpec):
    """A spec of an object that is only read by others: there is nothing to suspend."""

    suspend: ClassVar[None] = None  # type: ignore[misc]


class _NoStatus(CommonStatus):
    """The status of an object that is only read by others: it has no fields."""

    conditions: ClassVar[None] = None  # type: ignore[misc]
    last_handled_reconcile_at: ClassVar[None] = None  # type: ignore[misc]
    observed_generation: ClassVar[None] = None  # type: ignore[misc]


class MetricProvider(ApiModel):
    """Where the values come from."""

    type: Literal[
        "prometheus",
        "influxdb",
        "datadog",
        "externalmetrics",
        "stackdriver",
        "cloudwatch",
        "newrelic",
        "graphite",
        "dynatrace",
        "keptn",
        "splunk",
        "signalfx",
    ]
    """Kind of the provider."""
    address: str | None = None
    """Address of its API."""
    headers: dict[str, list[str]] | None = None
    """Headers that are sent along (prometheus)."""
    secret_ref: LocalReference | None = None
    """Secret with the credentials, in the namespace of the template."""
    region: str | None = None
    """Region (cloudwatch)."""
    insecure_skip_verify: bool | None = None
    """Do not check the server's certificate (prometheus, graphite, externalmetrics)."""


class MetricTemplateSpec(_Static):
    """Spec of a MetricTemplate."""

    provider: MetricProvider
    """Where the values come from."""
    query: str
    """Query, as a Go template."""


class MetricTemplateStatus(_NoStatus):
    """Status of a MetricTemplate: it has no fields."""


class AlertProviderSpec(Ruled, _Static):
    """Spec of an AlertProvider."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [required("type", "address"), required("type", "secretRef")]
    RULE: ClassVar[str] = "needs type, and either address or secretRef"

    type: Literal["slack", "msteams", "discord", "rocket", "gchat", "generic"] | None = None
    """Kind of the provider; generic (an extension) takes plain JSON."""
    channel: str | None = None
    """Channel that is posted to; general when unset."""
    username: str | None = None
    """Name that is posted under; flagger when unset."""
    address: str | None = None
    """Address of the hook."""
    proxy: str | None = None
    """HTTP proxy."""
    secret_ref: LocalReference | None = None
    """Secret with the address and, for slack, the token, in the namespace of the provider."""


class AlertProviderStatus(_NoStatus):
    """Status of an AlertProvider: it has no fields."""


MetricTemplate = Resource[MetricTemplateSpec, MetricTemplateStatus]
AlertProvider = Resource[AlertProviderSpec, AlertProviderStatus]

METRIC_TEMPLATE = ServedKind(
    group=GROUP,
    kind="MetricTemplate",
    plural="metrictemplates",
    versions=(VERSION,),
    spec=MetricTemplateSpec,
    status=MetricTemplateStatus,
    categories=("all",),
    columns=(PrinterColumn("Provider", ".spec.provider.type"),),
    description="A MetricTemplate is a query, and the provider that answers it, for the metrics of Canaries.",
    controller=CONTROLLER,
    annotations=KEEP,
)
ALERT_PROVIDER = ServedKind(
    group=GROUP,
    kind="AlertProvider",
    plural="alertproviders",
    versions=(VERSION,),
    spec=AlertProviderSpec,
    status=AlertProviderStatus,
    categories=("all",),
    columns=(PrinterColumn("Type", ".spec.type"),),
    description="An AlertProvider is a chat that is told how the runs of Canaries go.",
    controller=CONTROLLER,
    annotations=KEEP,
)
