"""Plain Services (provider kubernetes): nothing is routed, the revision is only checked and then promoted (blue/green)."""

from __future__ import annotations

from canary.routing.base import ALL_PRIMARY, TOTAL, Affinity, Weights
from canary.site import Site


class ServiceRouter:
    """Says where traffic would be, as Flagger does: at the canary once an iteration has begun. Services are the workload's."""

    mirrors = False
    weighted = False

    async def reconcile(self, site: Site) -> None:
        """Nothing to do: the apex Service selects the primary."""

    async def weights(self, site: Site) -> Weights:
        """0/100 while iterations are counted, else 100/0."""
        return Weights.at(TOTAL) if (site.status.iterations or 0) > 0 else ALL_PRIMARY

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:  # noqa: ARG002 - as all routers
        """Nothing to do."""
        return None

    async def revert(self, site: Site) -> None:
        """Nothing to do."""
