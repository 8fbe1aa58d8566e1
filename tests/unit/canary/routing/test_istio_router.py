"""VirtualServices and DestinationRules: what they say, and what of them is whose."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Affinity, Weights
from canary.routing.istio import API, IstioRouter, fields, read
from canary.routing.takeover import APPLIED, ORIGINAL_METADATA, ORIGINAL_SPEC
from canary.site import FLUX_OFF, MANAGER, Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support import router_cases
from tests.support.objects import MemoryObjects

ROUTE = Reference(API, "VirtualService", "prod", "web")
STICKY = {"cookieName": "sticky"}
STEPS = {"stepWeight": 20}
ME = {"headers": {"x-user": {"exact": "me"}}}


def site(analysis: dict[str, Any] | None = None, **service: Any) -> Site:
    return router_cases.site("istio", service=service, analysis=analysis or STEPS)


def router(objects: MemoryObjects) -> IstioRouter:
    numbers = count()
    return IstioRouter(objects, lambda bound: next(numbers) % bound)


def spec(where: Site, weights: Weights = ALL_PRIMARY, cookies: Affinity | None = None) -> Object:
    return {name: value for name, value in fields(where, weights, cookies or Affinity()).items() if value is not None}


def live_spec(objects: MemoryObjects) -> Object:
    found = objects.now(ROUTE)
    assert found is not None
    made: Object = found["spec"]
    return made


def metadata(objects: MemoryObjects) -> Object:
    found = objects.now(ROUTE)
    assert found is not None
    made: Object = found["metadata"]
    return made


async def running(where: Site, canary: int) -> MemoryObjects:
    """Objects in a run at this weight."""
    objects = MemoryObjects()
    await router(objects).reconcile(where)
    await router(objects).set_weights(where, Weights.at(canary))
    objects.forget()
    return objects


# --- what is said


@pytest.mark.parametrize(
    ("service", "hosts", "gateways"),
    [
        ({}, ["web"], ["mesh"]),
        ({"hosts": ["a.example.org"], "gateways": ["infra/gw"]}, ["a.example.org", "web"], ["infra/gw"]),
        ({"hosts": ["web", "b"], "gateways": []}, ["web", "b"], ["mesh"]),
        ({"hosts": ["*"]}, ["*"], ["mesh"]),
        ({"delegation": True}, [], None),
    ],
)
def test_hosts_and_gateways(service: dict[str, Any], hosts: list[str], gateways: list[str] | None) -> None:
    said = spec(site(**service))
    assert (said["hosts"], said.get("gateways")) == (hosts, gateways)


@pytest.mark.parametrize("more", [{"hosts": ["a"]}, {"gateways": ["g"]}])
async def test_delegation_excludes_hosts_and_gateways(more: dict[str, Any]) -> None:
    objects = MemoryObjects()
    with pytest.raises(Problem) as caught:
        await router(objects).reconcile(site(delegation=True, **more))
    said = "VirtualService web.prod cannot have hosts and gateways when delegation enabled"
    assert str(caught.value) == f"reconcileVirtualService failed: {said}"
    assert objects.now(ROUTE) is None


@pytest.mark.parametrize(
    ("service", "port"),
    [
        ({"portDiscovery": True}, None),
        ({"portDiscovery": True, "gateways": ["mesh", "gw"]}, None),
        ({"portDiscovery": True, "gateways": ["gw"]}, 80),
        ({"portDiscovery": True, "delegation": True}, 80),
        ({"gateways": ["gw"]}, None),
    ],
)
def test_port_is_named_where_a_gateway_has_to_choose(service: dict[str, Any], port: int | None) -> None:
    route = spec(site(**service))["http"][0]["route"]
    expected = {"port": {"number": port}} if port else {}
    assert [each["destination"] for each in route] == [{"host": host, **expected} for host in ("web-primary", "web-canary")]


def test_settings_of_the_service_are_copied() -> None:
    given = {
        "match": [{"uri": {"prefix": "/a"}, "ignoreUriCase": True}],
        "timeout": "5s",
        "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"},
        "corsPolicy": {"allowOrigins": [{"regex": ".*"}], "maxAge": "1h"},
        "headers": {"request": {"remove": ["x"]}},
    }
    (rule,) = spec(site(**given, rewrite={"uri": "/", "type": "ReplacePrefixMatch"}))["http"]
    route = rule.pop("route")
    assert rule == {**given, "rewrite": {"uri": "/"}}
    assert [each["weight"] for each in route] == [100, 0]


def test_tcp_has_the_ports_of_matches_and_no_http() -> None:
    where = site(appProtocol="TCP", match=[{"port": 5432}, {"uri": {"prefix": "/"}}])
    assert spec(where, Weights.at(10)) == {
        "hosts": ["web"],
        "gateways": ["mesh"],
        "tcp": [
            {
                "match": [{"port": 5432}],
                "route": [
                    {"destination": {"host": "web-primary"}, "weight": 90},
                    {"destination": {"host": "web-canary"}, "weight": 10},
                ],
            }
        ],
    }
    assert read(where, spec(where, Weights.at(10))).weights == Weights.at(10)


async def test_tcp_has_no_cookies() -> None:
    objects = await running(site({**STEPS, "sessionAffinity": STICKY}, appProtocol="tcp"), 20)
    assert "http" not in live_spec(objects)


@pytest.mark.parametrize(
    ("analysis", "weights", "said"),
    [(router_cases.ab(ME), ALL_PRIMARY, "matched"), ({"iterations": 1, "mirror": True}, Weights(100, 0, True), "mirrored")],
)
def test_tcp_cannot_be_matched_or_mirrored(analysis: dict[str, Any], weights: Weights, said: str) -> None:
    with pytest.raises(Problem, match=f"routes TCP .*, which cannot be {said}"):
        spec(site(analysis, appProtocol="tcp"), weights)


async def test_change_to_tcp_begins_at_the_primary() -> None:
    objects = await running(site(), 40)
    await router(objects).reconcile(site(appProtocol="tcp"))
    assert "http" not in live_spec(objects)
    assert await router(objects).weights(site(appProtocol="tcp")) == ALL_PRIMARY


# --- A/B tests


def test_matches_of_a_test_and_of_the_service_are_joined() -> None:
    where = site(
        router_cases.ab(ME, {"queryParams": {"q": {"exact": "1"}}}, {"sourceLabels": {"app": "tester"}}),
        match=[{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}, "queryParams": {"r": {"exact": "1"}}}, {"port": 81}],
    )
    a = {"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}, "queryParams": {"r": {"exact": "1"}}}
    for_some, for_all = spec(where)["http"]
    assert for_some["match"] == [
        {**a, **ME},
        {"port": 81, **ME},
        {**a, "queryParams": {"q": {"exact": "1"}}},
        {"port": 81, "queryParams": {"q": {"exact": "1"}}},
        {**a, "sourceLabels": {"app": "tester"}},
        {"port": 81, "sourceLabels": {"app": "tester"}},
    ]
    assert for_all["match"] == [a, {"port": 81}]


def test_suffix_is_said_as_a_regular_expression() -> None:
    for_some, _ = spec(site(router_cases.ab({"headers": {"x": {"suffix": ".test"}, "y": {"prefix": "a"}}})))["http"]
    assert for_some["match"] == [{"headers": {"x": {"regex": r".*\.test"}, "y": {"prefix": "a"}}}]


async def test_test_for_everybody_is_refused() -> None:
    with pytest.raises(Problem, match=r"analysis\.match\[1\] matches every request"):
        await router(MemoryObjects()).reconcile(site(router_cases.ab(ME, {"headers": {}})))


@pytest.mark.parametrize(("before", "after"), [(router_cases.ab(ME), STEPS), (STEPS, router_cases.ab(ME))])
async def test_weights_of_a_test_mean_nothing_without_it(before: dict[str, Any], after: dict[str, Any]) -> None:
    objects = await running(site(before), 100)
    await router(objects).reconcile(site(after))
    assert await router(objects).weights(site(after)) == ALL_PRIMARY


# --- edits and drift


async def test_edit_keeps_live_weights_and_mirroring() -> None:
    analysis = {"iterations": 2, "mirror": True, "mirrorWeight": 25}
    objects = MemoryObjects()
    await router(objects).reconcile(site(analysis))
    await router(objects).set_weights(site(analysis), Weights(100, 0, mirrored=True))
    await router(objects).reconcile(site(analysis, timeout="7s"))
    (rule,) = live_spec(objects)["http"]
    assert (rule["timeout"], rule["mirror"], rule["mirrorPercentage"]) == ("7s", {"host": "web-canary"}, {"value": 25})
    assert await router(objects).weights(site(analysis)) == Weights(100, 0, mirrored=True)
    await router(objects).set_weights(site(analysis), Weights.at(100))
    assert {"mirror", "mirrorPercentage"}.isdisjoint(live_spec(objects)["http"][0])


async def test_drift_is_put_right_and_other_fields_stay() -> None:
    objects = await running(site(timeout="1s"), 40)
    wanted = live_spec(objects)
    rule = {**wanted["http"][0], "timeout": "9s", "fault": {"abort": {"httpStatus": 500}}, "mirror": {"host": "spy"}}
    others = {"exportTo": ["."], "tls": [{"match": [{"sniHosts": ["a"]}], "route": [{"destination": {"host": "a"}}]}]}
    objects.change(ROUTE, {"spec": {"hosts": ["x"], "http": [rule, {"route": []}], "tcp": [{"route": []}], **others}})
    await router(objects).reconcile(site(timeout="1s"))
    assert live_spec(objects) == {**wanted, **others}
    assert await router(objects).weights(site()) == Weights.at(40)


async def test_weights_set_by_hand_are_the_live_ones() -> None:
    objects = await running(site(), 20)
    rule = live_spec(objects)["http"][0]
    rule["route"][0]["weight"], rule["route"][1]["weight"] = 60, 40
    objects.change(ROUTE, {"spec": {"http": [rule]}})
    await router(objects).reconcile(site())
    assert objects.writes == []
    assert await router(objects).weights(site()) == Weights.at(40)


async def test_metadata_of_our_own_route_is_enforced_except_for_notes() -> None:
    apex = {"labels": {"team": "blue"}, "annotations": {"note": "1"}}
    objects = await running(site(apex=apex), 20)
    ours = metadata(objects)
    assert ours["labels"] == {"team": "blue", "app": "web"}
    assert ours["annotations"] == {"note": "1", **FLUX_OFF}
    foreign = {"labels": {"x": "y", "team": "red"}, "annotations": {"z": "1", APPLIED: "{}", ORIGINAL_SPEC: "{}"}}
    objects.change(ROUTE, {"metadata": foreign})
    await router(objects).reconcile(site(apex=apex))
    assert metadata(objects)["labels"] == ours["labels"]
    assert metadata(objects)["annotations"] == {**ours["annotations"], APPLIED: "{}", ORIGINAL_SPEC: "{}"}


async def test_session_affinity_does_not_hide_drift() -> None:
    where = site({**STEPS, "sessionAffinity": STICKY}, match=[{"uri": {"prefix": "/api"}}])
    objects = await running(where, 20)
    wanted = live_spec(objects)
    sticky, by_weight = wanted["http"]
    drifts = (
        [{**sticky, "timeout": "1s"}, by_weight],
        [sticky, {**by_weight, "match": [{"uri": {"prefix": "/"}}]}],
        [by_weight],
        [sticky, {**by_weight, "headers": {"request": {"set": {"a": "b"}}}}],
    )
    for drift in drifts:
        objects.change(ROUTE, {"spec": {"http": drift}})
        await router(objects).reconcile(where)
        assert live_spec(objects) == wanted


async def test_cookie_that_the_status_missed_goes_on() -> None:
    """A process that ended between route and status changes nobody's cookie."""
    where = site({**STEPS, "sessionAffinity": {**STICKY, "primaryCookieName": "base"}})
    objects = await running(where, 20)
    before = live_spec(objects)["http"]
    cookies = await IstioRouter(objects, lambda _: 51).set_weights(where, Weights.at(40))
    assert cookies == Affinity("sticky=abcdefghij", "", "base=klmnopqrst")
    assert [rule.get("match") for rule in live_spec(objects)["http"]] == [rule.get("match") for rule in before]
    ended = await router(objects).set_weights(where, ALL_PRIMARY)
    assert ended == Affinity("", "sticky=abcdefghij", "base=klmnopqrst")
    stale = where.with_status(session_affinity_cookie="sticky=abcdefghij", primary_session_affinity_cookie="base=klmnopqrst")
    assert await router(objects).set_weights(stale, ALL_PRIMARY) == ended
    again = await IstioRouter(objects, lambda _: 51).set_weights(stale, Weights.at(20))
    assert again == Affinity("sticky=ZZZZZZZZZZ", "sticky=abcdefghij", "base=klmnopqrst")


