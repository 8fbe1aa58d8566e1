"""Traffic through Gloo Edge: a RouteTable to two Upstreams. Follows Flagger's gloo provider and Gloo's kinds.

A weight of 0 is left out, as Flagger does; Gloo takes an absent weight for 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy

from canary.api import HeaderMatch, StringMatch
from canary.ensure import Build, ensure
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.common import (
    apex_annotations,
    apex_labels,
    begun,
    inside,
    listed,
    look,
    matches_of,
    named,
    no_routes,
    own,
    placed,
    service_of,
    share,
)
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference

ROUTES = "gateway.solo.io/v1"
UPSTREAMS = "gloo.solo.io/v1"
COPIED = (
    "sslConfig",
    "circuitBreakers",
    "connectionConfig",
    "loadBalancerConfig",
    "useHttp2",
    "initialStreamWindowSize",
    "initialConnectionWindowSize",
    "httpProxyHostName",
)
"""What new Upstreams take over from `upstreamRef`."""
FOLLOWED = "loadBalancerConfig"
"""What existing ones take over, too."""


class GlooRouter(SingleObjectRouter):
    """One route with both Upstreams as destinations. Other routes of the same RouteTable stay."""

    def which(self, site: Site) -> Reference:
        """See `SingleObjectRouter.which`."""
        return Reference(ROUTES, "RouteTable", site.namespace, site.apex)

    async def reconcile(self, site: Site) -> None:
        """See `Router.reconcile`; the Upstreams first."""
        template = await self._template(site)
        for side, value in (("primary", site.primary_value), ("canary", site.value)):
            which = Reference(UPSTREAMS, "Upstream", site.namespace, _upstream(site, side))
            service = site.primary_service if side == "primary" else site.canary_service
            kube = {
                "serviceName": service,
                "serviceNamespace": site.namespace,
                "servicePort": service_of(site).port,
                "selector": {site.label: value} if site.label else None,
            }
            await ensure(self._objects, which, _upstream_builder(site, which, kube, template), shown=named(which))
        await super().reconcile(site)

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """See `SingleObjectRouter.builder`."""
        labels, annotations = apex_labels(site), apex_annotations(site)
        matchers = _matchers(site)

        def build(present: Object | None) -> Object:
            split = weights if weights is not None else self.live(site, present)
            wanted = begun(site, self.which(site), present, labels=labels, annotations=annotations)
            routes = listed(wanted, "spec", "routes")
            mine = next((route for route in routes if _is_ours(site, route)), {})
            route = own(deepcopy(mine), inheritablePathMatchers=True, matchers=matchers or None)
            own(inside(route, "routeAction", "multi"), destinations=_destinations(site, mine, split))
            own(inside(wanted, "spec"), routes=placed(routes, [route], ours=lambda each: _is_ours(site, each), same=_same))
            return wanted

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """See `SingleObjectRouter.parse`."""
        for route in listed(found, "spec", "routes"):
            if _is_ours(site, route):
                primary, canary = _sides(site, route)
                live = share(primary.get("weight"), canary.get("weight"))
                if live is not None:
                    return live
        raise no_routes(site, self.which(site))

    def live(self, site: Site, present: Object | None) -> Weights:
        """See `SingleObjectRouter.live`. Weights of an A/B test are not for everybody, and those for everybody not for a test."""
        mine = next((route for route in listed(present or {}, "spec", "routes") if _is_ours(site, route)), {})
        return super().live(site, present) if bool(mine.get("matchers")) == bool(matches_of(site)) else ALL_PRIMARY

    async def revert(self, site: Site) -> None:
        """Nothing was taken over; RouteTable and Upstreams go with the Canary, which owns them."""

    async def _template(self, site: Site) -> Object:
        """The Upstream whose settings are copied; an empty object when the Canary names none."""
        ref = site.spec.upstream_ref
        if ref is None:
            return {}
        return await look(self._objects, Reference(UPSTREAMS, "Upstream", ref.namespace or site.namespace, ref.name))


def _upstream(site: Site, side: str) -> str:
    return f"{_family(site, side)}{service_of(site).port}"


def _family(site: Site, side: str) -> str:
    """What the name of an Upstream of ours begins with; its port follows."""
    return f"{site.namespace}-{site.apex}-{side}upstream-"


def _upstream_builder(site: Site, which: Reference, kube: Mapping[str, object], template: Object) -> Build:
    given = template.get("spec") or {}

    def build(present: Object | None) -> Object:
        names = COPIED if present is None else (FOLLOWED,)
        labels = (template.get("metadata") or {}).get("labels") if present is None else None
        wanted = begun(site, which, present, labels=labels)
        own(inside(wanted, "spec"), **deepcopy({name: given[name] for name in names if name in given}))
        own(inside(wanted, "spec", "kube"), **kube)
        return wanted

    return build


def _side(found: Object) -> str:
    upstream = (found.get("destination") or {}).get("upstream") or {}
    return str(upstream.get("name") or "")


def _sides(site: Site, route: Object) -> tuple[Object, Object]:
    """The destinations of primary and canary, whatever port they had; empty objects for those that a route has not."""
    found = listed(route, "routeAction", "multi", "destinations")

    def of(side: str) -> Object:
        pattern = re.compile(re.escape(_family(site, side)) + r"[0-9]+")
        return next((each for each in found if pattern.fullmatch(_side(each))), {})

    return of("primary"), of("canary")


def _is_ours(site: Site, route: Object) -> bool:
    return all(_sides(site, route))


def _same(one: Object, other: Object) -> bool:
    return (one.get("matchers") or []) == (other.get("matchers") or [])


def _destinations(site: Site, route: Object, weights: Weights) -> list[Object]:
    """Primary and canary with their weights; what people set on the two stays."""
    destinations = []
    for side, live, weight in zip(("primary", "canary"), _sides(site, route), (weights.primary, weights.canary), strict=True):
        found = deepcopy(live)
        own(inside(found, "destination"), upstream={"name": _upstream(site, side), "namespace": site.namespace})
        destinations.append(own(found, weight=weight or None))
    return destinations


def _matchers(site: Site) -> list[Object]:
    """Who gets the canary, in one matcher: as with Flagger, all that `analysis.match` says must hold.

    Raises:
        Problem: It says nothing that can be told from a request: everybody would get the canary.
    """
    matches = matches_of(site)
    headers = [_matcher(name, value) for each in matches for name, value in (each.headers or {}).items()]
    params = [_matcher(name, value) for each in matches for name, value in (each.query_params or {}).items()]
    if matches and not headers and not params:
        raise Problem("analysis.match has neither headers nor queryParams, which is what gloo can go by")
    return [own({}, headers=headers or None, queryParameters=params or None)] if matches else []


def _matcher(name: str, match: HeaderMatch | StringMatch) -> Object:
    """How a value is matched: by a text, or by a regular expression for the whole value; any value when nothing is said."""
    suffix = match.suffix if isinstance(match, HeaderMatch) else None
    if match.exact is not None:
        return {"name": name, "value": match.exact}
    if match.regex is not None:
        return {"name": name, "value": match.regex, "regex": True}
    if match.prefix is not None:
        return {"name": name, "value": f"{re.escape(match.prefix)}.*", "regex": True}
    if suffix is not None:
        return {"name": name, "value": f".*{re.escape(suffix)}", "regex": True}
    return {"name": name}
