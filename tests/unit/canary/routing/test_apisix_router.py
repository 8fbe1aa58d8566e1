"""APISIX: the recorded run, keeping in step with the application's route, failures."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.errors import Problem
from canary.routing.apisix import API_VERSION, ApisixRouter, route
from canary.routing.base import ALL_PRIMARY, Weights
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import as_recorded, history, recorded, site
from tests.support.objects import MemoryObjects

WEB, SPLIT = (Reference(API_VERSION, "ApisixRoute", "prod", name) for name in ("web", "web-web-canary"))


def here(namespace: str = "prod", **spec: Any) -> Site:
    return site({**recorded("apisix")["canary"], **spec}, namespace=namespace)


def application(*rules: Object, **spec: Any) -> Object:
    meta = {
        "name": "web",
        "namespace": "prod",
        "labels": {"x": "y"},
        "annotations": {
            "a": "b",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "kustomize.toolkit.fluxcd.io/prune": "no",
        },
    }
    return {"apiVersion": API_VERSION, "kind": "ApisixRoute", "metadata": meta, "spec": {"http": list(rules) or [rule()], **spec}}


def rule(service: str = "web", **fields: Any) -> Object:
    return {
        "name": "main",
        "match": {"paths": ["/*"]},
        "backends": [{"serviceName": service, "servicePort": 80, "resolveGranularity": "service", "subset": "blue", "new": 1}],
        "plugins": [{"name": "cors", "enable": True}],
        **fields,
    }


async def test_a_run_writes_what_flagger_wrote() -> None:
    story = recorded("apisix")
    objects = MemoryObjects(story["given"])
    router, where = ApisixRouter(objects), here(story["namespace"])
    which = Reference(API_VERSION, "ApisixRoute", story["namespace"], "web-web-canary")
    versions = []
    await router.reconcile(where)
    versions.append(as_recorded(objects.now(which)))
    assert await router.weights(where) == ALL_PRIMARY
    for weights in (Weights.at(50), ALL_PRIMARY):
        assert await router.set_weights(where, weights) is None
        await router.reconcile(where)
        versions.append(as_recorded(objects.now(which)))
        assert await router.weights(where) == weights
    assert history(versions) == story["objects"]["ApisixRoute.apisix.apache.org/v2/web-web-canary"]
    application_versions = [as_recorded(objects.now(Reference(API_VERSION, "ApisixRoute", story["namespace"], "web")))]
    assert application_versions == story["objects"]["ApisixRoute.apisix.apache.org/v2/web"]
    assert [write[0] for write in objects.writes] == ["create", "patch", "patch"]


async def test_what_the_rule_says_and_labels_and_annotations_are_taken_over() -> None:
    objects = MemoryObjects([application(rule("other"), rule(websocket=True, timeout={"read": "5s"}), ingressClassName="apisix")])
    await ApisixRouter(objects).reconcile(here())
    made = objects.now(SPLIT)
    assert made is not None
    assert (made["metadata"]["labels"], made["metadata"]["annotations"]) == ({"x": "y"}, {"a": "b"})
    backend = {"servicePort": 80, "resolveGranularity": "service", "subset": "blue", "new": 1}
    assert made["spec"] == {
        "ingressClassName": "apisix",
        "http": [
            {
                **rule(websocket=True, timeout={"read": "5s"}),
                "priority": 10000,
                "backends": [
                    {"serviceName": "web-primary", "weight": 100, **backend},
                    {"serviceName": "web-canary", "weight": 0, **backend},
                ],
            }
        ],
    }


async def test_changes_of_the_rule_are_followed_with_live_weights_and_metadata_is_not() -> None:
    objects = MemoryObjects([application()])
    router = ApisixRouter(objects)
    await router.set_weights(here(), Weights.at(40))
    found = objects.now(SPLIT)
    assert found is not None
    people = rule("people", name="theirs")
    found["spec"] |= {"http": [*found["spec"]["http"], people], "stream": []}
    found["metadata"]["labels"] = {"their": "own"}
    objects.put(found)
    changed = application(rule(match={"paths": ["/v2/*"]}, plugins=[]))
    changed["metadata"]["labels"] = {"x": "z"}
    objects.put(changed)
    await router.reconcile(here())
    after = objects.now(SPLIT)
    assert after is not None
    assert after["spec"]["http"][0]["match"] == {"paths": ["/v2/*"]}
    assert after["spec"]["http"][0]["plugins"] == []
    assert [backend["weight"] for backend in after["spec"]["http"][0]["backends"]] == [60, 40]
    assert after["spec"]["http"][1:] == [people]
    assert after["spec"]["stream"] == []
    assert after["metadata"]["labels"] == {"their": "own"}
    objects.forget()
    await router.reconcile(here())
    await router.set_weights(here(), Weights.at(40))
    assert objects.writes == []


@pytest.mark.parametrize("gone", [True, False])
async def test_weights_are_set_whatever_has_become_of_the_applications_route(gone: bool) -> None:
    objects = MemoryObjects([application()])
    router = ApisixRouter(objects)
    await router.set_weights(here(), Weights.at(40))
    if gone:
        objects.remove(WEB)
    else:
        objects.put(application(rule("renamed")))
    await router.set_weights(here(), ALL_PRIMARY)
    assert await router.weights(here()) == ALL_PRIMARY
    found = objects.now(SPLIT)
    assert found is not None
    assert found["spec"]["http"][0]["match"] == {"paths": ["/*"]}


@given(canary=st.integers(0, 100))
def test_what_was_built_reads_back_and_building_again_changes_nothing(canary: int) -> None:
    source, wanted = application(rule(unknown={"a": [1]})), Weights.at(canary)
    untouched = deepcopy(source)
    built = route(here(), SPLIT, source, None, wanted)
    assert ApisixRouter(MemoryObjects()).parse(here(), built) == wanted
    assert sum(backend["weight"] for backend in built["spec"]["http"][0]["backends"]) == 100
    assert built["spec"]["http"][0]["unknown"] == {"a": [1]}
    assert route(here(), SPLIT, source, deepcopy(built), wanted) == built
    assert source == untouched


two = [{"serviceName": "web", "servicePort": 80}, {"serviceName": "more", "servicePort": 80}]


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ([], 'ApisixRoute web.prod get query error: apisixroutes.apisix.apache.org "web" not found'),
        ([application(rule("other"))], "backend web not found in ApisixRoute web.prod"),
        (
            [application(rule(backends=two))],
            "ApisixRoute web.prod has 2 backends in the rule for web: one is needed, to be split",
        ),
    ],
)
async def test_a_route_that_does_not_do_is_a_problem(given_: list[Object], text: str) -> None:
    objects = MemoryObjects(given_)
    for call in (ApisixRouter(objects).reconcile(here()), ApisixRouter(objects).set_weights(here(), ALL_PRIMARY)):
        with pytest.raises(Problem) as raised:
            await call
        assert str(raised.value) == text
    assert objects.writes == []


async def test_without_a_reference_there_is_no_route() -> None:
    router = ApisixRouter(MemoryObjects())
    for call in (router.reconcile(here(routeRef=None)), router.weights(here(routeRef=None))):
        with pytest.raises(Problem, match=r"^apisix route selector is empty$"):
            await call


@pytest.mark.parametrize("spec", [{}, {"http": [rule("other")]}, {"http": [rule("web-primary")]}])
async def test_a_split_that_says_nothing_is_a_problem_to_read_and_mended_by_reconciling(spec: Object) -> None:
    split = application(**spec) if spec else application()
    split["metadata"] = {"name": "web-web-canary", "namespace": "prod"}
    split["spec"] = spec
    objects = MemoryObjects([application(), split])
    router = ApisixRouter(objects)
    with pytest.raises(
        Problem, match=r"^ApisixRoute web-web-canary\.prod does not contain routes for web-primary and web-canary$"
    ):
        await router.weights(here())
    await router.reconcile(here())
    assert await router.weights(here()) == ALL_PRIMARY


async def test_absent_objects_and_kinds_are_told_apart_from_others() -> None:
    objects = MemoryObjects([application()])
    router = ApisixRouter(objects)
    with pytest.raises(Problem, match=r'^ApisixRoute web-web-canary\.prod get query error: .* "web-web-canary" not found$'):
        await router.weights(here())
    objects.missing_kinds.add((API_VERSION, "ApisixRoute"))
    for call in (router.reconcile(here()), router.weights(here()), router.set_weights(here(), ALL_PRIMARY)):
        with pytest.raises(Problem, match=r"^ApisixRoute \S+\.prod get query error: the server could not find"):
            await call
    objects.missing_kinds.clear()
    objects.fail["create", "ApisixRoute", "*"] = ReconcileError("no answer")
    with pytest.raises(Problem, match=r"^ApisixRoute web-web-canary\.prod create error: no answer$"):
        await router.reconcile(here())
