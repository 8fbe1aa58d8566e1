"""What every pass over a Kustomization is given."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.apply.engine import Applier
from reconcile.apply.memory import Memory
from reconcile.apply.order import parse_kinds
from reconcile.artifact.fetch import Artifacts
from reconcile.kustomize.rendering import Renderer
from reconcile.kustomize.target import Target, Targets
from reconcile.kustomize.waking import Waking
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Reference
from reconcile.ports.objects import Objects
from reconcile.ports.stamps import Stamps
from reconcile.ports.store import Store
from reconcile.runtime.telling import Teller
from reconcile.settings import ApplySettings


@dataclass(frozen=True, slots=True)
class Tools:
    """The parts of the service that Kustomizations need. Times are in seconds."""

    store: Store
    objects: Objects
    clock: Clock
    teller: Teller
    targets: Targets
    artifacts: Artifacts
    renderer: Renderer
    waking: Waking
    settings: ApplySettings
    memory: Memory
    stamps: Stamps | None
    requeue: float
    """How long to wait for what is not there yet."""
    jitter: float
    """Share of an interval by which it may be longer or shorter."""
    strict: bool
    """Whether a variable that is not set is an error."""
    migrate: bool
    """Whether field managers of old API versions are written anew before an apply."""
    fail_fast: bool
    """Whether a wait for health ends with the first failure."""

    @property
    def age_secret(self) -> Reference | None:
        """The Secret with age identities for everybody."""
        name, namespace = self.settings.sops_age_secret, self.settings.own_namespace
        return Reference("v1", "Secret", namespace, name) if name else None

    def applier(self, target: Target) -> Applier:
        """Applies to a target. What is watched is the cluster that we are in; objects of another one are asked for."""
        return Applier(
            target.cluster,
            self.clock,
            concurrent=self.settings.concurrent,
            override_managers=self.settings.override_managers,
            custom_stages=parse_kinds(",".join(self.settings.custom_stages)),
            migrate=self.migrate,
            memory=self.memory if target.local else None,
            stamps=self.stamps if target.local else None,
        )