async def test_lost_cookie_rules_come_back_from_the_status() -> None:
    where = site({**STEPS, "sessionAffinity": STICKY})
    objects = await running(where, 20)
    wanted = live_spec(objects)
    (_, by_weight) = wanted["http"]
    bare = {"route": [{name: value for name, value in each.items() if name != "headers"} for each in by_weight["route"]]}
    objects.change(ROUTE, {"spec": {"http": [bare]}})
    await router(objects).reconcile(where.with_status(session_affinity_cookie="sticky=abcdefghij"))
    assert live_spec(objects) == wanted


async def test_session_affinity_asked_for_in_mid_run_begins_with_the_next_weight() -> None:
    objects, after = await running(site(), 20), site({**STEPS, "sessionAffinity": STICKY})
    await router(objects).reconcile(after)
    assert objects.writes == []
    cookies = await router(objects).set_weights(after, Weights.at(40))
    assert cookies == Affinity("sticky=abcdefghij")
    assert len(live_spec(objects)["http"]) == 2


def test_cookie_is_asked_for_beside_the_headers_of_the_service() -> None:
    where = site({**STEPS, "sessionAffinity": STICKY}, match=[{"headers": {"x": {"exact": "1"}}}])
    to_canary, by_weight = spec(where, Weights.at(20), Affinity("sticky=a"))["http"]
    assert to_canary["match"] == [{"headers": {"x": {"exact": "1"}, "Cookie": {"regex": ".*sticky.*a.*"}}}]
    assert by_weight["match"] == [{"headers": {"x": {"exact": "1"}}}]


