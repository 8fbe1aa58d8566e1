"""What Flux's kustomize-controller was seen to build of the same files: objects by inventory and values, and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.errors import ReconcileError
from reconcile.kustomize.build import Builder
from tests.support.kustomize_builds import kustomize, rendered, unpacked

FACTS = Path(__file__).parents[2] / "facts" / "reconcile" / "build.json"
STORIES = {entry["story"]["name"]: entry for entry in json.loads(FACTS.read_text())["stories"]}
TEMPORARY = re.compile(r"TMPDIR/")
DIGEST = re.compile(r"sha256:[0-9a-f]+")
LATER = {"no-namespace"}
"""Stories that the API server ends; the build itself succeeds."""


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    made = Builder(tmp_path / "work", program=kustomize())
    yield made
    made.close()


def given(entry: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The files of the last commit and the spec of the Kustomization."""
    files: dict[str, str] = {}
    spec: dict[str, Any] = {}
    for step in entry["story"]["steps"]:
        files |= step.get("files", {})
        spec = next((one["spec"] for one in step.get("apply", ()) if one["kind"] == "Kustomization"), spec)
    return files, spec


def ended(entry: dict[str, Any]) -> dict[str, Any]:
    objects: dict[str, Any] = entry["seen"]["observations"]["end"]
    return objects


def identified(obj: dict[str, Any]) -> str:
    group, _, version = obj["apiVersion"].rpartition("/")
    return f"{obj['metadata'].get('namespace', '')}_{obj['metadata']['name']}_{group}_{obj['kind']} {version}"


@pytest.mark.parametrize("name", [name for name in STORIES if name not in LATER])
async def test_a_story_is_built_as_recorded(builder: Builder, tmp_path: Path, name: str) -> None:
    files, spec = given(STORIES[name])
    seen = ended(STORIES[name])[f"Kustomization/{name}/app"]
    tree = unpacked(tmp_path / "artifact", files)
    failed = [message for message in seen["conditions"] if message.startswith("Ready=False")]
    if failed:
        with pytest.raises(ReconcileError) as caught:
            await rendered(builder, tree, **spec)
        assert str(caught.value) == TEMPORARY.sub("", failed[0].partition(": ")[2])
        return
    objects = await rendered(builder, tree, **spec)
    assert sorted(map(identified, objects)) == sorted(seen["inventory"])
    for obj in objects:
        live = ended(STORIES[name]).get(f"{obj['kind']}/{obj['metadata'].get('namespace')}/{obj['metadata']['name']}")
        if live is not None:
            assert obj["metadata"].get("annotations", {}) == live["annotations"]
            assert obj.get("data", live.get("data")) == live.get("data")
            if obj["kind"] == "Deployment":
                assert containers(obj) == containers(live)
                assert obj["spec"]["replicas"] == live["spec"]["replicas"]


def containers(obj: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"], DIGEST.sub("sha256:DIGEST", one["image"])) for one in obj["spec"]["template"]["spec"]["containers"]]
