"""The words of the Git wrapper: references, entries, edits, updates. Pure.

Object ids are lower-case hexadecimal text, paths are text as Git stores them (bytes that are not UTF-8 survive as
surrogate escapes), references are full names (`refs/heads/main`) unless a field says short.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Protocol

from reconcile.errors import Invalid

HEADS = "refs/heads/"
TAGS = "refs/tags/"

REGULAR_MODES = frozenset({"100644", "100755"})
"""Modes of files whose bytes may be edited; symbolic links (120000) and submodules (160000) never are."""

_OID = re.compile(r"[0-9a-f]{40}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|/$|\.$|^[/.-]")

SemverChooser = Callable[[list[str]], list[str]]
"""From short tag names to the best one; several when their versions are equal, none when nothing matches."""


def is_oid(text: str) -> bool:
    """Whether `text` is a full SHA-1 object id."""
    return _OID.fullmatch(text) is not None


def check_ref(name: str) -> str:
    """`name` when Git accepts it as a reference name (`git check-ref-format`), else `Invalid`."""
    if not name or _BAD_REF.search(name) or name == "@":
        raise Invalid(f"invalid reference name: {name!r}")
    return name


@dataclass(frozen=True, slots=True)
class Reference:
    """What to check out, as in Flux's `GitRepositoryRef`: commit, then name, semver, tag, branch; nothing is `master`."""

    branch: str = ""
    tag: str = ""
    semver: str = ""
    name: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Author:
    """Name and address of author and committer; the name may be empty."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Edit:
    """New bytes for a file that exists; its mode stays."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of a tree: `mode` as Git writes it (`100644`, `100755`, `120000`, `160000`)."""

    path: str
    mode: str
    oid: str
    size: int | None = None
    """Bytes of the file, where the listing asked for sizes."""

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file, executable or not."""
        return self.mode in REGULAR_MODES


@dataclass(frozen=True, slots=True)
class RemoteRefs:
    """What a remote answered to one `ls-remote`: full names to object ids, peeled tags under `<name>^{}`."""

    refs: Mapping[str, str]

    @property
    def empty(self) -> bool:
        """Whether the remote has no reference at all, that is no commit yet."""
        return not self.refs

    def commit(self, name: str) -> str | None:
        """The commit a full name stands for, annotated tags peeled; None when it is not there."""
        return self.refs.get(name + "^{}") or self.refs.get(name)

    def tags(self) -> list[str]:
        """Short names of all tags, in the order of the remote."""
        return [name.removeprefix(TAGS) for name in self.refs if name.startswith(TAGS) and not name.endswith("^{}")]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A reference that was found: the full name it came by (None for a bare commit) and the commit."""

    commit: str
    ref: str | None = None

    @property
    def branch(self) -> str | None:
        """Short branch name, None when this is no branch."""
        return self.ref.removeprefix(HEADS) if self.ref and self.ref.startswith(HEADS) else None

    @property
    def short(self) -> str | None:
        """The reference as people say it: `main`, `v1.0.0`, `pull/1/head`."""
        if self.ref is None:
            return None
        for prefix in (HEADS, TAGS, "refs/"):
            if self.ref.startswith(prefix):
                return self.ref.removeprefix(prefix)
        return self.ref

    @property
    def revision(self) -> str:
        """Flux's revision: `<short>@sha1:<hash>`, for a bare commit `sha1:<hash>`."""
        return f"{self.short}@sha1:{self.commit}" if self.ref else f"sha1:{self.commit}"


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One reference to move on the remote, or to delete there when `src` is empty, which needs `expected`.

    `expected` is the lease: the commit it must still be at, None when it must not exist yet. Without `lease` the reference is
    moved only forward, as an ordinary push does; its present commit and its history must be in the mirror.
    """

    src: str
    dst: str
    expected: str | None
    lease: bool = True


@dataclass(slots=True)
class Counters:
    """What was done, for tests and metrics: processes by Git verb, objects handed to Git by type; `parent` counts them too."""

    processes: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    parent: Counters | None = field(default=None, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def process(self, verb: str) -> None:
        """Count one process."""
        with self._lock:
            self.processes[verb] += 1
        if self.parent is not None:
            self.parent.process(verb)

    def wrote(self, kinds: Sequence[str]) -> None:
        """Count objects by type."""
        with self._lock:
            self.objects.update(kinds)
        if self.parent is not None:
            self.parent.wrote(kinds)


class Signer(Protocol):
    """Signs the bytes of a commit object; blocking, called in a worker thread."""

    def sign(self, payload: bytes) -> str:
        """Armoured detached signature over `payload`, for the `gpgsig` header."""
        ...


def parse_refspec(text: str, *, allow_force: bool = True) -> tuple[str, str, bool]:
    """Split a push refspec of Flux's `spec.git.push.refspec` into source, destination and force.

    Raises `Invalid` for an empty source (it would delete), patterns, names Git refuses, and for a leading `+` unless
    `allow_force`. Without a destination, the source is it.
    """
    force = text.startswith("+")
    src, colon, dst = text.removeprefix("+").partition(":")
    if not src:
        raise Invalid(f"refspec '{text}' has an empty source: deleting references is not allowed")
    if force and not allow_force:
        raise Invalid(f"refspec '{text}' asks for a forced push, which is not allowed")
    if colon and not dst:
        raise Invalid(f"refspec '{text}' has an empty destination")
    dst = dst or src
    for name in (src, dst):
        try:
            check_ref(name)
        except Invalid as error:
            raise Invalid(f"refspec '{text}': {error}") from None
    return src, dst, force


def timestamp(when: datetime) -> str:
    """`when` as Git writes it in commits: seconds and offset, `1700000000 +0000`. Needs a time zone."""
    offset = when.utcoffset()
    if offset is None:
        raise Invalid("a commit time needs a time zone")
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{int(when.timestamp())} {sign}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def unique(edits: Sequence[Edit]) -> dict[str, bytes]:
    """Edits by path; `Invalid` when one path is edited twice, is absolute or leaves its folder."""
    found: dict[str, bytes] = {}
    for edit in edits:
        parts = edit.path.split("/")
        if edit.path in found:
            raise Invalid(f"'{edit.path}' is edited twice in one commit")
        if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\0" in edit.path:
            raise Invalid(f"not a path inside a repository: {edit.path!r}")
        found[edit.path] = edit.data
    return found
