"""Automations that wait for more changes before they push: who waits for which branch, and one of them who writes for all.

Whoever finds that the wait is over writes for everybody who waits for the same branch; the others are woken and take over what
was written for them. Who waits is known from statuses after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from imagebot.api import ImageUpdateAutomation
from imagebot.bot.job import Job
from imagebot.bot.joint import build_together, due
from imagebot.bot.quiet import Wait, most_of, restored, together, waited
from imagebot.bot.source import Source
from imagebot.bot.writer import Target, Writers, Written, target
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import NotFound, ReconcileError
from reconcile.git.errors import PushRejected
from reconcile.ports.clock import parse_timestamp
from reconcile.ports.store import Store

KIND = "ImageUpdateAutomation"


@dataclass(frozen=True, slots=True)
class Done:
    """What was written for an automation by somebody else, or why it was not."""

    job: Job
    result: Written | Exception


@dataclass(frozen=True, slots=True)
class _Member:
    """One who waits; `changes` is what was due at the last look, None: not known since the restart."""

    target: Target
    wait: Wait
    changes: frozenset[tuple[str, str, str]] | None


@dataclass(slots=True)
class _Flight:
    """A write for several that is under way; the future ends with it, and never fails."""

    keys: frozenset[Key]
    landed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gathering:
    """Everybody who waits. Bounded by the number of automations."""

    def __init__(
        self,
        store: Store,
        writers: Writers,
        *,
        find: Callable[[ImageUpdateAutomation], Awaitable[Source]],
        prepare: Callable[[ImageUpdateAutomation], Awaitable[Job]],
        mine: Callable[[AnyResource], bool],
    ) -> None:
        """`find` and `prepare` give the source and the job of an automation as it is now; `mine` says which are ours."""
        self._store = store
        self._writers = writers
        self._find = find
        self._prepare = prepare
        self._mine = mine
        self._members: dict[Key, _Member] = {}
        self._flights: dict[Target, _Flight] = {}
        self._done: dict[Key, Done] = {}
        self._recalled = False
        self.wake: Callable[[Key], None] = lambda _: None
        """Asks for a pass over an automation."""

    def leave(self, key: Key) -> None:
        """Nothing of this automation waits any more."""
        self._members.pop(key, None)

    def forget(self, key: Key) -> None:
        """The automation is gone."""
        self.leave(key)
        self._done.pop(key, None)

    def taken(self, key: Key) -> Done | None:
        """What others have written for this automation since it was asked last."""
        return self._done.pop(key, None)

    async def enter(self, job: Job, now: datetime) -> tuple[datetime, datetime]:
        """Have what a job found last wait for more; raises ReconcileError when the store cannot be read.

        Returns:
            Since when its changes wait, and when all are committed that wait for the branch.
        """
        await self._recall(now)
        key, aim, changes = job.resource.key, target(job.source), due(job.latest)
        before = self._members.get(key)
        if before is not None and before.target != aim:
            before = None
        fresh = before is not None and before.changes is not None and not changes <= before.changes
        quiet, most = _asked(job.resource)
        wait = waited(before.wait if before else None, now, fresh=fresh, quiet=quiet, most=most)
        self._members[key] = _Member(aim, wait, changes)
        return wait.since, together([member.wait for member in self._members.values() if member.target == aim])

    async def write(self, job: Job) -> tuple[Job, Written]:
        """Write for all who wait for the branch of a job, or let somebody who does so now; raises what Git or a job raises.

        Returns:
            The job of this automation that was used, and what became of it.
        """
        key, aim = job.resource.key, target(job.source)
        flight = self._flights.get(aim)
        if flight is not None and key in flight.keys:
            await asyncio.shield(flight.landed)
            if (done := self._done.pop(key, None)) is not None:
                return done.job, _result(done.result)
        return job, await self._lead(key, aim, job)

    async def _lead(self, key: Key, aim: Target, job: Job) -> Written:
        waiting = {other for other, member in self._members.items() if member.target == aim}
        flight = self._flights[aim] = _Flight(frozenset(waiting | {key}))
        try:
            jobs = [job, *[made for other in waiting - {key} if (made := await self._other(other, aim)) is not None]]
            jobs.sort(key=lambda each: (each.resource.key.namespace, each.resource.key.name))
            results = await self._write(jobs)
            for each, result in zip(jobs, results, strict=True):
                if isinstance(result, Written):
                    self.leave(each.resource.key)
                if each is not job:
                    self._done[each.resource.key] = Done(each, result)
            return _result(results[jobs.index(job)])
        finally:
            if self._flights.get(aim) is flight:
                del self._flights[aim]
            flight.landed.set_result(None)
            for other in waiting - {key}:
                self.wake(other)

    async def _other(self, key: Key, aim: Target) -> Job | None:
        """The job of somebody who waits, as things are now; None where it is not to be written for: its own pass says why."""
        try:
            resource = await self._store.get(KIND, key)
        except NotFound:
            self.leave(key)
            return None
        if (
            resource.spec.suspend
            or resource.meta.deletion_timestamp
            or not self._mine(resource)
            or not has_quiet_period(resource)
        ):
            self.leave(key)
            return None
        try:
            job = await self._prepare(resource)
        except ReconcileError:
            return None
        if target(job.source) != aim:
            self.leave(key)
            return None
        return job

    async def _write(self, jobs: Sequence[Job]) -> Sequence[Written | Exception]:
        """What became of each; those whose commit is refused do not stop the others."""
        try:
            return await self._writers.write_together(
                jobs[0].mirror, [job.source for job in jobs], lambda grounds: build_together(jobs, grounds)
            )
        except PushRejected as error:
            if len(jobs) == 1:
                return [error]
            return [await self._alone(job) for job in jobs]
        except Exception as error:  # noqa: BLE001 - handed to all whom it concerns
            return [error] * len(jobs)

    async def _alone(self, job: Job) -> Written | Exception:
        try:
            return await self._writers.write(job.mirror, job.source, job.build)
        except Exception as error:  # noqa: BLE001 - handed to the one who waits
            return error

    async def _recall(self, now: datetime) -> None:
        """See once, after the start, who waited before it: whoever comes first must not write without the others."""
        if self._recalled:
            return
        for resource in await self._store.list(KIND):
            status = resource.status
            waits = status.pending_since and status.pending_until and has_quiet_period(resource)
            if not waits or resource.spec.suspend or resource.key in self._members or not self._mine(resource):
                continue
            try:
                aim = target(await self._find(resource))
            except ReconcileError:
                continue  # its own pass says why
            quiet, most = _asked(resource)
            since, until = parse_timestamp(status.pending_since), parse_timestamp(status.pending_until)
            self._members.setdefault(resource.key, _Member(aim, restored(since, until, now, quiet=quiet, most=most), None))
        self._recalled = True


def has_quiet_period(resource: ImageUpdateAutomation) -> bool:
    """Whether what is due waits for more."""
    git = resource.spec.git
    return git is not None and bool(git.commit.quiet_period)


def _asked(resource: ImageUpdateAutomation) -> tuple[float, float]:
    """The quiet period and the most that a change waits, in seconds."""
    git = resource.spec.git
    assert git is not None  # noqa: S101 - asked of those with a quiet period
    quiet, most = git.commit.quiet_period, git.commit.max_wait
    return float(quiet or 0.0), most_of(float(quiet or 0.0), None if most is None else float(most))


def _result(result: Written | Exception) -> Written:
    if isinstance(result, Exception):
        raise result
    return result
