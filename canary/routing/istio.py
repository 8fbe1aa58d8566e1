"""Istio: a VirtualService (networking.istio.io/v1beta1) that splits traffic between two hosts, and a DestinationRule for each.

Follows Flagger's objects to the field. Of the VirtualService's spec `hosts`, `gateways`, `http` and `tcp` are ours; everything
else (`exportTo`, `tls`, ..) stays as people have it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from canary.api import CanaryService, SessionAffinity, plain
from canary.ensure import ensure
from canary.errors import Problem
from canary.plan import interval_of
from canary.routing import cookies as ck
from canary.routing.base import TOTAL, Affinity, Weights
from canary.routing.common import service_of, share
from canary.routing.matches import audience, joined, service_matches
from canary.routing.route import Live, RouteRouter
from canary.site import Site
from reconcile.api.jsondata import duplicate
from reconcile.ports.cluster import Object, Reference

API = "networking.istio.io/v1beta1"
MESH = "mesh"
"""The gateway that stands for all sidecars."""

_SETTINGS = ("rewrite", "timeout", "retries", "corsPolicy", "headers")
"""Settings of a rule that `spec.service` has under the same names."""

Rule = dict[str, Any]


class IstioRouter(RouteRouter):
    """Routes through Istio, which can do all that a Canary can ask for."""

    def reference(self, site: Site) -> Reference:
        """The VirtualService."""
        return Reference(API, "VirtualService", site.namespace, site.apex)

    def read(self, site: Site, spec: Mapping[str, Any]) -> Live:
        """See `read`."""
        return read(site, spec)

    def fields(self, site: Site, weights: Weights, cookies: Affinity) -> dict[str, Any]:
        """See `fields`."""
        return fields(site, weights, cookies)

    def affinity(self, site: Site) -> SessionAffinity | None:
        """Session affinity, if it is in force: there are no cookies in TCP."""
        return None if is_tcp(service_of(site)) else super().affinity(site)

    async def reconcile(self, site: Site) -> None:
        """Put right the DestinationRules, then the VirtualService that sends traffic by them."""
        for host in (site.canary_service, site.primary_service):
            await _step("reconcileDestinationRule", self._ensure_destination(site, host))
        await _step("reconcileVirtualService", self.ensure_route(site))

    async def _ensure_destination(self, site: Site, host: str) -> None:
        which = Reference(API, "DestinationRule", site.namespace, host)
        await ensure(
            self._objects,
            which,
            lambda found: destination_rule(site, which, found),
            shown=f"DestinationRule {host}.{site.namespace}",
        )


async def _step(name: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Problem as problem:
        raise Problem(f"{name} failed: {problem}", retriable=problem.retriable) from problem


def destination_rule(site: Site, which: Reference, present: Object | None) -> Object:
    """The DestinationRule of a host: how connections to it are made. `present` is changed; its metadata and subsets stay."""
    policy = service_of(site).traffic_policy
    ours = {"host": which.name, "trafficPolicy": plain(policy) if policy is not None else None}
    spec = {**((present or {}).get("spec") or {}), **ours}
    spec = {name: value for name, value in spec.items() if name not in ours or value}
    if present is not None:
        present["spec"] = spec
        return present
    meta = {"name": which.name, "namespace": which.namespace, "ownerReferences": [site.owner]}
    return {"apiVersion": which.api_version, "kind": which.kind, "metadata": meta, "spec": spec}


def is_tcp(service: CanaryService) -> bool:
    """Whether the port carries plain TCP."""
    return (service.app_protocol or "").lower() == "tcp"


def fields(site: Site, weights: Weights, cookies: Affinity) -> dict[str, Any]:
    """The fields of the VirtualService's spec that are ours, None for those that are to be absent.

    Raises:
        Problem: Hosts or gateways together with delegation; an A/B test for everybody.
    """
    service = service_of(site)
    if service.delegation and (service.hosts or service.gateways):
        raise Problem(f"VirtualService {site.apex}.{site.namespace} cannot have hosts and gateways when delegation enabled")
    hosts = list(service.hosts or ())
    if not {site.apex, "*"} & set(hosts):
        hosts.append(site.apex)
    tcp = is_tcp(service)
    return {
        "hosts": [] if service.delegation else hosts,
        "gateways": None if service.delegation else list(service.gateways or (MESH,)),
        "http": None if tcp else http_rules(site, service, weights, cookies),
        "tcp": [_tcp_rule(site, service, weights)] if tcp else None,
    }


def http_rules(site: Site, service: CanaryService, weights: Weights, cookies: Affinity) -> list[Rule]:
    """The HTTP rules: one, two with an A/B test, two or three with session affinity."""
    analysis = site.spec.analysis
    given = service_matches(service)
    settings = {name: value for name, value in plain(service).items() if name in _SETTINGS}
    if "rewrite" in settings:
        settings["rewrite"] = {name: value for name, value in settings["rewrite"].items() if name != "type"}
    settings = {name: value for name, value in settings.items() if value}
    split = _rule(given, settings, _destinations(site, service, weights))
    if weights.mirrored:
        split["mirror"] = {"host": site.canary_service}
        if (analysis.mirror_weight or 0) > 0:
            split["mirrorPercentage"] = {"value": analysis.mirror_weight}
    if analysis.match:
        for_all = _rule(given, settings, _destinations(site, service, weights)[:1])
        return [{**split, "match": joined(given, [_without_suffixes(each) for each in audience(analysis)])}, for_all]
    wanted = analysis.session_affinity
    if wanted is None:
        return [split]
    if weights.canary == 0:
        return _forgetting(split, given, cookies, wanted)
    return _sticky(site, service, _rule(given, settings, []), split, cookies, wanted)


def read(site: Site, spec: Mapping[str, Any]) -> Live:
    """What the spec of a VirtualService says: the last rule with the canary's host has the weights."""
    rules = spec.get("tcp" if is_tcp(service_of(site)) else "http") or ()
    split = next((rule for rule in reversed(rules) if _weight(rule, site.canary_service) is not None), None)
    if split is None:
        return Live()
    weights = share(_weight(split, site.primary_service), _weight(split, site.canary_service))
    mirrored = (split.get("mirror") or {}).get("host") == site.canary_service
    return Live(
        weights=replace(weights, mirrored=mirrored) if weights is not None else None,
        cookies=_cookies(site, rules, split),
        matched=any(_hosts(rule) == [site.primary_service] for rule in rules),
    )


