"""A Canary as everything that acts for it sees it in one tick: its spec and status, and the names of all that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.settings import CanarySettings
from reconcile.api.resource import Resource
from reconcile.ports.cluster import Object

CanaryResource: TypeAlias = Resource[CanarySpec, CanaryStatus]

MANAGER = "flagger"
"""Field manager of all that we write: fields that Flagger wrote before are ours."""

FLUX_OFF: Mapping[str, str] = {
    "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
    "helm.toolkit.fluxcd.io/driftDetection": "disabled",
}
"""Annotations that keep Flux from undoing what we change."""


@dataclass(frozen=True, slots=True)
class Site:
    """One Canary in one tick.

    Attributes:
        canary: As it was read at the start of the tick.
        settings: Of the service.
        label: The selector label of the target (L), empty until the target was read.
        value: Its value on the target's pods (V).
        ports: Discovered container ports by name, in the order in which they go into Services; only with `portDiscovery`.
    """

    canary: CanaryResource
    settings: CanarySettings
    label: str = ""
    value: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def spec(self) -> CanarySpec:
        """The spec."""
        return self.canary.spec

    @property
    def status(self) -> CanaryStatus:
        """The status."""
        return self.canary.status

    @property
    def namespace(self) -> str:
        """Namespace of the Canary and of everything generated."""
        return self.canary.meta.namespace

    @property
    def name(self) -> str:
        """Name of the Canary."""
        return self.canary.meta.name

    @property
    def target(self) -> str:
        """T: the target workload, which is the canary workload."""
        return self.spec.target_ref.name

    @property
    def primary(self) -> str:
        """The generated workload that serves live traffic."""
        return f"{self.target}-primary"

    @property
    def primary_value(self) -> str:
        """Value of the selector label on the primary's pods."""
        return f"{self.value}-primary"

    @property
    def apex(self) -> str:
        """S: the service that clients use."""
        service = self.spec.service
        return (service.name if service is not None else None) or self.target

    @property
    def primary_service(self) -> str:
        """The Service in front of the primary."""
        return f"{self.apex}-primary"

    @property
    def canary_service(self) -> str:
        """The Service in front of the target."""
        return f"{self.apex}-canary"

    @property
    def provider(self) -> str:
        """The traffic provider."""
        return self.spec.provider or self.settings.mesh_provider

    @property
    def owner(self) -> Object:
        """The owner reference of what this Canary generates: it goes when the Canary goes."""
        return {
            "apiVersion": API_VERSION,
            "kind": "Canary",
            "name": self.name,
            "uid": self.canary.meta.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def owns(self, found: Mapping[str, Any]) -> bool:
        """Whether this Canary is the controller of an object."""
        references = (found.get("metadata") or {}).get("ownerReferences") or ()
        return any(ref.get("controller") and ref.get("uid") == self.canary.meta.uid for ref in references)

    def with_status(self, **fields: Any) -> Site:
        """The same site with other status fields (Python names)."""
        return replace(self, canary=self.canary.with_status(self.status.model_copy(update=fields)))