# --- take-over and giving back


def theirs(**meta: Any) -> Object:
    """A VirtualService that people made."""
    http = [{"route": [{"destination": {"host": "web"}}]}]
    said = {"hosts": ["web.example.org"], "http": http, "exportTo": ["*"]}
    return {"apiVersion": API, "kind": "VirtualService", "metadata": {"name": "web", "namespace": "prod", **meta}, "spec": said}


async def test_note_of_the_original_is_written_once_and_whole() -> None:
    objects = MemoryObjects([theirs(labels={"mine": "yes"}, annotations={"keep": "1"})])
    await router(objects).reconcile(site())
    note = metadata(objects)["annotations"][ORIGINAL_SPEC]
    assert json.loads(note) == theirs()["spec"]
    assert metadata(objects)["labels"] == {"mine": "yes"}
    assert metadata(objects)["annotations"] == {"keep": "1", **FLUX_OFF, ORIGINAL_SPEC: note}
    assert "ownerReferences" not in metadata(objects)
    await router(objects).set_weights(site(), Weights.at(40))
    await router(objects).reconcile(site(timeout="7s", hosts=["other"]))
    assert metadata(objects)["annotations"][ORIGINAL_SPEC] == note
    assert await router(objects).weights(site()) == Weights.at(40)


async def test_giving_back_leaves_what_was_there_and_nothing_of_ours() -> None:
    mine = {
        "labels": {"mine": "yes", "team": "red"},
        "annotations": {"keep": "1", "helm.toolkit.fluxcd.io/driftDetection": "disabled"},
    }
    objects, where = MemoryObjects([theirs(**mine)]), site(apex={"labels": {"team": "blue"}, "annotations": {"note": "1"}})
    await router(objects).reconcile(where)
    assert metadata(objects)["labels"] == {"mine": "yes", "team": "blue", "app": "web"}
    assert json.loads(metadata(objects)["annotations"][ORIGINAL_METADATA]) == {
        "labels": {"team": "red"},
        "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled"},
    }
    await router(objects).set_weights(where, Weights.at(40))
    await router(objects).revert(where)
    assert live_spec(objects) == theirs()["spec"]
    assert {name: metadata(objects)[name] for name in mine} == mine
    objects.forget()
    await router(objects).revert(where)
    assert objects.writes == []