def _rule(matches: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], route: Sequence[Rule]) -> Rule:
    return duplicate({**({"match": list(matches)} if matches else {}), **settings, "route": list(route)})


def _destinations(site: Site, service: CanaryService, weights: Weights) -> list[Rule]:
    """Both destinations, the primary first."""
    beyond_mesh = service.delegation or (service.gateways or [MESH])[0] != MESH
    port = {"port": {"number": service.port}} if service.port_discovery and beyond_mesh else {}
    shares = ((site.primary_service, weights.primary), (site.canary_service, weights.canary))
    return [{"destination": {"host": host, **port}, "weight": weight} for host, weight in shares]


def _tcp_rule(site: Site, service: CanaryService, weights: Weights) -> Rule:
    if weights.mirrored or site.spec.analysis.match:
        what = "mirrored" if weights.mirrored else "matched"
        raise Problem(f"VirtualService {site.apex}.{site.namespace} routes TCP (service.appProtocol), which cannot be {what}")
    ports = [{"port": match.port} for match in service.match or () if match.port]
    return _rule(ports, {}, _destinations(site, service, weights))


def _without_suffixes(match: Mapping[str, Any]) -> dict[str, Any]:
    """A match in Istio's words, which have no suffix."""
    if not match.get("headers"):
        return dict(match)
    headers = {
        name: {"regex": f".*{ck.quoted(how['suffix'])}"} if "suffix" in how else how for name, how in match["headers"].items()
    }
    return {**match, "headers": headers}


def _sticky(
    site: Site, service: CanaryService, base: Rule, split: Rule, cookies: Affinity, wanted: SessionAffinity
) -> list[Rule]:
    """Rules of a run: clients with a cookie go where it says, the others by weight, and get one."""
    if not cookies.session:
        return [split]
    given = base.get("match") or []

    def bound(cookie: str, weights: Weights) -> Rule:
        return {**base, "match": _with_cookie(given, cookie), "route": _destinations(site, service, weights)}

    rules, headers = [bound(cookies.session, Weights.at(TOTAL))], [ck.session_header(cookies.session, wanted)]
    if wanted.primary_cookie_name and cookies.primary:
        rules.append(bound(cookies.primary, Weights.at(0)))
        headers.insert(0, ck.primary_header(cookies.primary, wanted, interval_of(site.spec.analysis)))
    for destination, header in zip(reversed(split["route"]), reversed(headers), strict=False):
        destination["headers"] = {"response": {"add": {ck.HEADER: header}}}
    return [*rules, split]


def _forgetting(split: Rule, given: Sequence[Mapping[str, Any]], cookies: Affinity, wanted: SessionAffinity) -> list[Rule]:
    """Rules between runs: the cookie of the last one is deleted where it still comes in."""
    if not cookies.previous:
        return [split]
    rule = duplicate({**split, "match": _with_cookie(given, cookies.previous)})
    added = rule.setdefault("headers", {}).setdefault("response", {}).setdefault("add", {})
    added[ck.HEADER] = ck.deletion_header(cookies.previous, wanted)
    return [rule, split]


def _with_cookie(given: Sequence[Mapping[str, Any]], cookie: str) -> list[Rule]:
    """The matches, for requests with a cookie."""
    has = {"Cookie": {"regex": ck.pattern(cookie)}}
    return [{**match, "headers": {**(match.get("headers") or {}), **has}} for match in given or ({},)]


def _hosts(rule: Mapping[str, Any]) -> list[str]:
    return [(entry.get("destination") or {}).get("host", "") for entry in rule.get("route") or ()]


def _weight(rule: Mapping[str, Any], host: str) -> int | None:
    """The weight of a host in a rule; None when the rule does not have it."""
    shares = [entry.get("weight") or 0 for entry, its in zip(rule.get("route") or (), _hosts(rule), strict=True) if its == host]
    return sum(shares) if shares else None


def _cookies(site: Site, rules: Sequence[Mapping[str, Any]], split: Mapping[str, Any]) -> Affinity:
    """The cookies that rules set and delete."""
    sets = {host: _set_cookie(entry) for host, entry in zip(_hosts(split), split.get("route") or (), strict=True)}
    deleted = next((header for rule in rules if ck.deletes(header := _set_cookie(rule))), "")
    return Affinity(
        ck.cookie_of(sets.get(site.canary_service, "")), ck.cookie_of(deleted), ck.cookie_of(sets.get(site.primary_service, ""))
    )


def _set_cookie(part: Mapping[str, Any]) -> str:
    """The `Set-Cookie` header that a rule or a destination adds to responses."""
    found = (((part.get("headers") or {}).get("response") or {}).get("add") or {}).get(ck.HEADER, "")
    return found if isinstance(found, str) else ""
