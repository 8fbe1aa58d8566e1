"""TraefikRouter: the weighted TraefikService."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.traefik import TraefikRouter
from canary.site import FLUX_OFF, Site
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects
from tests.support.router_cases import StubbornObjects, site

WHICH = Reference("traefik.io/v1alpha1", "TraefikService", "prod", "web")
PRIMARY = {"name": "web-primary", "namespace": "prod", "port": 80}
CANARY = {"name": "web-canary", "namespace": "prod", "port": 80}


def where(**service: Any) -> Site:
    return site("traefik", service=service)


def live(objects: MemoryObjects) -> Object:
    found = objects.now(WHICH)
    assert found is not None
    return found


def services(objects: MemoryObjects) -> list[Object]:
    found: list[Object] = live(objects)["spec"]["weighted"]["services"]
    return found


async def made(objects: MemoryObjects) -> TraefikRouter:
    router = TraefikRouter(objects)
    await router.reconcile(where())
    return router


async def test_begins_with_the_primary_alone() -> None:
    objects = MemoryObjects()

    await made(objects)

    found = live(objects)
    assert found["spec"] == {"weighted": {"services": [{**PRIMARY, "weight": 100}]}}
    assert found["metadata"]["annotations"] == dict(FLUX_OFF)
    assert "labels" not in found["metadata"]
    assert found["metadata"]["ownerReferences"] == [where().owner]


async def test_labels_and_annotations_are_those_of_the_apex() -> None:
    objects = MemoryObjects()
    apex = {"labels": {"kind": "apex"}, "annotations": {"note": "a"}}

    await TraefikRouter(objects).reconcile(where(apex=apex))

    assert live(objects)["metadata"]["labels"] == {"kind": "apex", "app": "web"}
    assert live(objects)["metadata"]["annotations"] == {"note": "a", **FLUX_OFF}


@given(weight=st.integers(0, 100))
async def test_reads_back_every_weight(weight: int) -> None:
    objects = MemoryObjects()
    router = await made(objects)

    await router.set_weights(where(), Weights.at(weight))
    objects.forget()
    await router.reconcile(where())

    assert await router.weights(where()) == Weights.at(weight)
    assert services(objects) == [{**PRIMARY, "weight": 100 - weight}, *([{**CANARY, "weight": weight}] if weight else [])]
    assert objects.writes == []


@given(weight=st.integers(0, 100), port=st.integers(1, 65535))
async def test_an_edit_of_the_service_and_drift_keep_live_weights(weight: int, port: int) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    await router.set_weights(where(), Weights.at(weight))
    objects.change(WHICH, {"metadata": {"annotations": dict.fromkeys(FLUX_OFF)}})

    await router.reconcile(where(port=port))

    assert await router.weights(where()) == Weights.at(weight)
    assert {each["port"] for each in services(objects)} == {port}
    assert live(objects)["metadata"]["annotations"] == dict(FLUX_OFF)


async def test_relative_weights_are_read_as_shares_and_written_in_percent() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.change(WHICH, {"spec": {"weighted": {"services": [{**PRIMARY}, {**CANARY, "weight": 3}]}}})

    assert await router.weights(where()) == Weights(25, 75)
    await router.reconcile(where())

    assert services(objects) == [{**PRIMARY, "weight": 25}, {**CANARY, "weight": 75}]


@pytest.mark.parametrize("found", [[], [{**PRIMARY, "weight": 0}], [{"name": "other", "port": 1}], [{**PRIMARY, "weight": "x"}]])
async def test_a_list_that_says_nothing_is_a_problem_and_is_put_right(found: list[Object]) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.change(WHICH, {"spec": {"weighted": {"services": found}}})

    with pytest.raises(Problem, match=r"^TraefikService web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(where())
    await router.reconcile(where())

    assert await router.weights(where()) == ALL_PRIMARY


async def test_what_people_set_beside_stays_and_holds_for_the_canary_too() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    sticky = {"sticky": {"cookie": {"name": "c"}}}
    objects.change(
        WHICH,
        {
            "metadata": {"labels": {"mine": "x"}},
            "spec": {"weighted": {"services": [{**PRIMARY, "weight": 100, "scheme": "h2c"}], **sticky}},
        },
    )

    await router.set_weights(where(), Weights.at(30))
    objects.change(
        WHICH, {"spec": {"weighted": {"services": [services(objects)[0], {**services(objects)[1], "passHostHeader": False}]}}}
    )
    await router.set_weights(where(), Weights.at(40))

    assert live(objects)["metadata"]["labels"] == {"mine": "x"}
    assert live(objects)["spec"]["weighted"] == {
        "services": [
            {**PRIMARY, "weight": 60, "scheme": "h2c"},
            {**CANARY, "weight": 40, "scheme": "h2c", "passHostHeader": False},
        ],
        **sticky,
    }


async def test_a_third_service_would_make_weights_no_percentages() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.change(WHICH, {"spec": {"weighted": {"services": [{**PRIMARY, "weight": 100}, {"name": "other", "port": 1}]}}})

    await router.reconcile(where())

    assert services(objects) == [{**PRIMARY, "weight": 100}]


async def test_an_object_that_is_gone_is_made_with_the_weights() -> None:
    objects = MemoryObjects()
    router = TraefikRouter(objects)
    with pytest.raises(
        Problem, match=r'^TraefikService web\.prod get query error: traefikservices\.traefik\.io "web" not found$'
    ):
        await router.weights(where())

    await router.set_weights(where(), Weights.at(100))

    assert services(objects) == [{**PRIMARY, "weight": 0}, {**CANARY, "weight": 100}]


async def test_says_which_kind_is_not_served() -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add(("traefik.io/v1alpha1", "TraefikService"))
    router = TraefikRouter(objects)

    for call in (router.reconcile(where()), router.weights(where()), router.set_weights(where(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=r"^TraefikService web\.prod get query error: the server could not find"):
            await call


async def test_needs_a_service() -> None:
    at = where()
    bare = replace(at, canary=replace(at.canary, spec=at.spec.model_copy(update={"service": None})))

    with pytest.raises(Problem, match=r"^canary web\.prod has no spec\.service, which provider traefik needs$"):
        await TraefikRouter(MemoryObjects()).reconcile(bare)


async def test_a_write_that_does_not_become_live_is_a_problem() -> None:
    router = await made(StubbornObjects())

    with pytest.raises(Problem, match=r"^TraefikService web\.prod update error: 70/30 was written, 100/0 is live$"):
        await router.set_weights(where(), Weights.at(30))


async def test_reverting_leaves_the_object_to_the_garbage_collector() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.forget()

    await router.revert(where())

    assert objects.writes == []
