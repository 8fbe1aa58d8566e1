"""The pages of sources and Kustomizations have every field in their tables, which are made here, and in their examples."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.api.crd import definition
from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.scheme import Scheme
from reconcile.api.source import SOURCES
from tests.support.field_tables import TABLE, paths, table, used

DOCS = Path(__file__).parents[4] / "docs"
PAGES = {"sources.md": SOURCES, "kustomizations.md": (KUSTOMIZATION,)}
KINDS = {info.kind: info for infos in PAGES.values() for info in infos}
SCHEMAS = {kind: definition(info)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, info in KINDS.items()}
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"

SCHEME = Scheme()
for _info in KINDS.values():
    SCHEME.register(_info)


def examples(page: str) -> list[dict[str, Any]]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [document for text in texts for document in yaml.safe_load_all(text) if "kind" in document]


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_models(page: str) -> None:
    text = (DOCS / page).read_text()
    there = [(match["kind"], match["path"]) for match in TABLE.finditer(text)]

    def made(match: re.Match[str]) -> str:
        elsewhere = {path for kind, path in there if kind == match["kind"]}
        return match["head"] + table(SCHEMAS[match["kind"]], match["path"], elsewhere)

    now = TABLE.sub(made, text)
    if UPDATE:
        (DOCS / page).write_text(now)
    assert text == now, "run the test once with IMAGEBOT_UPDATE_DOCS=1"
    assert set(there) == {(info.kind, top) for info in PAGES[page] for top in ("spec", "status")}


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_objects_that_are_accepted(page: str) -> None:
    for document in examples(page):
        info = SCHEME.find(document["apiVersion"], document["kind"])
        assert info is not None
        decoded = SCHEME.decode(info, document, strict=True)
        assert decoded.to_dict()["spec"] == document["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_in_an_example(kind: str) -> None:
    schema = SCHEMAS[kind]
    documents = [document for page in PAGES for document in examples(page) if document["kind"] == kind]
    shown = {path for document in documents for path in used(document["spec"], "spec", schema["properties"]["spec"])}
    assert paths(schema, "spec") - shown == set()
