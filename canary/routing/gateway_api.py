"""Gateway API: an HTTPRoute (gateway.networking.k8s.io, v1 or v1beta1) that splits traffic between two Services.

Follows Flagger's object to the field. Of the spec `parentRefs`, `hostnames` and `rules` are ours; defaults that the API server
fills in count as said. With v1 weights are live only when all gateways that report on the route have accepted it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from canary.api import SessionAffinity, plain
from canary.errors import Problem
from canary.plan import interval_of
from canary.routing import cookies as ck
from canary.routing import gateway_rules as gw
from canary.routing.base import TOTAL, Affinity, Weights
from canary.routing.common import named, service_of, share
from canary.routing.cookies import Rand
from canary.routing.matches import audience, joined, service_matches
from canary.routing.route import Live, RouteRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

GROUP = "gateway.networking.k8s.io"
NO_PARENTS = "GatewayRefs must be specified when using Gateway API as a provider."
V1 = "v1"

Rule = dict[str, Any]


class GatewayApiRouter(RouteRouter):
    """Routes through whatever implements the Gateway API. Version v1beta1 has no timeouts, no CORS and no look at acceptance."""

    unread = "get error:"
    annotations_stay = True

    def __init__(self, objects: Objects, rand: Rand, *, version: str = V1) -> None:
        super().__init__(objects, rand)
        self._version = version

    def reference(self, site: Site) -> Reference:
        """The HTTPRoute."""
        return Reference(f"{GROUP}/{self._version}", "HTTPRoute", site.namespace, site.apex)

    def read(self, site: Site, spec: Mapping[str, Any]) -> Live:
        """See `read`."""
        return read(site, spec)

    def fields(self, site: Site, weights: Weights, cookies: Affinity) -> dict[str, Any]:
        """See `fields`."""
        return fields(site, weights, cookies, recent=self._version == V1)

    def canonical(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """`fields` with the defaults of the schema."""
        return gw.defaulted(fields)

    async def present(self, site: Site) -> Object:
        """The HTTPRoute; with v1 raises Problem while a gateway has not accepted it as it is now."""
        found = await super().present(site)
        problem = unaccepted(found) if self._version == V1 else ""
        if problem:
            raise Problem(f"{named(self.reference(site))} {problem}")
        return found


def fields(site: Site, weights: Weights, cookies: Affinity, *, recent: bool = True) -> dict[str, Any]:
    """The fields of the HTTPRoute's spec that are ours, None for those that are to be absent.

    Args:
        site: Whose route it is.
        weights: The shares.
        cookies: Those of session affinity.
        recent: Whether the version of the API knows timeouts and CORS.

    Raises:
        Problem: No gatewayRefs; requests are to be matched in a way that the Gateway API has no words for.
    """
    service, analysis = service_of(site), site.spec.analysis
    if not service.gateway_refs:
        raise Problem(NO_PARENTS)
    common: dict[str, Any] = {"filters": gw.filters(service, cors=recent)}
    if recent:
        limits = {"request": service.timeout, "backendRequest": service.backend_timeout}
        common["timeouts"] = {name: limit for name, limit in limits.items() if limit}
    common = {name: value for name, value in common.items() if value}
    given = [gw.matched(each, f"service.match[{place}]") for place, each in enumerate(service_matches(service))]
    return {
        "parentRefs": [plain(each) for each in service.gateway_refs],
        "hostnames": list(service.hosts) if service.hosts else None,
        "rules": _ab_rules(site, weights, common, given) if analysis.match else _rules(site, weights, cookies, common, given),
    }


def read(site: Site, spec: Mapping[str, Any]) -> Live:
    """What the spec of an HTTPRoute says: the last rule with the canary's Service has the weights."""
    rules = spec.get("rules") or ()
    split = next((rule for rule in reversed(rules) if site.canary_service in _names(rule)), None)
    if split is None:
        return Live()
    backends = {each.get("name", ""): each for each in split.get("backendRefs") or ()}
    primary, canary = backends.get(site.primary_service, {}), backends[site.canary_service]
    weights = share(primary.get("weight", 1) if primary else 0, canary.get("weight", 1))
    lasting = [gw.mirror(plain(each.backend_ref)) for each in service_of(site).mirror or ()]
    mirrored = _mirrors(site, split.get("filters") or ()) > _mirrors(site, lasting)
    deleted = next((header for rule in rules if ck.deletes(header := gw.set_cookie(rule))), "")
    return Live(
        weights=Weights(weights.primary, weights.canary, mirrored) if weights is not None else None,
        cookies=Affinity(*(ck.cookie_of(each) for each in (gw.set_cookie(canary), deleted, gw.set_cookie(primary)))),
        matched=any(_names(rule) == [site.primary_service] for rule in rules),
    )