async def test_note_of_kubectl_comes_first() -> None:
    applied = {"metadata": {"annotations": dict(FLUX_OFF)}, "spec": {"hosts": ["applied"]}}
    objects = MemoryObjects([theirs(annotations={APPLIED: json.dumps(applied), **FLUX_OFF})])
    await router(objects).reconcile(site())
    assert set(metadata(objects)["annotations"]) == {APPLIED, *FLUX_OFF}
    await router(objects).revert(site())
    assert live_spec(objects) == {"hosts": ["applied"]}
    assert set(metadata(objects)["annotations"]) == {APPLIED, *FLUX_OFF}


@pytest.mark.parametrize("note", ["", "{", "[]", '"text"', "[" * 100_000])
async def test_unreadable_note_leaves_the_routes_and_frees_the_object(note: str) -> None:
    objects = MemoryObjects([theirs(annotations={APPLIED: note})])
    await router(objects).reconcile(site())
    routed = live_spec(objects)
    await router(objects).revert(site())
    assert live_spec(objects) == routed
    assert metadata(objects)["annotations"] == {APPLIED: note}


async def test_labels_that_people_removed_meanwhile_stay_removed() -> None:
    applied = {"metadata": {"labels": {"old": "1"}, "annotations": {"old": "1"}}, "spec": {"hosts": ["applied"]}}
    objects = MemoryObjects([theirs(annotations={APPLIED: json.dumps(applied)})])
    await router(objects).reconcile(site())
    await router(objects).revert(site())
    assert "labels" not in metadata(objects)
    assert set(metadata(objects)["annotations"]) == {APPLIED}


