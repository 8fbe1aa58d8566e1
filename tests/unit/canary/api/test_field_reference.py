"""docs/canary-fields.md has every field of Flagger's kinds in its tables, which are made here, and in its examples."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.api import ALERT_PROVIDER, API_VERSION, CANARY, METRIC_TEMPLATE
from reconcile.api.crd import definition
from reconcile.api.scheme import Scheme
from tests.support.field_tables import TABLE, paths, table, used

PAGE = Path(__file__).parents[4] / "docs" / "canary-fields.md"
KINDS = {info.kind: info for info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER)}
SCHEMAS = {kind: definition(info)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, info in KINDS.items()}
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"

SCHEME = Scheme()
for _info in KINDS.values():
    SCHEME.register(_info)


def tables() -> list[tuple[str, str]]:
    return [(match["kind"], match["path"]) for match in TABLE.finditer(PAGE.read_text())]


def examples() -> list[dict[str, Any]]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [document for text in texts for document in yaml.safe_load_all(text)]


def test_tables_are_those_of_the_models() -> None:
    there, text = tables(), PAGE.read_text()

    def made(match: re.Match[str]) -> str:
        elsewhere = {path for kind, path in there if kind == match["kind"]}
        return match["head"] + table(SCHEMAS[match["kind"]], match["path"], elsewhere)

    now = TABLE.sub(made, text)
    if UPDATE:
        PAGE.write_text(now)
    assert text == now, "run the test once with IMAGEBOT_UPDATE_DOCS=1"


def test_every_kind_has_its_tables() -> None:
    wanted = {(kind, top) for kind, schema in SCHEMAS.items() for top in ("spec", "status") if top in schema["properties"]}
    assert wanted <= set(tables())


@pytest.mark.parametrize("number", range(len(examples())))
def test_examples_are_objects_that_are_accepted(number: int) -> None:
    document = examples()[number]
    assert document["apiVersion"] == API_VERSION
    decoded = SCHEME.decode(KINDS[document["kind"]], document)
    assert decoded.to_dict()["spec"].keys() >= document["spec"].keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_in_an_example(kind: str) -> None:
    schema = SCHEMAS[kind]
    shown = {p for d in examples() if d["kind"] == kind for p in used(d["spec"], "spec", schema["properties"]["spec"])}
    assert paths(schema, "spec") - shown == set()
