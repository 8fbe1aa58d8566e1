"""Other repositories' artifacts inside an artifact: which there are, whether they changed, and where their files go.

As in Flux's source-controller an included artifact, or a folder of it, is moved to a path where nothing may be yet; the ignore
rules of the including repository apply to its files too.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import BinaryIO

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.source import Artifact, GitInclude
from reconcile.artifact.ignore import FILE
from reconcile.errors import Failed, NotFound, ReconcileError, Waiting
from reconcile.ports.store import Change, Store
from reconcile.runtime.index import Referrers
from reconcile.sources.git_tree import TEXT_LIMIT, Tree

KIND = "GitRepository"
UNREADABLE = (OSError, tarfile.TarError, EOFError, KeyError, zlib.error, ReconcileError)
"""What reading an included artifact raises."""


Archive = Callable[[], BinaryIO]
"""Opens an included artifact; raises ReconcileError or OSError."""


@dataclass(frozen=True, slots=True)
class Grafted:
    """One file of an included artifact at its new place."""

    path: str
    archive: Archive
    member: str
    size: int
    executable: bool


async def find_includes(store: Store, namespace: str, includes: Sequence[GitInclude] | None, after: float) -> list[Artifact]:
    """The artifacts of the included repositories, in their order.

    Raises `Waiting` for `after` seconds: NotFound, or NoArtifact, with Flux's texts; nobody but trace hears of it.
    """
    found: list[Artifact] = []
    for include in includes or ():
        name = include.repository.name
        try:
            other = await store.get(KIND, Key(namespace, name))
        except NotFound:
            text = f"could not get resource for include '{name}': {KIND}.source.toolkit.fluxcd.io \"{name}\" not found"
            raise Waiting("NotFound", text, after, told="Trace") from None
        artifact: Artifact | None = other.status.artifact
        if artifact is None:
            raise Waiting("NoArtifact", f"no artifact available for include '{name}'", after, told="Trace")
        found.append(artifact)
    return found


def differ(now: Sequence[Artifact], before: Sequence[Artifact] | None) -> bool:
    """Whether other artifacts are included than before, by revision and digest."""
    return [(a.revision, a.digest) for a in now] != [(a.revision, a.digest) for a in before or ()]


def inside(path: str | None) -> str:
    """A path of a spec as one below the root: absolute ones start there, and `..` never leads above it."""
    parts: list[str] = []
    for part in (path or "").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def graft(tree: Tree, include: GitInclude, archive: Archive) -> tuple[list[Grafted], dict[str, str]]:
    """Put the files of an included artifact into `tree`: the files, and the texts of `.sourceignore` files among them by path.

    Blocking. Raises Failed CopyFailure when the source path is missing, or when something is at the target already.
    """
    name = include.repository.name
    source, target = inside(include.from_path), inside(include.to_path or name)

    def refused(why: str) -> Failed:
        shown = f"from {include.from_path or ''} to {include.to_path or name}"
        return Failed("CopyFailure", f"failed to copy '{name}' include {shown}: {why}")

    if target in tree.folders and not _used(tree, target):
        tree.folders.discard(target)
    if tree.occupied(target) or (not target and _used(tree, "")):
        here, there = "/".join(filter(None, ("unpack", source))), target or "."
        raise refused(f"link error: cannot rename {here} to {there}: rename {here} {there}: file exists")
    files: list[Grafted] = []
    texts: dict[str, str] = {}
    present = not source
    try:
        with archive() as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            for member in tar:
                path = _moved(member.name.removeprefix("./").rstrip("/"), source, target)
                if path is None:
                    continue
                present = True
                if member.isdir():
                    tree.add_folder(path)
                elif member.isreg():
                    tree.add_folder(path.rpartition("/")[0])
                    files.append(Grafted(path, archive, member.name, member.size, bool(member.mode & 0o111)))
                    if path.rpartition("/")[2] == FILE:
                        texts[path] = _text(tar, member)
    except UNREADABLE as error:
        raise refused(f"its artifact cannot be read: {error}") from error
    if not present:
        raise refused(f"cannot stat unpack/{source}: no such file or directory")
    if all(file.path != target for file in files):
        tree.add_folder(target)
    return files, texts


def _used(tree: Tree, folder: str) -> bool:
    """Whether anything is in `folder`."""
    below = f"{folder}/" if folder else ""
    return any(path.startswith(below) and path != folder for paths in (tree.files, tree.others, tree.folders) for path in paths)


def _moved(path: str, source: str, target: str) -> str | None:
    """Where a path of the archive goes; None when it is not below the source."""
    if path in (".", ""):
        return target if not source else None
    if not source:
        rest = path
    elif path == source:
        return target
    elif path.startswith(f"{source}/"):
        rest = path[len(source) + 1 :]
    else:
        return None
    return f"{target}/{rest}" if target else rest


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read(TEXT_LIMIT).decode("utf-8", "replace") if file is not None else ""


def read_grafted(files: Iterable[Grafted]) -> Iterator[tuple[Grafted, bytes]]:
    """The contents of grafted files, in the order given, one at a time. Blocking; raises `UNREADABLE`."""
    opened: dict[Archive, tarfile.TarFile] = {}
    with ExitStack() as stack:
        for file in files:
            tar = opened.get(file.archive)
            if tar is None:
                archive = stack.enter_context(file.archive())
                tar = opened[file.archive] = stack.enter_context(tarfile.open(fileobj=archive, mode="r:gz"))
            content = tar.extractfile(file.member)
            yield file, content.read() if content is not None else b""


class Repositories:
    """Who includes whom, and who follows which URL; kept up to date from changes, bounded by the number of objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_include: Referrers[Key] = Referrers(
            lambda found: [Key(found.key.namespace, include.repository.name) for include in found.spec.include or ()]
        )
        self._by_url: Referrers[str] = Referrers(lambda found: [same_url(found.spec.url)])

    def note(self, change: Change) -> None:
        """Take over a change of a GitRepository."""
        self._by_include.note(change)
        self._by_url.note(change)

    def including(self, key: Key) -> list[Key]:
        """The repositories that include the one with `key`, ordered."""
        return sorted(self._by_include.of(key))

    async def following(self, url: str, ref: str) -> list[Key]:
        """The repositories at `url` that may mean another commit when `ref` (a full name) has moved, ordered."""
        found = []
        for key in sorted(self._by_url.of(same_url(url))):
            with suppress(NotFound):
                if _follows(await self._store.get(KIND, key), ref):
                    found.append(key)
        return found


def _follows(resource: AnyResource, ref: str) -> bool:
    wanted = resource.spec.ref
    if resource.spec.suspend or (wanted is not None and wanted.commit):
        return False
    if wanted is not None and wanted.name:
        return bool(wanted.name.removesuffix("^{}") == ref)
    if wanted is not None and wanted.tag:
        return bool(ref == f"refs/tags/{wanted.tag}")
    if wanted is not None and wanted.semver:
        return ref.startswith("refs/tags/")
    return ref == f"refs/heads/{(wanted and wanted.branch) or 'master'}"


def same_url(url: str) -> str:
    """A text that is the same for the usual ways to write one address: scheme and host in lower case, no `.git`, no user."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{separator}{host.rpartition('@')[2].lower()}{slash}{path.rstrip('/').removesuffix('.git')}"
