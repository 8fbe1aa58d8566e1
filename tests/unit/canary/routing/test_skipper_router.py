"""SkipperRouter: the canary Ingress and its annotations, against a recorded run of Flagger and beyond it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.skipper import PREDICATE, WEIGHTS, SkipperRouter
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects
from tests.support.router_cases import INGRESS_REF, StubbornObjects, ingress, path, recorded, rule, site

CANARY = Reference("networking.k8s.io/v1", "Ingress", "prod", "web-canary")
APEX = Reference("networking.k8s.io/v1", "Ingress", "prod", "web")


def where() -> Site:
    return site("skipper", ingressRef=INGRESS_REF)


def live(objects: MemoryObjects) -> Object:
    found = objects.now(CANARY)
    assert found is not None
    return found


def noted(objects: MemoryObjects) -> tuple[object, str]:
    """Weights and predicate."""
    found = live(objects)["metadata"]["annotations"]
    return json.loads(found[WEIGHTS]), found[PREDICATE]


async def made(objects: MemoryObjects) -> SkipperRouter:
    router = SkipperRouter(objects)
    await router.reconcile(where())
    return router


async def test_makes_and_changes_what_flagger_does() -> None:
    case = recorded("skipper")

    await case.run(SkipperRouter(case.objects), 50, 0)

    assert case.seen == case.made


@given(weight=st.integers(0, 100))
async def test_reads_back_every_weight(weight: int) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)

    await router.set_weights(where(), Weights.at(weight))
    objects.forget()
    await router.reconcile(where())

    assert await router.weights(where()) == Weights.at(weight)
    assert noted(objects) == ({"web-primary": 100 - weight, "web-canary": weight}, "Weight(100)" if weight else "False()")
    assert objects.writes == []


async def test_each_path_to_the_service_gets_a_copy_at_the_end_of_its_rule() -> None:
    rules = [rule(path("web", "/a", "Exact"), path("other", "/b"), path("web", "/c")), {"host": "no-paths.example.org"}]
    default = {"service": {"name": "web", "port": {"number": 80}}}
    objects = MemoryObjects([ingress(rules=rules, defaultBackend=default)])

    await made(objects)

    assert live(objects)["spec"]["rules"] == [
        rule(
            path("web-primary", "/a", "Exact"),
            path("other", "/b"),
            path("web-primary", "/c"),
            path("web-canary", "/a", "Exact"),
            path("web-canary", "/c"),
        ),
        {"host": "no-paths.example.org"},
    ]
    assert live(objects)["spec"]["defaultBackend"] == default, "there can be one only: it cannot be split"


async def test_a_default_backend_cannot_be_split() -> None:
    objects = MemoryObjects([ingress(rules=[], defaultBackend={"service": {"name": "web", "port": {"number": 80}}})])

    with pytest.raises(Problem, match=r"^backend web not found in ingress web$"):
        await made(objects)
    assert objects.writes == []


async def test_says_which_ingress_is_missing() -> None:
    with pytest.raises(Problem, match=r'^apexIngress web\.prod get query error: ingresses\.networking\.k8s\.io "web" not found$'):
        await made(MemoryObjects())


async def test_needs_an_ingress_reference() -> None:
    with pytest.raises(Problem, match=r"^ingress selector is empty$"):
        await SkipperRouter(MemoryObjects()).reconcile(site("skipper"))


@pytest.mark.parametrize(
    "predicate",
    ['QueryParam("a", "b&&c")', "Header(`x`, `&& Weight(100)`)", r"PathRegexp(/a&&b\/c/)", r'Cookie("a", "\"&&")'],
)
async def test_predicates_of_the_application_stay(predicate: str) -> None:
    apex = ingress()
    apex["metadata"]["annotations"][PREDICATE] = f"{predicate} &&Tee()"
    objects = MemoryObjects([apex])
    router = await made(objects)

    assert noted(objects)[1] == f"Weight(100) && {predicate} && Tee()"
    await router.set_weights(where(), ALL_PRIMARY)
    assert noted(objects)[1] == f"False() && {predicate} && Tee()"
    await router.set_weights(where(), Weights.at(5))
    assert noted(objects)[1] == f"Weight(100) && {predicate} && Tee()"


async def test_weights_of_other_services_stay() -> None:
    apex = ingress(rules=[rule(path("web"), path("x", "/x"), path("y", "/x"))])
    apex["metadata"]["annotations"][WEIGHTS] = '{"x": 80, "y": 20}'
    objects = MemoryObjects([apex])
    router = await made(objects)

    await router.set_weights(where(), Weights.at(30))

    assert live(objects)["metadata"]["annotations"][WEIGHTS] == '{"web-canary":30,"web-primary":70,"x":80,"y":20}'


async def test_a_change_of_the_spec_follows_in_mid_run_and_keeps_the_weights() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    await router.set_weights(where(), Weights.at(30))
    objects.change(APEX, {"spec": {"rules": [rule(path("web", "/new"))]}})

    await router.reconcile(where())

    assert live(objects)["spec"]["rules"] == [rule(path("web-primary", "/new"), path("web-canary", "/new"))]
    assert noted(objects) == ({"web-primary": 70, "web-canary": 30}, "Weight(100)")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"web-primary": "x", "web-canary": 1}', '{"web-primary":0,"web-canary":0}']
)
async def test_weights_that_cannot_be_read_are_a_problem_and_are_put_right(text: str | None) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.change(CANARY, {"metadata": {"annotations": {WEIGHTS: text, PREDICATE: None}}})

    with pytest.raises(Problem, match=r"^Ingress web-canary\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(where())
    await router.reconcile(where())

    assert noted(objects) == ({"web-primary": 100, "web-canary": 0}, "Weight(100)")


@given(
    foreign=st.dictionaries(st.sampled_from(["x", "zalando.org/skipper-filter"]), st.text(max_size=3)), weight=st.integers(0, 100)
)
async def test_what_others_write_beside_stays(foreign: dict[str, str], weight: int) -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.change(CANARY, {"metadata": {"labels": foreign, "annotations": foreign}})

    await router.reconcile(where())
    await router.set_weights(where(), Weights.at(weight))

    meta = live(objects)["metadata"]
    assert meta["labels"].items() >= foreign.items()
    assert meta["annotations"].items() >= foreign.items()


async def test_what_kubectl_applied_is_not_taken_over() -> None:
    apex = ingress()
    apex["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    objects = MemoryObjects([apex])

    await made(objects)

    assert set(live(objects)["metadata"]["annotations"]) == {"example.org/keep", WEIGHTS, PREDICATE}


async def test_weights_are_set_though_the_ingress_of_the_application_is_broken() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.remove(APEX)

    await router.set_weights(where(), ALL_PRIMARY)

    assert noted(objects)[1] == "False()"


async def test_a_write_that_does_not_become_live_is_a_problem() -> None:
    router = await made(objects := StubbornObjects([ingress()]))

    with pytest.raises(Problem, match=r"^ingress web-canary\.prod update error: 70/30 was written, 100/0 is live$"):
        await router.set_weights(where(), Weights.at(30))
    assert noted(objects)[1] == "Weight(100)"


async def test_reverting_deletes_the_canary_ingress_once() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)

    await router.revert(where())
    await router.revert(where())

    assert objects.now(CANARY) is None
    assert objects.now(APEX) is not None


async def test_reverting_without_a_reference_has_nothing_to_do() -> None:
    objects = MemoryObjects([ingress()])

    await SkipperRouter(objects).revert(site("skipper"))

    assert objects.writes == []


async def test_a_delete_that_fails_is_a_problem() -> None:
    objects = MemoryObjects([ingress()])
    router = await made(objects)
    objects.fail["delete", "Ingress", "web-canary"] = ReconcileError("forbidden")

    with pytest.raises(Problem, match=r"^ingress web-canary\.prod delete error: forbidden$"):
        await router.revert(where())
