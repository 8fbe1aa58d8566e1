"""What passes over automations would commit now. Nothing is pushed, and no status is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from imagebot.api import ImageUpdateAutomation
from imagebot.bot.failures import failures
from imagebot.bot.gathering import has_quiet_period
from imagebot.bot.job import Job
from imagebot.bot.joint import join
from imagebot.bot.requests.settings import base_of_request
from imagebot.bot.source import Source
from imagebot.bot.writer import Built, Ground, target
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
        error: why nothing can be said.
    """

    automations: tuple[ImageUpdateAutomation, ...]
    jobs: tuple[Job, ...] = ()
    base: str = ""
    edits: tuple[Edit, ...] = ()
    built: Built = NOTHING
    request: str = ""
    error: ReasonedError | None = None


def top_of(source: Source) -> Top:
    """What tells apart the branches on top of which proposals are built: a mirror has only what its credentials show."""
    return target(source)[:3]


async def propose(automations: Iterable[ImageUpdateAutomation], prepare: Prepare) -> list[Proposal]:
    """The commits of automations, in the order in which the service would push them.

    First come those that do not wait, in the order given, one commit each; then those with a quiet period, joined where they
    share a branch, as they are when the wait is over. A request by annotation and a pull request join with nobody.
    """
    tops: dict[Top, str] = {}
    found: list[Proposal] = []
    patient: list[ImageUpdateAutomation] = []
    for automation in automations:
        if has_quiet_period(automation) and not _is_requested(automation):
            patient.append(automation)
        else:
            found.append(await _alone(automation, prepare, tops))
    return found + await _together(patient, prepare, tops)


def _is_requested(automation: ImageUpdateAutomation) -> bool:
    asked = automation.meta.requested_at
    return bool(asked) and asked != automation.status.last_handled_reconcile_at


async def _alone(automation: ImageUpdateAutomation, prepare: Prepare, tops: dict[Top, str]) -> Proposal:
    try:
        job, ground = await prepare(automation, tops)
        request = base_of_request(automation, job.source)
        return await _single(job, ground, request, tops)
    except ReasonedError as error:
        return Proposal((automation,), error=error)


async def _single(job: Job, ground: Ground, request: str, tops: dict[Top, str]) -> Proposal:
    with failures():
        built = await job.build(ground)
    if built.commit is not None and not request:
        tops[top_of(job.source)] = built.commit
    return Proposal((job.resource,), (job,), ground.base, job.latest.edits if built.commit else (), built, request)


async def _together(automations: Sequence[ImageUpdateAutomation], prepare: Prepare, tops: dict[Top, str]) -> list[Proposal]:
    found: list[Proposal] = []
    groups: dict[object, list[tuple[Job, Ground]]] = {}
    for automation in sorted(automations, key=lambda each: (each.key.namespace, each.key.name)):
        try:
            job, ground = await prepare(automation, tops)
            if request := base_of_request(automation, job.source):
                found.append(await _single(job, ground, request, tops))
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
