"""AWS App Mesh: virtual nodes for primary and canary, and weights in the virtual service (v1beta1) or its router (v1beta2).

Follows Flagger, with these changes: several entries of an A/B test are alternatives, as with most of its other providers; pods
are found by the value of their selector label, whatever the target is called; that a lost connection is to be tried again is told
in the field that App Mesh has for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from canary.ensure import Build, ensure
from canary.errors import Problem
from canary.routing.appmesh_objects import V1BETA1, Form, is_ours, node, routed_service, router, service
from canary.routing.base import TOTAL, Weights
from canary.routing.common import listed, share
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

NODE, ROUTER, SERVICE = "VirtualNode", "VirtualRouter", "VirtualService"


@dataclass(frozen=True, slots=True)
class Part:
    """One of the objects beside the one that has the weights."""

    which: Reference
    build: Build


class AppMeshRouter(SingleObjectRouter):
    """VirtualService `S.namespace` in v1beta1, VirtualRouter `S` in v1beta2, and the objects around it."""

    def __init__(self, objects: Objects, version: str) -> None:
        """A router for one version: `v1beta1` or `v1beta2`."""
        super().__init__(objects)
        self._form = Form(version)

    def which(self, site: Site) -> Reference:
        """The object with the weights."""
        if self._form.version == V1BETA1:
            return self._form.reference(site, SERVICE, f"{site.apex}.{site.namespace}")
        return self._form.reference(site, ROUTER, site.apex)

    def shown(self, site: Site) -> str:
        """As Flagger names it: by the service."""
        return f"{self.which(site).kind} {site.apex}.{site.namespace}"

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """Makes the object with the weights."""
        form, which = self._form, self.which(site)

        def build(present: Object | None) -> Object:
            wanted = weights or self.live(site, present)
            if form.version == V1BETA1:
                return routed_service(form, site, which, present, site.apex, wanted)
            return router(form, site, which, present, wanted)

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """The weights of the first route with a canary in it; raises Problem when there is none."""
        for route in listed(found, "spec", "routes"):
            if is_ours(self._form, site, route):
                targets = listed(route, self._form.route, "action", "weightedTargets")
                shares = {self._form.node_of(each): each.get("weight") for each in targets}
                live = share(shares.get(site.primary_service), shares.get(site.canary_service))
                if live is not None and site.canary_service in shares:
                    return live
        raise Problem(f"{self.shown(site)} does not contain routes for {site.primary_service} and {site.canary_service}")

    async def reconcile(self, site: Site) -> None:
        """See `Router.reconcile`: the nodes first, then what leads to them, and the main service last."""
        for part in self._nodes(site):
            await self._ensure(part)
        if self._form.version == V1BETA1:
            await self._ensure(self._canary_service(site))
        else:
            await self._ensure(self._canary_router(site))
        try:
            await super().reconcile(site)
        except Problem as error:
            raise _said(self.which(site), error) from error
        if self._form.version != V1BETA1:
            for name in (site.apex, site.canary_service):
                await self._ensure(self._service(site, name))

    def _nodes(self, site: Site) -> Sequence[Part]:
        sides = [(site.primary_service, site.primary_value), (site.canary_service, site.value)]
        nodes = [(name, name, pods) for name, pods in sides]
        if self._form.version == V1BETA1:
            nodes.insert(0, (site.apex, site.primary_service, site.primary_value))
        return [self._node(site, *each) for each in nodes]

    def _node(self, site: Site, name: str, host: str, pods: str) -> Part:
        which = self._form.reference(site, NODE, name)
        return Part(which, lambda present: node(self._form, site, which, present, host, pods))

    def _canary_service(self, site: Site) -> Part:
        which = self._form.reference(site, SERVICE, f"{site.canary_service}.{site.namespace}")
        every = Weights.at(TOTAL)
        return Part(which, lambda present: routed_service(self._form, site, which, present, site.canary_service, every))

    def _canary_router(self, site: Site) -> Part:
        which = self._form.reference(site, ROUTER, site.canary_service)
        return Part(which, lambda present: router(self._form, site, which, present, Weights.at(TOTAL)))

    def _service(self, site: Site, name: str) -> Part:
        which = self._form.reference(site, SERVICE, name)
        return Part(which, lambda present: service(site, which, present))

    async def _ensure(self, part: Part) -> None:
        name = part.which.name.removesuffix(f".{part.which.namespace}")
        try:
            await ensure(self._objects, part.which, part.build, shown=f"{part.which.kind} {name}.{part.which.namespace}")
        except Problem as error:
            raise _said(part.which, error) from error


def _said(which: Reference, error: Problem) -> Problem:
    return Problem(f"reconcile{which.kind} failed: {error}")
