"""Alerts and dashboard of rollouts: they name metrics that exist, and fire when, and only when, they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.exported import Exported
from canary.metrics.base import Verdict
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import site
from tests.support.chart import CHART, Helm, of_kind, value_set

DASHBOARD = CHART / "dashboards" / "canary.json"
JOB = 'job="imagebot-system/imagebot"'


def rules(helm: Helm, values: str = "ha") -> list[dict[str, Any]]:
    found = [o for o in of_kind(helm.objects(*value_set(values)), "PrometheusRule") if o["metadata"]["name"].endswith("-canary")]
    assert len(found) == 1
    (group,) = found[0]["spec"]["groups"]
    assert group["name"] == "imagebot-canary"
    alerts: list[dict[str, Any]] = group["rules"]
    return alerts


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions_of_dashboard() -> list[str]:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"][1:]
    asked = [v["definition"].removeprefix("label_values(").rpartition(",")[0] for v in variables]
    return asked + [target["expr"] for panel in panels() for target in panel["targets"]]


def filled() -> Metrics:
    """The families of the service, with a series in each."""
    metrics = Metrics()
    exported, where = Exported(metrics, "istio"), site()
    exported.total("prod", 1)
    exported.status(where, "Progressing")
    exported.weights(where, 90, 10)
    exported.analysis(where, "latency", 1.0)
    exported.duration(where, 0.1)
    exported.success(where, "canary")
    exported.failure(where, "canary")
    exported.phase(where, "Progressing", 1.0)
    exported.verdict(where, "latency", "Pass")
    exported.hook(where, "rollout", 0.1, failed=False)
    exported.event_post(where, lost=False)
    exported.alert(where, lost=False)
    exported.tick("error", 0.1)
    return metrics


def test_alerts_and_dashboard_ask_for_series_that_exist(helm: Helm) -> None:
    series: dict[str, set[str]] = {}
    for family in filled().registry.collect():
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    texts = [alert["expr"] for alert in rules(helm)] + expressions_of_dashboard()
    asked = [found for text in texts for found in re.findall(r"\b([a-z]\w*_\w+)(?:\{([^}]*)\}|$)", text)]
    assert len(asked) >= len(texts)
    for name, selector in asked:
        assert name in series, name
        labels = set(re.findall(r"(\w+)\s*[!=]~?\"", selector)) - {"job"}
        # Prometheus gives each series of a service without a namespace of its own that of the pod.
        assert labels - series[name] <= set(), (name, selector)
    grouped = {label for text in texts for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
    assert grouped <= set().union(*series.values())


def test_verdicts_of_alerts_are_those_of_checks(helm: Helm) -> None:
    asked = {
        word for alert in rules(helm) for found in re.findall(r'verdict=~?"([^"]*)"', alert["expr"]) for word in found.split("|")
    }
    assert asked == {verdict.value for verdict in Verdict} - {"Pass"}


@pytest.mark.parametrize(("values", "selector"), [("ha", JOB), ("everything", 'cluster="one"')])
def test_each_alert_selects_the_series_of_the_release(values: str, selector: str, helm: Helm) -> None:
    alerts = rules(helm, values)
    assert len(alerts) == 10
    for alert in alerts:
        assert alert["expr"].count(selector) == alert["expr"].count("{") == alert["expr"].count("}") > 0
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["labels"]["severity"] in {"warning", "info"}
        assert alert["labels"].get("team") == (None if values == "ha" else "platform")


def test_there_are_no_alerts_unless_asked_for(helm: Helm) -> None:
    assert of_kind(helm.objects(), "PrometheusRule") == []


def test_the_dashboard_is_shipped_beside_the_other(helm: Helm) -> None:
    (found,) = [o for o in of_kind(helm.objects(*value_set("ha")), "ConfigMap") if o["metadata"]["name"].endswith("-dashboard")]
    assert set(found["data"]) == {"canary.json", "imagebot.json"}
    shipped = [json.loads(text) for text in found["data"].values()]
    assert len({dashboard["uid"] for dashboard in shipped}) == 2
    assert json.loads(found["data"]["canary.json"]) == json.loads(DASHBOARD.read_text())


def test_the_dashboard_fits_its_grid() -> None:
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels())
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))
    assert [panel["id"] for panel in panels()] == list(range(1, len(panels()) + 1))


# --- what Prometheus makes of the alerts

LABELS = 'job="imagebot-system/imagebot"'
STATUS, SINCE = "flagger_canary_status", "imagebot_canary_phase_since_timestamp_seconds"
VERDICTS, HOOKS = "imagebot_canary_check_verdicts_total", "imagebot_canary_webhook_failures_total"
TICKS, LATE = "imagebot_canary_ticks_total", "imagebot_canary_tick_lateness_seconds_bucket"
LOST = "imagebot_canary_lost_alerts_total"

Series = dict[str, str]


def one(family: str, values: str, **labels: str) -> Series:
    more = "".join(f', {name}="{value}"' for name, value in labels.items())
    return {f"{family}{{{LABELS}{more}}}": values}


def buckets(least: str, more: str) -> Series:
    """Ticks of which those in `least` began in time and all in `more` within half a minute."""
    return {
        **one(LATE, least, le="0.1"),
        **one(LATE, least, le="2.5"),
        **one(LATE, more, le="30.0"),
        **one(LATE, more, le="+Inf"),
    }


CASES: dict[str, tuple[Series, str, set[str]]] = {
    "resting": (
        {**one(STATUS, "1x30", namespace="prod", name="web"), **one(SINCE, "0x2000", canary="prod/web", phase="Succeeded")},
        "30h",
        set(),
    ),
    "progressing": (
        {**one(STATUS, "0x60", namespace="prod", name="web"), **one(SINCE, "0x60", canary="prod/web", phase="Progressing")},
        "1h",
        set(),
    ),
    "rolled back": ({**one(STATUS, "0x10 2x10", namespace="prod", name="web")}, "15m", {"ImagebotCanaryFailed"}),
    "tried again": ({**one(STATUS, "2x10 0x10", namespace="prod", name="web")}, "15m", set()),
    "stuck": (one(SINCE, "0x60", canary="prod/web", phase="Promoting"), "31m", {"ImagebotCanaryStuck"}),
    "not yet stuck": (one(SINCE, "0x60", canary="prod/web", phase="Promoting"), "29m", set()),
    "moved on in time": (
        {
            **one(SINCE, "0x20 stale", canary="prod/web", phase="Promoting"),
            **one(SINCE, "_x20 1200x40", canary="prod/web", phase="Finalising"),
        },
        "45m",
        set(),
    ),
    "in analysis for long": (one(SINCE, "0x1000", canary="prod/web", phase="Progressing"), "13h", {"ImagebotCanaryRunsLong"}),
    "gate closed overnight": (one(SINCE, "0x2000", canary="prod/web", phase="Waiting"), "12h", set()),
    "gate closed for days": (one(SINCE, "0x2000", canary="prod/web", phase="WaitingPromotion"), "25h", {"ImagebotCanaryWaits"}),
    "checks pass": (one(VERDICTS, "0+1x60", canary="prod/web", metric="latency", verdict="Pass"), "30m", set()),
    "a check failed once": (one(VERDICTS, "0x10 1x30", canary="prod/web", metric="latency", verdict="Fail"), "15m", set()),
    "checks fail": (
        one(VERDICTS, "0x10 1x3 2x30", canary="prod/web", metric="latency", verdict="Fail"),
        "20m",
        {"ImagebotCanaryChecksFail"},
    ),
    "checks failed long ago": (one(VERDICTS, "0x10 3x60", canary="prod/web", metric="latency", verdict="Fail"), "50m", set()),
    "nothing to judge": (
        one(VERDICTS, "0+1x30", canary="prod/web", metric="latency", verdict="NoData"),
        "20m",
        {"ImagebotCanaryNoData"},
    ),
    "provider down": (
        one(VERDICTS, "0+1x30", canary="prod/web", metric="latency", verdict="Error"),
        "20m",
        {"ImagebotCanaryNoData"},
    ),
    "load tests fail": (one(HOOKS, "0+1x30", canary="prod/web", type="rollout"), "20m", {"ImagebotCanaryWebhookFails"}),
    "listeners fail": (one(HOOKS, "0+1x30", canary="prod/web", type="event"), "20m", {"ImagebotCanaryWebhookFails"}),
    "gates are closed": (
        {
            **one(HOOKS, "0+1x30", canary="prod/web", type="confirm-rollout"),
            **one(HOOKS, "0+1x30", canary="prod/web", type="confirm-traffic-increase"),
            **one(HOOKS, "0+1x30", canary="prod/web", type="rollback"),
        },
        "20m",
        set(),
    ),
    "a chat is gone": (one(LOST, "0x10 1x30", canary="prod/web"), "20m", {"ImagebotCanaryUntold"}),
    "in time": (buckets("0+100x40", "0+100x40"), "30m", set()),
    "late": (buckets("0+50x40", "0+100x40"), "30m", {"ImagebotCanaryTicksLate"}),
    "late for a moment": (buckets("0+50x4 300+100x40", "0+100x45"), "30m", set()),
    "most steps fail": (
        {**one(TICKS, "0+1x60", result="success"), **one(TICKS, "0+9x60", result="error")},
        "40m",
        {"ImagebotCanaryTicksFail"},
    ),
    "some steps fail": ({**one(TICKS, "0+9x60", result="success"), **one(TICKS, "0+1x60", result="error")}, "40m", set()),
    "no steps": (one(TICKS, "5x60", result="success"), "40m", set()),
}


def promtool(folder: Path, *arguments: str) -> str:
    program = shutil.which("promtool")
    assert program is not None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(helm: Helm, folder: Path) -> None:
    groups = {"groups": [{"name": "imagebot-canary", "rules": rules(helm)}]}
    (folder / "rules.yaml").write_text(yaml.safe_dump(groups))


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules(helm: Helm, tmp_path: Path) -> None:
    write_rules(helm, tmp_path)
    assert "10 rules found" in promtool(tmp_path, "check", "rules", "rules.yaml")


@pytest.mark.needs("promtool")
def test_alerts_fire_when_they_should_and_only_then(helm: Helm, tmp_path: Path) -> None:
    write_rules(helm, tmp_path)
    severities = {alert["alert"]: alert["labels"]["severity"] for alert in rules(helm)}
    tests = []
    for name, (series, at, firing) in CASES.items():
        expected = [
            {"labels": f'{{alertname="{alert}", severity="{severities[alert]}"}}', "value": 1} for alert in sorted(firing)
        ]
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": which, "values": values} for which, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname, severity) (ALERTS{alertstate="firing"})',
                        "eval_time": at,
                        "exp_samples": expected,
                    }
                ],
            }
        )
    assert {alert for _, _, firing in CASES.values() for alert in firing} == set(severities)
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


@pytest.mark.needs("promtool")
def test_a_stuck_canary_is_named_with_what_to_do(helm: Helm, tmp_path: Path) -> None:
    write_rules(helm, tmp_path)
    expected = {
        "exp_labels": {"canary": "prod/web", "phase": "Initializing", "severity": "warning"},
        "exp_annotations": {
            "summary": "Canary prod/web does not get out of phase Initializing.",
            "description": "It has been there for 45m 0s, where minutes are usual. "
            "`kubectl -n prod describe canary web` says what it waits for.",
        },
    }
    series = [
        {"series": which, "values": values}
        for which, values in one(SINCE, "0x60", canary="prod/web", phase="Initializing").items()
    ]
    wanted = {"eval_time": "45m", "alertname": "ImagebotCanaryStuck", "exp_alerts": [expected]}
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": [wanted]}],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")


@pytest.mark.needs("promtool")
def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [text.replace("$__rate_interval", "5m") for text in expressions_of_dashboard()]
    recorded = [{"record": f"dashboard:panel{i}", "expr": text} for i, text in enumerate(asked)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(asked)} rules found" in promtool(tmp_path, "check", "rules", "rules.yaml")
