"""The built-in queries against those that Flagger was seen to send."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from canary.metrics.builtin import DURATION, SUCCESS_RATE, collapse, provider_word, queries, resolve
from canary.metrics.template import Model

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
WINDOWS = {SUCCESS_RATE: "1m", DURATION: "30s"}


def model(story: str) -> Model:
    route = "web-00002" if story == "knative" else "web"
    return Model("web", f"st-{story}", "web", "web", "web", route, "1m")


@pytest.mark.parametrize("story", sorted(RECORDED))
def test_recorded_queries_are_made_to_the_letter(story: str) -> None:
    recorded = RECORDED[story]
    duration = "1m" if story == "old-thresholds" else WINDOWS[DURATION]
    ours = [
        resolve(recorded["provider"], SUCCESS_RATE, model(story)),
        resolve(recorded["provider"], DURATION, replace(model(story), interval=duration)),
    ]
    builtin = [query for query in recorded["queries"] if query.startswith(" ")]
    assert builtin == ours[: len(builtin)]
    assert builtin


# Of providers that were not recorded: a piece that no other has.
@pytest.mark.parametrize(
    ("word", "rate", "duration"),
    [
        ("linkerd", 'response_total{ namespace="ns", deployment=~"web", classification!="failure", direction="inbound" }[1m]',
         'response_latency_ms_bucket{ namespace="ns", deployment=~"web", direction="inbound" }[1m] ) ) by (le) )'),
        ("appmesh:v1beta2", 'kubernetes_pod_name=~"web-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", envoy_response_code!~"5.*" }[1m]',
         "envoy_cluster_upstream_rq_time_bucket{ kubernetes_namespace"),
        ("traefik", 'service=~"ns-web-canary-[0-9a-zA-Z-]+@kubernetescrd", code!~"5..", le="+Inf" }[1m]',
         '@kubernetescrd" }[1m] ) ) by (le) ) * 1000'),
        ("osm", 'destination_namespace="ns", destination_kind="Deployment", destination_name="web", response_code!~"5.*" }',
         "osm_request_duration_ms_bucket{ destination_namespace"),
        ("smi:v1alpha3", "istio_requests_total", "istio_request_duration_milliseconds_bucket"),
        ("kubernetes:service", "istio_requests_total", "istio_request_duration_milliseconds_bucket"),
        ("nginx:service", "istio_requests_total", "istio_request_duration_milliseconds_bucket"),
        ("gloo:service", "ns-web-canaryupstream-", "ns-web-canaryupstream-"),
    ],
)  # fmt: skip
def test_other_providers(word: str, rate: str, duration: str) -> None:
    about = Model("c", "ns", "web", "svc", "ing", "r", "1m")
    made = resolve(word, SUCCESS_RATE, about), resolve(word, DURATION, about)
    assert rate in made[0]
    assert duration in made[1]
    for text in made:
        assert collapse(text) == text
        assert text.startswith(" ")
        assert "{{" not in text


@pytest.mark.parametrize(
    ("word", "factor"), [("kubernetes", 1000), ("gatewayapi:v1", 1000), ("istio", 1), ("nginx", 1), ("traefik", 1), ("osm", 1)]
)
def test_only_queries_of_pods_answer_in_seconds(word: str, factor: float) -> None:
    assert queries(word).factor == factor


def test_skipper_takes_words_only() -> None:
    about = Model("c", "my-ns", "t", "svc.x", "in-g", "r", "1m")
    assert 'route=~"kube(ew)?_my_ns__in_g_canary__.*__svc_x_canary(_[0-9]+)?"' in resolve("skipper", DURATION, about)


@pytest.mark.parametrize(
    ("own", "default", "core", "word"),
    [
        (None, "istio", False, "istio"),
        ("nginx", "istio", False, "nginx"),
        ("nginx", "linkerd", False, "linkerd"),
        (None, "smi:linkerd", False, "smi:linkerd"),
        ("istio", "istio", True, "istio:service"),
    ],
)
def test_the_provider_word(own: str | None, default: str, core: bool, word: str) -> None:
    assert provider_word(own, default, core_service=core) == word


def test_only_gos_whitespace_collapses() -> None:
    assert collapse('a\n\t b "x  y"\u00a0c\v ') == 'a b "x y"\u00a0c\v '


def test_no_two_known_providers_share_a_text_by_mistake() -> None:
    known = [
        "linkerd",
        "istio",
        "contour",
        "nginx",
        "kubernetes",
        "skipper",
        "traefik",
        "osm",
        "kuma",
        "apisix",
        "knative",
        "gloo",
        "appmesh",
    ]
    assert len({queries(word).success_rate for word in known}) == len(known)
    assert all(re.search(r"\{\{ interval \}\}", queries(word).duration) for word in known)
