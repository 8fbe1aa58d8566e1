"""ContourRouter: the routes of the HTTPProxy, against a recorded run of Flagger and beyond it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.contour import ContourRouter
from canary.settings import CanarySettings
from canary.site import FLUX_OFF, Site
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects
from tests.support.router_cases import INSIDER, SETTINGS, StubbornObjects, ab, recorded, site

WHICH = Reference("projectcontour.io/v1", "HTTPProxy", "prod", "web")
ALL = [{"prefix": "/"}]


def where(analysis: dict[str, Any] | None = None, **service: Any) -> Site:
    return site("contour", service=service, analysis=analysis)


def live(objects: MemoryObjects) -> Object:
    found = objects.now(WHICH)
    assert found is not None
    return found


def routes(objects: MemoryObjects) -> list[Object]:
    found: list[Object] = live(objects)["spec"]["routes"]
    return found


def entry(name: str, weight: int = 0, port: int = 80) -> Object:
    """A service of a route."""
    header = {"name": "l5d-dst-override", "value": f"{name}.prod.svc.cluster.local:{port}"}
    return {"name": name, "port": port, "requestHeadersPolicy": {"set": [header]}, **({"weight": weight} if weight else {})}


def route(canary: int, conditions: list[Object] | None = None, **more: Any) -> Object:
    """A route of ours with so much for the canary."""
    return {
        "conditions": conditions or ALL,
        "services": [entry("web-primary", 100 - canary), entry("web-canary", canary)],
        **more,
    }


async def made(objects: MemoryObjects, at: Site | None = None) -> ContourRouter:
    router = ContourRouter(objects, SETTINGS)
    await router.reconcile(at or where())
    return router


async def test_makes_and_changes_what_flagger_does_but_for_the_conditions_of_several_matches() -> None:
    case = recorded("contour-ab")
    first, *changes = case.made["HTTPProxy.projectcontour.io/v1/web"]

    await case.run(ContourRouter(case.objects, SETTINGS), 100, 0)
    seen, *later = case.seen["HTTPProxy.projectcontour.io/v1/web"]

    # Flagger's route has two conditions with a prefix, which makes the HTTPProxy invalid: ours has one route for each.
    tested, rest = first["spec"]["routes"]
    each = [{**tested, "conditions": [condition]} for condition in tested["conditions"]]
    assert seen == {**first, "spec": {"routes": [*each, rest]}}
    assert [{name: value for name, value in change.items() if "/routes/0/" in name} for change in later] == changes
    assert [{name for name in change if "/routes/2/" in name} for change in later] == [set(), set()]


async def test_begins_with_all_traffic_on_the_primary() -> None:
    objects = MemoryObjects()

    await made(objects)

    found = live(objects)
    assert found["spec"] == {"routes": [route(0)]}
    assert found["metadata"]["annotations"] == dict(FLUX_OFF)
    assert found["metadata"]["ownerReferences"] == [where().owner]


@given(weight=st.integers(0, 100), tested=st.booleans())
async def test_reads_back_every_weight(weight: int, tested: bool) -> None:
    objects = MemoryObjects()
    at = where(ab() if tested else None)
    router = await made(objects, at)

    await router.set_weights(at, Weights.at(weight))
    objects.forget()
    await router.reconcile(at)

    assert await router.weights(at) == Weights.at(weight)
    conditions = [{"prefix": "/", "header": {"name": "x-canary", "exact": "insider"}}]
    assert routes(objects) == ([route(weight, conditions), route(0)] if tested else [route(weight)])
    assert objects.writes == []


@given(weight=st.integers(0, 100))
async def test_an_edit_of_the_service_keeps_live_weights(weight: int) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    await router.set_weights(where(), Weights.at(weight))

    await router.reconcile(where(port=8080, timeout="7s", match=[{"uri": {"prefix": "/api"}}, {"uri": {"prefix": "/other"}}]))

    assert await router.weights(where()) == Weights.at(weight)
    (found,) = routes(objects)
    assert found["conditions"] == [{"prefix": "/api"}]
    assert found["services"] == [entry("web-primary", 100 - weight, 8080), entry("web-canary", weight, 8080)]
    assert found["timeoutPolicy"] == {"response": "7s", "idle": "5m"}


@pytest.mark.parametrize("before", [None, ab()])
async def test_weights_of_a_test_are_not_for_everybody_nor_the_other_way_round(before: dict[str, Any] | None) -> None:
    objects = MemoryObjects()
    router = await made(objects, where(before))
    await router.set_weights(where(before), Weights.at(100))
    after = where(None if before else ab())

    await router.reconcile(after)

    assert await router.weights(after) == ALL_PRIMARY
    assert routes(objects)[-1] == route(0)


async def test_limits_follow_the_service_and_go_with_it() -> None:
    objects = MemoryObjects()
    retries = {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx, gateway-error"}
    router = await made(objects, where(timeout="10s", retries=retries))
    assert routes(objects)[0]["timeoutPolicy"] == {"response": "10s", "idle": "5m"}
    assert routes(objects)[0]["retryPolicy"] == {"count": 3, "perTryTimeout": "2s", "retryOn": ["5xx", "gateway-error"]}

    await router.reconcile(where(retries={}))
    assert routes(objects) == [route(0, retryPolicy={"count": 1})]

    await router.reconcile(where())
    assert routes(objects) == [route(0)]


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ({"headers": {"a": {"prefix": "b"}}}, [{"prefix": "/", "header": {"name": "a", "contains": "b"}}]),
        ({"headers": {"a": {"suffix": "b"}}}, [{"prefix": "/", "header": {"name": "a", "contains": "b"}}]),
        ({"headers": {"a": {"regex": "b.*"}}}, [{"prefix": "/", "header": {"name": "a", "regex": "b.*"}}]),
        (
            {"headers": {"a": {"exact": "b"}, "c": {"exact": "d"}}, "queryParams": {"q": {"prefix": "x"}, "any": {}}},
            [
                {"prefix": "/", "header": {"name": "a", "exact": "b"}},
                {"header": {"name": "c", "exact": "d"}},
                {"queryParameter": {"name": "q", "prefix": "x"}},
                {"queryParameter": {"name": "any", "present": True}},
            ],
        ),
    ],
)
async def test_says_who_is_in_the_test(match: dict[str, Any], told: list[Object]) -> None:
    objects = MemoryObjects()

    await made(objects, where(ab(match, {"sourceLabels": {"app": "x"}}, match)))

    assert [each["conditions"] for each in routes(objects)] == [told, ALL]


async def test_refuses_a_test_that_everybody_would_be_in() -> None:
    objects = MemoryObjects()

    with pytest.raises(Problem, match=r"^analysis\.match has neither headers nor queryParams"):
        await made(objects, where(ab({"sourceLabels": {"app": "x"}})))
    assert objects.writes == []


async def test_the_ingress_class_is_that_of_the_service() -> None:
    objects = MemoryObjects()

    await ContourRouter(objects, CanarySettings(ingress_class="edge")).reconcile(where())
    assert live(objects)["spec"]["ingressClassName"] == "edge"

    objects.forget()
    await ContourRouter(objects, SETTINGS).reconcile(where())
    assert objects.writes == [], "without a setting it is nobody's business"


async def test_what_people_set_beside_stays() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    found = routes(objects)[0]
    found |= {"permitInsecure": True, "timeoutPolicy": {"idleConnection": "1m"}}
    found["services"][0] |= {"protocol": "h2c"}
    found["services"][0]["requestHeadersPolicy"] |= {"remove": ["x"]}
    found["services"][0]["requestHeadersPolicy"]["set"].insert(0, {"name": "x-side", "value": "primary"})
    found["services"].append({"name": "shadow", "port": 80, "mirror": True})
    found["services"].append({"name": "third", "port": 80, "weight": 50})
    theirs = {"conditions": [{"prefix": "/admin"}], "services": [{"name": "admin", "port": 80}]}
    clash = {"services": [{"name": "web", "port": 80}]}
    patch = {"metadata": {"labels": {"mine": "x"}}, "spec": {"virtualhost": {"fqdn": "a"}, "routes": [theirs, found, clash]}}
    objects.change(WHICH, patch)

    await router.set_weights(where(timeout="3s"), Weights.at(30))
    objects.forget()
    await router.reconcile(where(timeout="3s"))

    assert objects.writes == []
    assert live(objects)["metadata"]["labels"] == {"mine": "x"}
    assert live(objects)["spec"]["virtualhost"] == {"fqdn": "a"}
    assert routes(objects)[0] == theirs
    (ours,) = routes(objects)[1:]
    assert ours["permitInsecure"] is True
    assert ours["timeoutPolicy"] == {"idleConnection": "1m", "response": "3s", "idle": "5m"}
    primary, canary, shadow = ours["services"]
    assert (primary["protocol"], primary["weight"]) == ("h2c", 70)
    assert primary["requestHeadersPolicy"]["remove"] == ["x"]
    assert [each["name"] for each in primary["requestHeadersPolicy"]["set"]] == ["x-side", "l5d-dst-override"]
    assert canary == entry("web-canary", 30)
    assert shadow["mirror"] is True


@pytest.mark.parametrize(
    "spec",
    [
        {"routes": None},
        {"routes": [{"services": [entry("web-primary", 100)]}]},
        {"routes": [{"services": [entry("web-primary"), entry("web-canary")]}]},
    ],
)
async def test_routes_that_say_nothing_are_a_problem_and_are_put_right(spec: Object) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.change(WHICH, {"spec": spec})

    with pytest.raises(Problem, match=r"^HTTPProxy web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(where())
    await router.reconcile(where())

    assert routes(objects) == [route(0)]


async def test_an_object_that_is_gone_is_made_with_the_weights() -> None:
    objects = MemoryObjects()
    router = ContourRouter(objects, SETTINGS)
    with pytest.raises(Problem, match=r'^HTTPProxy web\.prod get query error: httpproxies\.projectcontour\.io "web" not found$'):
        await router.weights(where())

    await router.set_weights(where(), Weights.at(100))

    assert routes(objects) == [route(100)]


async def test_says_which_kind_is_not_served() -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add(("projectcontour.io/v1", "HTTPProxy"))

    with pytest.raises(Problem, match=r"^HTTPProxy web\.prod get query error: the server could not find"):
        await made(objects)


async def test_a_write_that_does_not_become_live_is_a_problem() -> None:
    router = await made(StubbornObjects())

    with pytest.raises(Problem, match=r"^HTTPProxy web\.prod update error: 70/30 was written, 100/0 is live$"):
        await router.set_weights(where(), Weights.at(30))


async def test_reverting_leaves_the_object_to_the_garbage_collector() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.forget()

    await router.revert(where(ab(INSIDER)))

    assert objects.writes == []
