"""Exported series: the recorded ones of the real operator, ours, and that series of what is gone go too."""

from __future__ import annotations

import re

import pytest

from canary.exported import Exported
from reconcile.api.meta import Key
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import recorded, site

LINE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")
PAIR = re.compile(r'(\w+)="([^"]*)"')


def series(metrics: Metrics, *, of: str = "flagger_canary_") -> list[str]:
    """Samples as the exposition has them, labels in order, without the histogram."""
    lines = []
    for line in metrics.render().decode().splitlines():
        found = LINE.fullmatch(line)
        if found and line.startswith(of) and "_created{" not in line and "duration_seconds" not in line:
            labels = ",".join(sorted(f'{key}="{value}"' for key, value in PAIR.findall(found["labels"])))
            lines.append(f"{found['name']}{{{labels}}} {float(found['value']):g}")
    return sorted(lines)


def told(line: str) -> tuple[str, dict[str, str], float]:
    found = LINE.fullmatch(line)
    assert found is not None
    return found["name"], dict(PAIR.findall(found["labels"])), float(found["value"])


def shown(metrics: Metrics) -> list[str]:
    """All lines but those of the process, whose processor time and memory move by themselves."""
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("process_")]


VERDICTS = ("Pass", "Fail", "NoData", "Error")
PHASES = {0: "Progressing", 1: "Succeeded", 2: "Failed"}


@pytest.mark.parametrize("story", [name for name, entry in recorded().items() if entry.get("metrics")])
def test_series_are_named_and_labelled_as_recorded(story: str) -> None:
    lines = [line for line in recorded()[story]["metrics"] if "duration_seconds" not in line]
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    namespace = told(lines[0])[1]["namespace"]
    weights: dict[str, int] = {}
    for line in lines:
        name, labels, value = told(line)
        target = labels.get("name") or labels.get("workload", "web").removesuffix("-primary")
        where = site(
            "another-name", namespace, spec={"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}}
        )
        match name.removeprefix("flagger_canary_"):
            case "total":
                exported.totals([Key(namespace, "another-name")] * int(value))
            case "status":
                exported.status(where, PHASES[int(value)])
            case "weight":
                weights[labels["workload"]] = int(value)
                if len(weights) == 2:
                    exported.weights(where, weights[where.primary], weights[where.target])
            case "metric_analysis":
                exported.analysis(where, labels["metric"], value)
            case "successes_total":
                for _ in range(int(value)):
                    exported.success(where, labels["deployment_strategy"], labels["analysis_status"])
            case "failures_total":
                for _ in range(int(value)):
                    exported.failure(where, labels["deployment_strategy"], labels["analysis_status"])
            case other:
                raise AssertionError(other)
    assert series(metrics) == sorted(lines)


def test_the_service_says_who_it_is() -> None:
    metrics = Metrics()
    Exported(metrics, "gatewayapi:v1")
    (line,) = [line for line in metrics.render().decode().splitlines() if line.startswith("flagger_info{")]
    assert re.fullmatch(r'flagger_info\{mesh_provider="gatewayapi:v1",version="[^"]+"\} 1', line)


@pytest.mark.parametrize(
    ("phase", "value"),
    [("Progressing", 0), ("Failed", 2)]
    + [(phase, 1) for phase in ("Initialized", "Waiting", "WaitingPromotion", "Promoting", "Finalising", "Succeeded")],
)
def test_phases_are_shown_as_numbers(phase: str, value: int) -> None:
    metrics = Metrics()
    Exported(metrics, "istio").status(site(), phase)
    assert metrics.registry.get_sample_value("flagger_canary_status", {"name": "web", "namespace": "prod"}) == value


def test_ticks_are_timed_in_the_default_buckets() -> None:
    metrics = Metrics()
    Exported(metrics, "istio").duration(site(), 0.03)
    labels = {"name": "web", "namespace": "prod"}
    value = metrics.registry.get_sample_value
    assert value("flagger_canary_duration_seconds_count", labels) == 1
    bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]
    for bound in bounds:
        assert value("flagger_canary_duration_seconds_bucket", {**labels, "le": bound}) == (float(bound) >= 0.03)