async def test_routes_that_people_have_taken_back_themselves_stay() -> None:
    objects = MemoryObjects([theirs()])
    await router(objects).reconcile(site())
    own = {"hosts": ["new"], "http": [{"route": [{"destination": {"host": "new"}}]}]}
    objects.change(ROUTE, {"spec": own})
    await router(objects).revert(site())
    assert live_spec(objects) == {"gateways": ["mesh"], "exportTo": ["*"], **own}
    assert "annotations" not in metadata(objects)


async def test_giving_back_does_not_touch_what_was_never_taken_or_is_ours() -> None:
    never = MemoryObjects([theirs(annotations=dict(FLUX_OFF))])
    await router(never).revert(site())
    assert never.writes == []
    ours = await running(site(), 20)
    await router(ours).revert(site())
    assert ours.writes == []
    gone = MemoryObjects()
    await router(gone).revert(site())
    assert gone.writes == []


async def test_destination_rules_follow_the_traffic_policy_and_keep_the_rest() -> None:
    objects = MemoryObjects()
    policy = {"loadBalancer": {"simple": "LEAST_REQUEST"}, "tls": {"mode": "ISTIO_MUTUAL"}}
    which = Reference(API, "DestinationRule", "prod", "web-canary")
    await router(objects).reconcile(site(trafficPolicy=policy))
    assert objects.now(which)["spec"] == {"host": "web-canary", "trafficPolicy": policy}  # type: ignore[index]
    kept = {"labels": {"x": "y"}}
    objects.change(which, {"metadata": kept, "spec": {"subsets": [{"name": "a"}], "host": "drift"}})
    await router(objects).reconcile(site())
    found = objects.now(which)
    assert found is not None
    assert found["spec"] == {"host": "web-canary", "subsets": [{"name": "a"}]}
    assert found["metadata"]["labels"] == {"x": "y"}


