"""Pushing with a lease: the arguments of `git push`, and what its porcelain lines mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reconcile.errors import Invalid
from reconcile.git.errors import Classifier, GitError, LostRace, PushRejected, bounded, is_damage, remote_lines
from reconcile.git.types import RefUpdate, check_ref, is_oid

PREFIX = "failed to push to remote: "

_OPTION_LIMIT = 32 * 1024

_LOST = re.compile(
    r"stale info|non-fast-forward|fetch first|needs force|failed to update ref|cannot lock ref|failed to lock"
    r"|reference already exists|\(already exists\)|incorrect old value|remote ref updated since|reference changed"
    r"|is at [0-9a-f]+ but expected"
)
_FOLLOWERS = re.compile(r"atomic (?:push fail|transaction fail)|atomic push failed")


def push_arguments(updates: Sequence[RefUpdate], options: Sequence[str]) -> list[str]:
    """The command line for `updates`: with a lease or forward only, all or none when there are several. Raises `Invalid`."""
    if not updates:
        raise Invalid("nothing to push")
    if len({update.dst for update in updates}) != len(updates):
        raise Invalid("two updates of one reference in a push")
    argv = ["git", "push", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--signed=false"]
    if len(updates) > 1:
        argv.append("--atomic")
    for option in options:
        if "\n" in option or "\0" in option or len(option) > _OPTION_LIMIT:
            raise Invalid("a push option must be one line")
        argv.append(f"--push-option={option}")
    specs = []
    for update in updates:
        check_ref(update.dst)
        if (
            not update.dst.startswith("refs/")
            or not (is_oid(update.src) or (not update.src and update.lease and update.expected))
            or not (update.expected is None or is_oid(update.expected))
        ):
            raise Invalid(f"a push needs a commit, a full reference name and a lease: {update.dst!r}")
        if update.lease:
            argv.append(f"--force-with-lease={update.dst}:{update.expected or ''}")
        specs.append(f"{update.src}:{update.dst}")
    return [*argv, "origin", *specs]


def push_error(stdout: str, stderr: str, classifier: Classifier) -> GitError:
    """Why a push with a status other than 0 failed.

    With several references the one that is the cause is named, not those that were held back with it.
    """
    refused: list[tuple[str, str]] = []
    for line in stdout.splitlines():
        words = line.split("\t")
        if len(words) >= 3 and words[0] == "!":
            refused.append((words[1].rpartition(":")[2], words[2]))
    if not refused:
        return classifier.error(stderr)
    if is_damage(stderr) and not any("remote rejected" in summary for _, summary in refused):
        return classifier.error(stderr)
    causes = [item for item in refused if not _FOLLOWERS.search(item[1])] or refused
    ref, summary = causes[0]
    status = bounded(_reason(summary), classifier.secrets)
    detail = bounded(remote_lines(stderr), classifier.secrets)
    if _LOST.search(summary) or (causes is refused and _LOST.search(stderr)):
        return LostRace(f"{PREFIX}non-fast-forward update: {ref}", ref=ref, status=status, detail=detail)
    return PushRejected(f"{PREFIX}command error on {ref}: {status}", ref=ref, status=status, detail=detail)


def _reason(summary: str) -> str:
    """`pre-receive hook declined` out of `[remote rejected] (pre-receive hook declined)`."""
    match = re.fullmatch(r"\[[^\]]*\] \((.*)\)", summary.strip(), re.DOTALL)
    return match[1] if match else summary.strip()
