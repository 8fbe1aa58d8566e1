"""The kustomization files of a build refer to nothing outside the artifact. Pure, but for files read from the tree.

This is one of two fences that do not rely on each other; the other one is `reconcile.kustomize.confine`. Builds never use the
network, so what is remote is refused here, whatever the flags for remote bases say.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Final

from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.reach import Closure
from reconcile.kustomize.references import MOST_BYTES, Path, plugin_paths
from reconcile.kustomize.tree import Tree, joined
from reconcile.redact import redact

_DIRECTORIES: Final = ("resources", "bases", "components", "generators", "transformers", "validators")
_URL: Final = re.compile(r"https?:", re.IGNORECASE)
_REPOSITORY: Final = re.compile(r"git::|gh:|[a-z][a-z0-9+.-]*://|[^/@\s]+@[^/:\s]+[:/]|(?:www\.)?github\.com[:/]", re.IGNORECASE)
_LONGEST: Final = 200


def check(tree: Tree, found: Closure, path: str, components: Sequence[str] = ()) -> None:
    """Look at every kustomization file that a build of `path` reads.

    Args:
        tree: the artifact.
        found: what the build reaches.
        path: the folder that is built.
        components: `spec.components` of the Kustomization.

    Raises:
        BuildFailed: a reference leaves the artifact or is remote, or a kustomization file cannot be understood.
    """
    for component in components:
        _check(tree, path, "spec.components", Path("components", component, 0))
    for name, references in sorted(found.kustomizations.items()):
        if references.problem:
            raise BuildFailed(f"kustomize build failed: invalid Kustomization: {references.problem} in File: {name}")
        folder = posixpath.dirname(name)
        for reference in references.paths:
            _check(tree, folder, name, reference)
        for entry in references.plugins:
            for place, reference in _in_plugin(tree, folder, name, entry):
                _check(tree, folder, place, reference)


def _in_plugin(tree: Tree, folder: str, name: str, entry: Path) -> Iterator[tuple[str, Path]]:
    """The paths in an entry of generators, transformers or validators: a document, or a file or folder with documents."""
    if "\n" in entry.text or ": " in entry.text or entry.text.lstrip().startswith(("{", "[")):
        for reference in plugin_paths(entry.text):
            yield name, Path(f"{entry.field}: {reference.field}", reference.text, entry.line, reference.keyed)
        return
    yield name, entry
    place = joined(folder, entry.text)
    if place is None or place not in tree.files:
        return
    content = tree.content(place, MOST_BYTES) or b""
    for reference in plugin_paths(content[:MOST_BYTES].decode("utf-8", "replace")):
        yield place, reference


def _check(tree: Tree, folder: str, place: str, reference: Path) -> None:
    text = reference.text.partition("=")[2] if reference.keyed and "=" in reference.text else reference.text
    inside = joined(folder, text)
    if _is_remote(text, reference.field) and (inside not in tree.files or _URL.match(text)):
        raise _refused(place, reference, "is remote: builds have no network")
    if inside is None or "\0" in text:
        raise _refused(place, reference, "is not in or below the root of the source")


def _is_remote(text: str, field: str) -> bool:
    """Any path is taken for an address that begins with http, but only the path of a folder for a Git repository."""
    return bool(_URL.match(text)) or (field in _DIRECTORIES and bool(_REPOSITORY.match(text)))


def _refused(place: str, reference: Path, why: str) -> BuildFailed:
    text = redact(reference.text[:_LONGEST])
    where = f"{place}:{reference.line}" if reference.line else place
    return BuildFailed(f"kustomize build failed: {where}: {reference.field}: security; '{text}' {why}")
