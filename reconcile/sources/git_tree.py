"""The files of a commit as they go into an artifact: sparse directories, submodules and ignore rules applied; no work tree.

What a checkout would show is known from the listing of the tree. Links are left out, submodules that are not fetched are empty
folders. The rules are those of Flux's source-controller.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from reconcile.artifact.ignore import FILE, Ignore, tree_ignore
from reconcile.errors import Failed, LimitExceeded
from reconcile.git.errors import GitError, ReferenceNotFound
from reconcile.git.mirror import Mirror
from reconcile.git.types import Entry

MODULES = ".gitmodules"
MODULE = "160000"
DEPTH = 10
"""Submodules in submodules that are followed."""
TEXT_LIMIT = 1024 * 1024
"""Bytes of one `.gitmodules` or `.sourceignore` file."""

OpenModule = Callable[[str], Mirror]
"""Gives the mirror of a submodule by its URL; raises GitError or Invalid."""

_SCP = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>[^/:@\s]+):(?P<path>[^\s]+)")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one artifact: bytes of one file, bytes of all files, files."""

    file: int = 128 * 1024 * 1024
    total: int = 2 * 1024 * 1024 * 1024
    files: int = 250_000


@dataclass(frozen=True, slots=True)
class File:
    """One file of a tree and the mirror that has its content."""

    path: str
    oid: str
    size: int
    executable: bool
    mirror: Mirror = field(compare=False)


@dataclass(slots=True)
class Tree:
    """What a checkout would show: files, and folders, whether empty or not."""

    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    """Links: they stand where nothing else can."""

    def add_folder(self, path: str) -> None:
        """Note a folder and those above it."""
        while path and path not in self.folders:
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def occupied(self, path: str) -> bool:
        """Whether something is at `path`, or above it something that is no folder."""
        if path in self.folders or path in self.files or path in self.others:
            return True
        while path := path.rpartition("/")[0]:
            if path in self.files or path in self.others:
                return True
        return False


async def read_tree(mirror: Mirror, commit: str, url: str, open_module: OpenModule | None, sparse: Sequence[str] = ()) -> Tree:
    """The files of `commit`, of the folders `sparse` alone if given; submodules where `open_module` gives their mirrors.

    Raises `GitError`, or `LimitExceeded` for submodules nested too deep.
    """
    tree = Tree()
    async for prefix, origin, entry in _leaves(mirror, commit, url, "", open_module, 0):
        path = prefix + entry.path
        if sparse and not any(path.startswith(f"{folder}/") for folder in sparse):
            continue
        tree.add_folder(path if entry.mode == MODULE else path.rpartition("/")[0])
        if entry.is_file:
            if path in tree.files:
                raise GitError(f"the tree of commit {commit} has {path!r} twice")
            tree.files[path] = File(path, entry.oid, entry.size or 0, entry.mode == "100755", origin)
        elif entry.mode != MODULE:
            tree.others.add(path)
    return tree


async def _leaves(
    mirror: Mirror, commit: str, url: str, prefix: str, open_module: OpenModule | None, depth: int
) -> AsyncIterator[tuple[str, Mirror, Entry]]:
    entries = await mirror.entries(commit, sizes=True)
    for entry in entries:
        yield prefix, mirror, entry
    modules = [entry for entry in entries if entry.mode == MODULE]
    if open_module is None or not modules:
        return
    if depth >= DEPTH:
        raise LimitExceeded(f"submodules are nested more than {DEPTH} deep at {prefix!r}")
    urls = await _module_urls(mirror, entries)
    for module in modules:
        if module.path not in urls:
            raise ReferenceNotFound(f"submodule '{prefix}{module.path}' is not described in {MODULES}")
        where = module_url(url, urls[module.path])
        inner = open_module(where)
        await inner.fetch(module.oid)
        async for leaf in _leaves(inner, module.oid, where, f"{prefix}{module.path}/", open_module, depth + 1):
            yield leaf


async def _module_urls(mirror: Mirror, entries: Sequence[Entry]) -> dict[str, str]:
    """URLs of submodules by their paths, out of `.gitmodules`."""
    described = next((entry for entry in entries if entry.path == MODULES and entry.is_file), None)
    if described is None:
        return {}
    text = (await mirror.read([described.oid], TEXT_LIMIT))[described.oid]
    found: dict[str, dict[str, str]] = {}
    for name, value in await mirror.settings(text):
        section, _, key = name.rpartition(".")
        if section.startswith("submodule.") and key in ("path", "url"):
            found.setdefault(section, {})[key] = value
    return {module["path"].rstrip("/"): module["url"] for module in found.values() if "path" in module and "url" in module}


def module_url(parent: str, url: str) -> str:
    """The URL of a submodule: relative ones (`./`, `../`) start at the parent's, `host:path` is read as ssh. Pure.

    Raises `GitError` for a relative URL that leads out of the parent's host.
    """
    if url.startswith(("./", "../")):
        parts = urlsplit(parent)
        # `..` of a repository is the folder that it is in.
        path = parts.path.rstrip("/")
        for step in url.split("/"):
            if step == "..":
                if not path:
                    raise GitError(f"the submodule's URL '{url}' leads out of the parent's host")
                path = path.rpartition("/")[0]
            elif step not in ("", "."):
                path = f"{path}/{step}"
        return parts._replace(path=path or "/", query="", fragment="").geturl()
    if "://" not in url:
        scp = _SCP.fullmatch(url)
        if scp is None:
            raise GitError(f"the submodule's URL '{url}' is not supported")
        return f"ssh://{scp['user'] or 'git'}@{scp['host']}/{scp['path'].lstrip('/')}"
    return url


def sparse_folders(wanted: Sequence[str] | None) -> list[str]:
    """The directories of `spec.sparseCheckout` as paths in the tree; the whole tree when one of them is its root. Pure."""
    folders = [posixpath.normpath(text.strip("/") or ".") for text in wanted or ()]
    return [] if "." in folders else folders


def check_sparse(tree: Tree, wanted: Sequence[str] | None) -> None:
    """Raise Failed GitOperationFailed unless every directory of `spec.sparseCheckout` is there. Pure."""
    for text in wanted or ():
        folder = posixpath.normpath(text.strip("/") or ".")
        if folder != "." and folder not in tree.folders:
            raise Failed(
                "GitOperationFailed",
                f"failed to sparse checkout directories : sparse checkout dir '{text.removeprefix('./')}' does not exist in "
                f"repository: lstat {text.removeprefix('./')}: no such file or directory",
            )


async def read_ignore(sources: dict[str, str], tree: Tree, extra: str | None) -> Ignore:
    """The ignore rules of `tree` with those in `sources` (texts by path) and `spec.ignore`."""
    texts = dict(sources)
    found = [file for path, file in tree.files.items() if path.rpartition("/")[2] == FILE]
    for file in found:
        texts[file.path] = (await file.mirror.read([file.oid], TEXT_LIMIT))[file.oid].decode("utf-8", "replace")
    return tree_ignore(texts, extra)
