"""GlooRouter: RouteTable and Upstreams, against a recorded run of Flagger and beyond it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Weights
from canary.routing.gloo import GlooRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects
from tests.support.router_cases import INSIDER, StubbornObjects, ab, recorded, site

WHICH = Reference("gateway.solo.io/v1", "RouteTable", "prod", "web")


def where(analysis: dict[str, Any] | None = None, service: dict[str, Any] | None = None, **spec: Any) -> Site:
    return site("gloo", service=service, analysis=analysis, **spec)


def upstream(name: str, namespace: str = "prod") -> Reference:
    return Reference("gloo.solo.io/v1", "Upstream", namespace, name)


PRIMARY = upstream("prod-web-primaryupstream-80")
CANARY = upstream("prod-web-canaryupstream-80")


def found(objects: MemoryObjects, which: Reference = WHICH) -> Object:
    known = objects.now(which)
    assert known is not None
    return known


def routes(objects: MemoryObjects) -> list[Object]:
    known: list[Object] = found(objects)["spec"]["routes"]
    return known


def route(canary: int, port: int = 80, **more: Any) -> Object:
    """Our route with so much for the canary."""
    sides = (("primary", 100 - canary), ("canary", canary))
    destinations = [
        {"destination": {"upstream": {"name": f"prod-web-{side}upstream-{port}", "namespace": "prod"}}}
        | ({"weight": weight} if weight else {})
        for side, weight in sides
    ]
    return {"inheritablePathMatchers": True, "routeAction": {"multi": {"destinations": destinations}}, **more}


async def made(objects: MemoryObjects, at: Site | None = None) -> GlooRouter:
    router = GlooRouter(objects)
    await router.reconcile(at or where())
    return router


async def test_makes_and_changes_what_flagger_does() -> None:
    case = recorded("gloo")

    await case.run(GlooRouter(case.objects), 50, 0)

    assert case.seen == case.made


@given(weight=st.integers(0, 100), tested=st.booleans())
async def test_reads_back_every_weight(weight: int, tested: bool) -> None:
    objects = MemoryObjects()
    at = where(ab() if tested else None)
    router = await made(objects, at)

    await router.set_weights(at, Weights.at(weight))
    objects.forget()
    await router.reconcile(at)

    assert await router.weights(at) == Weights.at(weight)
    matchers: dict[str, Any] = {"matchers": [{"headers": [{"name": "x-canary", "value": "insider"}]}]} if tested else {}
    assert routes(objects) == [route(weight, **matchers)]
    assert objects.writes == []


@given(weight=st.integers(0, 100))
async def test_an_edit_of_the_service_keeps_live_weights(weight: int) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    await router.set_weights(where(), Weights.at(weight))

    await router.reconcile(where(service={"port": 8080, "apex": {"labels": {"kind": "apex"}}}))

    assert routes(objects) == [route(weight, 8080)]
    assert found(objects)["metadata"]["labels"] == {"kind": "apex", "app": "web"}
    assert found(objects, upstream("prod-web-canaryupstream-8080"))["spec"]["kube"]["servicePort"] == 8080


@pytest.mark.parametrize("before", [None, ab()])
async def test_weights_of_a_test_are_not_for_everybody_nor_the_other_way_round(before: dict[str, Any] | None) -> None:
    objects = MemoryObjects()
    router = await made(objects, where(before))
    await router.set_weights(where(before), Weights.at(100))
    after = where(None if before else ab())

    await router.reconcile(after)

    assert await router.weights(after) == ALL_PRIMARY


@pytest.mark.parametrize(
    ("matches", "told"),
    [
        (
            [INSIDER, {"headers": {"cookie": {"regex": "a.*"}}}],
            {"headers": [{"name": "x-canary", "value": "insider"}, {"name": "cookie", "value": "a.*", "regex": True}]},
        ),
        ([{"headers": {"a": {"prefix": "b.c"}}}], {"headers": [{"name": "a", "value": r"b\.c.*", "regex": True}]}),
        ([{"headers": {"a": {"suffix": "b.c"}}}], {"headers": [{"name": "a", "value": r".*b\.c", "regex": True}]}),
        (
            [{"queryParams": {"q": {"exact": "1"}, "any": {}}}],
            {"queryParameters": [{"name": "q", "value": "1"}, {"name": "any"}]},
        ),
    ],
)
async def test_says_who_is_in_the_test(matches: list[dict[str, Any]], told: Object) -> None:
    objects = MemoryObjects()

    await made(objects, where(ab(*matches)))

    assert routes(objects) == [route(0, matchers=[told])]


async def test_refuses_a_test_that_everybody_would_be_in() -> None:
    with pytest.raises(Problem, match=r"^analysis\.match has neither headers nor queryParams"):
        await made(MemoryObjects(), where(ab({"sourceLabels": {"app": "x"}})))


def template(namespace: str = "prod", **spec: Any) -> Object:
    """An Upstream to copy settings from."""
    which = upstream("template", namespace)
    meta = {"name": which.name, "namespace": namespace, "labels": {"team": "blue"}, "annotations": {"not": "this"}}
    return {"apiVersion": which.api_version, "kind": which.kind, "metadata": meta, "spec": {"kube": {"serviceName": "x"}, **spec}}


SETTINGS_OF_ALL_KINDS: dict[str, Any] = {
    "sslConfig": {"sni": "a"},
    "circuitBreakers": {"maxRequests": 1},
    "connectionConfig": {"connectTimeout": "1s"},
    "loadBalancerConfig": {"roundRobin": {}},
    "useHttp2": True,
    "initialStreamWindowSize": 1,
    "initialConnectionWindowSize": 2,
    "httpProxyHostName": "proxy",
}
REF = {"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "template"}


@pytest.mark.parametrize("ref", [REF, REF | {"namespace": "prod"}])
async def test_new_upstreams_are_like_the_one_named(ref: dict[str, str]) -> None:
    objects = MemoryObjects([template(**SETTINGS_OF_ALL_KINDS, failover={"x": 1})])

    await made(objects, where(upstreamRef=ref))

    for which, name, selector in ((PRIMARY, "web-primary", "web-primary"), (CANARY, "web-canary", "web")):
        known = found(objects, which)
        assert known["metadata"]["labels"] == {"team": "blue"}
        assert "annotations" not in known["metadata"]
        kube = {"serviceName": name, "serviceNamespace": "prod", "servicePort": 80, "selector": {"app": selector}}
        assert known["spec"] == {"kube": kube, **SETTINGS_OF_ALL_KINDS}


async def test_load_balancing_follows_and_nothing_else() -> None:
    objects = MemoryObjects([template("infra", useHttp2=True)])
    at = where(upstreamRef=REF | {"namespace": "infra"})
    router = await made(objects, at)
    objects.change(upstream("template", "infra"), {"spec": {"useHttp2": False, "loadBalancerConfig": {"random": {}}}})
    objects.change(PRIMARY, {"metadata": {"labels": {"mine": "x"}}, "spec": {"healthChecks": [{}], "kube": {"selector": None}}})

    await router.reconcile(at)

    spec = found(objects, PRIMARY)["spec"]
    assert (spec["useHttp2"], spec["loadBalancerConfig"], spec["healthChecks"]) == (True, {"random": {}}, [{}])
    assert spec["kube"]["selector"] == {"app": "web-primary"}
    assert found(objects, PRIMARY)["metadata"]["labels"] == {"team": "blue", "mine": "x"}
    objects.forget()
    await router.reconcile(at)
    assert objects.writes == []


async def test_says_that_the_upstream_to_copy_is_missing() -> None:
    with pytest.raises(
        Problem, match=r'^Upstream template\.infra get query error: upstreams\.gloo\.solo\.io "template" not found$'
    ):
        await made(MemoryObjects(), where(upstreamRef=REF | {"namespace": "infra"}))


async def test_what_people_set_beside_stays() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    ours = routes(objects)[0] | {"options": {"timeout": "3s"}}
    destinations = ours["routeAction"]["multi"]["destinations"]
    destinations[0]["options"] = {"headerManipulation": {}}
    destinations.append({"destination": {"upstream": {"name": "third", "namespace": "prod"}}, "weight": 50})
    theirs = {"matchers": [{"exact": "/admin"}], "routeAction": {"single": {"upstream": {"name": "admin", "namespace": "prod"}}}}
    clash = {"routeAction": {"single": {"upstream": {"name": "web", "namespace": "prod"}}}}
    patch = {"metadata": {"annotations": {"mine": "x"}}, "spec": {"weight": 5, "routes": [theirs, ours, clash]}}
    objects.change(WHICH, patch)

    await router.set_weights(where(), Weights.at(30))
    objects.forget()
    await router.reconcile(where())

    assert objects.writes == []
    assert found(objects)["metadata"]["annotations"]["mine"] == "x"
    assert found(objects)["spec"]["weight"] == 5
    expected = deepcopy(route(30, options={"timeout": "3s"}))
    expected["routeAction"]["multi"]["destinations"][0]["options"] = {"headerManipulation": {}}
    assert routes(objects) == [theirs, expected]


async def test_a_name_that_is_only_like_ours_is_not_ours() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    alike = route(10, matchers=[{"prefix": "/x"}])
    for each in alike["routeAction"]["multi"]["destinations"]:
        each["destination"]["upstream"]["name"] += "-old"
    objects.change(WHICH, {"spec": {"routes": [alike, *routes(objects)]}})

    assert await router.weights(where()) == ALL_PRIMARY
    await router.set_weights(where(), Weights.at(20))

    assert routes(objects) == [alike, route(20)]


WEIGHTLESS = {"multi": {"destinations": [{"destination": {"upstream": {"name": which.name}}} for which in (PRIMARY, CANARY)]}}


@pytest.mark.parametrize(
    "spec",
    [
        {"routes": None},
        {"routes": [{"routeAction": {"single": {}}}]},
        {"routes": [{"redirectAction": {}}]},
        {"routes": [{"routeAction": WEIGHTLESS}]},
    ],
)
async def test_routes_that_say_nothing_are_a_problem_and_are_put_right(spec: Object) -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.change(WHICH, {"spec": spec})

    with pytest.raises(Problem, match=r"^RouteTable web\.prod does not contain routes for web-primary and web-canary$"):
        await router.weights(where())
    await router.reconcile(where())

    assert routes(objects) == [route(0)]


@pytest.mark.parametrize("kind", ["RouteTable", "Upstream"])
async def test_says_which_kind_is_not_served(kind: str) -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add(("gateway.solo.io/v1" if kind == "RouteTable" else "gloo.solo.io/v1", kind))

    with pytest.raises(Problem, match=rf"^{kind} .*\.prod get query error: the server could not find"):
        await made(objects)


async def test_a_write_that_does_not_become_live_is_a_problem() -> None:
    router = await made(StubbornObjects())

    with pytest.raises(Problem, match=r"^RouteTable web\.prod update error: 70/30 was written, 100/0 is live$"):
        await router.set_weights(where(), Weights.at(30))


async def test_reverting_leaves_the_objects_to_the_garbage_collector() -> None:
    objects = MemoryObjects()
    router = await made(objects)
    objects.forget()

    await router.revert(where())

    assert objects.writes == []
