"""The three Services: what is made, what is enforced, what is left to people, what is given back."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.api import CanaryService
from canary.errors import Problem
from canary.site import FLUX_OFF, Site
from canary.workload.services import (
    discovered_ports,
    ensure_apex,
    ensure_backends,
    give_back_apex,
    given_back,
    new_service,
    service_ports,
    updated_service,
)
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_workloads import site_of, spec_of
from tests.support.objects import MemoryObjects

MAIN = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 9898}


def exposed(**service: Any) -> Site:
    return site_of(spec_of(service=service))


def adopted(selector: Any = None, ports: Any = None, **meta: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "prod", **meta},
        "spec": {"selector": selector or {"app": "web"}, "ports": ports or [MAIN]},
    }


async def all_of(site: Site, *found: Object) -> MemoryObjects:
    objects = MemoryObjects(found)
    await ensure_backends(objects, site)
    await ensure_apex(objects, site)
    return objects


def now(objects: MemoryObjects, name: str) -> Object:
    found = objects.now(Reference("v1", "Service", "prod", name))
    assert found is not None
    return found


async def test_three_services_with_their_own_metadata() -> None:
    meta = {"labels": {"app": "lost", "a": "1"}, "annotations": {"b": "2", "helm.toolkit.fluxcd.io/driftDetection": "enabled"}}
    objects = await all_of(exposed(name="api", canary=meta))
    assert [found["metadata"]["name"] for found in objects.all("Service")] == ["api-canary", "api-primary", "api"]
    canary, primary, apex = objects.all("Service")
    assert canary["metadata"]["labels"] == {"app": "api-canary", "a": "1"}
    assert canary["metadata"]["annotations"] == {"b": "2", **FLUX_OFF}
    assert [found["spec"]["selector"] for found in (canary, primary, apex)] == [
        {"app": "web"}, {"app": "web-primary"}, {"app": "web-primary"},
    ]  # fmt: skip
    assert primary["metadata"]["labels"] == {"app": "api-primary"}
    assert apex["metadata"]["annotations"] == dict(FLUX_OFF)
    assert all(found["metadata"]["ownerReferences"] == [exposed().owner] for found in (canary, primary, apex))
    assert {manager for managers in objects.managers.values() for manager in managers} == {"flagger"}


@pytest.mark.parametrize(
    ("service", "port"),
    [
        ({}, MAIN),
        ({"portName": "grpc", "targetPort": "rpc", "appProtocol": "grpc"},
         {"name": "grpc", "protocol": "TCP", "port": 80, "targetPort": "rpc", "appProtocol": "grpc"}),
        ({"targetPort": 0}, {**MAIN, "targetPort": 80}),
        ({"targetPort": ""}, {**MAIN, "targetPort": 80}),
    ],
)  # fmt: skip
def test_the_main_port(service: dict[str, Any], port: dict[str, Any]) -> None:
    assert service_ports(exposed(**service)) == [port]


def test_headless_and_distribution_are_set_once() -> None:
    site = exposed(headless=True, trafficDistribution="PreferClose")
    made = new_service(site, "web", "web", None)
    assert made["spec"]["clusterIP"] == "None"
    assert made["spec"]["trafficDistribution"] == "PreferClose"
    plain = new_service(exposed(), "web", "web", None)
    assert updated_service(deepcopy(plain), site, "web", "web", None) == plain


async def test_metadata_of_ours_is_enforced_but_what_is_unmanaged() -> None:
    objects = await all_of(exposed())
    which = Reference("v1", "Service", "prod", "web-primary")
    left = {"mine": "1", "other": "2", "app": "changed"}
    objects.change(
        which, {"metadata": {"labels": left, "annotations": {"note": "1", "helm.toolkit.fluxcd.io/driftDetection": None}}}
    )
    site = exposed(unmanagedMetadata={"labels": ["mine"], "annotations": ["note"]})
    await ensure_backends(objects, site)
    meta = now(objects, "web-primary")["metadata"]
    assert meta["labels"] == {"mine": "1", "app": "web-primary"}
    assert meta["annotations"] == {"note": "1", **FLUX_OFF}


async def test_unmanaged_keys_are_left_as_found_even_where_the_canary_sets_them() -> None:
    service = {"primary": {"labels": {"team": "blue"}}, "unmanagedMetadata": {"labels": ["team"]}}
    objects = await all_of(exposed(**service))
    assert now(objects, "web-primary")["metadata"]["labels"]["team"] == "blue"
    objects.change(Reference("v1", "Service", "prod", "web-primary"), {"metadata": {"labels": {"team": "red"}}})
    await ensure_backends(objects, exposed(**service))
    assert now(objects, "web-primary")["metadata"]["labels"]["team"] == "red"


async def test_metadata_that_is_all_unmanaged_is_not_written_at_every_tick() -> None:
    unmanaged = {"labels": ["app"], "annotations": list(FLUX_OFF)}
    objects = await all_of(exposed(unmanagedMetadata=unmanaged))
    which = Reference("v1", "Service", "prod", "web-primary")
    objects.change(which, {"metadata": {"labels": None, "annotations": None}})
    objects.forget()
    await ensure_backends(objects, exposed(unmanagedMetadata=unmanaged))
    assert objects.writes == []


async def test_an_adopted_service_keeps_its_own() -> None:
    found = adopted({"app": "web", "tier": "1"}, labels={"mine": "1"}, annotations={"note": "1"})
    found["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    found["spec"]["ports"] = [{**MAIN, "nodePort": 30080}, {"name": "old", "protocol": "TCP", "port": 81}]
    objects = await all_of(exposed(apex={"labels": {"a": "1"}}), found)
    apex = now(objects, "web")
    assert apex["metadata"]["labels"] == {"mine": "1"}
    assert apex["metadata"]["annotations"] == {"note": "1", **FLUX_OFF}
    assert "ownerReferences" not in apex["metadata"]
    assert apex["spec"] == {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "selector": {"app": "web-primary"},
        "ports": [{**MAIN, "nodePort": 30080}],
    }


async def test_an_adopted_service_that_is_right_is_not_touched() -> None:
    objects = MemoryObjects([adopted({"app": "web-primary"})])
    await ensure_apex(objects, exposed())
    assert objects.writes == []


@pytest.mark.parametrize("name", ["http", None])
async def test_node_ports_stay(name: str | None) -> None:
    port = {"protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": 30080, **({"name": name} if name else {})}
    objects = await all_of(exposed(), adopted(ports=[port]))
    assert now(objects, "web")["spec"]["ports"] == [{**MAIN, "nodePort": 30080}]


async def test_another_order_of_ports_is_no_change() -> None:
    site = replace(exposed(portDiscovery=True), ports={"admin": 9000, "metrics": 9797})
    objects = await all_of(site)
    which = Reference("v1", "Service", "prod", "web-canary")
    ports = now(objects, "web-canary")["spec"]["ports"]
    objects.change(which, {"spec": {"ports": ports[::-1]}})
    objects.forget()
    await ensure_backends(objects, site)
    assert objects.writes == []


@pytest.mark.parametrize(
    ("service", "ports"),
    [
        ({"targetPort": 9898}, {"admin": 9000, "metrics": 9797, "tcp-app-1": 8081}),
        ({"targetPort": "http"}, {"admin": 9000, "metrics": 9797, "tcp-app-1": 8081}),
        ({"targetPort": "9898"}, {"admin": 9000, "metrics": 9797, "tcp-app-1": 8081}),
        ({"targetPort": None, "port": 9898}, {"admin": 9000, "metrics": 9797, "tcp-app-1": 8081}),
        ({"targetPort": "metrics"}, {"admin": 9000, "again": 9797, "tcp-app-0": 9898, "tcp-app-1": 8081}),
        ({"targetPort": 9898, "port": 9000}, {"metrics": 9797, "tcp-app-1": 8081}),
        ({"targetPort": "metrics", "portName": "main"}, {"admin": 9000, "again": 9797, "http": 9898, "tcp-app-1": 8081}),
    ],
)
def test_discovered_ports(service: dict[str, Any], ports: dict[str, int]) -> None:
    app = {"name": "app", "ports": [
        {"name": "http", "containerPort": 9898}, {"containerPort": 8081}, {"name": "metrics", "containerPort": 9797},
    ]}  # fmt: skip
    side = {"name": "side", "ports": [{"name": "admin", "containerPort": 9000}, {"name": "again", "containerPort": 9797}]}
    proxy = {"name": "istio-proxy", "ports": [{"name": "stats", "containerPort": 15090}]}
    pod = {"containers": [app, proxy, side, {"name": "none"}]}
    found = discovered_ports(pod, CanaryService.model_validate({"port": 80, **service}))
    assert found == ports
    assert list(found) == sorted(found)


def test_pods_need_a_service() -> None:
    spec = spec_of()
    del spec["service"]
    with pytest.raises(Problem, match=r"^canary web\.prod spec\.service\.port is required$"):
        service_ports(site_of(spec))


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("get", "service web-canary get query error: away"),
        ("create", "service web-canary.prod create error: away"),
        ("patch", "service web-canary update error: away"),
    ],
)
async def test_texts_of_failures(verb: str, text: str) -> None:
    objects = MemoryObjects()
    if verb == "patch":
        await ensure_backends(objects, exposed())
    objects.fail[verb, "Service", "web-canary"] = ReconcileError("away")
    with pytest.raises(Problem) as caught:
        await ensure_backends(objects, exposed(port=81))
    assert str(caught.value) == f"reconcileService failed: {text}"


# --- giving back

APPLIED = {"metadata": {"annotations": {"note": "1"}}, "spec": {"selector": {"app": "web", "tier": "1"}}}


@pytest.mark.parametrize(
    ("annotations", "selector", "left"),
    [
        ({}, {"app": "web"}, {}),
        (
            {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(APPLIED), "note": "1"},
            {"app": "web", "tier": "1"},
            None,
        ),
        ({"kubectl.kubernetes.io/last-applied-configuration": "{"}, {"app": "web"}, None),
        ({"kubectl.kubernetes.io/last-applied-configuration": "[]"}, {"app": "web"}, None),
    ],
)
async def test_an_adopted_service_gets_back_its_selector(annotations: Any, selector: Any, left: Any) -> None:
    objects = await all_of(exposed(), adopted(annotations=annotations))
    assert now(objects, "web")["spec"]["selector"] == {"app": "web-primary"}
    await give_back_apex(objects, exposed())
    found = now(objects, "web")
    assert found["spec"]["selector"] == selector
    assert found["metadata"]["annotations"] == (annotations if left is None else left)
    objects.forget()
    await give_back_apex(objects, exposed())
    assert objects.writes == []


def test_annotations_that_were_theirs_stay() -> None:
    theirs = {"metadata": {"annotations": dict(FLUX_OFF)}}
    annotations = {**FLUX_OFF, "kubectl.kubernetes.io/last-applied-configuration": json.dumps(theirs)}
    assert given_back(adopted({"app": "web-primary"}, annotations=annotations), exposed()) == {
        "spec": {"selector": {"app": "web"}}
    }


def test_without_a_target_the_selector_stays() -> None:
    site = site_of(label="", value="")
    assert given_back(adopted({"app": "web-primary"}), site) == {}


async def test_a_service_that_goes_with_the_canary_is_left() -> None:
    objects = await all_of(exposed())
    objects.forget()
    await give_back_apex(objects, exposed())
    await give_back_apex(MemoryObjects(), exposed())
    assert objects.writes == []


@pytest.mark.parametrize(
    ("verb", "text"), [("get", "service web get query error: away"), ("patch", "service web update error: away")]
)
async def test_giving_back_may_fail(verb: str, text: str) -> None:
    objects = MemoryObjects([adopted({"app": "web-primary"})])
    objects.fail[verb, "Service", "web"] = ReconcileError("away")
    with pytest.raises(Problem) as caught:
        await give_back_apex(objects, exposed())
    assert str(caught.value) == text


TEXTS = st.dictionaries(st.sampled_from(["a", "b", "app"]), st.sampled_from(["1", "2"]), max_size=3)
META = st.fixed_dictionaries({"labels": TEXTS, "annotations": TEXTS})


@settings(max_examples=50)
@given(
    META,
    st.lists(st.sampled_from(["a", "b", "app"]), unique=True),
    st.dictionaries(st.sampled_from("xyz"), st.integers(1, 99)),
    st.booleans(),
)
def test_building_twice_changes_nothing(meta: Any, unmanaged: list[str], ports: dict[str, int], owned: bool) -> None:
    service = {"canary": meta, "unmanagedMetadata": {"labels": unmanaged, "annotations": unmanaged}}
    site = replace(exposed(**service), ports=ports)
    custom = site.spec.service.canary if site.spec.service else None
    start = new_service(site, "web-canary", "web", custom) if owned else adopted({"app": "x"}, annotations={"a": "0"})
    once = updated_service(deepcopy(start), site, "web-canary", "web", custom)
    assert once is not None
    if owned:
        assert once == start
    again = updated_service(deepcopy(once), site, "web-canary", "web", custom)
    assert again == (once if owned else None)


def test_pods_of_the_primary_are_not_behind_the_canary_service() -> None:
    site = exposed()
    canary, primary = (
        new_service(site, "web-canary", site.value, None),
        new_service(site, "web-primary", site.primary_value, None),
    )
    assert canary["spec"]["selector"].items() & primary["spec"]["selector"].items() == set()
