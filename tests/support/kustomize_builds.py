"""Artifacts made of texts, and a kustomize to build them with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.kustomization import KustomizationSpec
from reconcile.kustomize.build import Builder
from reconcile.kustomize.confine import Allowance, Completed, Program
from reconcile.kustomize.landlock import Kernel, kernel
from reconcile.kustomize.tree import Tree, resolve_path
from tests.support.controlplane_build import Unavailable
from tests.support.programs import find_program

NOTHING_FORBIDDEN = Kernel(0, seccomp=False)


def kustomize() -> Path:
    """The real program; a test is skipped where it cannot be built."""
    try:
        return find_program("kustomize")
    except Unavailable as reason:
        if {"all", "go"} & set(os.environ.get("IMAGEBOT_TEST_REQUIRE", "").replace(",", " ").split()):
            raise
        pytest.skip(str(reason))


def digests(files: Mapping[str, str]) -> dict[str, str]:
    """The index of an artifact with these files."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}


def unpacked(root: Path, files: Mapping[str, str]) -> Tree:
    """An artifact with these files in the folder `root`."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    root.mkdir(parents=True, exist_ok=True)
    return Tree(root, digests(files))


def spec_of(**fields: Any) -> KustomizationSpec:
    """A spec with these fields, in camelCase, and what every spec needs."""
    return KustomizationSpec.model_validate(
        {"sourceRef": {"kind": "GitRepository", "name": "app"}, "interval": "1h", "prune": True} | fields
    )


def config_map(name: str, **data: str) -> str:
    """The manifest of a ConfigMap."""
    lines = "".join(f"  {key}: {value!r}\n" for key, value in data.items())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n" + (f"data:\n{lines}" if lines else "")


async def rendered(builder: Builder, tree: Tree, path: str = "", **fields: Any) -> list[dict[str, Any]]:
    """The objects that a Kustomization with these fields builds of an artifact."""
    place = resolve_path(tree.root, tree.files, path)
    return await builder.render(tree.root, tree.files, spec_of(**fields), place)


def run_unchecked(folder: Path, able: Kernel | None = None, inside: str = "", **allowed: Any) -> Completed:
    """kustomize in the folder as it is, behind the fence of the kernel alone (with none for `NOTHING_FORBIDDEN`)."""
    argv = (str(kustomize()), "build", "--load-restrictor", "LoadRestrictionsNone", ".")
    return Program(argv, folder / inside, folder, Allowance(**allowed), able or kernel()).run()
