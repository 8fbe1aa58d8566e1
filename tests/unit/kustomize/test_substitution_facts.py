"""Recorded rows of Flux's kustomize-controller: what becomes of a ConfigMap, and the message when nothing does.

Rows that its API server refused (`… dry-run failed: … expected string, got …`) agree when our object has the very value that the
server complains about: the refusal itself is the server's.
"""

import base64
import json
import re
from pathlib import Path

import pytest

from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.variables import PostBuild, VariableSource
from reconcile.yamlio import load_documents

FACTS = Path(__file__).parents[2] / "facts" / "reconcile"
TABLE = json.loads((FACTS / "substitution.json").read_text("utf-8"))["stories"][0]
ROWS = list(zip(TABLE["story"]["rows"], TABLE["seen"]["rows"], strict=True))
FROM = json.loads((FACTS / "substitute_from.json").read_text("utf-8"))["stories"]
REFUSED = re.compile(r"expected string, got &value\.valueUnstructured\{Value:(.*)\}\n$")


def built(row, number):
    """The object that kustomize builds from a row's file."""
    text = row.get("file") or (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: NAME\ndata:\n  out: " + json.dumps(row["template"]) + "\n"
    )
    # kustomize knows YAML 1.2, in which `n` is no boolean.
    text = text.replace("NAME", f"row-{number}").replace("    n:", '    "n":')
    [(document, _)] = load_documents(text, "cm.yaml")
    return document


def go_value(value):
    """As Go's `%#v` writes a value."""
    if isinstance(value, dict):
        inside = ", ".join(
            f"{json.dumps(key)}:{go_value(part) if part is not None else 'interface {}(nil)'}" for key, part in value.items()
        )
        return "map[string]interface {}{" + inside + "}"
    return json.dumps(value)


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_row_agrees(number):
    row, seen = ROWS[number]
    variables = row.get("vars", {}) if row.get("bare") else {**TABLE["story"]["vars"], **row.get("vars", {})}
    post_build = PostBuild((), variables, strategy=row.get("strategy"))
    if seen.get("reason") == "BuildFailed":
        with pytest.raises(BuildFailed) as raised:
            post_build.object(built(row, number))
        assert str(raised.value) == seen["message"]
        return
    obj = post_build.object(built(row, number))
    if "message" in seen:
        assert go_value(obj["data"]["out"]) == REFUSED.search(seen["message"])[1]
        return
    # A ConfigMap's null is the empty text once the object has met its schema.
    assert {key: "" if value is None else value for key, value in obj["data"].items()} == seen["data"]
    if "immutable" in seen:
        assert obj["immutable"] is seen["immutable"]


def test_the_table_is_whole():
    kinds = [("message" in seen, seen.get("reason")) for _, seen in ROWS]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        (False, None): 115,
        (True, "BuildFailed"): 30,
        (True, "ReconciliationFailed"): 11,
    }


def test_a_label_that_becomes_a_number_is_one():
    [(row, _)] = [(row, seen) for row, seen in ROWS if "n: ${num}" in row.get("file", "")]
    obj = PostBuild((), TABLE["story"]["vars"]).object(built(row, 0))
    assert obj["metadata"]["labels"] == {"l": "value", "n": 42}


def steps(story, name):
    return [step[name] for step in story["steps"] if name in step]


@pytest.mark.parametrize("entry", FROM, ids=lambda entry: entry["story"]["name"])
def test_story_of_variables_agrees(entry):
    story, seen = entry["story"], entry["seen"]
    objects = {f"{obj['kind']}/{obj['metadata']['name']}": obj for objs in steps(story, "apply") for obj in objs}
    patch = next((step for step in story["steps"] if "patch" in step), None)
    if patch is not None:
        objects[patch["patch"]]["data"].update(patch["with"]["data"])
    spec = objects["Kustomization/app"]["spec"]["postBuild"]

    def source(reference):
        found = objects.get(f"{reference['kind']}/{reference['name']}")
        data = None if found is None else dict(found.get("data", {}))
        for key, text in (found or {}).get("stringData", {}).items():
            data[key] = base64.b64decode(base64.b64encode(text.encode()))
        return VariableSource(reference["kind"], reference["name"], data, bool(reference.get("optional")))

    post_build = PostBuild([source(one) for one in spec["substituteFrom"]], spec.get("substitute", {}))
    obj = json.loads(steps(story, "files")[0]["a.yaml"])
    end = seen["observations"]["end"]
    wanted = end.get(f"ConfigMap/{story['name']}/out")
    if wanted is not None:
        assert post_build.object(obj)["data"] == wanted["data"]
        return
    with pytest.raises(BuildFailed) as raised:
        post_build.object(obj)
    conditions = end[f"Kustomization/{story['name']}/app"]["conditions"]
    assert f"Ready=False BuildFailed: {raised.value}" in conditions
