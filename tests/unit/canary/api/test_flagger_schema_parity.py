"""Our schemas of Flagger's kinds beside Flagger's own, keyword by keyword: what differs is listed here, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from canary.api import ALERT_PROVIDER, CANARY, METRIC_TEMPLATE
from reconcile.api.crd import definitions
from tests.support import flux_schemas
from tests.support.flux_schemas import FLAGGER, flat, schema

OURS = definitions([CANARY, METRIC_TEMPLATE, ALERT_PROVIDER])

CHECK = ("metric", "query", "value", "threshold", "verdict", "message", "samples", "time")
ADDED = {
    ".spec.analysis": {"gateDeadline", "knownGoodRevisions", "maxHold", "onFail", "onNoData"},
    ".spec.analysis.metrics[]": {"minSamples", "onNoData"},
    ".status": {
        "checks", "checks[]", *(f"checks[].{name}" for name in CHECK), "failure", "gateSince", "holdSince", "images", "images[]",
        "knownGood", "knownGood[]", "lastHandledAction", "lastHandledReconcileAt", "nextStepTime", "notReadySince", "phaseSince",
        "targetGeneration", "trackedBinary", "trackedBinary{}",
    },
}  # fmt: skip
"""Nodes of a Canary that Flagger does not have."""
ADDED_PATHS = {f"{outer}.{name}" for outer, names in ADDED.items() for name in names}

MORE_WORDS = {
    "alertproviders.flagger.app": {".spec.type": "generic"},
    "metrictemplates.flagger.app": {".spec.provider.type": "signalfx"},
}
"""Words of ours in enumerations of Flagger's."""

NO_FORMATS = {"string", "url"}
"""Formats that API servers do not know: they check nothing, and warn whoever applies them."""


def ours(name: str, *, prose: bool = False) -> dict[str, dict[str, Any]]:
    return flat(schema(OURS[name]["spec"]["versions"][0]), prose=prose)


def theirs(name: str) -> dict[str, dict[str, Any]]:
    """Flagger's nodes, in the form that ours have: sorted, and without keywords that have no effect."""
    nodes = flat(schema(flux_schemas.today(name)["spec"]["versions"][0]))
    for node in nodes.values():
        if node.get("format") in NO_FORMATS:
            del node["format"]
        if node.get("type") == "array":
            node.pop("required", None)
        if "required" in node:
            node["required"] = sorted(node["required"])
    return nodes


def test_there_is_a_schema_to_compare_with_for_each_kind() -> None:
    assert tuple(OURS) == FLAGGER


@pytest.mark.parametrize("name", FLAGGER)
def test_schema_is_flaggers_and_the_extensions(name: str) -> None:
    mine, flaggers = ours(name), theirs(name)
    assert mine.keys() - flaggers.keys() == (ADDED_PATHS if name.startswith("canaries") else set())
    for path, word in MORE_WORDS.get(name, {}).items():
        mine[path]["enum"].remove(word)
    assert {path: node for path, node in mine.items() if path in flaggers} == flaggers


def test_the_formats_and_requirements_left_out_are_those_without_effect() -> None:
    nodes = [n for name in FLAGGER for n in flat(schema(flux_schemas.today(name)["spec"]["versions"][0])).values()]
    assert {n["format"] for n in nodes if "format" in n} - NO_FORMATS == {"date-time", "int32"}
    assert [n for n in nodes if n.get("type") == "array" and "required" in n] == [{"type": "array", "required": ["backendRef"]}]


@pytest.mark.parametrize("name", FLAGGER)
def test_names_scope_columns_and_subresources_are_flaggers(name: str) -> None:
    mine, flaggers = OURS[name]["spec"], flux_schemas.today(name)["spec"]
    for key in ("group", "names", "scope"):
        assert mine[key] == flaggers[key]
    assert "shortNames" not in mine["names"]
    for key in ("name", "served", "storage", "subresources", "additionalPrinterColumns"):
        assert [entry[key] for entry in mine["versions"]] == [entry[key] for entry in flaggers["versions"]]


@pytest.mark.parametrize("name", FLAGGER)
def test_uninstalling_a_chart_keeps_them(name: str) -> None:
    assert OURS[name]["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "kustomize.toolkit.fluxcd.io/substitute": "disabled",
    }


@pytest.mark.parametrize("name", FLAGGER)
def test_no_generation_is_said_to_be_observed(name: str) -> None:
    fields = schema(OURS[name]["spec"]["versions"][0])["properties"]
    assert "default" not in fields.get("status", {})
    assert ".status.observedGeneration" not in ours(name)


@pytest.mark.parametrize("name", FLAGGER)
def test_every_field_is_described_and_extensions_say_so(name: str) -> None:
    fields = {path: node for path, node in ours(name, prose=True).items() if not path.endswith(("[]", "{}", ".metadata"))}
    assert [path for path, node in fields.items() if not node.get("description")] == []
    marked = {path for path, node in fields.items() if node["description"].startswith("Extension:")}
    added = {path for path in ADDED_PATHS if path in fields}
    assert marked == {path for path in added if not path.startswith(".status.checks[]")}
