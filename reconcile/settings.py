"""Settings: typed, grouped by concern, read once at start. Each field says its unit and the reason for its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reconcile.errors import Invalid

GATES: Mapping[str, bool] = {
    "CacheSecretsAndConfigMaps": False,
    "ObjectLevelWorkloadIdentity": False,
    "FluxStorage": False,
    "GitForcePushBranch": True,
    "GitShallowClone": True,
    "GitAllBranchReferences": True,
    "GitSparseCheckout": False,
    "AdditiveCELDependencyCheck": False,
    "ExternalArtifact": False,
    "DirectSourceFetch": False,
    "DisableConfigWatchers": False,
    "CancelHealthCheckOnNewRevision": False,
    "DisableStatusPollerCache": True,
    "DisableFailFastBehavior": False,
    "StrictPostBuildSubstitutions": True,
    "GroupChangeLog": False,
    "MigrateAPIVersion": False,
}
"""Feature gates that the upstream controllers know, with their defaults. Those about storage, caches, logs and forced pushes are
accepted without effect: here nothing is ever pushed by force, and nothing is cloned whole."""


def parse_gates(text: str) -> dict[str, bool]:
    """Gates in force after `Name=true,Other=false`; raises Invalid for an unknown name or value."""
    gates = dict(GATES)
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, separator, value = part.partition("=")
        if name not in gates:
            raise Invalid(f"unrecognized feature gate: {name}; known are {', '.join(sorted(gates))}")
        if not separator or value.lower() not in {"true", "false"}:
            raise Invalid(f"invalid value of {name}: {value!r}; write {name}=true or {name}=false")
        gates[name] = value.lower() == "true"
    return gates


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Back-off after failures, in seconds, as upstream."""

    least: float = 0.75
    greatest: float = 900.0
    requeue_dependency: float = 30.0
    """How long to wait for something that was not there."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how."""

    level: Literal["trace", "debug", "info", "error", "none"] = "info"
    encoding: Literal["json", "console"] | None = None
    """None: console on a terminal, JSON elsewhere."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The web server."""

    address: str = ""
    """Where /healthz, /readyz and /metrics answer; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Artifacts: where they are served, and how long those that were replaced are kept. The defaults are upstream's."""

    address: str = ""
    """Where they are served; empty: nowhere but on disk."""
    advertised: str = ""
    """Host and port under which others reach them; empty: those of `address`."""
    retention_ttl: float = 60.0
    """Seconds for which an artifact that was replaced may still be fetched."""
    retention_records: int = 2
    """Artifacts of one source that are kept at most, the present one among them."""
    digest: str = "sha256"
    """Algorithm of their digests."""
    helm_index: int = 50 * 1024 * 1024
    """Bytes of the index of a chart repository."""
    jitter: float = 0.05
    """Part of an interval by which it may be longer or shorter, so that objects made together do not stay together."""


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """How Kustomizations are applied."""

    default_service_account: str = ""
    """ServiceAccount in whose name a Kustomization without one is applied; empty: our own."""
    insecure_kubeconfig_exec: bool = False
    """Whether a kubeconfig from a Secret may run programs to log in."""
    insecure_kubeconfig_tls: bool = False
    """Whether it may switch the check of certificates off."""
    override_managers: tuple[str, ...] = ()
    """Further field managers whose fields are taken over."""
    concurrent: int = 4
    """Dry runs of one Kustomization at once."""
    custom_stages: tuple[str, ...] = ()
    """Kinds, as `group/kind`, that are applied in a stage of their own before the others."""
    sops_age_secret: str = ""
    """Secret in our namespace with age identities for Kustomizations whose decryption names none."""
    watch_configs: str = "reconcile.fluxcd.io/watch=Enabled"
    """Label selector of ConfigMaps and Secrets whose change wakes the Kustomizations that read them."""
    own_namespace: str = ""
    """The namespace that we run in."""
    http_retry: int = 9
    """Tries to fetch an artifact before the pass fails."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the service."""

    concurrent: int = 16
    """Passes at once per kind. Passes mostly wait for registries and Git servers, so more than upstream's 4 costs nothing."""
    no_cross_namespace_refs: bool = False
    """Forbid references to objects in other namespaces."""
    user_docker_config: bool = True
    """Whether images without a pull secret use the docker login of the user (local mode only)."""
    gates: Mapping[str, bool] = field(default_factory=lambda: dict(GATES))
    retry: RetrySettings = field(default_factory=RetrySettings)
    log: LogSettings = field(default_factory=LogSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    apply: ApplySettings = field(default_factory=ApplySettings)
    packages: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Values of the options that packages brought, by Python name; there may be secrets among them."""
