"""Recorded stories with encrypted files, through a real build; and the rows of the table of substitutions as they are built."""

import base64
import json
from pathlib import Path

import pytest

from reconcile.kustomize.build import Builder
from reconcile.kustomize.decrypt import Decryptor, EncryptedSecret, refuse_encrypted
from tests.support.kustomize_builds import kustomize, spec_of, unpacked
from tests.support.programs import find_program
from tests.unit.kustomize.test_substitution_facts import ROWS, built

pytestmark = [pytest.mark.needs("go")]

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "reconcile" / "encrypted.json").read_text("utf-8"))["stories"]
TOLD = [entry for entry in FACTS if entry["story"]["name"] != "sops-key-missing"]


@pytest.fixture
def builder(tmp_path):
    made = Builder(tmp_path / "builds", program=kustomize())
    yield made
    made.close()


def files_of(story):
    return {path: text for step in story["steps"] for path, text in step.get("files", {}).items()}


def applied(story, kind):
    return [obj for step in story["steps"] for obj in step.get("apply", ()) if obj["kind"] == kind]


def values(secret):
    texts = {key: base64.b64encode(text.encode()).decode() for key, text in secret.get("stringData", {}).items()}
    return {**secret.get("data", {}), **texts}


@pytest.mark.parametrize("entry", TOLD, ids=lambda entry: entry["story"]["name"])
async def test_story_agrees(entry, builder, tmp_path):
    story = entry["story"]
    tree = unpacked(tmp_path / "artifact", files_of(story))
    [kustomization] = applied(story, "Kustomization")
    spec = spec_of(**kustomization["spec"])
    keys = {name: text.encode() for secret in applied(story, "Secret") for name, text in secret["stringData"].items()}
    async with Decryptor.opened(keys, tmp_path / "keys", sops=find_program("sops")) as decryptor:
        objects = await builder.render(tree.root, tree.files, spec, "", prepare=decryptor.files)
        objects = [await decryptor.object(obj) for obj in objects]
    refuse_encrypted(objects)
    end = entry["seen"]["observations"]["end"]
    found = {f"{obj['kind']}/{obj['metadata']['namespace']}/{obj['metadata']['name']}": obj for obj in objects}
    assert set(found) == {name for name in end if name.startswith(("Secret/", "ConfigMap/"))}
    for name, obj in found.items():
        data = values(obj) if obj["kind"] == "Secret" else obj["data"]
        assert (name, data) == (name, end[name]["data"])
        assert obj["metadata"].get("annotations", {}) == end[name]["annotations"]
    for path, text in files_of(story).items():
        assert (tree.root / path).read_text() == text, "the artifact is as it was"


@pytest.mark.parametrize("name", ["sops-secret", "sops-data"])
async def test_without_decryption_the_built_secret_is_refused(name, builder, tmp_path):
    [entry] = [entry for entry in FACTS if entry["story"]["name"] == name]
    tree = unpacked(tmp_path / "artifact", files_of(entry["story"]))
    [kustomization] = applied(entry["story"], "Kustomization")
    objects = await builder.render(tree.root, tree.files, spec_of(**{**kustomization["spec"], "decryption": None}), "")
    with pytest.raises(EncryptedSecret, match=rf"^Secret/{name}/s is SOPS encrypted, configuring decryption is required"):
        refuse_encrypted(objects)


async def test_the_rows_of_the_table_are_what_kustomize_builds(builder, tmp_path):
    files = {}
    for number, (row, _) in enumerate(ROWS):
        text = row.get("file") or (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: NAME\ndata:\n  out: " + json.dumps(row["template"]) + "\n"
        )
        files[f"r{number}.yaml"] = text.replace("NAME", f"row-{number}")
    tree = unpacked(tmp_path / "artifact", files)
    objects = await builder.render(tree.root, tree.files, spec_of(), "")
    found = {obj["metadata"]["name"]: obj for obj in objects}
    assert found == {f"row-{number}": built(row, number) for number, (row, _) in enumerate(ROWS)}
