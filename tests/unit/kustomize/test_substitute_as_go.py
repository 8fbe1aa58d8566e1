"""Texts and objects with what Flux's own libraries made of them, to the byte."""

import json
from pathlib import Path

import pytest

from reconcile.kustomize import goyaml
from reconcile.kustomize.forms import raw
from reconcile.kustomize.goyaml_load import load
from reconcile.kustomize.substitute import SubstitutionError, substitute, substitute_object

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "reconcile" / "go_substitution.json").read_text("utf-8"))

# Words of a message that hold a piece of the object, which may be secret: we leave them out.
QUOTED = {
    "yaml: cannot decode !!str `x` as a !!int": "yaml: cannot decode !!str as a !!int",
    "yaml: cannot decode !!str `x` as a !!null": "yaml: cannot decode !!str as a !!null",
    "unsupported map key of type: %!s(<nil>), key: <nil>, value: 1": "unsupported map key of type: %!s(<nil>), key: <nil>",
    'yaml: invalid map key: []interface {}{"a"}': "yaml: invalid map key: a sequence",
    'yaml: invalid map key: map[interface {}]interface {}{"a":"b"}': "yaml: invalid map key: a mapping",
}


def test_texts():
    count = 0
    for group in FACTS["texts"]:
        for text, wanted in group["rows"]:
            try:
                given = {"text": raw(substitute(text, group["variables"], strict=True)).decode("latin-1")}
            except SubstitutionError as error:
                given = {"error": str(error)}
            assert (text, given) == (text, wanted)
            count += 1
    assert count > 500


def outcome(work):
    try:
        return {"result": work()}
    except (SubstitutionError, goyaml.GoYamlError) as error:
        return {"error": str(error)}


@pytest.mark.parametrize("group", FACTS["objects"], ids=["without forms", "with forms"])
def test_objects(group):
    assert len(group["rows"]) > 100
    for row in group["rows"]:
        assert goyaml.dump(row["object"]) == row["yaml"]
        given = outcome(lambda row=row: substitute_object(row["object"], group["variables"], strict=False))
        wanted = {"error": row["error"]} if "error" in row else {"result": row["result"]}
        if "error" in row and not row["error"].startswith("YAMLToJSON"):
            wanted = {"error": f"variable substitution failed: {row['error']}"}
        assert (row["object"], given) == (row["object"], wanted)


def soft(answer):
    """Without the line, which depends on how the end of a text is counted."""
    text = answer.get("error", "")
    if text.startswith("yaml: line"):
        return {"error": "yaml: " + text.partition(": ")[2].partition(": ")[2]}
    return answer


def test_documents():
    lines = 0
    for text, wanted in FACTS["documents"]:
        given = outcome(lambda text=text: load(text))
        if wanted.get("error") in QUOTED:
            wanted = {"error": QUOTED[wanted["error"]]}
        lines += given != wanted
        assert (text, soft(given)) == (text, soft(wanted))
        assert type(given.get("result")) is type(wanted.get("result"))
    assert lines <= 3, "lines of errors differ more than they should"
