"""What a build can read, and its digest: nothing that changes the outcome of a build leaves the digest as it was.

A build reads kustomization files, and what these name. Any text in one of them that is the name of a file or folder seen from
there, also behind `key=`, counts as read, whatever field it stands in; so a new field of kustomize is no gap. Where files may be
read that no text names (plugins, Helm charts, files that do not parse), the whole artifact counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconcile.kustomize.references import MOST_BYTES, References, Remembered, read_references
from reconcile.kustomize.tree import Tree, digest_of, joined, tree_of

MANIFEST_SUFFIXES: Final = (".yaml", ".yml")
"""Files that are taken for manifests in a folder without kustomization file."""

_remembered = Remembered()


@dataclass(frozen=True, slots=True)
class Reach:
    """What a build can read.

    Attributes:
        digest: digest of paths and contents of the files, hexadecimal.
        whole: every file of the artifact counts.
        files: how many files count.
    """

    digest: str
    whole: bool
    files: int


@dataclass(slots=True)
class Closure:
    """The files that a build of a folder can read, and the kustomization files among them with what they refer to."""

    files: set[str] = field(default_factory=set)
    whole: bool = False
    kustomizations: dict[str, References] = field(default_factory=dict)


def reach(root: Path, files: Mapping[str, str], path: str, *, components: Sequence[str] = ()) -> Reach:
    """The reach of a build of `path`, a result of `resolve_path`.

    Args:
        root: folder of the unpacked artifact.
        files: its index: digests by path.
        path: folder that is built.
        components: `spec.components` of the Kustomization.
    """
    tree = tree_of(root, files)
    found = closure(tree, path, components)
    inner = tree.digest if found.whole else digest_of(frozenset(found.files), files)
    digest = hashlib.sha256(f"{path}\0{found.whole}\0{inner}".encode(errors="surrogateescape")).hexdigest()
    return Reach(digest, found.whole, len(files) if found.whole else len(found.files))


def closure(tree: Tree, path: str, components: Sequence[str] = ()) -> Closure:
    """Follow the kustomization files from the folder `path`."""
    found = Closure()
    if path in tree.files:
        found.files.add(path)
        return found
    pending = [path, *_folders(tree, path, components)]
    seen: set[str] = set()
    while pending:
        folder = pending.pop()
        if folder in seen:
            continue
        seen.add(folder)
        names = tree.kustomizations(folder)
        if names:
            for name in names:
                pending.extend(_follow(tree, folder, name, found))
        elif folder == path:
            for place, is_folder in walk(tree, folder):
                (pending.append if is_folder else found.files.add)(place)
        else:
            found.files.update("/".join(parts) for parts in tree.below(folder))
    return found


def walk(tree: Tree, folder: str) -> Iterator[tuple[str, bool]]:
    """What is built of a folder without kustomization file, in order: its manifests (False), and folders in it that have a
    kustomization file (True) and are not entered."""
    depth = len(folder.split("/")) if folder else 0
    closed: tuple[str, ...] | None = None
    known: set[tuple[str, ...]] = set()
    for parts in tree.below(folder):
        if closed is not None and parts[: len(closed)] == closed:
            continue
        closed = None
        for length in range(depth + 1, len(parts)):
            above = parts[:length]
            if above in known:
                continue
            known.add(above)
            if tree.kustomizations("/".join(above)):
                closed = above
                yield "/".join(above), True
                break
        if closed is None and parts[-1].endswith(MANIFEST_SUFFIXES):
            yield "/".join(parts), False


def _follow(tree: Tree, folder: str, name: str, found: Closure) -> list[str]:
    """Take in what the kustomization file `name` of `folder` refers to; the folders among it."""
    found.files.add(name)
    references = found.kustomizations[name] = references_of(tree, name)
    found.whole = found.whole or references.whole
    folders: list[str] = []
    for text in references.texts:
        for place in _places(folder, text):
            if place in tree.files:
                found.files.add(place)
            elif tree.is_folder(place):
                folders.append(place)
    return folders


def references_of(tree: Tree, name: str) -> References:
    """What the kustomization file `name` refers to; read once per content."""
    digest = tree.files[name]
    known = _remembered.get(digest)
    if known is None:
        known = read_references(tree.content(name, MOST_BYTES))
        _remembered.put(digest, known)
    return known


def _places(folder: str, text: str) -> Iterator[str]:
    """The paths that `text` may stand for, seen from `folder`."""
    for one in {text, text.strip(), text.partition("=")[2], text.rpartition("=")[2]}:
        if one and (place := joined(folder, one)) is not None:
            yield place


def _folders(tree: Tree, folder: str, paths: Sequence[str]) -> list[str]:
    places = (joined(folder, path) for path in paths)
    return [place for place in places if place is not None and tree.is_folder(place)]
