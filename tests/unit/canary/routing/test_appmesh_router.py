"""App Mesh in both versions: what is made, A/B tests, weights, drift, people's fields, failures."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.appmesh import AppMeshRouter
from canary.routing.base import ALL_PRIMARY, Weights
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import site
from tests.support.objects import MemoryObjects

OLD, NEW = "v1beta1", "v1beta2"
FLUX = {"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "helm.toolkit.fluxcd.io/driftDetection": "disabled"}


def mesh(
    version: str, audience: list[Object] | None = None, *, annotations: dict[str, str] | None = None, **service: Any
) -> Site:
    spec = {
        "provider": "appmesh" if version == OLD else "appmesh:v1beta2",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80, **({"meshName": "global"} if version == OLD else {}), **service},
        "analysis": {"interval": "10s", "threshold": 3, "stepWeight": 10, **({"match": audience} if audience else {})},
    }
    return site(spec, annotations=annotations, value="shop")


def of(version: str, kind: str, name: str) -> Reference:
    return Reference(f"appmesh.k8s.aws/{version}", kind, "prod", name)


def main(version: str) -> Reference:
    return of(version, "VirtualService", "web.prod") if version == OLD else of(version, "VirtualRouter", "web")


def spec_of(objects: MemoryObjects, which: Reference) -> Any:
    found = objects.now(which)
    assert found is not None, which
    return found["spec"]


def targets(version: str, canary: int | None, primary: int) -> list[Object]:
    def target(name: str, weight: int) -> Object:
        named: Object = {"virtualNodeName": name} if version == OLD else {"virtualNodeRef": {"name": name}}
        return {**named, "weight": weight}

    return [*([target("web-canary", canary)] if canary is not None else []), target("web-primary", primary)]


def split(version: str, name: str, canary: int, primary: int) -> Object:
    http: Object = {"match": {"prefix": "/"}, "action": {"weightedTargets": targets(version, canary, primary)}}
    return {"name": name, "http" if version == OLD else "httpRoute": http}


async def test_v1beta1_has_three_nodes_and_two_services_with_their_routers() -> None:
    objects = MemoryObjects()
    here = mesh(OLD)
    await AppMeshRouter(objects, OLD).reconcile(here)
    mapping = {"portMapping": {"port": 80, "protocol": "http"}}
    hosts = {"web": "web-primary.prod", "web-primary": "web-primary.prod", "web-canary": "web-canary.prod"}
    for name, host in hosts.items():
        found = objects.now(of(OLD, "VirtualNode", name))
        assert found is not None
        assert found["spec"] == {"meshName": "global", "listeners": [mapping], "serviceDiscovery": {"dns": {"hostName": host}}}
        assert found["metadata"]["annotations"] == FLUX
        assert found["metadata"]["ownerReferences"] == [here.owner]
    for name, canary in (("web", 0), ("web-canary", 100)):
        found = objects.now(of(OLD, "VirtualService", f"{name}.prod"))
        assert found is not None
        assert found["spec"] == {
            "meshName": "global",
            "virtualRouter": {"name": name, "listeners": [mapping]},
            "routes": [split(OLD, name, canary, 100 - canary)],
        }
        assert "annotations" not in found["metadata"]
        assert found["metadata"]["ownerReferences"] == [here.owner]
    assert len(objects.all()) == 5


async def test_v1beta2_has_two_nodes_two_routers_and_two_services() -> None:
    objects = MemoryObjects()
    here = mesh(NEW, targetPort=9898, apex={"labels": {"team": "a"}, "annotations": {"note": "b"}})
    await AppMeshRouter(objects, NEW).reconcile(here)
    mapping = {"portMapping": {"port": 9898, "protocol": "http"}}
    for name, pods in (("web-primary", "shop-primary"), ("web-canary", "shop")):
        found = objects.now(of(NEW, "VirtualNode", name))
        assert found is not None
        assert found["spec"] == {
            "listeners": [mapping],
            "podSelector": {"matchLabels": {"app": pods}},
            "serviceDiscovery": {"dns": {"hostname": f"{name}.prod.svc.cluster.local."}},
        }
        assert found["metadata"]["labels"] == {"team": "a", "app": "web"}
        assert found["metadata"]["annotations"] == {"note": "b", **FLUX}
    for name, canary in (("web", 0), ("web-canary", 100)):
        assert spec_of(objects, of(NEW, "VirtualRouter", name)) == {
            "listeners": [mapping],
            "routes": [split(NEW, name, canary, 100 - canary)],
        }
        assert spec_of(objects, of(NEW, "VirtualService", name)) == {
            "provider": {"virtualRouter": {"virtualRouterRef": {"name": name}}}
        }
        for kind in ("VirtualRouter", "VirtualService"):
            found = objects.now(of(NEW, kind, name))
            assert found is not None
            assert found["metadata"]["annotations"] == {"note": "b"}
    assert len(objects.all()) == 6


REFINED: Object = {
    "portName": "grpc-web",
    "timeout": "15s",
    "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "server-error, connection-error"},
    "backends": ["api.prod", "arn:aws:appmesh:eu-west-1:1:mesh/m/virtualService/x"],
    "hosts": ["a.example.org", "b.example.org"],
    "match": [{"method": {"exact": "GET"}}, {"uri": {"prefix": "/shop"}}, {"uri": {"prefix": "/later"}}],
}


async def test_v1beta1_is_told_of_all_that_the_service_says() -> None:
    objects = MemoryObjects()
    await AppMeshRouter(objects, OLD).reconcile(mesh(OLD, annotations={"appmesh.flagger.app/accesslog": "enabled"}, **REFINED))
    node = spec_of(objects, of(OLD, "VirtualNode", "web-canary"))
    assert node["listeners"] == [{"portMapping": {"port": 80, "protocol": "grpc"}}]
    assert node["backends"] == [{"virtualService": {"virtualServiceName": name}} for name in REFINED["backends"]]
    assert node["logging"] == {"accessLog": {"file": {"path": "/dev/stdout"}}}
    for name, told in (("web", True), ("web-canary", False)):
        found = objects.now(of(OLD, "VirtualService", f"{name}.prod"))
        assert found is not None
        http = found["spec"]["routes"][0]["http"]
        assert http["match"] == {"prefix": "/shop"}
        assert http["retryPolicy"] == {
            "perRetryTimeoutMillis": 1000,
            "maxRetries": 3,
            "httpRetryEvents": ["server-error"],
            "tcpRetryEvents": ["connection-error"],
        }
        gateway = {
            "gateway.appmesh.k8s.aws/expose": "true",
            "gateway.appmesh.k8s.aws/domain": "a.example.org,b.example.org,",
            "gateway.appmesh.k8s.aws/timeout": "15s",
            "gateway.appmesh.k8s.aws/retries": "3",
        }
        assert found["metadata"].get("annotations") == (gateway if told else None)


async def test_v1beta2_is_told_of_all_that_the_service_says() -> None:
    objects = MemoryObjects()
    router = AppMeshRouter(objects, NEW)
    await router.reconcile(mesh(NEW, targetPort="http", **REFINED))
    node = spec_of(objects, of(NEW, "VirtualNode", "web-canary"))
    per_request = {"perRequest": {"unit": "ms", "value": 15000}}
    assert node["listeners"] == [{"portMapping": {"port": 80, "protocol": "grpc"}, "timeout": {"grpc": per_request}}]
    assert node["backends"] == [
        {"virtualService": {"virtualServiceRef": {"name": "api.prod"}}},
        {"virtualService": {"virtualServiceARN": "arn:aws:appmesh:eu-west-1:1:mesh/m/virtualService/x"}},
    ]
    http = spec_of(objects, main(NEW))["routes"][0]["httpRoute"]
    assert http["timeout"] == per_request
    assert http["retryPolicy"]["perRetryTimeout"] == {"unit": "ms", "value": 1000}
    await router.reconcile(mesh(NEW, retries={}))
    http = spec_of(objects, main(NEW))["routes"][0]["httpRoute"]
    assert http["retryPolicy"] == {
        "perRetryTimeout": {"unit": "ms", "value": 250},
        "maxRetries": 1,
        "httpRetryEvents": ["gateway-error"],
    }
    assert "timeout" not in http
    node = spec_of(objects, of(NEW, "VirtualNode", "web-canary"))
    assert "backends" not in node
    assert "timeout" not in node["listeners"][0]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_an_ab_test_has_a_route_for_each_audience_and_one_for_everybody_else(version: str) -> None:
    objects = MemoryObjects()
    router, key = AppMeshRouter(objects, version), "http" if version == OLD else "httpRoute"
    match: list[Object] = [
        {"headers": {"x-user": {"exact": "insider"}, "cookie": {"regex": "canary"}}},
        {"headers": {"x-v": {"suffix": "2"}}},
    ]
    await router.reconcile(mesh(version, match))
    await router.set_weights(mesh(version, match), Weights.at(100))
    first = [{"name": "cookie", "match": {"regex": "canary"}}, {"name": "x-user", "match": {"exact": "insider"}}]
    assert spec_of(objects, main(version))["routes"] == [
        {
            "name": "web-a",
            "priority": 10,
            key: {"match": {"prefix": "/", "headers": first}, "action": {"weightedTargets": targets(version, 100, 0)}},
        },
        {
            "name": "web-a-2",
            "priority": 11,
            key: {
                "match": {"prefix": "/", "headers": [{"name": "x-v", "match": {"suffix": "2"}}]},
                "action": {"weightedTargets": targets(version, 100, 0)},
            },
        },
        {
            "name": "web-b",
            "priority": 20,
            key: {"match": {"prefix": "/"}, "action": {"weightedTargets": targets(version, None, 100)}},
        },
    ]
    assert await router.weights(mesh(version, match)) == Weights(0, 100)
    other = of(version, "VirtualService", "web-canary.prod") if version == OLD else of(version, "VirtualRouter", "web-canary")
    assert spec_of(objects, other)["routes"] == [split(version, "web-canary", 100, 0)], "the canary's own is no test"
    await router.set_weights(mesh(version), Weights.at(20))
    assert spec_of(objects, main(version))["routes"] == [split(version, "web", 20, 80)]


async def test_everybody_else_comes_after_however_many_audiences() -> None:
    objects = MemoryObjects()
    await AppMeshRouter(objects, NEW).reconcile(mesh(NEW, [{"headers": {"x": {"exact": str(number)}}} for number in range(12)]))
    assert [route["priority"] for route in spec_of(objects, main(NEW))["routes"]] == [*range(10, 22), 22]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_test_without_headers_is_refused_rather_than_sent_to_everybody(version: str) -> None:
    objects = MemoryObjects()
    router = AppMeshRouter(objects, version)
    with pytest.raises(
        Problem, match=r"analysis\.match\[0\] has no headers: nothing else can tell who gets the canary in App Mesh$"
    ):
        await router.reconcile(mesh(version, [{"sourceLabels": {"app": "x"}}]))
    assert objects.now(main(version)) is None


@given(version=st.sampled_from([OLD, NEW]), canary=st.integers(0, 100), ab=st.booleans())
async def test_what_was_set_reads_back_and_setting_it_again_changes_nothing(version: str, canary: int, ab: bool) -> None:
    objects = MemoryObjects()
    here = mesh(version, [{"headers": {"x": {"exact": "y"}}}] if ab else None)
    router, wanted = AppMeshRouter(objects, version), Weights.at(canary)
    await router.reconcile(here)
    assert await router.set_weights(here, wanted) is None
    assert await router.weights(here) == wanted
    key = "http" if version == OLD else "httpRoute"
    for route in spec_of(objects, main(version))["routes"]:
        assert sum(target["weight"] for target in route[key]["action"]["weightedTargets"]) == 100
    objects.forget()
    await router.set_weights(here, wanted)
    await router.reconcile(here)
    assert objects.writes == []


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_edits_keep_live_weights_and_what_we_do_not_know_of(version: str) -> None:
    objects = MemoryObjects()
    router, key = AppMeshRouter(objects, version), "http" if version == OLD else "httpRoute"
    await router.reconcile(mesh(version))
    await router.set_weights(mesh(version), Weights.at(40))
    people = {"name": "theirs", key: {"match": {"prefix": "/theirs"}, "action": {"weightedTargets": []}}}
    for found in objects.all():
        found["spec"] |= {"awsName": "kept", "meshRef": {"name": "m", "uid": "1"}}
        for listener in found["spec"].get("listeners", ()):
            listener["healthCheck"] = {"path": "/healthz"}
        if "routes" in found["spec"]:
            found["spec"]["routes"][0][key]["new"] = True
            found["spec"]["routes"][0][key]["action"]["weightedTargets"][0]["port"] = 9
            found["spec"]["routes"].append(deepcopy(people))
        objects.put(found)
    await router.reconcile(mesh(version, port=8080, backends=["api"]))
    assert await router.weights(mesh(version)) == Weights(60, 40)
    for found in objects.all():
        assert (found["spec"]["awsName"], found["spec"]["meshRef"]) == ("kept", {"name": "m", "uid": "1"})
        for listener in found["spec"].get("listeners", ()):
            assert (listener["portMapping"]["port"], listener["healthCheck"]) == (8080, {"path": "/healthz"})
        if "routes" in found["spec"]:
            ours, theirs = found["spec"]["routes"]
            assert theirs == people
            assert ours[key]["new"]
            assert ours[key]["action"]["weightedTargets"][0]["port"] == 9


async def test_the_routes_that_flagger_made_under_other_names_become_ours() -> None:
    objects = MemoryObjects()
    router = AppMeshRouter(objects, OLD)
    await router.set_weights(mesh(OLD), Weights.at(30))
    found = objects.now(main(OLD))
    assert found is not None
    found["spec"]["routes"][0]["name"] = "web-route"
    found["spec"]["routes"].append({"name": "dead", "http": {"match": {"prefix": "/"}, "action": {"weightedTargets": []}}})
    objects.put(found)
    await router.reconcile(mesh(OLD))
    assert spec_of(objects, main(OLD))["routes"] == [split(OLD, "web", 30, 70)]


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("spoil", ["nothing", "zeros", "odd"])
async def test_routes_that_say_nothing_are_a_problem_to_read_and_mended_by_reconciling(version: str, spoil: str) -> None:
    objects = MemoryObjects()
    router, key = AppMeshRouter(objects, version), "http" if version == OLD else "httpRoute"
    await router.reconcile(mesh(version))
    found = objects.now(main(version))
    assert found is not None
    odd: list[Any] = [{"virtualNodeName": ["x"], "virtualNodeRef": "y", "weight": 100}]
    found["spec"]["routes"] = {
        "nothing": [],
        "zeros": [{"name": "web", key: {"match": {}, "action": {"weightedTargets": targets(version, 0, 0)}}}],
        "odd": [{"name": "web", key: {"match": {"prefix": "/"}, "action": {"weightedTargets": odd}}}],
    }[spoil]
    objects.put(found)
    with pytest.raises(Problem, match=r"^Virtual\w+ web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(mesh(version))
    await router.reconcile(mesh(version))
    assert await router.weights(mesh(version)) == ALL_PRIMARY
    assert len(spec_of(objects, main(version))["routes"]) == 1


@pytest.mark.parametrize(
    ("version", "service", "text"),
    [
        (OLD, {"meshName": None}, "reconcileVirtualNode failed: mesh name cannot be empty"),
        (
            NEW,
            {"timeout": "soon"},
            'reconcileVirtualNode failed: service.timeout: time: invalid duration "soon": write it like 30s, 5m or 1h30m',
        ),
        (NEW, {"retries": {"perTryTimeout": "x"}}, "reconcileVirtualRouter failed: service.retries.perTryTimeout: time: invalid"),
    ],
)
async def test_what_the_canary_lacks_is_told(version: str, service: Object, text: str) -> None:
    with pytest.raises(Problem) as raised:
        await AppMeshRouter(MemoryObjects(), version).reconcile(mesh(version, **service))
    assert str(raised.value).startswith(text)


@pytest.mark.parametrize(
    ("version", "fail", "text"),
    [
        (OLD, ("VirtualNode", "web"), "reconcileVirtualNode failed: VirtualNode web.prod create error: no answer"),
        (OLD, ("VirtualService", "web.prod"), "reconcileVirtualService failed: VirtualService web.prod create error: no answer"),
        (
            OLD,
            ("VirtualService", "web-canary.prod"),
            "reconcileVirtualService failed: VirtualService web-canary.prod create error: no answer",
        ),
        (NEW, ("VirtualRouter", "web"), "reconcileVirtualRouter failed: VirtualRouter web.prod create error: no answer"),
        (NEW, ("VirtualService", "web"), "reconcileVirtualService failed: VirtualService web.prod create error: no answer"),
    ],
)
async def test_failures_are_told_in_flaggers_words(version: str, fail: tuple[str, str], text: str) -> None:
    objects = MemoryObjects()
    objects.fail["create", *fail] = ReconcileError("no answer")
    with pytest.raises(Problem) as raised:
        await AppMeshRouter(objects, version).reconcile(mesh(version))
    assert str(raised.value) == text


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_absent_objects_and_kinds_are_problems_that_say_so(version: str) -> None:
    objects = MemoryObjects()
    router, kind = AppMeshRouter(objects, version), main(version).kind
    with pytest.raises(
        Problem, match=rf'^{kind} web\.prod get query error: {kind.lower()}s\.appmesh\.k8s\.aws "web\S*" not found$'
    ):
        await router.weights(mesh(version))
    objects.missing_kinds |= {(f"appmesh.k8s.aws/{version}", name) for name in ("VirtualNode", kind)}
    with pytest.raises(
        Problem, match=r"^reconcileVirtualNode failed: VirtualNode \S+\.prod get query error: the server could not find"
    ):
        await router.reconcile(mesh(version))
    for call in (router.weights(mesh(version)), router.set_weights(mesh(version), ALL_PRIMARY)):
        with pytest.raises(Problem, match=rf"^{kind} web\.prod get query error: the server could not find"):
            await call
    await router.revert(mesh(version))
    assert objects.writes == []