# --- reads, writes and failures


async def test_unchanged_input_is_not_written() -> None:
    objects = await running(site(), 20)
    await router(objects).reconcile(site())
    await router(objects).set_weights(site(), Weights.at(20))
    assert objects.writes == []
    await router(objects).set_weights(site(), Weights.at(40))
    assert objects.writes == [("patch", "VirtualService", "web")]
    assert objects.managers[ROUTE] == {MANAGER}


async def test_weights_are_set_where_the_route_is_missing() -> None:
    objects = MemoryObjects()
    await router(objects).set_weights(site(), ALL_PRIMARY)
    assert await router(objects).weights(site()) == ALL_PRIMARY


async def test_weights_that_came_out_otherwise_are_a_problem() -> None:
    class Meddled(MemoryObjects):
        """An admission webhook that is against canaries."""

        async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
            for rule in (patch.get("spec") or {}).get("http") or ():
                rule["route"] = rule["route"][:1]
            return await super().patch(which, patch, manager=manager)

    objects = Meddled()
    await router(objects).reconcile(site())
    with pytest.raises(Problem) as caught:
        await router(objects).set_weights(site(), Weights.at(20))
    assert str(caught.value) == "VirtualService web.prod update error: no weights after weights 80/20 was written"


async def test_lost_race_is_built_again_on_the_newer_route() -> None:
    objects = await running(site(), 20)
    objects.before["VirtualService", "web"] = lambda: objects.change(ROUTE, {"spec": {"exportTo": ["."]}})
    await router(objects).set_weights(site(), Weights.at(40))
    assert live_spec(objects)["exportTo"] == ["."]
    assert await router(objects).weights(site()) == Weights.at(40)
    assert objects.writes == [("patch", "VirtualService", "web")] * 2


async def test_failures_are_told_in_flaggers_words() -> None:
    objects = MemoryObjects()
    with pytest.raises(Problem) as caught:
        await router(objects).weights(site())
    missing = 'virtualservices.networking.istio.io "web" not found'
    assert str(caught.value) == f"VirtualService web.prod get query error {missing}"
    objects.put(theirs())
    with pytest.raises(Problem) as caught:
        await router(objects).weights(site())
    assert str(caught.value) == "VirtualService web.prod does not contain routes for web-primary and web-canary"
    objects.missing_kinds.add((API, "DestinationRule"))
    with pytest.raises(Problem) as caught:
        await router(objects).reconcile(site())
    absent = "the server could not find the requested resource"
    assert str(caught.value) == f"reconcileDestinationRule failed: DestinationRule web-canary.prod get query error: {absent}"
    assert objects.writes == []
    objects.missing_kinds.clear()
    objects.fail["patch", "VirtualService", "web"] = ReconcileError("denied")
    with pytest.raises(Problem) as caught:
        await router(objects).reconcile(site())
    assert str(caught.value) == "reconcileVirtualService failed: VirtualService web.prod update error: denied"


def test_canary_without_a_service_is_told_so() -> None:
    where = router_cases.site_of(
        {
            "provider": "istio",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "analysis": {"interval": "10s", "threshold": 1, "stepWeight": 10},
        },
        "prod",
    )
    with pytest.raises(Problem, match=r"canary web\.prod has no spec\.service"):
        spec(where)
