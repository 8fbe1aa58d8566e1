"""HTTPRoutes: the recorded ones, what requests are matched by, what is done to them, and when weights are live."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Affinity, Weights
from canary.routing.gateway_api import GatewayApiRouter, fields, read, unaccepted
from canary.routing.gateway_rules import defaulted
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from tests.support import router_cases
from tests.support.canary_sites import as_recorded, history
from tests.support.objects import MemoryObjects

RECORDED = json.loads((Path(__file__).parent / "recorded_routes.json").read_text(encoding="utf-8"))
ROUTE = Reference("gateway.networking.k8s.io/v1", "HTTPRoute", "prod", "web")
GATEWAY = {"gatewayRefs": [{"name": "gw", "namespace": "infra"}], "hosts": ["web.example.org"]}
FULL: dict[str, Any] = {
    **GATEWAY,
    "timeout": "10s",
    "backendTimeout": "5s",
    "match": [
        {"uri": {"prefix": "/api"}, "method": {"exact": "GET"}},
        {"uri": {"regex": "/v[0-9]+"}, "headers": {"x-a": {"regex": "b.*"}}, "queryParams": {"q": {"exact": "1"}}},
    ],
    "rewrite": {"uri": "/", "authority": "inner.example.org", "type": "ReplacePrefixMatch"},
    "headers": {
        "request": {"add": {"x-b": "2", "x-a": "1"}, "set": {"x-c": "3"}, "remove": ["x-d"]},
        "response": {"add": {"x-r": "1"}},
    },
    "corsPolicy": {
        "allowOrigin": ["https://example.org"],
        "allowMethods": ["GET"],
        "allowHeaders": ["x-h"],
        "exposeHeaders": ["x-e"],
        "maxAge": "24h",
        "allowCredentials": True,
    },
    "mirror": [{"backendRef": {"name": "shadow", "port": 80}}],
    "apex": {"labels": {"kind": "apex"}, "annotations": {"note": "apex"}},
}
STICKY = {"stepWeight": 30, "sessionAffinity": {"cookieName": "sticky", "primaryCookieName": "base"}}
STORIES = {
    "gatewayapi-full-service": (FULL, {"stepWeight": 50, "maxWeight": 50}),
    "gatewayapi-rollback": (GATEWAY, {"stepWeight": 20, "maxWeight": 40}),
}


def site(analysis: dict[str, Any] | None = None, **service: Any) -> Site:
    return router_cases.site("gatewayapi:v1", service={**GATEWAY, **service}, analysis=analysis)


def router(objects: MemoryObjects, version: str = "v1") -> GatewayApiRouter:
    numbers = count()
    return GatewayApiRouter(objects, lambda bound: next(numbers) % bound, version=version)


def rules(where: Site, weights: Weights = ALL_PRIMARY, cookies: Affinity | None = None, **more: Any) -> list[Object]:
    made: list[Object] = fields(where, weights, cookies or Affinity(), **more)["rules"]
    return made


@pytest.mark.parametrize("story", STORIES)
async def test_route_goes_through_the_recorded_versions(story: str) -> None:
    service, analysis = STORIES[story]
    where, objects = router_cases.site("gatewayapi:v1", service=service, analysis=analysis), MemoryObjects()
    expected = RECORDED[story]["HTTPRoute.gateway.networking.k8s.io/v1/web"]
    await router(objects).reconcile(where)
    seen = [as_recorded(objects.now(ROUTE))]
    for change in expected[1:]:
        weight = change["/spec/rules/0/backendRefs/1/weight"]
        assert await router(objects).set_weights(where, Weights.at(weight)) is None
        seen.append(as_recorded(objects.now(ROUTE)))
        assert await router(objects).weights(where) == Weights.at(weight)
    assert history(seen) == expected


def test_v1beta1_has_no_timeouts_and_no_cors() -> None:
    older, newer = (rules(router_cases.site("gatewayapi:v1beta1", service=FULL), recent=recent) for recent in (False, True))
    assert "timeouts" in newer[0]
    assert "timeouts" not in older[0]
    assert older[0]["filters"] == [each for each in newer[0]["filters"] if each["type"] != "CORS"]


async def test_v1beta1_route_is_of_that_version() -> None:
    objects = MemoryObjects()
    await router(objects, "v1beta1").reconcile(site())
    assert [found["apiVersion"] for found in objects.all()] == ["gateway.networking.k8s.io/v1beta1"]


async def test_gateways_are_required() -> None:
    objects = MemoryObjects()
    with pytest.raises(Problem, match=r"^GatewayRefs must be specified when using Gateway API as a provider\.$"):
        await router(objects).reconcile(router_cases.site("gatewayapi:v1"))
    assert objects.writes == []


# --- whom a rule is for


def test_audience_of_a_test_goes_by_weight_and_the_others_to_the_primary() -> None:
    where = site(router_cases.ab({"headers": {"x-user": {"exact": "me"}}}, {"queryParams": {"q": {"regex": "a+"}}}), timeout="3s")
    for_some, for_all = rules(where, Weights.at(100))
    root = {"path": {"type": "PathPrefix", "value": "/"}}
    assert for_some["matches"] == [
        {**root, "headers": [{"name": "x-user", "type": "Exact", "value": "me"}]},
        {**root, "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a+"}]},
    ]
    assert [(each["name"], each["weight"]) for each in for_some["backendRefs"]] == [("web-primary", 0), ("web-canary", 100)]
    assert for_all["matches"] == [root]
    assert [(each["name"], each["weight"]) for each in for_all["backendRefs"]] == [("web-primary", 100)]
    assert for_some["timeouts"] == for_all["timeouts"] == {"request": "3s"}
    live = read(where, {"rules": [for_some, for_all]})
    assert (live.weights, live.matched) == (Weights.at(100), True)


def test_test_replaces_headers_and_query_parameters_of_the_service() -> None:
    where = site(
        router_cases.ab({"headers": {"x-b": {"exact": "2"}}}, {"queryParams": {"r": {"exact": "2"}}}),
        match=[{"uri": {"exact": "/a"}, "headers": {"x-a": {"exact": "1"}}, "queryParams": {"q": {"exact": "1"}}}],
    )
    path = {"path": {"type": "Exact", "value": "/a"}}
    x_a, x_b = ({"name": name, "type": "Exact", "value": value} for name, value in (("x-a", "1"), ("x-b", "2")))
    q, r = ({"name": name, "type": "Exact", "value": value} for name, value in (("q", "1"), ("r", "2")))
    assert rules(where)[0]["matches"] == [
        {**path, "headers": [x_b], "queryParams": [q]},
        {**path, "headers": [x_a], "queryParams": [r]},
    ]


@pytest.mark.parametrize(
    ("how", "pattern"),
    [({"prefix": "a.b"}, r"^a\.b.*$"), ({"suffix": "(x)"}, r"^.*\(x\)$"), ({"regex": "a|b"}, "a|b")],
)
def test_parts_of_values_are_matched_by_regular_expressions(how: dict[str, str], pattern: str) -> None:
    for_some, _ = rules(site(router_cases.ab({"headers": {"x-user": how}})))
    assert for_some["matches"][0]["headers"] == [{"name": "x-user", "type": "RegularExpression", "value": pattern}]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({"sourceLabels": {"app": "a"}}, r"analysis\.match\[0\]\.sourceLabels: the Gateway API cannot match labels"),
        ({"headers": {"x": {"exact": "1"}}, "sourceLabels": {"app": "a"}}, "cannot match labels"),
        ({"queryParams": {"q": {}}}, r"analysis\.match\[0\]\.queryParams\.q: the Gateway API matches it by exact, regex"),
        ({}, r"analysis\.match\[0\] matches every request: it needs one of headers, queryParams, sourceLabels"),
        ({"headers": {}}, "matches every request"),
    ],
)
async def test_test_that_cannot_be_said_is_refused_and_nothing_written(match: dict[str, Any], said: str) -> None:
    objects = MemoryObjects()
    with pytest.raises(Problem, match=said):
        await router(objects).reconcile(site(router_cases.ab(match)))
    assert objects.writes == []


@pytest.mark.parametrize("match", [{"method": {"prefix": "G"}}, {"method": {"regex": "G.*"}}, {"headers": {"x": {}}}])
def test_service_match_that_cannot_be_said_is_refused(match: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=r"^Invalid request matching selectors: service\.match\[0\]\."):
        rules(site(match=[match]))


def test_keys_that_flagger_leaves_out_are_left_out() -> None:
    ignored = {"scheme": {"exact": "https"}, "port": 80, "sourceLabels": {"a": "b"}, "ignoreUriCase": True}
    assert rules(site(match=[{"uri": {"prefix": "/a"}, **ignored}]))[0]["matches"] == [
        {"path": {"type": "PathPrefix", "value": "/a"}}
    ]


# --- what is done to requests


@pytest.mark.parametrize(
    ("rewrite", "said"),
    [
        ({"uri": "/x"}, {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}),
        ({"uri": "/x", "type": "Other"}, {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}),
        ({"uri": "/x", "type": "ReplacePrefixMatch"}, {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}),
        ({"authority": "a.example.org"}, {"hostname": "a.example.org"}),
        ({"type": "ReplacePrefixMatch"}, None),
    ],
)
def test_rewrites(rewrite: dict[str, str], said: dict[str, Any] | None) -> None:
    made = rules(site(rewrite=rewrite))[0].get("filters", [])
    assert made == ([{"type": "URLRewrite", "urlRewrite": said}] if said else [])


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"allowOrigins": [{"exact": "https://a"}, {"regex": "b.*"}]}, {"allowOrigins": ["https://a"]}),
        ({"allowCredentials": False, "maxAge": "soon"}, {}),
        ({"maxAge": "1m30.9s"}, {"maxAge": 90}),
    ],
)
def test_cors_as_far_as_it_can_be_said(policy: dict[str, Any], said: dict[str, Any]) -> None:
    assert rules(site(corsPolicy=policy))[0]["filters"] == [{"type": "CORS", "cors": said}]


async def test_mirroring_is_one_more_filter_that_goes_with_the_weights() -> None:
    objects, where = MemoryObjects(), site({"iterations": 2, "mirror": True}, mirror=FULL["mirror"])
    await router(objects).reconcile(where)
    before = as_recorded(objects.now(ROUTE))
    await router(objects).set_weights(where, Weights.at(0, mirrored=True))
    assert await router(objects).weights(where) == Weights(100, 0, mirrored=True)
    filters = as_recorded(objects.now(ROUTE))["spec"]["rules"][0]["filters"]
    targets = [each["requestMirror"]["backendRef"] for each in filters]
    assert targets == [{"group": "", "kind": "Service", "name": name, "port": 80} for name in ("shadow", "web-canary")]
    objects.forget()
    await router(objects).reconcile(where)
    assert objects.writes == []
    await router(objects).set_weights(where, ALL_PRIMARY)
    assert as_recorded(objects.now(ROUTE)) == before


async def test_lasting_mirror_to_the_canary_is_no_mirroring() -> None:
    objects, where = MemoryObjects(), site({"iterations": 2}, mirror=[{"backendRef": {"name": "web-canary", "port": 80}}])
    await router(objects).reconcile(where)
    await router(objects).set_weights(where, Weights.at(100))
    assert await router(objects).weights(where) == Weights.at(100)


# --- session affinity


async def test_session_affinity_from_the_first_weight_to_the_end() -> None:
    objects, where = MemoryObjects(), site(STICKY, match=[{"uri": {"prefix": "/api"}, "headers": {"x": {"exact": "1"}}}])
    api = {"path": {"type": "PathPrefix", "value": "/api"}}
    x = {"name": "x", "type": "Exact", "value": "1"}
    await router(objects).reconcile(where)
    (plain,) = objects.now(ROUTE)["spec"]["rules"]  # type: ignore[index]
    cookies = await router(objects).set_weights(where, Weights.at(30))
    assert cookies == Affinity("sticky=abcdefghij", "", "base=klmnopqrst")

    def cookie(pattern: str) -> Object:
        return {**api, "headers": [{"name": "Cookie", "type": "RegularExpression", "value": pattern}, x]}

    def sets(header: str) -> list[Object]:
        return [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": header}]}}]

    to_canary, to_primary, by_weight = objects.now(ROUTE)["spec"]["rules"]  # type: ignore[index]
    assert [each["weight"] for each in to_canary["backendRefs"]] == [0, 100]
    assert [each["weight"] for each in to_primary["backendRefs"]] == [100, 0]
    assert to_canary["matches"] == [cookie(".*sticky.*abcdefghij.*")]
    assert to_primary["matches"] == [cookie(".*base.*klmnopqrst.*")]
    assert by_weight["matches"] == plain["matches"]
    primary, canary = by_weight["backendRefs"]
    assert (primary["weight"], primary["filters"]) == (70, sets("base=klmnopqrst; Max-Age=10"))
    assert (canary["weight"], canary["filters"]) == (30, sets("sticky=abcdefghij; Max-Age=86400"))
    assert await router(objects).set_weights(where, ALL_PRIMARY) == Affinity("", "sticky=abcdefghij", "base=klmnopqrst")
    forgetting, after = objects.now(ROUTE)["spec"]["rules"]  # type: ignore[index]
    assert forgetting == {
        **plain, "matches": [cookie(".*sticky.*abcdefghij.*")], "filters": sets("sticky=abcdefghij; Max-Age=-1"),
    }  # fmt: skip
    assert after == plain


def test_cookie_alone_is_matched_when_the_service_matches_everything() -> None:
    to_canary, *_ = rules(site(STICKY), Weights.at(30), Affinity("sticky=a"))
    assert to_canary["matches"] == [{"headers": [{"name": "Cookie", "type": "RegularExpression", "value": ".*sticky.*a.*"}]}]


def test_cookie_takes_the_place_of_other_conditions_on_the_header() -> None:
    service_match = {"headers": {"cookie": {"regex": ".*a.*"}, "x": {"exact": "1"}}}
    to_canary, *_ = rules(site(STICKY, match=[service_match]), Weights.at(30), Affinity("sticky=a"))
    assert [each["name"] for each in to_canary["matches"][0]["headers"]] == ["Cookie", "x"]


def test_deletion_of_a_cookie_shares_the_one_filter_for_response_headers() -> None:
    where = site(STICKY, headers={"response": {"add": {"x-r": "1"}, "remove": ["server"]}})
    forgetting, after = rules(where, ALL_PRIMARY, Affinity(previous="sticky=a"))
    assert [each["type"] for each in forgetting["filters"]] == ["ResponseHeaderModifier"]
    assert forgetting["filters"][0]["responseHeaderModifier"] == {
        "add": [{"name": "x-r", "value": "1"}, {"name": "Set-Cookie", "value": "sticky=a; Max-Age=-1"}],
        "remove": ["server"],
    }
    assert after["filters"][0]["responseHeaderModifier"]["add"] == [{"name": "x-r", "value": "1"}]
    assert read(where, {"rules": [forgetting, after]}).cookies == Affinity(previous="sticky=a")


# --- what the API server makes of it


async def test_defaults_of_the_api_server_are_no_drift() -> None:
    where = site(router_cases.ab({"headers": {"x": {"prefix": "a"}}}), match=[{"headers": {"y": {"exact": "1"}}}], corsPolicy={})
    objects = MemoryObjects()
    await router(objects).reconcile(where)
    bare = objects.now(ROUTE)
    assert bare is not None
    assert "path" not in bare["spec"]["rules"][0]["matches"][0]
    objects.put({**bare, "spec": defaulted(bare["spec"])})
    assert objects.now(ROUTE) != bare
    objects.forget()
    await router(objects).reconcile(where)
    await router(objects).set_weights(where, ALL_PRIMARY)
    assert objects.writes == []


async def test_drift_is_put_right_around_live_weights() -> None:
    objects, where = MemoryObjects(), site({"stepWeight": 20})
    await router(objects).reconcile(where)
    await router(objects).set_weights(where, Weights.at(40))
    wanted = objects.now(ROUTE)["spec"]  # type: ignore[index]
    rule = wanted["rules"][0]
    drifted = {**rule, "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "spy", "port": 1}}}]}
    objects.change(
        ROUTE, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"hostnames": ["x"], "rules": [drifted]}}
    )
    await router(objects).reconcile(where)
    found = objects.now(ROUTE)
    assert found is not None
    assert found["spec"] == wanted
    assert "labels" not in found["metadata"]
    assert found["metadata"]["annotations"]["c"] == "d", "other people's annotations stay on an HTTPRoute"


# --- when weights are live


def report(status: str | None, observed: int, **parent: Any) -> Object:
    accepted = [{"type": "Accepted", "status": status, "observedGeneration": observed}] if status else []
    conditions = [{"type": "ResolvedRefs", "status": "True", "observedGeneration": 9}, *accepted]
    return {"parentRef": {"name": "gw", "namespace": "infra", **parent}, "conditions": conditions}


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([report("True", 1)], ""),
        ([report("True", 1), report("False", 1, namespace="elsewhere")], ""),
        ([report("False", 1, sectionName="other")], ""),
        ([], ""),
        ([report("False", 1)], "parent gw is not ready (status: False, observed generation: 1, current generation: 1)"),
        ([report("True", 0)], "parent gw is not ready (status: True, observed generation: 0, current generation: 1)"),
        ([report(None, 0)], "parent gw is not ready (status: Unknown, observed generation: 0, current generation: 1)"),
    ],
)
async def test_weights_are_live_once_the_gateway_has_accepted_them(reports: list[Object], said: str) -> None:
    objects, where = MemoryObjects(), site()
    await router(objects).reconcile(where)
    found = objects.status(ROUTE, {"parents": reports})
    assert unaccepted(found) == said
    if said:
        with pytest.raises(Problem) as caught:
            await router(objects).weights(where)
        assert str(caught.value) == f"HTTPRoute web.prod {said}"
    else:
        assert await router(objects).weights(where) == ALL_PRIMARY


async def test_v1beta1_does_not_look_at_acceptance() -> None:
    objects, where = MemoryObjects(), site()
    await router(objects, "v1beta1").reconcile(where)
    objects.status(Reference("gateway.networking.k8s.io/v1beta1", "HTTPRoute", "prod", "web"), {"parents": [report("False", 1)]})
    assert await router(objects, "v1beta1").weights(where) == ALL_PRIMARY


async def test_missing_route_is_told_in_flaggers_words() -> None:
    with pytest.raises(Problem) as caught:
        await router(MemoryObjects()).weights(site())
    assert str(caught.value) == 'HTTPRoute web.prod get error: httproutes.gateway.networking.k8s.io "web" not found'


async def test_route_of_other_people_is_given_back() -> None:
    spec = {"parentRefs": [{"name": "own"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}], "future": 1}
    given = {"apiVersion": ROUTE.api_version, "kind": ROUTE.kind, "metadata": {"name": "web", "namespace": "prod"}, "spec": spec}
    objects, where = MemoryObjects([given]), site()
    await router(objects).reconcile(where)
    assert await router(objects).weights(where) == ALL_PRIMARY
    assert objects.now(ROUTE)["spec"]["future"] == 1  # type: ignore[index]
    await router(objects).revert(where)
    assert as_recorded(objects.now(ROUTE)) == {"spec": spec}
