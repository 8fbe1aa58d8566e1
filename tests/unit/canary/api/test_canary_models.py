"""Manifests of Flagger's kinds as they are read: what is taken, what is refused and in which words, what is given back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from canary.api import (
    ALERT_PROVIDER,
    API_VERSION,
    CANARY,
    METRIC_TEMPLATE,
    AlertProviderSpec,
    CanarySpec,
    CanaryStatus,
    GatewayRef,
    MetricTemplateSpec,
    SessionAffinity,
    plain,
)
from reconcile.api.crd import definition
from reconcile.api.duration import GoDuration
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Invalid
from reconcile.kube.cache import NEVER_OBSERVED, Cache
from reconcile.runtime.feed import Feed

SCHEME = Scheme()
for _info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER):
    SCHEME.register(_info)

CANARY_SPEC: dict[str, Any] = {
    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
    "service": {"port": 9898},
    "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10},
}


def manifest(kind: str, spec: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "web", "namespace": "prod"}, "spec": spec}
    return body if status is None else body | {"status": status}


def decode(info: KindInfo, spec: dict[str, Any], status: dict[str, Any] | None = None) -> AnyResource:
    return SCHEME.decode(info, manifest(info.kind, spec, status))


def with_change(path: str, value: Any) -> dict[str, Any]:
    """The least Canary with one field set, or taken away by None."""
    spec: Any = deepcopy(CANARY_SPEC)
    at = spec
    *outer, last = path.split(".")
    for step in outer:
        at = at.setdefault(step, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    return dict(spec)


def canary(path: str = "", value: Any = None) -> CanarySpec:
    spec: CanarySpec = decode(CANARY, with_change(path, value) if path else CANARY_SPEC).spec
    return spec


def refusal(path: str, value: Any) -> str:
    with pytest.raises(Invalid) as caught:
        canary(path, value)
    return str(caught.value)


# --- numbers


@pytest.mark.parametrize("path", ["analysis.threshold", "analysis.maxWeight", "progressDeadlineSeconds", "service.port"])
def test_integral_floats_are_integers(path: str) -> None:
    spec: Any = plain(canary(path, 50.0))
    for step in path.split("."):
        spec = spec[step]
    assert (spec, type(spec)) == (50, int)


@pytest.mark.parametrize("path", ["analysis.threshold", "analysis.maxWeight", "progressDeadlineSeconds", "service.port"])
@pytest.mark.parametrize("value", [5.5, "5", True, float("inf"), float("nan"), [5]])
def test_what_is_no_integer_is_refused_by_name(path: str, value: Any) -> None:
    assert refusal(path, value).startswith(f"spec.{path}: Input should be a valid integer")


def test_weights_of_a_ladder_are_integers() -> None:
    spec = deepcopy(CANARY_SPEC)
    spec["analysis"] = {"interval": "1m", "threshold": 5, "stepWeights": [1, 2.0, 80]}
    analysis = decode(CANARY, spec).spec.analysis
    assert analysis.step_weights == [1, 2, 80]
    assert [type(weight) for weight in analysis.step_weights] == [int] * 3


@pytest.mark.parametrize("value", [99, 99.5, 0, -1.25])
def test_thresholds_of_metrics_stay_as_they_were_written(value: float) -> None:
    spec = canary("analysis.metrics", [{"name": "a", "threshold": value, "thresholdRange": {"min": value, "max": value}}])
    assert spec.analysis.metrics is not None
    (metric,) = spec.analysis.metrics
    assert metric.threshold_range is not None
    found = (metric.threshold, metric.threshold_range.min, metric.threshold_range.max)
    assert found == (value, value, value)
    assert {type(number) for number in found} == {type(value)}


@pytest.mark.parametrize("value", ["99", True, float("inf"), float("nan"), {}])
def test_thresholds_that_are_no_numbers_are_refused(value: Any) -> None:
    text = refusal("analysis.metrics", [{"name": "a", "thresholdRange": {"min": value}}])
    assert text.startswith("spec.analysis.metrics[0].thresholdRange.min: Input should be a finite number, not ")


@pytest.mark.parametrize("value", [8080, "http"])
def test_target_port_is_a_number_or_a_name(value: int | str) -> None:
    service = canary("service.targetPort", value).service
    assert service is not None
    assert service.target_port == value


@pytest.mark.parametrize("value", [1.5, True, ["http"]])
def test_a_target_port_that_is_neither_is_refused_once(value: Any) -> None:
    text = refusal("service.targetPort", value)
    assert text.startswith("spec.service.targetPort: Input should be an integer or a string, not ")
    assert ";" not in text


# --- which fields go together

STRATEGY = "spec.analysis: needs interval and threshold, and exactly one of iterations, stepWeight and stepWeights"
VALUES: dict[str, Any] = {"iterations": 10, "stepWeight": 0, "stepWeights": [10]}


@pytest.mark.parametrize("names", [[], ["iterations"], ["stepWeight"], ["stepWeights"], ["iterations", "stepWeight"],
                                   ["stepWeight", "stepWeights"], ["iterations", "stepWeight", "stepWeights"]])  # fmt: skip
@pytest.mark.parametrize("missing", ["", "interval", "threshold"])
def test_an_analysis_has_one_way_to_step(names: list[str], missing: str) -> None:
    analysis = {"interval": "1m", "threshold": 5} | {name: VALUES[name] for name in names}
    analysis.pop(missing, None)
    if len(names) == 1 and not missing:
        assert plain(canary("analysis", analysis).analysis) == analysis
    else:
        assert refusal("analysis", analysis) == STRATEGY


@pytest.mark.parametrize(
    ("spec", "good"),
    [
        ({"type": "slack", "address": "https://chat"}, True),
        ({"type": "slack", "secretRef": {"name": "chat"}}, True),
        ({"type": "slack"}, False),
        ({"type": "slack", "address": "https://chat", "secretRef": {"name": "chat"}}, False),
        ({"address": "https://chat"}, False),
        ({}, False),
        ({"type": "irc", "address": "https://chat"}, False),
    ],
)
def test_an_alert_provider_has_its_address_in_one_place(spec: dict[str, Any], good: bool) -> None:
    if good:
        assert plain(decode(ALERT_PROVIDER, spec).spec) == spec
    else:
        with pytest.raises(Invalid, match=r"needs type, and either address or secretRef|Input should be 'slack'"):
            decode(ALERT_PROVIDER, spec)


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({}, None),
        ({"prefix": "/a"}, None),
        ({"prefix": "/a", "exact": "/a"}, "set at most one of exact, prefix and regex"),
        ({"suffix": "/a"}, "unknown field spec.service.match[0].uri.suffix"),
    ],
)
def test_a_match_of_a_path_has_one_form(match: dict[str, str], message: str | None) -> None:
    if message is None:
        canary("service.match", [{"uri": match}])
    else:
        assert message in refusal("service.match", [{"uri": match}])


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"suffix": "x"}, None),
        ({}, "spec.analysis.match[0].headers.cookie: set exactly one of exact, prefix, suffix and regex"),
        ({"suffix": "x", "exact": "x"}, "set exactly one of exact, prefix, suffix and regex"),
        ({"exact": "x", "invert": "x"}, "unknown field spec.analysis.match[0].headers.cookie.invert"),
    ],
)
def test_a_match_of_an_ab_test_has_one_form(match: dict[str, str], message: str | None) -> None:
    value = [{"headers": {"cookie": match}}]
    if message is None:
        assert plain(canary("analysis.match", value))["analysis"]["match"] == value
    else:
        assert message in refusal("analysis.match", value)


@pytest.mark.parametrize(
    ("balancer", "good"),
    [
        ({"simple": "RANDOM"}, True),
        ({"consistentHash": {"useSourceIp": True, "minimumRingSize": 5}}, True),
        ({"simple": "RANDOM", "consistentHash": {"minimumRingSize": 5}}, True),
        ({}, False),
        ({"consistentHash": {"minimumRingSize": 5}}, False),
        ({"consistentHash": {"useSourceIp": True, "httpHeaderName": "x"}}, False),
        ({"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}, False),
    ],
)
def test_a_load_balancer_chooses_in_one_way(balancer: dict[str, Any], good: bool) -> None:
    value = {"loadBalancer": balancer}
    if good:
        assert plain(canary("service.trafficPolicy", value))["service"]["trafficPolicy"] == value
    else:
        assert "spec.service.trafficPolicy.loadBalancer: set either simple, or consistentHash" in refusal(
            "service.trafficPolicy", value
        )


def test_mirroring_to_a_service_needs_its_port() -> None:
    (entry,) = canary("service.mirror", [{"backendRef": {"name": "copy", "port": 80}}]).service.mirror  # type: ignore[union-attr,misc]
    assert plain(entry) == {"backendRef": {"group": "", "kind": "Service", "name": "copy", "port": 80}}
    assert refusal("service.mirror", [{"backendRef": {"name": "copy"}}]) == (
        "spec.service.mirror[0].backendRef: Must have port for Service reference"
    )
    canary("service.mirror", [{"backendRef": {"group": "x.io", "name": "copy"}}])
    canary("service.mirror", [{"backendRef": {"kind": "Backend", "name": "copy"}}])


# --- names, texts, choices


@pytest.mark.parametrize("interval", ["30s", "1m", "1m30s", "5minutes"])
def test_intervals_that_flaggers_pattern_takes_are_taken(interval: str) -> None:
    assert canary("analysis.interval", interval).analysis.interval == interval


@pytest.mark.parametrize("interval", ["1h", "s", "", "-1m", " 1m"])
def test_intervals_that_flaggers_pattern_refuses_are_refused(interval: str) -> None:
    assert "spec.analysis.interval: String should match pattern" in refusal("analysis.interval", interval)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provider", "envoy"),
        ("targetRef.kind", "StatefulSet"),
        ("autoscalerRef", {"apiVersion": "v1", "kind": "Autoscaler", "name": "a"}),
        ("analysis.webhooks", [{"name": "a", "url": "http://a", "type": "pre-promotion"}]),
        ("analysis.alerts", [{"name": "a", "severity": "fatal", "providerRef": {"name": "a"}}]),
        ("analysis.sessionAffinity", {"cookieName": "a", "sameSite": "none"}),
        ("service.trafficDistribution", "Near"),
        ("analysis.onNoData", "hold"),
        ("analysis.onFail", "Stop"),
        ("analysis.gateDeadline", "1 day"),
        ("analysis.maxHold", 60),
        ("analysis.knownGoodRevisions", 11),
        ("analysis.metrics", [{"name": "a", "minSamples": -1}]),
        ("autoscalerRef", {"apiVersion": "v1", "kind": "ScaledObject", "name": "a", "primaryScalerReplicas": {"minReplicas": 0}}),
        ("service.gatewayRefs", [{"name": "g"}] * 33),
        ("service.gatewayRefs", [{"name": "g", "namespace": "-a"}]),
        ("targetRef", None),
        ("analysis", None),
        ("service.port", None),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(path: str, value: Any) -> None:
    assert refusal(path, value).startswith(f"spec.{path}")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("canaryAnalysis", {}, "unknown field spec.canaryAnalysis"),
        ("analysis.stepWieght", 1, 'unknown field spec.analysis.stepWieght (did you mean "stepWeight"?)'),
        ("analysis.match", [{"method": {"exact": "GET"}}], "unknown field spec.analysis.match[0].method"),
        ("service.match", [{"headers": {"a": {"exatc": "b"}}}], 'headers.a.exatc (did you mean "exact"?)'),
        ("service.trafficPolicy", {"connectionPool": {"tcp": {}}}, "unknown field spec.service.trafficPolicy.connectionPool.tcp"),
    ],
)
def test_what_an_api_server_would_prune_is_named(path: str, value: Any, message: str) -> None:
    assert message in refusal(path, value)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("consecutive5xxErrors", "consecutive_5xx_errors"),
        ("consecutiveGatewayErrors", "consecutive_gateway_errors"),
        ("maxEjectionPercent", "max_ejection_percent"),
    ],
)
def test_names_of_outlier_detection(name: str, attribute: str) -> None:
    service = canary("service.trafficPolicy", {"outlierDetection": {name: 7}}).service
    assert service is not None
    assert service.traffic_policy is not None
    assert getattr(service.traffic_policy.outlier_detection, attribute) == 7


def test_names_that_are_unlike_others() -> None:
    hook = {"name": "a", "url": "http://a", "disableTLS": True, "muteAlert": True}
    assert plain(canary("analysis.webhooks", [hook]).analysis)["webhooks"] == [hook]
    pool = {"http": {"h2UpgradePolicy": "UPGRADE", "http1MaxPendingRequests": 1, "http2MaxRequests": 2}}
    locality = {"distribute": [{"from": "a/b", "to": {"a/c": 100}}], "failover": [{"from": "a", "to": "b"}], "enabled": True}
    policy = {
        "connectionPool": pool,
        "loadBalancer": {"simple": "RANDOM", "localityLbSetting": locality, "warmupDurationSecs": "1s"},
    }
    assert plain(canary("service.trafficPolicy", policy))["service"]["trafficPolicy"] == policy


# --- what is filled in, and what is not


def test_only_what_was_written_is_given_back() -> None:
    assert plain(canary()) == CANARY_SPEC
    assert decode(CANARY, CANARY_SPEC, {}).to_dict()["status"] == {}


def test_durations_are_given_back_as_written() -> None:
    analysis = canary("analysis.gateDeadline", "90m").analysis
    assert analysis.gate_deadline == GoDuration("1h30m")
    assert plain(analysis)["gateDeadline"] == "90m"


def test_defaults_that_an_api_server_writes_count_as_written() -> None:
    (gateway,) = canary("service.gatewayRefs", [{"name": "public"}]).service.gateway_refs  # type: ignore[union-attr,misc]
    assert plain(gateway) == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"}
    assert plain(GatewayRef(name="web", group="core", kind="Service")) == {"group": "core", "kind": "Service", "name": "web"}
    affinity = canary("analysis.sessionAffinity", {"cookieName": "flagger"}).analysis.session_affinity
    assert affinity is not None
    assert plain(affinity) == {"cookieName": "flagger", "maxAge": 86400}
    assert SessionAffinity(cookie_name="flagger", max_age=0).max_age == 0


def test_templates_and_providers_cannot_be_suspended_and_have_no_status() -> None:
    template = decode(METRIC_TEMPLATE, {"provider": {"type": "prometheus", "address": "http://p"}, "query": "up"})
    assert isinstance(template.spec, MetricTemplateSpec)
    assert (template.spec.suspend, template.status.conditions, template.status.observed_generation) == (None, None, None)
    chat = decode(ALERT_PROVIDER, {"type": "gchat", "address": "http://c"})
    assert isinstance(chat.spec, AlertProviderSpec)
    assert chat.spec.suspend is None
    for info, spec in ((METRIC_TEMPLATE, plain(template.spec)), (ALERT_PROVIDER, plain(chat.spec))):
        with pytest.raises(Invalid, match=r"unknown field spec\.suspend"):
            decode(info, spec | {"suspend": True})
        assert "status" not in definition(info)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        assert not info.observes


@pytest.mark.parametrize("kind", ["prometheus", "influxdb", "datadog", "externalmetrics", "stackdriver", "cloudwatch", "newrelic",
                                  "graphite", "dynatrace", "keptn", "splunk"])  # fmt: skip
def test_providers_of_metrics(kind: str) -> None:
    spec = {"provider": {"type": kind, "headers": {"x-a": ["b"]}, "secretRef": {"name": "s"}}, "query": "q"}
    assert plain(decode(METRIC_TEMPLATE, spec).spec) == spec
    with pytest.raises(Invalid, match=r"spec\.provider\.type"):
        decode(METRIC_TEMPLATE, {"provider": {"type": kind.title()}, "query": "q"})


# --- status

STATUS: dict[str, Any] = {
    "phase": "Progressing", "failedChecks": 1, "canaryWeight": 20, "iterations": -1, "trackedConfigs": {"configmap/a": "1f"},
    "lastAppliedSpec": "76fb", "lastPromotedSpec": "5c3d", "lastTransitionTime": "2024-01-02T03:04:05Z",
    "sessionAffinityCookie": "a=b",
    "conditions": [{"type": "Promoted", "status": "Unknown", "reason": "Progressing"}],
    "checks": [{"metric": "request-success-rate", "query": "up", "value": "99.5", "threshold": ">= 99", "verdict": "passed"}],
    "holdSince": "2024-01-02T03:04:05Z", "targetGeneration": 4, "knownGood": ["5c3d"], "images": ["web=web:1.2"],
}  # fmt: skip


def test_a_status_of_flaggers_with_our_fields_is_read_and_given_back() -> None:
    status = decode(CANARY, CANARY_SPEC, STATUS).status
    assert isinstance(status, CanaryStatus)
    assert plain(status) == STATUS
    assert status.conditions is not None
    (condition,) = status.conditions
    assert (condition.last_update_time, condition.message) == (None, None)


@pytest.mark.parametrize(("field", "length"), [("checks", 32), ("knownGood", 10)])
def test_lists_of_the_status_are_bounded(field: str, length: int) -> None:
    entries = STATUS[field] * length
    assert len(plain(decode(CANARY, CANARY_SPEC, STATUS | {field: entries}).status)[field]) == length
    with pytest.raises(Invalid, match=rf"status\.{field}: "):
        decode(CANARY, CANARY_SPEC, STATUS | {field: STATUS[field] * (length + 1)})


def test_a_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Invalid, match=r"status\.phase"):
        decode(CANARY, CANARY_SPEC, {"phase": "Paused"})


def test_objects_that_observe_no_generation_are_not_said_to_be_unobserved() -> None:
    cache = Cache(CANARY, SCHEME, Feed())
    cache.changed(manifest("Canary", CANARY_SPEC, {"phase": "Initialized"}))
    held = cache.get(Key("prod", "web"))
    assert held is not None
    assert held.status.observed_generation is None
    assert held.status.observed_generation != NEVER_OBSERVED
    assert held.to_dict()["status"] == {"phase": "Initialized"}
