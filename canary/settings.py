"""Settings of the canary controllers: Flagger's flags under Flagger's names, each with Flagger's default."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """What applies to every Canary that does not say otherwise."""

    mesh_provider: str = "istio"
    """Traffic provider of Canaries without `spec.provider`."""
    metrics_server: str = "http://prometheus:9090"
    """Prometheus for built-in metrics and inline queries of Canaries without `spec.metricsServer`."""
    selector_labels: tuple[str, ...] = ("app", "name", "app.kubernetes.io/name")
    """Labels by which a target selects its pods, in order of preference."""
    include_label_prefix: tuple[str, ...] = ()
    """Prefixes of the labels and annotations that the primary takes over; `*` takes all, none takes nothing."""
    enable_config_tracking: bool = True
    """Whether ConfigMaps and Secrets of the target are copied for the primary, and their changes start a run."""
    no_cross_namespace_refs: bool = False
    """Forbid references to objects in other namespaces."""
    ingress_annotations_prefix: str = "nginx.ingress.kubernetes.io"
    ingress_class: str = ""
    """`ingressClassName` of generated HTTPProxies."""
    event_webhook: str = field(default="", repr=False)
    """Where events of Canaries without event hooks of their own are posted to."""
    slack_url: str = field(default="", repr=False)
    slack_token: str = field(default="", repr=False)
    slack_proxy_url: str = ""
    slack_user: str = "flagger"
    slack_channel: str = ""
    msteams_url: str = field(default="", repr=False)
    msteams_proxy_url: str = ""
    cluster_name: str = ""
    """Shown in alerts."""
