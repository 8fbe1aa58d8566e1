"""What passes over automations would commit now. Nothing is pushed, and no status is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from imagebot.api import ImageUpdateAutomation
from imagebot.bot.failures import failures
from imagebot.bot.gathering import has_quiet_period
from imagebot.bot.job import Job
from imagebot.bot.joint import join
from imagebot.bot.requests.body import title_of
from imagebot.bot.requests.groups import groups_of
from imagebot.bot.requests.ownership import with_trailer
from imagebot.bot.requests.scene import branch_of
from imagebot.bot.requests.settings import Settings, proposing
from imagebot.bot.source import Source
from imagebot.bot.writer import Built, Ground, target
from imagebot.pullrequests import PullRequestStatus
from reconcile.errors import ReasonedError
from reconcile.git.types import Edit

Top = tuple[str, ...]
"""A branch, and as whom it is seen."""
NOTHING = Built(None)
Prepare = Callable[[ImageUpdateAutomation, Mapping[Top, str]], Awaitable[tuple[Job, Ground]]]
"""Gives the job of an automation and where it would write, on top of what others would push there before."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A commit that was made in a mirror and pushed nowhere, or why there is none.

    Attributes:
        automations: who share it, by name.
        jobs: of these, with their parts; none where nothing can be said.
        base: what the commit is built on.
        edits: what it changes there; none where nothing is to be changed.
        built: the commit and its message.
        request: branch that the commit would be proposed for by a pull request; empty: it would be pushed.
        branch: what the request would be made of; empty where nothing is to be proposed.
        group: policy that the request would be for; empty: for all.
        title: of the request.
        entries: what is known of requests that are not merged and not superseded, the newest of each group: of this group; with
            the first also of those that have nothing to change.
        more: whether another of the same automation comes before, with the same jobs.
        error: why nothing can be said.
    """

    automations: tuple[ImageUpdateAutomation, ...]
    jobs: tuple[Job, ...] = ()
    base: str = ""
    edits: tuple[Edit, ...] = ()
    built: Built = NOTHING
    request: str = ""
    branch: str = ""
    group: str = ""
    title: str = ""
    entries: tuple[PullRequestStatus, ...] = ()
    more: bool = False
    error: ReasonedError | None = None


def top_of(source: Source) -> Top:
    """What tells apart the branches on top of which proposals are built: a mirror has only what its credentials show."""
    return target(source)[:3]


async def propose(automations: Iterable[ImageUpdateAutomation], prepare: Prepare) -> list[Proposal]:
    """The commits of automations, in the order in which the service would push them.

    First come those that do not wait, in the order given, one commit each; then those with a quiet period, joined where they
    share a branch, as they are when the wait is over. A request by annotation and a pull request join with nobody. Of an
    automation with a pull request for each policy there is one commit for each of these.
    """
    tops: dict[Top, str] = {}
    found: list[Proposal] = []
    patient: list[ImageUpdateAutomation] = []
    for automation in automations:
        if has_quiet_period(automation) and not _is_requested(automation):
            patient.append(automation)
        else:
            found += await _alone(automation, prepare, tops)
    return found + await _together(patient, prepare, tops)


def _is_requested(automation: ImageUpdateAutomation) -> bool:
    asked = automation.meta.requested_at
    return bool(asked) and asked != automation.status.last_handled_reconcile_at


async def _alone(automation: ImageUpdateAutomation, prepare: Prepare, tops: dict[Top, str]) -> list[Proposal]:
    try:
        job, ground = await prepare(automation, tops)
        settings = proposing(automation, job.source)
        return await _requested(job, ground, settings) if settings else [await _pushed(job, ground, tops)]
    except ReasonedError as error:
        return [Proposal((automation,), error=error)]


async def _pushed(job: Job, ground: Ground, tops: dict[Top, str]) -> Proposal:
    with failures():
        built = await job.build(ground)
    if built.commit is not None:
        tops[top_of(job.source)] = built.commit
    return Proposal((job.resource,), (job,), ground.base, job.latest.edits if built.commit else (), built)


async def _requested(job: Job, ground: Ground, settings: Settings) -> list[Proposal]:
    """The commits of requests, each on the branch to merge into; one without a commit where nothing is due."""
    with failures():
        await job.update(ground)
        groups = await groups_of(job, ground, {}, by_policy=settings.by_policy)  # titles say nothing of rules
    newest = {entry.group: entry for entry in job.resource.status.pull_requests or ()}
    entries = [entry for entry in newest.values() if entry.state not in {"Merged", "Superseded"}]
    first = Proposal((job.resource,), (job,), ground.base, request=settings.base)
    if not groups:
        return [replace(first, entries=tuple(entries))]
    template, automation = settings.spec.title if settings.spec is not None else None, str(job.resource.key)
    found: list[Proposal] = []
    for name, group in groups.items():
        with failures():
            built = await group.job.write(ground.base, group.update.edits, with_trailer(group.message, automation))
        proposal = replace(
            first,
            edits=group.update.edits if built.commit else (),
            built=built,
            branch=branch_of(settings.prefix, name),
            group=name,
            title=title_of(template, group.told),
            entries=tuple(e for e in entries if e.group == name or (not found and e.group not in groups)),
            more=bool(found),
        )
        found.append(proposal)
    return found


async def _together(automations: Sequence[ImageUpdateAutomation], prepare: Prepare, tops: dict[Top, str]) -> list[Proposal]:
    found: list[Proposal] = []
    groups: dict[object, list[tuple[Job, Ground]]] = {}
    for automation in sorted(automations, key=lambda each: (each.key.namespace, each.key.name)):
        try:
            job, ground = await prepare(automation, tops)
            if settings := proposing(automation, job.source):
                found += await _requested(job, ground, settings)
                continue
            with failures():
                update = await job.update(ground)
        except ReasonedError as error:
            found.append(Proposal((automation,), error=error))
            continue
        if update.edits:
            groups.setdefault(target(job.source), []).append((job, ground))
        else:  # who has nothing that waits is not among those who are written for
            found.append(Proposal((automation,), (job,), ground.base))
    for group in groups.values():
        found += await _joined(group, tops)
    return found


async def _joined(group: Sequence[tuple[Job, Ground]], tops: dict[Top, str]) -> list[Proposal]:
    jobs = [job for job, _ in group]
    top = tops.get(top_of(jobs[0].source))
    grounds = [ground if top is None else replace(ground, base=top) for _, ground in group]
    joints, failed = await join(jobs, grounds)
    found = []
    for joint in joints:
        members = tuple(jobs[number] for number in joint.members)
        automations = tuple(job.resource for job in members)
        edits = joint.edits if joint.built.commit is not None else ()
        found.append(Proposal(automations, members, joint.base, edits, joint.built))
        if joint.built.commit is not None:
            tops[top_of(jobs[0].source)] = joint.built.commit
    busy = {number for joint in joints for number in joint.members}
    for number, job in enumerate(jobs):
        if number in failed:
            found.append(Proposal((job.resource,), error=_reasoned(failed[number])))
        elif number not in busy:
            base = joints[-1].built.commit or joints[-1].base if joints else grounds[number].base
            found.append(Proposal((job.resource,), (job,), base))
    return found


def _reasoned(error: Exception) -> ReasonedError:
    """The failure that a pass would end with; raises what is none."""
    try:
        with failures():
            raise error
    except ReasonedError as reasoned:
        return reasoned
