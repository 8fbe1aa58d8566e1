"""Kuma: the recorded run, whose route it is when names are shared, drift, failures."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.kuma import API_VERSION, KumaRouter, route
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import as_recorded, history, recorded, site
from tests.support.objects import MemoryObjects

WEB = Reference(API_VERSION, "TrafficRoute", "", "web")


async def test_a_run_writes_what_flagger_wrote() -> None:
    story = recorded("kuma")
    objects = MemoryObjects()
    router, where = KumaRouter(objects), site(story["canary"], namespace=story["namespace"])
    await router.reconcile(where)
    versions = [as_recorded(objects.now(WEB))]
    assert await router.weights(where) == ALL_PRIMARY
    for weights in (Weights.at(50), ALL_PRIMARY):
        assert await router.set_weights(where, weights) is None
        await router.reconcile(where)
        versions.append(as_recorded(objects.now(WEB)))
        assert await router.weights(where) == weights
    assert history(versions) == story["objects"]["TrafficRoute.kuma.io/v1alpha1/web"]
    assert [write[0] for write in objects.writes] == ["create", "patch", "patch"]
    found = objects.now(WEB)
    assert found is not None
    assert "namespace" not in found["metadata"]


async def test_the_mesh_is_the_canarys_annotation_and_metadata_that_of_the_apex() -> None:
    objects = MemoryObjects()
    service = {"apex": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    await KumaRouter(objects).reconcile(site(annotations={"kuma.io/mesh": "east"}, service=service))
    found = objects.now(WEB)
    assert found is not None
    assert found["mesh"] == "east"
    assert found["metadata"]["labels"] == {"team": "a", "app": "web"}
    assert found["metadata"]["annotations"]["note"] == "b"


@pytest.mark.parametrize(
    ("other", "told"),
    [({"kuma.io/service": "web_dev_svc_80"}, "web_dev_svc_80"), ({"kuma.io/service": "*"}, r"\*"), ({}, "all services")],
)
async def test_the_route_of_another_service_is_not_touched(other: Object, told: str) -> None:
    objects = MemoryObjects()
    await KumaRouter(objects).reconcile(site(namespace="dev"))
    found = objects.now(WEB)
    assert found is not None
    found["spec"]["destinations"] = [{"match": other}]
    objects.put(found)
    objects.forget()
    router = KumaRouter(objects)
    text = rf"^TrafficRoute web\.prod is for {told}: TrafficRoutes have no namespace, so web_prod_svc_80 needs another spec"
    for call in (router.reconcile(site()), router.weights(site()), router.set_weights(site(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=text):
            await call
    assert objects.writes == []


async def test_another_name_of_the_service_ends_the_collision() -> None:
    objects = MemoryObjects()
    await KumaRouter(objects).reconcile(site(namespace="dev"))
    await KumaRouter(objects).reconcile(site(service={"name": "shop"}))
    assert [found["metadata"]["name"] for found in objects.all("TrafficRoute")] == ["web", "shop"]


async def test_drift_and_edits_keep_live_weights_and_what_we_do_not_know_of() -> None:
    objects = MemoryObjects()
    router = KumaRouter(objects)
    await router.set_weights(site(), Weights.at(40))
    found = objects.now(WEB)
    assert found is not None
    found["metadata"] |= {"labels": {"people": "yes"}, "annotations": {}}
    found["spec"]["conf"] |= {"loadBalancer": {"roundRobin": {}}}
    found["spec"]["conf"]["split"][0]["destination"]["version"] = "v1"
    found["spec"]["sources"] = []
    objects.put(found)
    await router.reconcile(site(service={"port": 8080}))
    after = objects.now(WEB)
    assert after is not None
    assert after["metadata"]["labels"] == {"people": "yes"}
    assert after["metadata"]["annotations"] == {
        "helm.toolkit.fluxcd.io/driftDetection": "disabled",
        "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
    }
    assert after["spec"] == {
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": "web_prod_svc_8080"}}],
        "conf": {
            "loadBalancer": {"roundRobin": {}},
            "split": [
                {"weight": 60, "destination": {"kuma.io/service": "web-primary_prod_svc_8080", "version": "v1"}},
                {"weight": 40, "destination": {"kuma.io/service": "web-canary_prod_svc_8080"}},
            ],
        },
    }


@given(canary=st.integers(0, 100), unknown=st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=2))
def test_what_was_built_reads_back_and_building_again_changes_nothing(canary: int, unknown: dict[str, Any]) -> None:
    here, wanted = site(), Weights.at(canary)
    first = route(here, None, ALL_PRIMARY)
    first |= unknown
    first["spec"] |= unknown
    built = route(here, deepcopy(first), wanted)
    assert KumaRouter(MemoryObjects()).parse(here, built) == wanted
    assert sum(each["weight"] for each in built["spec"]["conf"]["split"]) == 100
    assert route(here, deepcopy(built), wanted) == built
    assert unknown.items() <= built.items()
    assert unknown.items() <= built["spec"].items()


@pytest.mark.parametrize(
    "spec", [{}, {"conf": {"split": [{"weight": 0, "destination": {"kuma.io/service": "web-primary_prod_svc_80"}}]}}]
)
async def test_a_split_that_says_nothing_is_a_problem_to_read_and_mended_by_reconciling(spec: Object) -> None:
    objects = MemoryObjects([{"apiVersion": API_VERSION, "kind": "TrafficRoute", "metadata": {"name": "web"}, "spec": spec}])
    router = KumaRouter(objects)
    with pytest.raises(Problem, match=r"^TrafficRoute web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(site())
    await router.reconcile(site())
    assert await router.weights(site()) == ALL_PRIMARY


async def test_absent_objects_and_kinds_and_services_are_problems_that_say_so() -> None:
    objects = MemoryObjects()
    router = KumaRouter(objects)
    with pytest.raises(Problem, match=r'^TrafficRoute web\.prod get query error: trafficroutes\.kuma\.io "web" not found$'):
        await router.weights(site())
    data = {key: value for key, value in recorded("kuma")["canary"].items() if key != "service"}
    with pytest.raises(Problem, match=r"^canary web\.prod has no spec\.service, which provider kuma needs$"):
        await router.reconcile(site(data))
    objects.missing_kinds.add((API_VERSION, "TrafficRoute"))
    for call in (router.reconcile(site()), router.weights(site()), router.set_weights(site(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=r"^TrafficRoute web\.prod get query error: the server could not find"):
            await call
    assert objects.writes == []


async def test_the_route_outlives_the_canary() -> None:
    objects = MemoryObjects()
    router = KumaRouter(objects)
    await router.reconcile(site())
    objects.forget()
    await router.revert(site())
    assert (objects.reads, objects.writes) == ([], [])
