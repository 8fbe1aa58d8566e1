"""Flux's and Flagger's own CustomResourceDefinitions, as recorded in tests/facts/schemas, for comparison with ours."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "facts" / "schemas"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.toolkit.fluxcd.io.yaml")))
FLAGGER = tuple(sorted(path.stem for path in FOLDER.glob("*.flagger.app.yaml")))
OLDER = ("v1beta2", "v1beta1")
VERSIONS = tuple((name, number) for name in NAMES for number in OLDER if (FOLDER / "older" / f"{name}.{number}.yaml").exists())
"""Each version that was dropped and is still served by us, with the name of its definition."""
STRUCTURE = ("properties", "items", "additionalProperties")

Object = dict[str, Any]


def today(name: str) -> Object:
    """The definition of this name as clusters have it, with one version."""
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def version(name: str, number: str) -> Object:
    """One `versions[]` entry of a definition, dropped ones included."""
    if number == "v1":
        return dict(today(name)["spec"]["versions"][0])
    entry = dict(yaml.safe_load((FOLDER / "older" / f"{name}.{number}.yaml").read_text()))
    del entry["x-last-served-by"]
    return entry


def older(name: str) -> tuple[str, ...]:
    """The versions of a definition that were dropped and are still served by us, the newest first."""
    return tuple(number for known, number in VERSIONS if known == name)


def of_all_times(name: str) -> Object:
    """The definition with v1, the stored one, and every version that was dropped."""
    manifest = today(name)
    manifest["spec"]["versions"] += [version(name, number) for number in older(name)]
    return manifest


def stored_as(name: str, number: str) -> Object:
    """The definition as it was when `number` was the stored version and the only one."""
    manifest = today(name)
    manifest["spec"]["versions"] = [{**version(name, number), "storage": True}]
    return manifest


def schema(entry: Object) -> Object:
    """The schema of the objects of a `versions[]` entry."""
    return dict(entry["schema"]["openAPIV3Schema"])


def flat(found: Object, *, prose: bool = False) -> dict[str, Object]:
    """Every node of a schema by its path (`.spec.policy`, `[]` for items, `{}` for values of a map), without its parts."""
    nodes: dict[str, Object] = {}

    def walk(node: Object, path: str) -> None:
        nodes[path] = {k: deepcopy(v) for k, v in node.items() if k not in STRUCTURE and (prose or k != "description")}
        for name, part in node.get("properties", {}).items():
            walk(part, f"{path}.{name}")
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(node.get(key), dict):
                walk(node[key], path + mark)

    walk(found, "")
    return nodes
