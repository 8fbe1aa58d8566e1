"""What history that is in the mirror says: who changed a file, and what messages hold a text. Blocking; used by `Mirror`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from reconcile.git.depot import Depot
from reconcile.git.errors import MirrorDamaged, bounded
from reconcile.git.process import Job
from reconcile.git.types import is_oid

LIMIT = 4 * 1024 * 1024
"""Bytes that are read of what git says of a history."""
MAX_STEPS = 100
"""Changes of one file that are looked at."""

_NONE = "0" * 40
_RAW = re.compile(r"^:\d{6} \d{6} ([0-9a-f]{40}) ([0-9a-f]{40}) ", re.MULTILINE)
_ENTRY = "%x01%H%x02%an%x02%s%x02"


@dataclass(frozen=True, slots=True)
class Step:
    """A commit on the way to another, and what it made of one file.

    Attributes:
        commit: its id; of a merge that of the merge.
        author: name of its author, as the commit has it.
        subject: first paragraph of its message, in one line.
        before: blob of the file in its first parent, None where there was none or the parent is not in the mirror.
        after: blob of the file in it.
    """

    commit: str
    author: str
    subject: str
    before: str | None = None
    after: str | None = None


def steps(depot: Depot, job: Job, commit: str, path: str) -> list[Step]:
    """The commits that changed a file, newest first, along first parents; raises `LimitExceeded`."""
    argv = ["git", "log", "--first-parent", "-m", "--raw", "--no-abbrev", "--no-renames", f"--max-count={MAX_STEPS}"]
    found = []
    for entry in _log(depot, job, [*argv, f"--format={_ENTRY}", commit, "--", path]).split("\x01")[1:]:
        step, rest = _step(entry)
        if step is not None and (blobs := _RAW.search(rest)):
            before, after = (None if oid == _NONE else oid for oid in blobs.groups())
            found.append(replace(step, before=before, after=after))
    return found


def named(depot: Depot, job: Job, commit: str) -> Step:
    """The commit itself; raises `LimitExceeded`."""
    text = _log(depot, job, ["git", "log", "--max-count=1", f"--format={_ENTRY}", commit])
    return _step(text.removeprefix("\x01"))[0] or Step(commit, "", "")


def messages(depot: Depot, job: Job, commit: str, text: str) -> list[tuple[str, str]]:
    """Ids and messages of the last commits up to `commit` whose message holds `text`, newest first, at most `MAX_STEPS`.

    Raises `LimitExceeded`.
    """
    argv = ["git", "log", "--fixed-strings", f"--grep={text}", f"--max-count={MAX_STEPS}", "--format=%x01%H%x02%B"]
    entries = _log(depot, job, [*argv, commit]).split("\x01")[1:]
    return [(oid, message) for oid, _, message in (entry.partition("\x02") for entry in entries) if is_oid(oid)]


def _step(entry: str) -> tuple[Step | None, str]:
    """The commit of an entry and what follows; None where a name or subject is made to look like several."""
    commit, author, subject, rest = (entry.split("\x02", 3) + [""] * 3)[:4]
    return (Step(commit, author, subject) if is_oid(commit) else None), rest


def _log(depot: Depot, job: Job, argv: list[str]) -> str:
    quiet = ["--no-color", "--no-show-signature", "--no-mailmap", "--no-notes", "--no-ext-diff", "--no-textconv"]
    folder = depot.folder
    done = job.run([*argv[:2], *quiet, *argv[2:]], folder.environment(), folder.path, limit=LIMIT)
    if done.status != 0:
        raise MirrorDamaged(f"the local mirror is damaged: {bounded(done.stderr.strip())}")
    return done.stdout.decode("utf-8", "replace")
