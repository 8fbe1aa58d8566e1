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
}
"""Feature gates that the upstream controllers know, with their defaults. Those about storage, caches and forced pushes are
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
    packages: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Values of the options that packages brought, by Python name; there may be secrets among them."""
