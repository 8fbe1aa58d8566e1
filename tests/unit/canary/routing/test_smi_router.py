"""SMI's TrafficSplit: its shape in each version, reading, drift, people's fields, failures."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.smi import GATEWAYS, SmiRouter, split
from reconcile.ports.cluster import Reference
from tests.support.canary_sites import site
from tests.support.objects import MemoryObjects

VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3")


def named(version: str) -> Reference:
    return Reference(f"split.smi-spec.io/{version}", "TrafficSplit", "prod", "web")


@pytest.mark.parametrize(("version", "none", "all_of_it"), [("v1alpha1", "0", "100"), ("v1alpha2", 0, 100), ("v1alpha3", 0, 100)])
async def test_the_split_is_made_with_all_traffic_on_the_primary(version: str, none: Any, all_of_it: Any) -> None:
    objects = MemoryObjects()
    here = site(provider="linkerd")
    await SmiRouter(objects, version, "linkerd").reconcile(here)
    made = objects.now(named(version))
    assert made is not None
    assert made["spec"] == {
        "service": "web",
        "backends": [{"service": "web-canary", "weight": none}, {"service": "web-primary", "weight": all_of_it}],
    }
    assert made["metadata"]["ownerReferences"] == [here.owner]
    assert "annotations" not in made["metadata"]
    assert "labels" not in made["metadata"]
    assert objects.managers[named(version)] == {"flagger"}


async def test_the_first_host_is_the_root_service_and_apex_metadata_is_taken_over() -> None:
    objects = MemoryObjects()
    service = {"hosts": ["shop.example.org", "b"], "apex": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    await SmiRouter(objects, "v1alpha2", "osm").reconcile(site(provider="osm", service=service))
    made = objects.now(named("v1alpha2"))
    assert made is not None
    assert made["spec"]["service"] == "shop.example.org"
    assert made["metadata"]["labels"] == {"team": "a", "app": "web"}
    assert made["metadata"]["annotations"] == {"note": "b"}


@pytest.mark.parametrize(("mesh", "told"), [("istio", {GATEWAYS: '["a.b","mesh"]'}), ("linkerd", None)])
async def test_istio_is_told_of_gateways_at_creation_only(mesh: str, told: Any) -> None:
    objects = MemoryObjects()
    router = SmiRouter(objects, "v1alpha1", mesh)
    await router.reconcile(site(service={"gateways": ["a.b", "mesh"]}))
    made = objects.now(named("v1alpha1"))
    assert made is not None
    assert made["metadata"].get("annotations") == told
    objects.forget()
    await router.reconcile(site(service={"gateways": ["other"]}))
    assert objects.writes == []


@given(version=st.sampled_from(VERSIONS), canary=st.integers(0, 100))
async def test_what_was_built_reads_back_and_building_again_changes_nothing(version: str, canary: int) -> None:
    here, wanted = site(), Weights.at(canary)
    router = SmiRouter(MemoryObjects(), version, "")
    built = split(here, named(version), None, wanted)
    assert router.parse(here, built) == wanted
    assert wanted.primary + wanted.canary == 100
    assert split(here, named(version), deepcopy(built), wanted) == built


@pytest.mark.parametrize("version", VERSIONS)
async def test_weights_are_set_read_back_and_set_again_without_a_write(version: str) -> None:
    objects = MemoryObjects()
    router, here = SmiRouter(objects, version, ""), site()
    assert await router.set_weights(here, Weights.at(30)) is None
    assert await router.weights(here) == Weights(70, 30)
    objects.forget()
    await router.set_weights(here, Weights.at(30))
    await router.reconcile(here)
    assert objects.writes == []


async def test_an_update_keeps_live_weights_and_what_we_do_not_know_of() -> None:
    objects = MemoryObjects()
    router = SmiRouter(objects, "v1alpha3", "")
    await router.set_weights(site(), Weights.at(40))
    which = named("v1alpha3")
    found = objects.now(which)
    assert found is not None
    found["spec"]["matches"] = [{"kind": "HTTPRouteGroup", "name": "users"}]
    found["spec"]["backends"][0]["note"] = "people's"
    found["metadata"]["labels"] = {"people": "yes"}
    objects.put(found)
    await router.reconcile(site(service={"hosts": ["new"]}))
    after = objects.now(which)
    assert after is not None
    assert after["spec"] == {
        "service": "new",
        "matches": [{"kind": "HTTPRouteGroup", "name": "users"}],
        "backends": [{"service": "web-canary", "weight": 40, "note": "people's"}, {"service": "web-primary", "weight": 60}],
    }
    assert after["metadata"]["labels"] == {"people": "yes"}


@pytest.mark.parametrize(
    ("primary", "canary", "live"),
    [
        ("1", "1", Weights(50, 50)),
        ("500m", "1500m", Weights(25, 75)),
        ("500m", "2", Weights(20, 80)),
        (3, 1, Weights(75, 25)),
        ("90", None, ALL_PRIMARY),
    ],
)
async def test_weights_set_by_hand_are_read_as_shares(primary: Any, canary: Any, live: Weights) -> None:
    objects = MemoryObjects()
    backends = [{"service": "web-primary", "weight": primary}]
    backends += [{"service": "web-canary", "weight": canary}] if canary is not None else []
    meta = {"name": "web", "namespace": "prod"}
    objects.put(
        {
            "apiVersion": "split.smi-spec.io/v1alpha1",
            "kind": "TrafficSplit",
            "metadata": meta,
            "spec": {"service": "web", "backends": backends},
        }
    )
    assert await SmiRouter(objects, "v1alpha1", "").weights(site()) == live


@pytest.mark.parametrize("backends", [[], None, [{"service": "other", "weight": 1}], [{"service": "web-primary", "weight": 0}]])
async def test_a_split_that_says_nothing_is_a_problem_to_read_and_mended_by_reconciling(backends: Any) -> None:
    objects = MemoryObjects()
    meta = {"name": "web", "namespace": "prod"}
    spec = {"backends": backends} if backends is not None else {}
    objects.put({"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "metadata": meta, "spec": spec})
    router = SmiRouter(objects, "v1alpha2", "")
    with pytest.raises(Problem, match=r"^TrafficSplit web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(site())
    await router.reconcile(site())
    assert await router.weights(site()) == ALL_PRIMARY
    found = objects.now(named("v1alpha2"))
    assert found is not None
    assert "ownerReferences" not in found["metadata"], "what somebody else made is not ours to collect"


async def test_an_absent_split_and_an_absent_kind_are_problems_that_say_so() -> None:
    objects = MemoryObjects()
    router = SmiRouter(objects, "v1alpha2", "")
    with pytest.raises(
        Problem, match=r'TrafficSplit web\.prod get query error: trafficsplits\.split\.smi-spec\.io "web" not found'
    ):
        await router.weights(site())
    objects.missing_kinds.add(("split.smi-spec.io/v1alpha2", "TrafficSplit"))
    for call in (router.reconcile(site()), router.weights(site()), router.set_weights(site(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=r"TrafficSplit web\.prod get query error: the server could not find"):
            await call
    assert objects.writes == []


async def test_what_admission_changes_is_noticed() -> None:
    objects = MemoryObjects()
    router = SmiRouter(objects, "v1alpha2", "")
    await router.reconcile(site())

    class Stubborn(MemoryObjects):
        async def patch(self, which: Any, patch: Any, *, manager: str) -> Any:
            return objects.now(named("v1alpha2"))

    stubborn = Stubborn(objects.all())
    with pytest.raises(Problem, match=r"TrafficSplit web\.prod update error: 90/10 was written, 100/0 is live"):
        await SmiRouter(stubborn, "v1alpha2", "").set_weights(site(), Weights.at(10))


async def test_a_faster_writer_is_not_overwritten() -> None:
    objects = MemoryObjects()
    router = SmiRouter(objects, "v1alpha2", "")
    await router.reconcile(site())
    objects.before["TrafficSplit", "web"] = lambda: objects.change(named("v1alpha2"), {"metadata": {"labels": {"fast": "er"}}})
    await router.set_weights(site(), Weights.at(10))
    found = objects.now(named("v1alpha2"))
    assert found is not None
    assert found["metadata"]["labels"] == {"fast": "er"}
    assert await router.weights(site()) == Weights.at(10)


async def test_nothing_is_given_back() -> None:
    objects = MemoryObjects()
    await SmiRouter(objects, "v1alpha2", "").revert(site())
    assert (objects.reads, objects.writes) == ([], [])
