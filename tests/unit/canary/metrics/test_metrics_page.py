"""The page about metrics: its examples are whole and make providers, and it lists what is exported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.api import MetricTemplateSpec
from canary.exported import Exported
from canary.metrics.cloudwatch import _queries
from canary.metrics.keptn import Question
from canary.metrics.providers import MODULES, PROMETHEUS, Providers
from canary.metrics.template import Model, render
from reconcile.net.proxy import ProxyEnvironment
from reconcile.runtime.metrics import Metrics
from tests.support.objects import MemoryObjects

PAGE = Path(__file__).parents[4] / "docs/metrics.md"
TEXT = PAGE.read_text()
MODEL = Model("web", "shop", "web", "web", "web", "web", "1m", {"route": "checkout", "group": "tg", "service": "S-1"})


def documents() -> Iterator[dict[str, Any]]:
    for block in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
        yield from yaml.safe_load_all(block)


TEMPLATES = [each for each in documents() if each.get("kind") == "MetricTemplate"]
SECRETS = {each["metadata"]["name"]: each for each in documents() if each.get("kind") == "Secret"}


def test_each_type_has_an_example_and_each_secret_a_user() -> None:
    shown = [template["spec"]["provider"]["type"] for template in TEMPLATES]
    assert {*shown, "signalfx"} == {*MODULES, PROMETHEUS}
    named = {template["spec"]["provider"].get("secretRef", {}).get("name") for template in TEMPLATES}
    assert named - {None} == set(SECRETS)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["metadata"]["name"])
async def test_examples_make_providers_and_queries(template: dict[str, Any]) -> None:
    spec = MetricTemplateSpec.model_validate(template["spec"])
    data = None
    if spec.provider.secret_ref is not None:
        secret = SECRETS[spec.provider.secret_ref.name]
        assert secret["metadata"]["namespace"] == template["metadata"]["namespace"]
        data = {key: value.encode() for key, value in secret["stringData"].items()}
    providers = Providers(MemoryObjects(), environment=ProxyEnvironment())
    try:
        providers.make(providers.config(spec.provider, data))
    finally:
        await providers.aclose()
    query = render(spec.query, MODEL)
    assert "{{" not in query
    if spec.provider.type == "cloudwatch":
        assert [each["Id"] for each in _queries(query)] == ["share", "errors", "requests"]
    if spec.provider.type == "keptn":
        assert Question.parse(query) == Question("Analysis", "keptn", "web-slo", "5m", {"workload": "web", "namespace": "shop"})


def test_the_list_of_what_is_exported_is_complete() -> None:
    metrics = Metrics()
    Exported(metrics, "istio")
    there = {f"{family.name}{'_total' if family.type == 'counter' else ''}": family.type for family in metrics.registry.collect()}
    listed = dict(re.findall(r"^\| `((?:flagger|imagebot)_\w+)` \| (\w+) \|", TEXT, re.MULTILINE))
    ours = {name: kind for name, kind in there.items() if name.startswith(("flagger_", "imagebot_canary_"))}
    assert listed == ours
