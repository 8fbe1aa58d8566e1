"""One commit for what many automations want on a branch; those that sign or speak differently get one each.

An automation joins with others that have the same author, signing key, message template and values. Their changes are merged
into one commit on one ground; its message is rendered over all of them, with the first automation by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from imagebot.api import SkippedMarker
from imagebot.bot.job import Job
from imagebot.bot.update import MAX_SKIPPED, Update
from imagebot.bot.writer import Built, Ground
from imagebot.markers.changes import Changed, FileChange
from imagebot.markers.files import update_root
from reconcile.git.types import Edit

_SCRATCH = "ground for what others change in the same files"


@dataclass(slots=True)
class _Merged:
    """What a commit has so far: bytes and changes by path from the top, and who brought them."""

    edits: dict[str, Edit] = field(default_factory=dict)
    changes: dict[str, dict[int, FileChange]] = field(default_factory=dict)
    members: list[int] = field(default_factory=list)

    def add(self, number: int, update: Update) -> None:
        if not update.edits:
            return
        self.members.append(number)
        for edit, changes in _paired(update):
            self.edits[edit.path] = edit
            self.changes.setdefault(edit.path, {}).update({change.line: change for change in changes})

    def files(self) -> dict[str, tuple[FileChange, ...]]:
        return {path: tuple(found[line] for line in sorted(found)) for path, found in sorted(self.changes.items())}


@dataclass(frozen=True, slots=True)
class Joint:
    """A commit that several share.

    Attributes:
        members: who brought something to it, as places among the jobs.
        base: what it is built on.
        edits: what it changes there.
        built: the commit, none where its edits change nothing after all.
    """

    members: tuple[int, ...]
    base: str
    edits: tuple[Edit, ...]
    built: Built


async def build_together(
    jobs: Sequence[Job], grounds: Sequence[Ground | Exception]
) -> tuple[str | None, list[Built | Exception]]:
    """Build the commits of automations that write to one branch, on top of each other; nothing is pushed.

    Args:
        jobs: in the order in which they take precedence; afterwards `latest` of each is its part.
        grounds: of each job, or why it has none. The first is what all build on.

    Returns:
        The newest commit, none where there is none; and for each job its commit, which several may share, none where it changes
        nothing, or why it failed: what one cannot do does not concern the others.
    """
    joints, failures = await join(jobs, grounds)
    shared = {number: joint.built for joint in joints for number in joint.members}
    newest = next((joint.built.commit for joint in reversed(joints) if joint.built.commit is not None), None)
    return newest, [failures.get(number) or shared.get(number) or Built(None) for number in range(len(jobs))]


async def join(jobs: Sequence[Job], grounds: Sequence[Ground | Exception]) -> tuple[list[Joint], dict[int, Exception]]:
    """As `build_together`: the commits, each on top of the one before, and who failed, by place among the jobs."""
    failures = {number: each for number, each in enumerate(grounds) if isinstance(each, Exception)}
    usable = {number: ground for number, ground in enumerate(grounds) if isinstance(ground, Ground)}
    joints: list[Joint] = []
    if not usable:
        return joints, failures
    base = next(iter(usable.values())).base
    parties: dict[object, list[int]] = {}
    for number in usable:
        parties.setdefault(signature(jobs[number]), []).append(number)
    for party in parties.values():
        merged = _Merged()
        for number in party:
            try:
                merged.add(number, await _part(jobs[number], replace(usable[number], base=base), merged))
            except Exception as error:  # noqa: BLE001 - handed to the one whose part it is
                failures[number] = error
        if not merged.members:
            continue
        try:
            built = await _commit([jobs[number] for number in merged.members], base, merged)
        except Exception as error:  # noqa: BLE001 - handed to those whose commit it is
            failures.update(dict.fromkeys(merged.members, error))
            continue
        joints.append(Joint(tuple(merged.members), base, tuple(merged.edits.values()), built))
        base = built.commit or base
    return joints, failures


def signature(job: Job) -> tuple[object, ...]:
    """What automations must have in common to share a commit."""
    git = job.resource.spec.git
    assert git is not None  # noqa: S101 - `Sources.find` refuses it
    commit = git.commit
    values = tuple(sorted((commit.message_template_values or {}).items()))
    author = (commit.author.name or "", commit.author.email)
    return (*author, id(job.source.signer), commit.message_template or "", values, bool(commit.trailers))


def due(update: Update) -> frozenset[tuple[str, str, str]]:
    """What is due: file, setter and new value of each change."""
    return frozenset(
        (edit.path, each.change.setter, each.change.new_value) for edit, changes in _paired(update) for each in changes
    )


async def _part(job: Job, ground: Ground, merged: _Merged) -> Update:
    """What a job adds to what is merged already. Others' changes stay as they are: the first has its way."""
    update = await job.update(ground)
    if all(edit.path not in merged.edits for edit in update.edits):
        return update
    scratch = await job.write(ground.base, tuple(merged.edits.values()), _SCRATCH)
    update = await job.update(replace(ground, base=scratch.commit or ground.base))
    job.latest = _yielding(update, merged)
    job.contested = job.latest is not update
    return job.latest


def _yielding(update: Update, merged: _Merged) -> Update:
    """An update without the files where it would undo what is merged; says so of each marker."""
    kept: list[tuple[str, Edit, tuple[FileChange, ...]]] = []
    skipped = list(update.skipped)
    for shown, (edit, changes) in zip(update.changed.files, _paired(update), strict=True):
        before = merged.changes.get(edit.path, {})
        against = [change for change in changes if change.line in before]
        if not against:
            kept.append((shown, edit, changes))
        for change in against:
            text = f"another automation sets {before[change.line].change.new_value} in the same commit; the next run looks again"
            skipped.append(SkippedMarker(path=shown, line=change.line, marker=change.change.setter, message=text))
    if len(kept) == len(update.edits):
        return update
    files = {shown: changes for shown, _, changes in kept}
    return Update(tuple(edit for _, edit, _ in kept), Changed(files), tuple(skipped[:MAX_SKIPPED]))


async def _commit(jobs: Sequence[Job], base: str, merged: _Merged) -> Built:
    first = jobs[0]
    if len(jobs) == 1:
        changed = first.latest.changed
    else:
        roots = {update_root(job.resource.spec.update.path) for job in jobs}
        files = merged.files()
        # Where all look below one path, files are named from there, as in a commit of one; else from the top.
        changed = Changed(_from_root(jobs, files) if len(roots) == 1 else files)
    refs = {(job.resource.key.namespace, name): str(ref) for job in reversed(jobs) for name, ref in job.refs.items()}
    return await first.write(base, tuple(merged.edits.values()), first.message(changed, refs))


def _from_root(jobs: Sequence[Job], files: dict[str, tuple[FileChange, ...]]) -> dict[str, tuple[FileChange, ...]]:
    shown = {edit.path: name for job in jobs for name, edit in zip(job.latest.changed.files, job.latest.edits, strict=True)}
    return {shown[path]: changes for path, changes in files.items()}


def _paired(update: Update) -> list[tuple[Edit, tuple[FileChange, ...]]]:
    """Each edit with the changes of its file."""
    return list(zip(update.edits, update.changed.files.values(), strict=True))
