"""Laws of the routes of Istio and the Gateway API, over random Canaries."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.routing import gateway_api, istio
from canary.routing.base import Affinity, Weights
from canary.routing.gateway_rules import defaulted
from canary.routing.takeover import give_back, take
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from tests.support import router_cases

PROVIDERS: Mapping[str, Any] = {"istio": istio, "gatewayapi:v1": gateway_api}
WHICH = Reference("example.org/v1", "Route", "prod", "web")

words = st.text("abcXYZ09-./$+", min_size=1, max_size=6)
exact = st.fixed_dictionaries({"exact": words})
texts = st.one_of(exact, st.fixed_dictionaries({"prefix": words}), st.fixed_dictionaries({"regex": words}))
matches = st.fixed_dictionaries(
    {}, optional={"uri": texts, "method": exact, "headers": st.dictionaries(words, texts, max_size=2), "port": st.integers(1, 9)}
)
conditions = st.dictionaries(words, texts, min_size=1, max_size=2)
audiences = st.one_of(
    st.fixed_dictionaries({"headers": conditions}, optional={"queryParams": conditions}),
    st.fixed_dictionaries({"queryParams": conditions}),
)
mirrors = st.sampled_from(["shadow", "web-canary"]).map(lambda name: {"backendRef": {"name": name, "port": 80}})
services = st.fixed_dictionaries(
    {"gatewayRefs": st.just([{"name": "gw"}])},
    optional={
        "match": st.lists(matches, max_size=3),
        "hosts": st.lists(words, max_size=2),
        "timeout": st.just("3s"),
        "rewrite": st.fixed_dictionaries({}, optional={"uri": words, "authority": words}),
        "headers": st.just({"response": {"add": {"x": "y"}}}),
        "mirror": st.lists(mirrors, max_size=2),
        "apex": st.just({"labels": {"team": "blue"}, "annotations": {"note": "1"}}),
    },
)
affinities = st.fixed_dictionaries(
    {"cookieName": st.just("sticky")}, optional={"primaryCookieName": st.just("base"), "path": st.just("/")}
)
analyses = st.one_of(
    st.fixed_dictionaries(
        {"stepWeight": st.integers(1, 100)}, optional={"sessionAffinity": affinities, "mirrorWeight": st.integers(0, 100)}
    ),
    st.fixed_dictionaries({"iterations": st.integers(1, 5)}, optional={"match": st.lists(audiences, max_size=2)}),
)
weights = st.one_of(st.integers(0, 100).map(Weights.at), st.just(Weights(100, 0, mirrored=True)))
cookies = st.builds(Affinity, *(st.sampled_from(["", f"{name}=aBcDeFgHiJ"]) for name in ("sticky", "sticky", "base")))


def site(provider: str, service: Mapping[str, Any], analysis: Mapping[str, Any]) -> Site:
    return router_cases.site(provider, service=service, analysis=analysis)


def shares(spec: Mapping[str, Any]) -> list[list[int]]:
    """The weights of each rule with two destinations, wherever they are."""
    found = [rule.get("route") or rule.get("backendRefs") for rule in spec.get("http") or spec.get("rules") or ()]
    return [[each["weight"] for each in route] for route in found if len(route) > 1]


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=60, deadline=None)
@given(service=services, analysis=analyses, asked=weights, has=cookies)
def test_weights_read_are_the_weights_built_and_add_up(
    provider: str, service: dict[str, Any], analysis: dict[str, Any], asked: Weights, has: Affinity
) -> None:
    where, module = site(provider, service, analysis), PROVIDERS[provider]
    built = module.fields(where, asked, has)
    live = module.read(where, built)
    assert live.weights == asked
    assert live.matched == bool(analysis.get("match"))
    assert shares(built)
    assert all(sum(each) == 100 for each in shares(built))


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=60, deadline=None)
@given(service=services, analysis=analyses, asked=weights, has=cookies)
def test_what_is_read_builds_the_same(
    provider: str, service: dict[str, Any], analysis: dict[str, Any], asked: Weights, has: Affinity
) -> None:
    where, module = site(provider, service, analysis), PROVIDERS[provider]
    built = module.fields(where, asked, has)
    untouched = deepcopy(built)
    live = module.read(where, built)
    assert module.fields(where, live.weights, live.cookies) == built == untouched


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=60, deadline=None)
@given(
    service=services, analysis=analyses, asked=weights, foreign=st.dictionaries(st.sampled_from("pqr"), st.integers(), max_size=2)
)
def test_taking_twice_changes_nothing_and_giving_back_gives_back(
    provider: str, service: dict[str, Any], analysis: dict[str, Any], asked: Weights, foreign: dict[str, int]
) -> None:
    where = site(provider, service, analysis)
    fields = PROVIDERS[provider].fields(where, asked, Affinity())
    meta = {"name": "web", "namespace": "prod", "labels": {"team": "red"}, "annotations": {"keep": "1"}}
    original: Object = {
        "apiVersion": WHICH.api_version,
        "kind": WHICH.kind,
        "metadata": meta,
        "spec": {"hosts": ["x"], "http": [], **foreign},
    }
    once = take(where, WHICH, deepcopy(original), fields, annotations_stay=False)
    twice = take(where, WHICH, deepcopy(once), fields, annotations_stay=False)
    assert once == twice
    assert {name: once["spec"][name] for name in foreign} == foreign
    assert PROVIDERS[provider].read(where, once["spec"]).weights == asked
    assert give_back(where, once, routed=True) == original


@settings(max_examples=100, deadline=None)
@given(service=services, analysis=analyses, asked=weights, has=cookies)
def test_filling_in_defaults_changes_no_meaning_and_ends(
    service: dict[str, Any], analysis: dict[str, Any], asked: Weights, has: Affinity
) -> None:
    where = site("gatewayapi:v1", service, analysis)
    built = gateway_api.fields(where, asked, has)
    filled = defaulted(built)
    assert defaulted(filled) == filled
    assert gateway_api.read(where, filled) == gateway_api.read(where, built)
