"""Service Mesh Interface: one TrafficSplit between the primary and the canary Service (Linkerd, Open Service Mesh, others).

Follows Flagger: canary first, then primary; v1alpha1 has weights as quantities, that is texts, later versions as integers.
"""

from __future__ import annotations

import json
import re
from typing import Any

from canary.ensure import Build
from canary.routing.base import Weights
from canary.routing.common import apex_labels, begun, inside, listed, no_routes, own, service_of, share
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

GROUP = "split.smi-spec.io"
KIND = "TrafficSplit"
QUANTITIES = "v1alpha1"
"""The version whose weights are Kubernetes quantities."""
ISTIO = "istio"
GATEWAYS = "VirtualService.v1alpha3.networking.istio.io/spec.gateways"
"""Annotation by which the SMI adapter of Istio is told of gateways."""

_QUANTITY = re.compile(r"([0-9]{1,15})(m?)")


class SmiRouter(SingleObjectRouter):
    """TrafficSplit `S`."""

    def __init__(self, objects: Objects, version: str, mesh: str) -> None:
        """A router for one version (`v1alpha1`, `v1alpha2`, `v1alpha3`) and what implements it, such as `linkerd`."""
        super().__init__(objects)
        self._version = version
        self._mesh = mesh

    def which(self, site: Site) -> Reference:
        """The TrafficSplit."""
        return Reference(f"{GROUP}/{self._version}", KIND, site.namespace, site.apex)

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """Makes the TrafficSplit."""

        def build(present: Object | None) -> Object:
            return split(site, self.which(site), present, weights or self.live(site, present), self._mesh)

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """The shares of its two backends; raises Problem when it gives neither any."""
        weights = {each.get("service"): _thousandths(each.get("weight")) for each in listed(found, "spec", "backends")}
        live = share(weights.get(site.primary_service), weights.get(site.canary_service))
        if live is None:
            raise no_routes(site, self.which(site))
        return live


def split(site: Site, which: Reference, present: Object | None, weights: Weights, mesh: str = "") -> Object:
    """The TrafficSplit of a Canary. Pure, but for `present`, which it changes.

    Args:
        site: The Canary.
        which: What it is called, and in which version.
        present: As it is now; what we do not know of stays.
        weights: Of the two backends.
        mesh: What implements it; Istio's adapter wants gateways in an annotation, which is set at creation.
    """
    service = service_of(site)
    annotations = dict((service.apex.annotations if service.apex is not None else None) or {})
    if present is None and mesh == ISTIO and service.gateways:
        annotations[GATEWAYS] = json.dumps(service.gateways, separators=(",", ":"))
    found = begun(site, which, present, labels=apex_labels(site), annotations=annotations)
    live = {each.get("service"): each for each in listed(found, "spec", "backends")}

    def backend(name: str, weight: int) -> Object:
        text = which.api_version.endswith(f"/{QUANTITIES}")
        return own(live.get(name, {}), service=name, weight=str(weight) if text else weight)

    own(
        inside(found, "spec"),
        service=service.hosts[0] if service.hosts else site.apex,
        backends=[backend(site.canary_service, weights.canary), backend(site.primary_service, weights.primary)],
    )
    return found


def _thousandths(weight: Any) -> int | None:
    """A weight, be it an integer or a quantity such as `50` or `500m`, in thousandths; None when it is neither."""
    if isinstance(weight, int) and not isinstance(weight, bool):
        return weight * 1000
    found = _QUANTITY.fullmatch(weight) if isinstance(weight, str) else None
    return int(found[1]) * (1 if found[2] else 1000) if found is not None else None
