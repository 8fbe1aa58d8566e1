"""What Flagger made of each recorded Canary on Istio, version by version, made by us from the same spec and weights."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from canary.routing.base import Affinity, Weights
from canary.routing.istio import API, IstioRouter
from canary.routing.takeover import ORIGINAL_SPEC
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import as_recorded, changes
from tests.support.objects import MemoryObjects
from tests.support.router_cases import site

RECORDED = json.loads((Path(__file__).parent / "recorded_routes.json").read_text(encoding="utf-8"))
ROUTE = Reference(API, "VirtualService", "prod", "web")
MATCH = [{"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}}, {"headers": {"x-user": {"exact": "insider"}}}]
COOKIES = ("<cookie1>", "<cookie2>")

STORIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ab-istio": ({}, {"iterations": 2, "match": MATCH}),
    "ab-rollback": ({}, {"iterations": 5, "match": MATCH}),
    "affinity-primary-istio": (
        {"match": [{"uri": {"prefix": "/api"}}]},
        {"stepWeight": 30, "maxWeight": 60, "sessionAffinity": {"cookieName": "sticky", "primaryCookieName": "base"}},
    ),
    "bluegreen-istio": ({}, {"iterations": 2}),
    "bluegreen-mirror": ({}, {"iterations": 2, "mirror": True}),
    "match-without-iterations": ({}, {"stepWeight": 50, "maxWeight": 50, "match": MATCH}),
    "rollback-success-rate": ({}, {"stepWeight": 20, "maxWeight": 40}),
    "step-promotion": ({}, {"stepWeight": 50, "maxWeight": 50, "stepWeightPromotion": 20}),
    "step-weights-overflow": ({}, {"stepWeights": [10, 80, 200]}),
}


def canary(story: str) -> Site:
    service, analysis = STORIES[story]
    return site("istio", service={"targetPort": 9898, **service}, analysis=analysis)


def versions(story: str, kind: str, name: str = "web") -> list[Object]:
    """Every recorded version of an object in full."""
    first, *later = RECORDED[story][f"{kind}.{API}/{name}"]
    found = [first]
    for change in later:
        found.append(applied(found[-1], change))
    return found


def applied(version: Object, change: Object) -> Object:
    """A recorded version with a recorded change: values by JSON pointer, None for what is gone."""
    result = deepcopy(version)
    for pointer, value in change.items():
        first, *path = pointer.removeprefix("/").split("/", 1 if pointer.startswith("/annotations/") else -1)
        at, steps = result, [first, *path]
        for step in steps[:-1]:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        last: Any = int(steps[-1]) if isinstance(at, list) else steps[-1]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return result


def weights(version: Object) -> Weights:
    """The weights of a recorded version: those of the last rule with two destinations."""
    rule = [rule for rule in version["spec"]["http"] if len(rule["route"]) == 2][-1]
    return Weights(*(entry["weight"] for entry in rule["route"]), mirrored="mirror" in rule)


def unnamed(found: Object, cookies: Affinity) -> Object:
    """As recorded, with the names that records have for values of cookies."""
    text = json.dumps(as_recorded(found))
    for cookie, name in zip((cookies.session or cookies.previous, cookies.primary), COOKIES, strict=True):
        value = cookie.partition("=")[2]
        text = text.replace(value, name) if value else text
    return json.loads(text)


@pytest.mark.parametrize("story", STORIES)
async def test_route_goes_through_the_recorded_versions(story: str) -> None:
    where, objects, numbers = canary(story), MemoryObjects(), count()
    router = IstioRouter(objects, lambda bound: next(numbers) % bound)
    first, *later = versions(story, "VirtualService")
    await router.reconcile(where)
    assert as_recorded(objects.now(ROUTE)) == first
    assert await router.weights(where) == weights(first) == Weights(100, 0)
    for version in later:
        cookies = await router.set_weights(where, weights(version))
        assert (cookies is not None) == ("affinity" in story)
        assert unnamed(objects.now(ROUTE) or {}, cookies or Affinity()) == version
        assert await router.weights(where) == weights(version)
        cookies = cookies or Affinity()
        where = where.with_status(
            session_affinity_cookie=cookies.session,
            previous_session_affinity_cookie=cookies.previous,
            primary_session_affinity_cookie=cookies.primary,
        )
        objects.forget()
        await router.reconcile(where)
        assert objects.writes == [], "the next tick leaves what the last one wrote"


@pytest.mark.parametrize("story", STORIES)
async def test_destination_rules_are_the_recorded_ones(story: str) -> None:
    objects = MemoryObjects()
    await IstioRouter(objects, lambda _: 0).reconcile(canary(story))
    made = [found["metadata"]["name"] for found in objects.all("DestinationRule")]
    assert made == ["web-canary", "web-primary"]
    for name in made:
        assert (
            as_recorded(objects.now(Reference(API, "DestinationRule", "prod", name)))
            == versions(story, "DestinationRule", name)[0]
        )


async def test_edit_during_a_run_differs_from_the_record_in_keeping_weights_and_note() -> None:
    *_, at_40, edited = versions("service-edit-mid-run", "VirtualService")[:4]
    objects = MemoryObjects()
    router = IstioRouter(objects, lambda _: 0)
    steps = {"stepWeight": 20, "maxWeight": 60}
    await router.reconcile(site("istio", analysis=steps))
    await router.set_weights(site("istio", analysis=steps), weights(at_40))
    assert as_recorded(objects.now(ROUTE)) == at_40
    await router.reconcile(site("istio", service={"timeout": "7s"}, analysis=steps))
    assert changes(as_recorded(objects.now(ROUTE)), edited) == {
        f"/annotations/{ORIGINAL_SPEC}": edited["annotations"][ORIGINAL_SPEC],
        "/spec/http/0/route/0/weight": 100,
        "/spec/http/0/route/1/weight": 0,
    }


async def test_take_over_and_giving_back_differ_from_the_record_in_losing_nothing() -> None:
    given, taken, _ = versions("delete-revert-istio", "VirtualService")
    objects = MemoryObjects([{
        "apiVersion": API, "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "prod", "labels": given["labels"]}, "spec": given["spec"],
    }])  # fmt: skip
    router, where = IstioRouter(objects, lambda _: 0), site("istio", analysis={"stepWeight": 20}, revertOnDeletion=True)
    await router.reconcile(where)
    ours = as_recorded(objects.now(ROUTE))
    note = ours["annotations"].pop(ORIGINAL_SPEC)
    assert json.loads(note) == given["spec"]
    del taken["annotations"][ORIGINAL_SPEC]
    assert changes(taken, ours) == {"/labels": {"mine": "yes"}, "/spec/exportTo": ["*"]}
    await router.revert(where)
    assert as_recorded(objects.now(ROUTE)) == given
