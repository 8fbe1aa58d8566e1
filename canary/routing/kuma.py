"""Kuma: one TrafficRoute from everybody to a service of the mesh, split between primary and canary.

Follows Flagger: the route is named after the service alone although its kind has no namespaces, and no Canary owns it, since an
owner with a namespace cannot own what has none; so it outlives the Canary. Unlike there, a Canary does not write into the route
of a service of the same name in another namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from canary.ensure import Build
from canary.errors import Problem
from canary.routing.base import Weights
from canary.routing.common import apex_annotations, apex_labels, inside, listed, own, service_of, share
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference

API_VERSION = "kuma.io/v1alpha1"
KIND = "TrafficRoute"
SERVICE = "kuma.io/service"
"""Tag of Kuma: the service that a data plane belongs to."""
MESH = "kuma.io/mesh"
"""Annotation of the Canary: the mesh."""
DEFAULT_MESH = "default"
EVERYBODY = "*"


class KumaRouter(SingleObjectRouter):
    """TrafficRoute `S`."""

    def which(self, site: Site) -> Reference:
        """The TrafficRoute, which is in no namespace."""
        return Reference(API_VERSION, KIND, "", site.apex)

    def shown(self, site: Site) -> str:
        """As Flagger names it: with the Canary's namespace."""
        return f"{KIND} {site.apex}.{site.namespace}"

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """Makes the TrafficRoute; raises Problem when the one of this name is for another service."""

        def build(present: Object | None) -> Object:
            if present is not None:
                self._must_be_ours(site, present)
            return route(site, present, weights or self.live(site, present))

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """The weights of its split; raises Problem when it is not ours or gives neither side any."""
        self._must_be_ours(site, found)
        split = listed(found, "spec", "conf", "split")
        primary, canary = (_entry(site, split, name).get("weight") for name in (site.primary_service, site.canary_service))
        live = share(primary, canary)
        if live is None:
            raise Problem(f"{self.shown(site)} does not contain routes for {site.primary_service} and {site.canary_service}")
        return live

    def _must_be_ours(self, site: Site, found: Object) -> None:
        """A route is told by what it leads to; which port that has may change."""
        destinations = [_service(each.get("match")) for each in listed(found, "spec", "destinations")]
        other = next((each for each in destinations if not each.startswith(_prefix(site, site.apex))), None)
        if other is not None:
            raise Problem(
                f"{self.shown(site)} is for {other or 'all services'}: TrafficRoutes have no namespace, so "
                f"{tag(site, site.apex)} needs another spec.service.name, unless that route is a leftover that can be deleted"
            )


def route(site: Site, present: Object | None, weights: Weights) -> Object:
    """The TrafficRoute of a Canary. Pure, but for `present`, which it changes.

    Args:
        site: The Canary.
        present: As it is now; what we do not know of stays.
        weights: Of the two sides.
    """
    found = present or {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": site.apex}}
    for name, ours in (("labels", apex_labels(site)), ("annotations", apex_annotations(site))):
        if ours:
            found["metadata"][name] = {**(found["metadata"].get(name) or {}), **ours}
    conf = inside(found, "spec", "conf")
    split = listed(conf, "split")

    def entry(name: str, weight: int) -> Object:
        before = _entry(site, split, name)
        return own(before, weight=weight, destination={**before.get("destination", {}), SERVICE: tag(site, name)})

    own(conf, split=[entry(site.primary_service, weights.primary), entry(site.canary_service, weights.canary)])
    own(
        found["spec"],
        sources=[{"match": {SERVICE: EVERYBODY}}],
        destinations=[{"match": {SERVICE: tag(site, site.apex)}}],
    )
    return own(found, mesh=site.canary.meta.annotations.get(MESH) or DEFAULT_MESH)


def tag(site: Site, service: str) -> str:
    """What Kuma calls a Kubernetes Service: `web_prod_svc_80`."""
    return f"{_prefix(site, service)}{service_of(site).port}"


def _prefix(site: Site, service: str) -> str:
    """What the tag of a Service begins with; names in Kubernetes have no underscores, so no other Service's does."""
    return f"{service}_{site.namespace}_svc_"


def _entry(site: Site, split: Sequence[Object], service: str) -> Object:
    """The entry of a split for a Service, on whatever port; empty when there is none."""
    prefix = _prefix(site, service)
    return next((each for each in split if _service(each.get("destination")).startswith(prefix)), {})


def _service(tags: Any) -> str:
    name = tags.get(SERVICE) if isinstance(tags, dict) else None
    return name if isinstance(name, str) else ""
