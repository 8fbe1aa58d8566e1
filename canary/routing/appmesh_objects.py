"""What App Mesh's controller is told: virtual nodes, routers and services of a Canary, in its two versions. Pure.

Names of fields are those of `appmesh.k8s.aws/v1beta1` and `v1beta2`. Builders change the present object that they are given, and
leave in it what they do not know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from canary.api import AnalysisMatch, plain
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.common import apex_annotations, apex_labels, begun, inside, listed, matches_of, own, placed, service_of
from canary.site import Site
from reconcile.api.duration import parse_duration
from reconcile.ports.cluster import Object, Reference

GROUP = "appmesh.k8s.aws"
V1BETA1, V1BETA2 = "v1beta1", "v1beta2"

ACCESS_LOG = "appmesh.flagger.app/accesslog"
"""Annotation of the Canary: `enabled` makes nodes log requests."""
GATEWAY = "gateway.appmesh.k8s.aws"
"""Prefix of the annotations by which a gateway is told to expose a virtual service."""

RETRY_TIMEOUT = "250ms"
RETRY_EVENTS = "gateway-error"
TCP_RETRY_EVENTS = frozenset({"connection-error"})
FIRST_PRIORITY, LAST_PRIORITY = 10, 20
"""Of the routes of an A/B test: the audience, and everybody else."""


@dataclass(frozen=True, slots=True)
class Form:
    """How one version writes what both can say."""

    version: str

    def reference(self, site: Site, kind: str, name: str) -> Reference:
        """An object of a Canary."""
        return Reference(f"{GROUP}/{self.version}", kind, site.namespace, name)

    @property
    def route(self) -> str:
        """Field of a route that has its HTTP part."""
        return "http" if self.version == V1BETA1 else "httpRoute"

    def target(self, name: str) -> Object:
        """How a weighted target names its node."""
        return {"virtualNodeName": name} if self.version == V1BETA1 else {"virtualNodeRef": {"name": name}}

    def node_of(self, target: Object) -> str:
        """Name of the node of a weighted target; empty when it names none."""
        path = ("virtualNodeName",) if self.version == V1BETA1 else ("virtualNodeRef", "name")
        found: object = target
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str) else ""

    def backend(self, name: str) -> Object:
        """How a node names a virtual service that its pods call."""
        if self.version == V1BETA1:
            return {"virtualService": {"virtualServiceName": name}}
        by_arn = name.startswith("arn:aws")
        return {"virtualService": {"virtualServiceARN": name} if by_arn else {"virtualServiceRef": {"name": name}}}

    def retry_timeout(self, millis: int) -> Object:
        """How long one try may take."""
        if self.version == V1BETA1:
            return {"perRetryTimeoutMillis": millis}
        return {"perRetryTimeout": {"unit": "ms", "value": millis}}


def node(form: Form, site: Site, which: Reference, present: Object | None, service: str, pods: str) -> Object:
    """A virtual node: the pods with the value `pods` of the selector label, behind a Service."""
    found = begun(site, which, present, labels=apex_labels(site), annotations=apex_annotations(site))
    spec = inside(found, "spec")
    if form.version == V1BETA1:
        own(spec, meshName=mesh_of(site))
        own(inside(spec, "serviceDiscovery", "dns"), hostName=f"{service}.{site.namespace}")
    else:
        own(inside(spec, "serviceDiscovery", "dns"), hostname=f"{service}.{site.namespace}.svc.cluster.local.")
        if site.label:
            own(inside(spec, "podSelector"), matchLabels={site.label: pods})
    backends = [form.backend(name) for name in service_of(site).backends or ()]
    own(spec, listeners=[_listener(form, site, spec)], backends=backends or None)
    if site.canary.meta.annotations.get(ACCESS_LOG) == "enabled":
        own(inside(spec, "logging", "accessLog", "file"), path="/dev/stdout")
    return found


def router(form: Form, site: Site, which: Reference, present: Object | None, weights: Weights) -> Object:
    """A virtual router (v1beta2) with the routes of the service of its name."""
    found = begun(site, which, present, labels=apex_labels(site), annotations=_annotations(site))
    spec = inside(found, "spec")
    before = next(iter(listed(spec, "listeners")), {})
    own(spec, listeners=[own(before, portMapping=_port_mapping(form, site))])
    own(spec, routes=routes(form, site, which.name, listed(spec, "routes"), weights))
    return found


def service(site: Site, which: Reference, present: Object | None) -> Object:
    """A virtual service (v1beta2) that the router of its name provides."""
    found = begun(site, which, present, labels=apex_labels(site), annotations=_annotations(site))
    own(inside(found, "spec", "provider", "virtualRouter", "virtualRouterRef"), name=which.name)
    return found


def routed_service(form: Form, site: Site, which: Reference, present: Object | None, name: str, weights: Weights) -> Object:
    """A virtual service (v1beta1) with its router and routes; the main one may be exposed by a gateway.

    Args:
        form: Version.
        site: The Canary.
        which: The virtual service, called `name.namespace`.
        present: As it is now.
        name: The Service that it stands for, S or S-canary.
        weights: Of primary and canary.
    """
    exposed = _gateway(site) if name == site.apex else {}
    found = begun(site, which, present, labels=apex_labels(site), annotations={**_annotations(site), **exposed})
    spec = own(inside(found, "spec"), meshName=mesh_of(site))
    before = next(iter(listed(spec, "virtualRouter", "listeners")), {})
    listeners = [own(before, portMapping=_port_mapping(form, site))]
    own(inside(spec, "virtualRouter"), name=name, listeners=listeners)
    return own(found, spec=own(spec, routes=routes(form, site, name, listed(spec, "routes"), weights)))


def routes(form: Form, site: Site, name: str, live: Sequence[Object], weights: Weights) -> list[Object]:
    """The routes of a service: one, or in an A/B test of the main service one for each audience, and one for everybody else.

    Routes that lead to neither of our nodes are other people's and stay.
    """
    ours = [each for each in live if is_ours(form, site, each)]
    plans: list[tuple[str, int | None, Sequence[Object], Weights | None]] = [(name, None, (), weights)]
    tests = matches_of(site) if name == site.apex else ()
    if tests:
        plans = [
            (f"{name}-a{f'-{place + 1}' if place else ''}", FIRST_PRIORITY + place, _headers(place, test), weights)
            for place, test in enumerate(tests)
        ]
        plans.append((f"{name}-b", max(LAST_PRIORITY, FIRST_PRIORITY + len(tests)), (), None))
    wanted = []
    for place, (called, priority, headers, split) in enumerate(plans):
        before = ours[place] if place < len(ours) else {}
        wanted.append(own(before, name=called, priority=priority))
        http = inside(before, form.route)
        own(inside(http, "match"), prefix=_prefix(site), headers=list(headers) or None)
        own(inside(http, "action"), weightedTargets=_targets(form, site, listed(http, "action", "weightedTargets"), split))
        own(http, retryPolicy=_retries(form, site))
        if form.version == V1BETA2:
            own(http, timeout=_timeout(site))
    return placed(live, wanted, ours=lambda each: is_ours(form, site, each), same=lambda theirs, mine: _same(form, theirs, mine))


def is_ours(form: Form, site: Site, route: Object) -> bool:
    """Whether a route leads to the nodes of the Canary."""
    nodes = {form.node_of(each) for each in listed(route, form.route, "action", "weightedTargets")}
    return bool(nodes & {site.primary_service, site.canary_service})


def mesh_of(site: Site) -> str:
    """Name of the mesh; raises Problem when the Canary names none, which v1beta1 needs."""
    mesh = service_of(site).mesh_name
    if not mesh:
        raise Problem("mesh name cannot be empty")
    return mesh


def _same(form: Form, theirs: Object, mine: Object) -> bool:
    """Whether two routes take the same requests."""
    one, other = (each.get(form.route) for each in (theirs, mine))
    return isinstance(one, dict) and isinstance(other, dict) and one.get("match") == other.get("match")


def _targets(form: Form, site: Site, live: Sequence[Object], weights: Weights | None) -> list[Object]:
    """Canary and primary with their weights; the primary alone when there are none."""
    before = {form.node_of(each): each for each in live}
    shares = [(site.primary_service, (weights or ALL_PRIMARY).primary)]
    if weights is not None:
        shares.insert(0, (site.canary_service, weights.canary))
    return [{**before.get(name, {}), **form.target(name), "weight": weight} for name, weight in shares]


def _headers(place: int, test: AnalysisMatch) -> list[Object]:
    if not test.headers:
        raise Problem(f"analysis.match[{place}] has no headers: nothing else can tell who gets the canary in App Mesh")
    return [{"name": name, "match": plain(match)} for name, match in sorted(test.headers.items())]


def _prefix(site: Site) -> str:
    """The path prefix of the first match of the service that has one."""
    uris = (each.uri for each in service_of(site).match or () if each.uri is not None)
    return next((uri.prefix for uri in uris if uri.prefix), "/")


def _retries(form: Form, site: Site) -> Object | None:
    wanted = service_of(site).retries
    if wanted is None:
        return None
    asked = [event.strip() for event in (wanted.retry_on or RETRY_EVENTS).split(",")]
    events = {
        "httpRetryEvents": [event for event in asked if event and event not in TCP_RETRY_EVENTS],
        "tcpRetryEvents": [event for event in asked if event in TCP_RETRY_EVENTS],
    }
    return {
        **form.retry_timeout(_millis(wanted.per_try_timeout or RETRY_TIMEOUT, "service.retries.perTryTimeout")),
        "maxRetries": wanted.attempts if wanted.attempts and wanted.attempts > 0 else 1,
        **{name: some for name, some in events.items() if some},
    }


def _timeout(site: Site) -> Object | None:
    wanted = service_of(site).timeout
    return {"perRequest": {"unit": "ms", "value": _millis(wanted, "service.timeout")}} if wanted else None


def _millis(text: str, field: str) -> int:
    try:
        return round(parse_duration(text) * 1000)
    except ValueError as error:
        raise Problem(f"{field}: {error}") from error


def _listener(form: Form, site: Site, spec: Object) -> Object:
    """The one listener of a node; what people set in it beside port and timeout stays."""
    mapping = _port_mapping(form, site)
    found = own(next(iter(listed(spec, "listeners")), {}), portMapping=mapping)
    if form.version == V1BETA2:
        timeout = _timeout(site)
        own(found, timeout={mapping["protocol"]: timeout} if timeout else None)
    return found


def _port_mapping(form: Form, site: Site) -> Object:
    wanted = service_of(site)
    by_number = form.version == V1BETA2 and isinstance(wanted.target_port, int)
    return {
        "port": wanted.target_port if by_number else wanted.port,
        "protocol": "grpc" if "grpc" in (wanted.port_name or "") else "http",
    }


def _annotations(site: Site) -> dict[str, str]:
    """Annotations of routers and services, which Flux may go on to look at."""
    apex = service_of(site).apex
    return dict((apex.annotations if apex is not None else None) or {})


def _gateway(site: Site) -> dict[str, str]:
    """What a gateway is told of the main service, if it has hosts."""
    wanted = service_of(site)
    if not wanted.hosts:
        return {}
    told = {"expose": "true", "domain": "".join(f"{host}," for host in wanted.hosts)}
    if wanted.timeout:
        told["timeout"] = wanted.timeout
    if wanted.retries is not None and wanted.retries.attempts:
        told["retries"] = str(wanted.retries.attempts)
    return {f"{GATEWAY}/{name}": value for name, value in told.items()}
