"""Which files of a commit have a text in them; what was found is remembered, so that the next commit costs its changes only.

Blocking; called in a worker thread by `Mirror`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reconcile.git.depot import Depot
from reconcile.git.errors import MirrorDamaged
from reconcile.git.objects import parse_changes
from reconcile.git.process import Job
from reconcile.git.types import Entry

CHANGES_LIMIT = 2000
"""Up to so many changed files are looked at one by one, above all are searched again."""


def grep(depot: Depot, job: Job, commit: str, needle: bytes, path: str, entries: Callable[[], Sequence[Entry]]) -> list[Entry]:
    """Regular files of `commit` under `path` that contain `needle`, in the order of the tree; `entries` lists them all.

    Raises `MirrorDamaged`.
    """
    known = depot.searched.get((needle, path))
    if known is not None and known[0] == commit:
        return list(known[1].values())
    found = _changes(depot, job, known[0], known[1], commit, needle, path) if known is not None else None
    if found is None:
        found = _all(depot, job, commit, needle, path, entries)
    depot.remember(needle, path, commit, found)
    return list(found.values())


def _all(
    depot: Depot, job: Job, commit: str, needle: bytes, path: str, entries: Callable[[], Sequence[Entry]]
) -> dict[str, Entry]:
    fixed = ["git", "grep", "-l", "-z", "-a", "-F", "--full-name", "--no-color"]
    argv = [*fixed, "-e", needle.decode("utf-8", "surrogateescape"), commit]
    done = depot.local(job, [*argv, "--", path] if path else argv, accept=(0, 1))
    if "error:" in done.stderr:
        raise MirrorDamaged("the local mirror is damaged: a file cannot be read")
    skip = len(commit) + 1
    hits = {name[skip:].decode("utf-8", "surrogateescape") for name in done.stdout.split(b"\0") if name}
    return {entry.path: entry for entry in entries() if entry.path in hits} if hits else {}


def _changes(
    depot: Depot, job: Job, old: str, before: Mapping[str, Entry], commit: str, needle: bytes, path: str
) -> dict[str, Entry] | None:
    argv = ["git", "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff", old, commit]
    try:
        changes = parse_changes(depot.local(job, [*argv, "--", path] if path else argv).stdout)
    except MirrorDamaged:
        # The old commit may have been tidied away; the new one is searched in full.
        return None
    if len(changes) > CHANGES_LIMIT:
        return None
    oids = list(dict.fromkeys(entry.oid for entry in changes if entry.is_file))
    hits = depot.reader.containing(job, oids, needle) if oids else set()
    merged = dict(before)
    for entry in changes:
        merged.pop(entry.path, None)
        if entry.is_file and entry.oid in hits:
            merged[entry.path] = entry
    return dict(sorted(merged.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))