def unaccepted(route: Object) -> str:
    """Which gateway has not accepted a route as it is now, in Flagger's words; empty when all have that report on it."""
    meta = route["metadata"]
    generation, namespace = meta.get("generation", 0), meta.get("namespace", "")
    attached = [_parent(each, namespace) for each in (route.get("spec") or {}).get("parentRefs") or ()]
    for reported in (route.get("status") or {}).get("parents") or ():
        which = reported.get("parentRef") or {}
        if _parent(which, namespace) not in attached:
            continue
        conditions = reported.get("conditions") or ()
        accepted: Mapping[str, Any] = next((each for each in conditions if each.get("type") == "Accepted"), {})
        status, observed = accepted.get("status", "Unknown"), accepted.get("observedGeneration", 0)
        if status != "True" or observed < generation:
            seen = f"(status: {status}, observed generation: {observed}, current generation: {generation})"
            return f"parent {which.get('name')} is not ready {seen}"
    return ""


def _parent(reference: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    return {"namespace": namespace, **gw.defaulted({"parentRefs": [reference]})["parentRefs"][0]}


def _names(rule: Mapping[str, Any]) -> list[str]:
    return [each.get("name", "") for each in rule.get("backendRefs") or ()]


def _mirrors(site: Site, filters: Sequence[Mapping[str, Any]]) -> int:
    """How many filters send copies to the canary."""
    backends = ((each.get("requestMirror") or {}).get("backendRef") or {} for each in filters)
    return sum(each.get("name") == site.canary_service for each in backends)


def _backend(site: Site, name: str) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": name, "port": service_of(site).port}


def _backends(site: Site, weights: Weights) -> list[Rule]:
    """Both backends, the primary first."""
    shares = ((site.primary_service, weights.primary), (site.canary_service, weights.canary))
    return [{**_backend(site, name), "weight": weight} for name, weight in shares]


def _rule(matches: Sequence[Rule], common: Mapping[str, Any], backends: Sequence[Rule]) -> Rule:
    return deepcopy({"matches": list(matches) or [gw.EVERYTHING], **common, "backendRefs": list(backends)})


def _split(site: Site, weights: Weights, common: Mapping[str, Any], matches: Sequence[Rule]) -> Rule:
    """The rule that has the weights, and mirrors if they say so."""
    rule = _rule(matches, common, _backends(site, weights))
    if weights.mirrored:
        rule["filters"] = [*rule.get("filters", ()), gw.mirror(_backend(site, site.canary_service))]
    return rule


def _ab_rules(site: Site, weights: Weights, common: Mapping[str, Any], given: Sequence[Rule]) -> list[Rule]:
    """Rules of an A/B test: its audience by weight, everybody else to the primary."""
    tests = [gw.audience_matched(each, f"analysis.match[{place}]") for place, each in enumerate(audience(site.spec.analysis))]
    matches = joined(given or [gw.EVERYTHING], tests)
    return [_split(site, weights, common, matches), _rule(given, common, _backends(site, Weights.at(0))[:1])]


def _rules(site: Site, weights: Weights, cookies: Affinity, common: Mapping[str, Any], given: Sequence[Rule]) -> list[Rule]:
    """Rules without a test: by weight, and with session affinity by cookie before that."""
    split, wanted = _split(site, weights, common, given), site.spec.analysis.session_affinity
    if wanted is None:
        return [split]
    if weights.canary > 0:
        return _sticky(site, cookies, common, given, split, wanted) if cookies.session else [split]
    if not cookies.previous:
        return [split]
    rule = {**deepcopy(split), "matches": gw.with_cookie(given, ck.pattern(cookies.previous))}
    rule["filters"] = gw.with_set_cookie(rule.get("filters", ()), ck.deletion_header(cookies.previous, wanted))
    return [rule, split]


def _sticky(
    site: Site, cookies: Affinity, common: Mapping[str, Any], given: Sequence[Rule], split: Rule, wanted: SessionAffinity
) -> list[Rule]:
    """Rules of a run: clients with a cookie go where it says, the others by weight, and get one."""

    def bound(cookie: str, weights: Weights) -> Rule:
        return _rule(gw.with_cookie(given, ck.pattern(cookie)), common, _backends(site, weights))

    primary, canary = split["backendRefs"]
    rules = [bound(cookies.session, Weights.at(TOTAL))]
    canary["filters"] = [gw.setting_cookie(ck.session_header(cookies.session, wanted))]
    if wanted.primary_cookie_name and cookies.primary:
        rules.append(bound(cookies.primary, Weights.at(0)))
        header = ck.primary_header(cookies.primary, wanted, interval_of(site.spec.analysis))
        primary["filters"] = [gw.setting_cookie(header)]
    return [*rules, split]
