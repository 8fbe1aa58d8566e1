"""docs/image-fields.md has every field of the image kinds in its tables, which are made here, and in its examples."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagebot.api import IMAGE_POLICY, IMAGE_REPOSITORY, IMAGE_UPDATE_AUTOMATION
from imagebot.check.findings import Severity
from imagebot.check.run import check_folder
from imagebot.holds import IMAGE_HOLD
from reconcile.api.crd import definition
from reconcile.api.scheme import Scheme
from tests.support.field_tables import TABLE, paths, table, used

PAGE = Path(__file__).parents[3] / "docs" / "image-fields.md"
KINDS = {info.kind: info for info in (IMAGE_REPOSITORY, IMAGE_POLICY, IMAGE_UPDATE_AUTOMATION, IMAGE_HOLD)}
SCHEMAS = {kind: definition(info)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, info in KINDS.items()}
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"

SCHEME = Scheme()
for _info in KINDS.values():
    SCHEME.register(_info)


def examples() -> list[dict[str, Any]]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [document for text in texts for document in yaml.safe_load_all(text)]


EVERY = [pytest.param(document, id=f"{document['kind']}-{document['metadata']['name']}") for document in examples()]


def test_tables_are_those_of_the_models() -> None:
    text = PAGE.read_text()
    there = [(match["kind"], match["path"]) for match in TABLE.finditer(text)]

    def made(match: re.Match[str]) -> str:
        elsewhere = {path for kind, path in there if kind == match["kind"]}
        return match["head"] + table(SCHEMAS[match["kind"]], match["path"], elsewhere)

    now = TABLE.sub(made, text)
    if UPDATE:
        PAGE.write_text(now)
    assert text == now, "run the test once with IMAGEBOT_UPDATE_DOCS=1"
    said = {(kind, top) for kind, schema in SCHEMAS.items() for top in ("spec", "status") if top in schema["properties"]}
    assert said == set(there)


@pytest.mark.parametrize("document", EVERY)
def test_examples_are_objects_that_are_accepted(document: dict[str, Any], tmp_path: Path) -> None:
    info = SCHEME.find(document["apiVersion"], document["kind"])
    assert info is not None
    decoded = SCHEME.decode(info, document, strict=True)
    assert decoded.to_dict()["spec"] == document["spec"]
    (tmp_path / "object.yaml").write_text(yaml.safe_dump(document))
    alone = {"missing-reference", "missing-secret"}
    found = check_folder(tmp_path, SCHEME, ignored=alone).findings
    assert [finding for finding in found if finding.level is Severity.ERROR] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_in_an_example(kind: str) -> None:
    schema = SCHEMAS[kind]
    documents = [document for document in examples() if document["kind"] == kind]
    shown = {path for document in documents for path in used(document["spec"], "spec", schema["properties"]["spec"])}
    assert paths(schema, "spec") - shown == set()
