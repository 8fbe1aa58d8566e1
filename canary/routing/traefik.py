"""Traffic through Traefik: a weighted TraefikService. Follows Flagger's traefik provider and Traefik's definition of the kind."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from canary.ensure import Build
from canary.routing.base import Weights
from canary.routing.common import apex_annotations, apex_labels, begun, inside, listed, no_routes, own, service_of, share
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference

API_VERSION = "traefik.io/v1alpha1"
KIND = "TraefikService"
UNSAID = 1
"""Weight of a service without one."""


class TraefikRouter(SingleObjectRouter):
    """The canary is in the list while it has some weight."""

    def which(self, site: Site) -> Reference:
        """See `SingleObjectRouter.which`."""
        return Reference(API_VERSION, KIND, site.namespace, site.apex)

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """See `SingleObjectRouter.builder`."""
        labels, annotations = apex_labels(site), apex_annotations(site)

        def build(present: Object | None) -> Object:
            split = weights if weights is not None else self.live(site, present)
            wanted = begun(site, self.which(site), present, labels=labels, annotations=annotations)
            services = _services(site, listed(wanted, "spec", "weighted", "services"), split)
            own(inside(wanted, "spec", "weighted"), services=services)
            return wanted

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """See `SingleObjectRouter.parse`."""
        weights = {each.get("name"): each.get("weight", UNSAID) for each in listed(found, "spec", "weighted", "services")}
        live = share(weights.get(site.primary_service), weights.get(site.canary_service))
        if live is None:
            raise no_routes(site, self.which(site))
        return live

    async def revert(self, site: Site) -> None:
        """Nothing was taken over; the TraefikService goes with the Canary, which owns it."""


def _services(site: Site, live: list[Object], weights: Weights) -> list[Object]:
    """Primary and canary with their weights.

    What people set on the two (a scheme, stickiness) stays, and what they set on the primary goes for a canary that is new in the
    list. Services of theirs do not stay: with a third one the weights would be no percentages.
    """
    by_name = {each.get("name"): each for each in live}
    common: dict[str, Any] = {"namespace": site.namespace, "port": service_of(site).port}
    primary = by_name.get(site.primary_service, {})
    canary = by_name.get(site.canary_service, deepcopy(primary))
    services = [own(primary, name=site.primary_service, weight=weights.primary, **common)]
    if weights.canary > 0:
        services.append(own(canary, name=site.canary_service, weight=weights.canary, **common))
    return services
