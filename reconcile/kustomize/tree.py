"""The files of an unpacked artifact by their index: what is there is known without asking the disk."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final

from reconcile.kustomize.failure import PathNotFound

FILE_NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
"""Names of kustomization files, in the order they are looked for."""

_KEPT: Final = 16


def clamped(path: str | None) -> str:
    """The path of a Kustomization as one inside its artifact, without leading `./`; empty for the root.

    As Flux does, `..` never leads above the root of the artifact; a leading `/` is that root.
    """
    parts: list[str] = []
    for part in (path or "").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def joined(folder: str, path: str) -> str | None:
    """`path` seen from `folder`, cleaned; None when it is absolute or leaves the root."""
    if path.startswith("/"):
        return None
    whole = posixpath.normpath(posixpath.join(folder, path))
    if whole == ".." or whole.startswith("../"):
        return None
    return "" if whole == "." else whole


class Tree:
    """The regular files below `root`, which nobody changes while the tree is used. `files` are digests by path."""

    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        self.root = root
        self.files = files

    @cached_property
    def ordered(self) -> list[tuple[str, ...]]:
        """Paths in parts, in the order of a walk that sorts every folder by name."""
        return sorted(tuple(path.split("/")) for path in self.files)

    @cached_property
    def digest(self) -> str:
        """Digest of all files."""
        return digest_of(self.files, self.files)

    def below(self, folder: str) -> Iterator[tuple[str, ...]]:
        """The parts of every file in `folder` and in the folders in it, in the order of a walk."""
        prefix = tuple(folder.split("/")) if folder else ()
        for index in range(bisect_left(self.ordered, prefix), len(self.ordered)):
            parts = self.ordered[index]
            if parts[: len(prefix)] != prefix:
                return
            yield parts

    def is_folder(self, path: str) -> bool:
        """Whether a folder of this path has a file somewhere in it."""
        return not path or any(len(parts) > path.count("/") + 1 for parts in self._first(path))

    def _first(self, path: str) -> Iterator[tuple[str, ...]]:
        for parts in self.below(path):
            yield parts
            return

    def kustomizations(self, folder: str) -> list[str]:
        """The paths of the kustomization files in `folder`."""
        return [path for name in FILE_NAMES if (path := posixpath.join(folder, name)) in self.files]

    def content(self, path: str, most: int) -> bytes | None:
        """The first `most` bytes of a file and one more if there are more; None when it is no regular file."""
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(most + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def digest_of(paths: Iterator[str] | Mapping[str, str] | frozenset[str], files: Mapping[str, str]) -> str:
    """Digest of some of `files`: of their paths and contents."""
    state = hashlib.sha256()
    for path in sorted(paths):
        state.update(f"{len(path.encode(errors='surrogateescape'))}:{path}={files[path]}\n".encode(errors="surrogateescape"))
    return state.hexdigest()


_trees: OrderedDict[Path, Tree] = OrderedDict()
_trees_lock = Lock()


def tree_of(root: Path, files: Mapping[str, str]) -> Tree:
    """The tree of an opened artifact; what was worked out for it is kept while it is among the last that were used."""
    with _trees_lock:
        tree = _trees.get(root)
        if tree is None or tree.files is not files:
            tree = _trees[root] = Tree(root, files)
        _trees.move_to_end(root)
        while len(_trees) > _KEPT:
            _trees.popitem(last=False)
        return tree


def resolve_path(root: Path, files: Mapping[str, str], path: str | None) -> str:
    """The folder (or file) that a Kustomization's path names, relative to the artifact's root.

    Raises:
        PathNotFound: there is nothing; in the words of Flux's kustomize-controller, with the path inside the artifact.
    """
    wanted = clamped(path)
    if wanted in files or tree_of(root, files).is_folder(wanted):
        return wanted
    # Folders without files are not in the index.
    here = root
    for part in wanted.split("/"):
        here = here / part
        try:
            if not stat.S_ISDIR(here.lstat().st_mode):
                break
        except (OSError, ValueError):
            break
    else:
        return wanted
    raise PathNotFound(f"kustomization path not found: stat {wanted}: no such file or directory")
