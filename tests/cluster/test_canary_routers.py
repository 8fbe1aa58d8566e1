"""Every router on a real API server: what it writes is accepted, all of it is kept, and doing it again writes nothing.

The kinds have the schemas that their projects publish, where there is one (`tests/facts/schemas/routers`). A field that a schema
does not know would be dropped by the server, and the next reconcile would write it again. Knative is left out: its weights are
what its own controller says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from canary.api import CANARY
from canary.routing import make_router
from canary.routing.base import ALL_PRIMARY, Router, Weights
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.crd import definition
from reconcile.kube.client import Client
from reconcile.kube.objects import KubeObjects
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Object, Reference
from tests.support.controlplane import Cluster
from tests.support.kube import open_client
from tests.support.router_cases import INGRESS_REF, INSIDER, ab, ingress, site_of
from tests.support.router_crds import install

pytestmark = pytest.mark.slow

TEAM = {"apex": {"labels": {"team": "blue"}, "annotations": {"example.org/note": "x"}}}
LIMITS = {"timeout": "15s", "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,connect-failure"}}
HEADERS = {
    "headers": {"request": {"add": {"x-b": "2"}, "set": {"x-c": "3"}, "remove": ["x-d"]}, "response": {"add": {"x-r": "1"}}}
}
CORS = {
    "corsPolicy": {"allowOrigin": ["https://example.org"], "allowMethods": ["GET"], "maxAge": "24h", "allowCredentials": True}
}
REWRITE = {"match": [{"uri": {"prefix": "/api"}}], "rewrite": {"uri": "/", "authority": "inner.example.org"}}
GATEWAY: dict[str, Any] = {"gatewayRefs": [{"name": "gw", "namespace": "infra"}], "hosts": ["web.example.org"]}
COOKIE = {"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}}
SUFFIX = {"headers": {"cookie": {"suffix": "test"}}}
EVERYTHING = {**TEAM, **LIMITS, **HEADERS, **CORS, **REWRITE}
POLICY = {"trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}, "outlierDetection": {"consecutive5xxErrors": 3, "interval": "1s"}}}
ROUTE_REF = {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "web"}
UPSTREAM_REF = {"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "template"}


@dataclass(frozen=True, slots=True)
class Case:
    """A Canary.

    Attributes:
        weight: What is asked for in the middle; an A/B test of nginx is on or off.
    """

    provider: str
    service: Mapping[str, Any] = field(default_factory=dict)
    analysis: Mapping[str, Any] = field(default_factory=lambda: {"stepWeight": 30})
    spec: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 30


CASES = {
    "istio": Case("istio"),
    "istio with everything": Case("istio", {**EVERYTHING, **POLICY, "gateways": ["infra/gw"], "hosts": ["a.example.org"]}),
    "istio A/B": Case("istio", EVERYTHING, ab(INSIDER, COOKIE)),
    "gateway API": Case("gatewayapi:v1", GATEWAY),
    "gateway API v1beta1": Case("gatewayapi:v1beta1", GATEWAY | TEAM),
    "gateway API with everything": Case(
        "gatewayapi:v1",
        {**EVERYTHING, **GATEWAY, "backendTimeout": "5s", "mirror": [{"backendRef": {"name": "copy", "port": 80}}]},
    ),
    "gateway API A/B": Case("gatewayapi:v1", GATEWAY | TEAM, ab(INSIDER, COOKIE)),
    "nginx": Case("nginx", spec={"ingressRef": INGRESS_REF}),
    "nginx A/B": Case("nginx", analysis=ab(INSIDER), spec={"ingressRef": INGRESS_REF}, weight=100),
    "skipper": Case("skipper", spec={"ingressRef": INGRESS_REF}),
    "contour": Case("contour"),
    "contour with everything": Case("contour", EVERYTHING),
    "contour with the retries of the schema": Case("contour", {"retries": {}}),
    "contour A/B": Case("contour", EVERYTHING, ab(INSIDER, COOKIE, SUFFIX, {"queryParams": {"q": {"prefix": "x"}}})),
    "gloo": Case("gloo", TEAM, spec={"upstreamRef": UPSTREAM_REF}),
    "gloo A/B": Case("gloo", TEAM, ab(INSIDER, COOKIE)),
    "traefik": Case("traefik", TEAM),
    "apisix": Case("apisix", TEAM, spec={"routeRef": ROUTE_REF}),
    "kuma": Case("kuma", TEAM),
    "linkerd": Case("linkerd", TEAM),
    "osm": Case("osm", TEAM),
    "smi:v1alpha3": Case("smi:v1alpha3", TEAM),
    "kubernetes": Case("kubernetes", analysis={"iterations": 2}, weight=0),
}


class CountedObjects(KubeObjects):
    """Notes each write that was sent."""

    written: list[tuple[str, str, str]]

    async def create(self, wanted: Object, *, manager: str) -> Object:
        self.written.append(("create", wanted["kind"], wanted["metadata"]["name"]))
        return await super().create(wanted, manager=manager)

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        reference = which if isinstance(which, Reference) else Reference.of(which)
        self.written.append(("patch", reference.kind, reference.name))
        return await super().patch(which, patch, manager=manager)


@pytest.fixture(scope="module")
def served(control_plane: Cluster) -> Cluster:
    """A cluster that serves all kinds."""
    control_plane.api.install_crd(definition(CANARY))
    install(control_plane.api)
    return control_plane


@pytest.fixture
async def client(served: Cluster) -> AsyncIterator[Client]:
    async with open_client(served.kubeconfig) as made:
        yield made


@pytest.fixture
async def objects(client: Client, namespace: str) -> AsyncIterator[CountedObjects]:
    made = CountedObjects(client, SystemClock(), namespace=namespace)
    made.written = []
    async with made:
        yield made


def others(namespace: str) -> list[Object]:
    """What people made before."""
    rule = {
        "name": "main",
        "match": {"hosts": ["a.example.org"], "paths": ["/*"]},
        "backends": [{"serviceName": "web", "servicePort": 80}],
    }
    route = {"metadata": {"name": "web", "namespace": namespace}, "spec": {"http": [rule]}}
    upstream = {"metadata": {"name": "template", "namespace": namespace}, "spec": {"loadBalancerConfig": {"roundRobin": {}}}}
    return [
        ingress(namespace),
        {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", **route},
        {"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", **upstream},
    ]


def began(cluster: Cluster, namespace: str, case: Case) -> Site:
    """The site of a Canary that is there, so that nobody collects what it owns."""
    spec = {
        "provider": case.provider,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80, **case.service},
        "analysis": {"interval": "10s", "threshold": 3, **case.analysis},
        **case.spec,
    }
    meta = {"name": "web", "namespace": namespace}
    made = cluster.api.create({"apiVersion": CANARY.api_version, "kind": "Canary", "metadata": meta, "spec": spec})
    for each in others(namespace):
        cluster.api.create(each)
    return site_of(made["spec"], namespace, uid=made["metadata"]["uid"])


async def settled(router: Router, where: Site, objects: CountedObjects, weights: Weights) -> None:
    """These weights are live, and a reconcile has nothing to write."""
    assert await router.weights(where) == weights
    objects.written.clear()
    await router.reconcile(where)
    assert objects.written == []
    assert await router.weights(where) == weights


@pytest.mark.parametrize("name", CASES)
async def test_what_is_written_is_accepted_and_kept(name: str, served: Cluster, objects: CountedObjects, namespace: str) -> None:
    case = CASES[name]
    where = began(served, namespace, case)
    router = make_router(case.provider, objects, CanarySettings(ingress_class="contour" if case.provider == "contour" else ""))
    try:
        await router.reconcile(where)
        await settled(router, where, objects, ALL_PRIMARY)
        for weight in (case.weight, 0):
            await router.set_weights(where, Weights.at(weight))
            await settled(router, where, objects, Weights.at(weight))
        await router.revert(where)
        assert served.api.get("networking.k8s.io/v1", "Ingress", "web", namespace)["spec"]["rules"][0]["http"]["paths"]
    finally:
        served.api.delete("kuma.io/v1alpha1", "TrafficRoute", "web", missing_ok=True)
