"""Traffic through Contour: an HTTPProxy that a root proxy includes. Follows Flagger's contour provider and Contour's HTTPProxy.

A weight of 0 is left out, as Flagger does; Contour takes an absent weight for 0.
"""

from __future__ import annotations

from copy import deepcopy

from canary.api import AnalysisMatch, HeaderMatch, StringMatch
from canary.ensure import Build
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.common import (
    apex_annotations,
    apex_labels,
    begun,
    inside,
    listed,
    matches_of,
    no_routes,
    own,
    placed,
    service_of,
    share,
)
from canary.routing.single import SingleObjectRouter
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

API_VERSION = "projectcontour.io/v1"
KIND = "HTTPProxy"
IDLE = "5m"
"""Time-out of an idle request where requests have a time-out."""
LINKERD = "l5d-dst-override"
"""Header that tells Linkerd, should the ingress be meshed, which service a request is meant for."""


class ContourRouter(SingleObjectRouter):
    """One route with both services; in an A/B test one for each match, and one that leads to the primary alone.

    Routes that lead to both services are ours. Others in the same HTTPProxy stay.
    """

    def __init__(self, objects: Objects, settings: CanarySettings) -> None:
        super().__init__(objects)
        self._ingress_class = settings.ingress_class

    def which(self, site: Site) -> Reference:
        """See `SingleObjectRouter.which`."""
        return Reference(API_VERSION, KIND, site.namespace, site.apex)

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """See `SingleObjectRouter.builder`."""
        labels, annotations = apex_labels(site), apex_annotations(site)
        requests = _requests(site)

        def build(present: Object | None) -> Object:
            split = weights if weights is not None else self.live(site, present)
            wanted = begun(site, self.which(site), present, labels=labels, annotations=annotations)
            found = listed(wanted, "spec", "routes")
            mine = [route for route in found if _ours(site, route)] or [{}]
            routes = []
            for index, conditions in enumerate(requests):
                route = deepcopy(mine[min(index, len(mine) - 1)])
                last = len(requests) > 1 and index == len(requests) - 1
                routes.append(_route(site, route, conditions, ALL_PRIMARY if last else split))
            spec = inside(wanted, "spec")
            own(spec, routes=placed(found, routes, ours=lambda route: _ours(site, route), same=_same))
            if self._ingress_class:
                own(spec, ingressClassName=self._ingress_class)
            return wanted

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """See `SingleObjectRouter.parse`."""
        for route in listed(found, "spec", "routes"):
            if _ours(site, route):
                weights = {each.get("name"): each.get("weight") for each in listed(route, "services")}
                live = share(weights[site.primary_service], weights[site.canary_service])
                if live is not None:
                    return live
        raise no_routes(site, self.which(site))

    def live(self, site: Site, present: Object | None) -> Weights:
        """See `SingleObjectRouter.live`. Weights of an A/B test are not for everybody, and those for everybody not for a test."""
        tested = sum(_ours(site, route) for route in listed(present or {}, "spec", "routes")) > 1
        return super().live(site, present) if tested == bool(matches_of(site)) else ALL_PRIMARY

    async def revert(self, site: Site) -> None:
        """Nothing was taken over; the HTTPProxy goes with the Canary, which owns it."""


def _ours(site: Site, route: Object) -> bool:
    return {site.primary_service, site.canary_service} <= {each.get("name") for each in listed(route, "services")}


def _same(one: Object, other: Object) -> bool:
    everything = [{"prefix": "/"}]
    return (one.get("conditions") or everything) == (other.get("conditions") or everything)


def _requests(site: Site) -> list[list[Object]]:
    """The conditions of each route: those of an A/B test first, then the prefix alone.

    Raises:
        Problem: `analysis.match` has nothing that can be told from a request: everybody would get the canary.
    """
    first = next(iter(service_of(site).match or ()), None)
    prefix = (first.uri.prefix if first is not None and first.uri is not None else None) or "/"
    found: list[list[Object]] = []
    for match in matches_of(site):
        conditions = _conditions(match)
        # At most one condition of a route may have a prefix: Contour takes a route with more of them for invalid.
        if conditions and (conditions := [conditions[0] | {"prefix": prefix}, *conditions[1:]]) not in found:
            found.append(conditions)
    if matches_of(site) and not found:
        raise Problem("analysis.match has neither headers nor queryParams, which is what contour can go by")
    return [*found, [{"prefix": prefix}]]


def _conditions(match: AnalysisMatch) -> list[Object]:
    headers = [{"header": {"name": name, **_header(value)}} for name, value in (match.headers or {}).items()]
    return headers + [{"queryParameter": {"name": name, **_query(value)}} for name, value in (match.query_params or {}).items()]


def _header(match: HeaderMatch) -> dict[str, str]:
    if match.exact is not None:
        return {"exact": match.exact}
    if match.regex is not None:
        return {"regex": match.regex}
    return {"contains": (match.suffix if match.suffix is not None else match.prefix) or ""}


def _query(match: StringMatch) -> dict[str, str | bool]:
    for name, value in (("exact", match.exact), ("prefix", match.prefix), ("regex", match.regex)):
        if value is not None:
            return {name: value}
    return {"present": True}


def _route(site: Site, route: Object, conditions: list[Object], weights: Weights) -> Object:
    """A route with these conditions and weights, and the limits of `spec.service`; what else people set on it stays."""
    service = service_of(site)
    retries = service.retries
    _limit(route, "timeoutPolicy", response=service.timeout, idle=IDLE if service.timeout else None)
    _limit(
        route,
        "retryPolicy",
        # What the schema fills in, said aloud: what is left out would come back.
        count=(retries.attempts or 1) if retries is not None else None,
        perTryTimeout=retries.per_try_timeout or None if retries is not None else None,
        retryOn=[reason.strip() for reason in retries.retry_on.split(",")] if retries is not None and retries.retry_on else None,
    )
    live = {each.get("name"): each for each in listed(route, "services")}
    copies = [each for each in live.values() if each.get("mirror")]
    sides = ((site.primary_service, weights.primary), (site.canary_service, weights.canary))
    services = [_service(site, live.get(name, {}), name, weight) for name, weight in sides]
    return own(route, conditions=conditions, services=[*services, *copies])


def _limit(route: Object, policy: str, **fields: object) -> None:
    if any(value is not None for value in fields.values()) or policy in route:
        own(inside(route, policy), **fields)
        own(route, **{policy: route[policy] or None})


def _service(site: Site, found: Object, name: str, weight: int) -> Object:
    port = service_of(site).port
    headers = [each for each in listed(found, "requestHeadersPolicy", "set") if each.get("name") != LINKERD]
    headers.append({"name": LINKERD, "value": f"{name}.{site.namespace}.svc.cluster.local:{port}"})
    own(inside(found, "requestHeadersPolicy"), set=headers)
    return own(found, name=name, port=port, weight=weight or None)
