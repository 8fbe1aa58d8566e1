"""values.yaml is the one source of schema and README, each value has an effect, alerts and dashboard name real metrics."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.options import WORKERS
from canary.settings import CanarySettings
from reconcile.api.meta import Key
from reconcile.kube.limiter import BURST, QPS
from reconcile.kube.metrics import KubeMetrics
from reconcile.runtime.logs import LEVELS
from reconcile.runtime.metrics import Metrics
from reconcile.settings import GATES, RetrySettings, Settings
from tests.support import chart_values
from tests.support.chart import CHART, Helm, of_kind, value_set
from tests.support.chart_values import README, SCHEMA, VALUES, Setting, Undocumented, read, readme_text, schema_text

SETTINGS = [s for top in read(VALUES.read_text()) for s in top.walk() if not s.children]

OTHERS: dict[str, Any] = {
    "fullnameOverride": "other", "nameOverride": "other", "rbac.create": False,
    "rbac.strict": True, "rbac.aggregate": False, "serviceAccount.create": False, "caBundle.configMap": "authorities",
    "leaderElection.enabled": False, "leaderElection.leaseDuration": "50s", "leaderElection.renewDeadline": "31s",
    "leaderElection.retryPeriod": "6s", "podDisruptionBudget.enabled": False, "podDisruptionBudget.maxUnavailable": 2,
    "service.enabled": False, "networkPolicy.enabled": False, "storage.dataLimit": "1Gi", "storage.tmpLimit": "1Gi",
    "grafanaDashboard.labels": {"dashboards": "yes"}, "shards": [], "nodeSelector": {"a": "b"},
}  # fmt: skip
"""Values that the set `everything` leaves as they are, or that it needs to be as they are."""
LOADTESTER: dict[str, Any] = {
    "loadtester.enabled": True, "loadtester.name": "loadtester", "loadtester.namespace": "test",
    "loadtester.image": "loadtester:1",
    "loadtester.namespaceRegexp": "^prod-", "loadtester.timeout": "30m", "loadtester.releases": False,
    "loadtester.existingClaim": "gates", "loadtester.tokenSecret": "gates", "loadtester.from": [{"podSelector": {}}],
    "loadtester.extraArgs": ["--enable-helm"], "loadtester.resources.requests.cpu": "1",
    "loadtester.resources.requests.memory": "1Gi", "loadtester.resources.limits.memory": "2Gi",
}  # fmt: skip
"""Values that count only with a load tester, which no set has."""
OTHERS |= LOADTESTER
BESIDE: dict[str, dict[str, Any]] = {
    "fullnameOverride": {"nameOverride": ""},
    "nameOverride": {"fullnameOverride": ""},
    "caBundle.configMap": {"caBundle.secret": ""},
    "podDisruptionBudget.enabled": {"replicas": 3, "storage.persistence.enabled": False},
    "podDisruptionBudget.maxUnavailable": {"replicas": 3, "storage.persistence.enabled": False},
    "replicas": {"storage.persistence.enabled": False},
    "storage.dataLimit": {"storage.persistence.enabled": False},
    **{name: {"loadtester.enabled": True} for name in LOADTESTER if name != "loadtester.enabled"},
}
"""What has to be otherwise for a value to count."""


def test_schema_and_readme_are_those_of_the_values() -> None:
    text = VALUES.read_text()
    hint = "run `python -m tests.support.chart_values`"
    assert SCHEMA.read_text() == schema_text(text), hint
    assert README.read_text() == readme_text(README.read_text(), text), hint


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(Undocumented, match=r"^image\.tag$"):
        read("# The image.\nimage:\n  # Where.\n  repository: a\n  tag: b\n")


def test_comments_types_and_rules_become_the_schema() -> None:
    text = (
        "group:\n  # How many.\n  # Really.\n  # @schema minimum: 1\n  count: 2\n"
        "# Free.\n# @schema additionalProperties: true\nfree:\n  a: 1\n"
    )
    properties = chart_values.schema(read(text))["properties"]
    assert properties["group"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"count": {"type": "integer", "description": "How many. Really.", "default": 2, "minimum": 1}},
    }
    assert properties["free"] == {"type": "object", "description": "Free.", "additionalProperties": True}
    assert chart_values.table(read(text)).splitlines()[2:] == [
        "| `group.count` | `2` | How many. Really. |",
        '| `free` | `{"a": 1}` | Free. |',
    ]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: ".".join(setting.path))
def test_each_value_has_an_effect(helm: Helm, setting: Setting, tmp_path: Path) -> None:
    name = ".".join(setting.path)
    everything = yaml.safe_load((CHART / "ci" / "everything.yaml").read_text())
    there = everything
    for part in setting.path:
        there = there.get(part, {}) if isinstance(there, dict) else {}
    other = OTHERS.get(name, setting.default)
    if name not in OTHERS:
        assert there not in ({}, other), f"the set `everything` does not change {name}"
    base = _file(tmp_path / "base.yaml", BESIDE.get(name, {}))
    changed = _file(tmp_path / "changed.yaml", {**BESIDE.get(name, {}), name: other})
    sets = value_set("everything")
    assert helm.template(*sets, "--values", str(base)) != helm.template(*sets, "--values", str(changed))


def _file(path: Path, values: dict[str, Any]) -> Path:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        # A map is merged with what is there, so what is to be absent must be null.
        place[last] = None if value == {} else value
    path.write_text(json.dumps(nested))
    return path


def test_defaults_are_those_of_the_program() -> None:
    properties = json.loads(SCHEMA.read_text())["properties"]
    assert properties["featureGates"]["propertyNames"]["enum"] == list(GATES)
    assert set(properties["logLevel"]["enum"]) == set(LEVELS) - {"none"}
    assert properties["concurrent"]["default"] == Settings().concurrent
    api = properties["kubeApi"]["properties"]
    assert (api["qps"]["default"], api["burst"]["default"]) == (QPS, BURST)
    canary = {name: value.get("default") for name, value in properties["canary"]["properties"].items()}
    canary |= {
        f"slack_{name}": value["default"] for name, value in properties["canary"]["properties"]["slack"]["properties"].items()
    }
    renamed = {"config_tracking": "enable_config_tracking"}
    snake = {re.sub("([A-Z])", lambda m: f"_{m[1].lower()}", name): value for name, value in canary.items()}
    plain = {renamed.get(n, n): tuple(v) if isinstance(v, list) else v for n, v in snake.items()}
    assert plain.pop("workers") == WORKERS
    assert (plain.pop("secret"), plain.pop("slack")) == ("", None)
    assert {name: getattr(CanarySettings(), name) for name in plain} == plain
    retry = {name: properties["retry"]["properties"][name]["default"] for name in ("minDelay", "maxDelay", "dependency")}
    assert retry == {"minDelay": "750ms", "maxDelay": "15m", "dependency": "30s"}
    assert RetrySettings() == RetrySettings(0.75, 15 * 60, 30)


def own_rule(objects: list[Any]) -> Any:
    """The PrometheusRule of the service itself, beside that of rollouts."""
    (rule,) = [o for o in of_kind(objects, "PrometheusRule") if not o["metadata"]["name"].endswith("-canary")]
    return rule


def test_alerts_and_dashboard_name_metrics_that_exist(helm: Helm) -> None:
    metrics = Metrics()
    KubeMetrics.declare(metrics)
    families = {family.name: family.type for family in metrics.registry.collect()}
    # Declared by who holds the lease, when the service starts in a cluster.
    known = {"up", "leader_election_master_status"}
    for name, kind in families.items():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
        known |= {name + suffix for suffix in suffixes}

    rule = own_rule(helm.objects(*value_set("shards")))
    expressions = [alert["expr"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    dashboard = json.loads((CHART / "dashboards" / "imagebot.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [v["definition"].replace("label_values(", "").split(",")[0] for v in dashboard["templating"]["list"][1:]]
    assert len(expressions) == 10 + 22 + 2
    used = {name for text in expressions for name in re.findall(r"\b([a-z][a-z0-9_]*_[a-z0-9_]+|up)\b(?=\s*[{]|$)", text)}
    assert used - known == set()

    # A label value that no series has makes an alert that never fires.
    metrics.show_conditions("ImagePolicy", Key("default", "web"), ())
    (conditions,) = metrics.condition.collect()
    series = [(sample.labels["type"], sample.labels["status"]) for sample in conditions.samples]
    asked = [re.search(r'gotk_reconcile_condition\{[^}]*\btype="(\w+)", status="(\w+)"\}', text) for text in expressions]
    pairs = Counter(found.groups() for found in asked if found)
    assert pairs == {("Ready", "False"): 3, ("Stalled", "True"): 1, ("Ready", "True"): 1}
    assert sum(text.count("type=") for text in expressions) == pairs.total()
    assert set(pairs) - set(series) == set()


def test_each_alert_says_what_is_wrong_and_selects_the_releases_series(helm: Helm) -> None:
    for name, series in (("ha", 'job="imagebot-system/imagebot"'), ("everything", 'cluster="one"')):
        rule = own_rule(helm.objects(*value_set(name)))
        alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
        assert len(alerts) == (8 if name == "ha" else 9)
        for alert in alerts:
            assert series in alert["expr"]
            assert alert["expr"].count("{") == alert["expr"].count("}") == 1
            assert set(alert["annotations"]) == {"summary", "description"}
            assert alert["labels"]["severity"] in {"critical", "warning", "info"}
            assert alert["labels"].get("team") == (None if name == "ha" else "platform")


def test_dashboard_fits_its_grid() -> None:
    panels = json.loads((CHART / "dashboards" / "imagebot.json").read_text())["panels"]
    cells = [
        (x, y)
        for p in panels
        for g in [p["gridPos"]]
        for x in range(g["x"], g["x"] + g["w"])
        for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < 24 for x, _ in cells)
    assert [p["id"] for p in panels] == list(range(1, len(panels) + 1))
