"""What a pass would decide and commit."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagebot.api import ImagePolicy, SkippedMarker
from imagebot.bot.job import Job
from imagebot.bot.proposal import Proposal, propose
from imagebot.bot.requests.settings import asked
from imagebot.bot.update import as_text
from imagebot.markers.files import is_candidate, update_root
from imagebot.plan.diff import unified
from imagebot.plan.rehearsal import Rehearsal
from imagebot.policy.base import InvalidFilter, InvalidPolicy, NoChoice
from imagebot.policy.controller import HELD, referred
from imagebot.policy.rules import policy_of
from imagebot.pullrequests import PullRequestStatus
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
    """What becomes of one automation, of several that share a commit, or of one request of an automation that makes several.

    Attributes:
        automations: their keys, by name.
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
        by_policy: whether each policy would get a request of its own; `skipped`, `kept` and what is known of requests that have
            nothing to change are with the first of these.
        policy: whose request it would be.
        title: of the request.
        requests: what is known of requests that are not merged and not superseded, the newest of each group.
        kept: policies whose markers stay as people set them, with the reason; with their namespace where there are several.
    """

    automations: tuple[Key, ...]
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
    by_policy: bool = False
    policy: str = ""
    title: str = ""
    requests: tuple[PullRequestStatus, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def automation(self) -> Key:
        """The first of them."""
        return self.automations[0]


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
    """Read what was chosen, and what is proposed on it: commits in the order of the service, then who is suspended."""
    decisions = [await _decision(rehearsal, policy) for policy in await rehearsal.store.list("ImagePolicy")]
    automations = await rehearsal.automations()
    proposals = await propose((each for each in automations if not each.spec.suspend), rehearsal.updater.rehearse)
    commits = [await _commit(proposal) for proposal in proposals]
    note = "suspended: nothing is done until it is resumed"
    commits += [CommitPlan((each.key,), note=note) for each in automations if each.spec.suspend]
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


async def _commit(proposal: Proposal) -> CommitPlan:
    keys = tuple(automation.key for automation in proposal.automations)
    if proposal.error is not None:
        return CommitPlan(keys, problem=f"{proposal.error.reason}: {proposal.error.message}")
    source, built = proposal.jobs[0].source, proposal.built
    try:
        files = await _files(proposal)
    except ReasonedError as error:
        return CommitPlan(keys, problem=f"{error.reason}: {error.message}")
    return CommitPlan(
        keys,
        repository=redact_url(source.url),
        branch=proposal.branch or source.push_branch,
        base=proposal.base,
        message=built.message if built.commit is not None else None,
        signed=source.signer is not None,
        files=tuple(files),
        request=proposal.request,
        by_policy=bool(proposal.request) and _by_policy(proposal.jobs[0]),
        policy=proposal.group,
        title=proposal.title,
        requests=proposal.entries,
        kept=_kept(proposal.jobs) if not proposal.more else {},
        skipped=_skipped(proposal.jobs) if not proposal.more else (),
    )


def _by_policy(job: Job) -> bool:
    request = asked(job.resource)
    return request is not None and request.group_by == "policy"


def _kept(jobs: Sequence[Job]) -> dict[str, str]:
    several = len({job.resource.key.namespace for job in jobs}) > 1
    found: dict[str, str] = {}
    for job in jobs:
        for name, reason in job.kept.items():
            found.setdefault(f"{job.resource.key.namespace}/{name}" if several else name, reason)
    return found


def _skipped(jobs: Sequence[Job]) -> tuple[SkippedMarker, ...]:
    """Of all jobs, once each: automations may look at the same files."""
    found: list[SkippedMarker] = []
    for job in jobs:
        root = update_root(job.resource.spec.update.path)
        found += [whole for marker in job.latest.skipped if (whole := _whole(marker, root)) not in found]
    return tuple(found)


def _whole(marker: SkippedMarker, root: str) -> SkippedMarker:
    """The marker with its path from the top of the repository; statuses have it from the update path."""
    one_file = is_candidate(root) and posixpath.basename(root) == marker.path
    return marker.model_copy(update={"path": root if one_file else posixpath.join(root, marker.path)})


async def _files(proposal: Proposal) -> Sequence[FilePlan]:
    found, mirror = [], proposal.jobs[0].mirror
    for edit in proposal.edits:
        entries = await mirror.entries(proposal.base, edit.path)
        oids = [entry.oid for entry in entries if entry.path == edit.path]
        before = (await mirror.read(oids))[oids[0]] if oids else b""
        found.append(FilePlan(as_text(edit.path), unified(edit.path, before, edit.data)))
    return found
