"""What a pass would decide and commit."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagebot.api import ImagePolicy, ImageUpdateAutomation, SkippedMarker
from imagebot.bot.proposal import Proposal
from imagebot.bot.update import as_text
from imagebot.markers.files import is_candidate, update_root
from imagebot.plan.diff import unified
from imagebot.plan.rehearsal import Rehearsal
from imagebot.policy.base import InvalidFilter, InvalidPolicy, NoChoice
from imagebot.policy.controller import HELD, referred
from imagebot.policy.rules import policy_of
from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.errors import ReasonedError
from reconcile.redact import redact_url


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy chooses; `image` is empty when it has no choice, `before` when it had none."""

    policy: Key
    image: str
    before: str
    why: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The change of one file: its path in the repository, and a unified diff."""

    path: str
    diff: str


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """What becomes of one automation.

    Attributes:
        automation: its key.
        repository: URL without credentials, empty when it is not known.
        branch: what would be pushed to.
        base: the commit that it is built on.
        message: of the commit; None when nothing would be changed.
        signed: whether the commit would be signed.
        files: that would be changed.
        skipped: markers and files that cannot be used.
        problem: why nothing can be said.
        note: why nothing is to be done, where that is no problem.
        request: branch that the commit would be proposed for by a pull request; empty: it would be pushed.
        kept: policies whose markers stay as people set them, with the reason.
    """

    automation: Key
    repository: str = ""
    branch: str = ""
    base: str = ""
    message: str | None = None
    signed: bool = False
    files: tuple[FilePlan, ...] = ()
    skipped: tuple[SkippedMarker, ...] = ()
    problem: str = ""
    note: str = ""
    request: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions and commits; `problems` are of the folder and of objects, in words."""

    decisions: tuple[Decision, ...]
    commits: tuple[CommitPlan, ...]
    problems: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether anything would be committed."""
        return any(commit.files for commit in self.commits)

    @property
    def failed(self) -> bool:
        """Whether anything could not be done."""
        return bool(self.problems)


async def make_plan(rehearsal: Rehearsal) -> Plan:
    """Read what was chosen, and have every automation propose its commit, one on top of the other where they share a branch."""
    decisions = [await _decision(rehearsal, policy) for policy in await rehearsal.store.list("ImagePolicy")]
    tops: dict[tuple[str, str], str] = {}
    commits = [await _commit(rehearsal, automation, tops) for automation in await rehearsal.automations()]
    problems = [str(problem) for problem in rehearsal.problems]
    problems += [f"{kind} {key}: {reason}: {text}" for (kind, key), (reason, text) in sorted(rehearsal.failures.items())]
    problems += [f"ImageUpdateAutomation {commit.automation}: {commit.problem}" for commit in commits if commit.problem]
    return Plan(tuple(decisions), tuple(commits), tuple(problems))


async def _decision(rehearsal: Rehearsal, policy: ImagePolicy) -> Decision:
    old = rehearsal.before.get(("ImagePolicy", policy.key))
    before = old.status.latest_ref if old is not None else None
    latest = policy.status.latest_ref
    failure = rehearsal.failures.get(("ImagePolicy", policy.key))
    why = f"{failure[0]}: {failure[1]}" if failure else _why(rehearsal, policy)
    return Decision(policy.key, str(latest or ""), str(before or ""), why, failure is not None)


def _why(rehearsal: Rehearsal, policy: ImagePolicy) -> str:
    if policy.spec.suspend:
        return "suspended: what it chose before stays"
    if (held := held_because(policy)) is not None:
        return held
    latest, scanned = policy.status.latest_ref, rehearsal.tags.get(referred(policy))
    if scanned is not None and latest is not None:
        try:
            choice = policy_of(policy.spec).choose(scanned.tags.index())
        except (InvalidPolicy, InvalidFilter, NoChoice):
            pass  # its Ready condition says it
        else:
            if choice.tag == latest.tag:
                return choice.reason
    ready = cond.get(policy.status.conditions, cond.READY)
    return ready.message if ready is not None else "nobody has looked at it yet"


def held_because(policy: ImagePolicy) -> str | None:
    """Why a choice is not what the rule prefers, from the condition Held; None when nothing holds it."""
    held = cond.get(policy.status.conditions, HELD)
    return f"{held.reason}: {held.message}" if held is not None and held.status == "True" else None


async def _commit(rehearsal: Rehearsal, automation: ImageUpdateAutomation, tops: dict[tuple[str, str], str]) -> CommitPlan:
    key = automation.key
    if automation.spec.suspend:
        return CommitPlan(key, note="suspended: nothing is done until it is resumed")
    try:
        proposal = await rehearsal.updater.propose(automation, tops)
        files = await _files(proposal)
    except ReasonedError as error:
        return CommitPlan(key, problem=f"{error.reason}: {error.message}")
    source, built = proposal.source, proposal.built
    if built.commit is not None and not proposal.request:
        tops[source.url, source.push_branch] = built.commit
    return CommitPlan(
        key,
        repository=redact_url(source.url),
        branch=source.push_branch,
        base=proposal.ground.base,
        message=built.message if built.commit is not None else None,
        signed=source.signer is not None,
        files=tuple(files) if built.commit is not None else (),
        request=proposal.request,
        kept=proposal.kept,
        skipped=tuple(_whole(marker, update_root(automation.spec.update.path)) for marker in proposal.update.skipped),
    )


def _whole(marker: SkippedMarker, root: str) -> SkippedMarker:
    """The marker with its path from the top of the repository; statuses have it from the update path."""
    one_file = is_candidate(root) and posixpath.basename(root) == marker.path
    return marker.model_copy(update={"path": root if one_file else posixpath.join(root, marker.path)})


async def _files(proposal: Proposal) -> Sequence[FilePlan]:
    found = []
    for edit in proposal.update.edits:
        entries = await proposal.mirror.entries(proposal.ground.base, edit.path)
        oids = [entry.oid for entry in entries if entry.path == edit.path]
        before = (await proposal.mirror.read(oids))[oids[0]] if oids else b""
        found.append(FilePlan(as_text(edit.path), unified(edit.path, before, edit.data)))
    return found