def test_namespaces_without_canaries_are_counted_with_none() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    exported.totals([Key("prod", "a"), Key("prod", "b"), Key("test", "a")])
    exported.totals([Key("prod", "b")])
    assert series(metrics) == ['flagger_canary_total{namespace="prod"} 1', 'flagger_canary_total{namespace="test"} 0']


def fill(exported: Exported, name: str, target: str = "web") -> None:
    where = site(name, spec={"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}})
    exported.status(where, "Progressing")
    exported.weights(where, 90, 10)
    exported.analysis(where, "request-success-rate", 99.5)
    exported.duration(where, 0.1)
    exported.success(where, "canary")
    exported.failure(where, "canary")
    exported.phase(where, "Progressing", 1.0)
    exported.verdict(where, "request-success-rate", "Pass")
    exported.hook(where, "rollout", 0.1, failed=True)
    exported.event_post(where, lost=True)
    exported.alert(where, lost=True)


def lines_with(metrics: Metrics, text: str) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if text in line]


def test_series_of_a_canary_go_with_it() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    fill(exported, "shop", "shop")
    before = shown(metrics)
    fill(exported, "web", "web")
    assert len(lines_with(metrics, '"web"')) > 20
    exported.forget(Key("prod", "web"))
    assert lines_with(metrics, '"web"') == []
    assert lines_with(metrics, '"web-primary"') == []
    after = shown(metrics)
    assert [line for line in after if '"shop"' in line] == [line for line in before if '"shop"' in line]
    exported.forget(Key("prod", "web"))  # twice is once
    assert shown(metrics) == after


def test_series_of_a_former_target_go_when_the_next_one_is_shown() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    fill(exported, "shop", "old")
    fill(exported, "shop", "new")
    assert lines_with(metrics, '"old"') == []
    assert lines_with(metrics, '"new"') != []


def test_two_canaries_of_one_target_share_series_until_both_are_gone() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    fill(exported, "one")
    fill(exported, "two")
    exported.forget(Key("prod", "one"))
    assert metrics.registry.get_sample_value("flagger_canary_status", {"name": "web", "namespace": "prod"}) == 0
    exported.forget(Key("prod", "two"))
    assert lines_with(metrics, '"web"') == []


def test_only_the_present_phase_is_shown() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    exported.phase(site(), "Waiting", 100.0)
    exported.phase(site(), "Progressing", 160.0)
    exported.phase(site("other"), "Waiting", 170.0)
    assert series(metrics, of="imagebot_canary_phase") == [
        'imagebot_canary_phase_since_timestamp_seconds{canary="prod/other",phase="Waiting"} 170',
        'imagebot_canary_phase_since_timestamp_seconds{canary="prod/web",phase="Progressing"} 160',
    ]


def test_a_tick_before_its_time_is_not_late() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    exported.tick("success", -0.2)
    exported.tick("halted", 0.7)
    value = metrics.registry.get_sample_value
    assert value("imagebot_canary_tick_lateness_seconds_sum") == 0.7
    assert value("imagebot_canary_tick_lateness_seconds_bucket", {"le": "0.01"}) == 1
    assert value("imagebot_canary_ticks_total", {"result": "halted"}) == 1


def test_what_can_go_wrong_is_shown_before_it_does() -> None:
    metrics = Metrics()
    exported = Exported(metrics, "istio")
    exported.verdict(site(), "latency", "Pass")
    exported.hook(site(), "rollout", 0.1, failed=False)
    exported.event_post(site(), lost=False)
    exported.alert(site(), lost=False)
    labels = {"canary": "prod/web"}
    value = metrics.registry.get_sample_value
    counts = {v: value("imagebot_canary_check_verdicts_total", {**labels, "metric": "latency", "verdict": v}) for v in VERDICTS}
    assert counts == {"Pass": 1, "Fail": 0, "NoData": 0, "Error": 0}
    assert value("imagebot_canary_webhook_failures_total", {**labels, "type": "rollout"}) == 0
    assert value("imagebot_canary_lost_event_posts_total", labels) == 0
    assert value("imagebot_canary_lost_alerts_total", labels) == 0
