"""Pushes of many automations to one branch, in order and together.

Whoever wants to write to a branch hands in a job. The writer takes all jobs that wait, lets each build its commit on top of the
one before, and pushes them at once, with a lease on the commit that was read. A lost race is no failure: the jobs build again on
what is there now, a bounded number of times. A push that the server refuses is tried again job by job, so that one bad commit
does not stop the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from imagebot.bot.source import Source
from reconcile.errors import ReconcileError, TimedOut
from reconcile.git.errors import LostRace, PushRejected
from reconcile.git.mirror import Mirror
from reconcile.git.tags import choose_version
from reconcile.git.types import RefUpdate, RemoteRefs, Resolved

MAX_TRIES = 60
"""Times that a lost race is run again: against somebody who pushes all the time only persistence helps."""
MAX_WAIT = 0.1
"""Most seconds between two tries; the wait is random, so that two writers do not keep step."""
GATHER = 0.03
"""Seconds in which further jobs for the same branch join a push."""
MAX_BATCH = 200


@dataclass(frozen=True, slots=True)
class Ground:
    """What a job builds on: the checked-out commit, the head of the push branch if it exists, and the commit to build on."""

    checkout: Resolved
    push_head: str | None
    base: str


@dataclass(frozen=True, slots=True)
class Built:
    """A commit made by a job (None: nothing to change)."""

    commit: str | None
    message: str = ""


Build = Callable[[Ground], Awaitable[Built]]
BuildTogether = Callable[[Sequence[Ground | Exception]], Awaitable[tuple[str | None, Sequence[Built | Exception]]]]
"""Builds for several who write together: a ground, or why there is none, for each. Gives the newest commit, None where there is
none, and for each its own, which several may share."""
Target = tuple[str, str, str, tuple[str, str, bool] | None, tuple[str, ...]]
"""What writers are told apart by."""


def target(source: Source) -> Target:
    """Where a source pushes to, and as whom: those with the same are written together."""
    return (source.url, source.credentials.digest(), source.push_branch, source.refspec, source.options)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a job."""

    ground: Ground
    commit: str | None
    message: str
    head: str = ""
    """The commit that the branch was moved to, which has those of all who pushed together; empty: it was not moved."""


@dataclass(slots=True)
class _Job:
    sources: Sequence[Source]
    build: BuildTogether
    future: asyncio.Future[Sequence[Written | Exception]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Writers:
    """One writer per repository and target; gone when it has nothing to do."""

    def __init__(self, fence: Callable[[], None]) -> None:
        """`fence` is asked right before each push and raises when we may not change anything."""
        self._fence = fence
        self._writers: dict[Target, _Writer] = {}

    async def write(self, mirror: Mirror, source: Source, build: Build) -> Written:
        """Have `build` make a commit on the right ground and push it; raises what Git or `build` raise."""

        async def alone(grounds: Sequence[Ground | Exception]) -> tuple[str | None, Sequence[Built | Exception]]:
            (ground,) = grounds
            if isinstance(ground, Exception):
                raise ground
            built = await build(ground)
            return built.commit, [built]

        (written,) = await self.write_together(mirror, [source], alone)
        if isinstance(written, Exception):
            raise written
        return written

    async def write_together(
        self, mirror: Mirror, sources: Sequence[Source], build: BuildTogether
    ) -> Sequence[Written | Exception]:
        """Have `build` make the commits of several sources that share a target, and push them at once.

        Returns:
            What became of each, in the order of the sources.

        Raises:
            Exception: What Git or `build` raise: nothing was pushed.
        """
        aim = target(sources[0])
        writer = self._writers.get(aim)
        if writer is None:
            writer = self._writers[aim] = _Writer(mirror, sources[0], self._fence, lambda: self._writers.pop(aim, None))
        return await writer.submit(_Job(sources, build))

    async def close(self) -> None:
        """Abandon what has not been pushed; those who wait are cancelled."""
        for writer in list(self._writers.values()):
            await writer.close()


class _Writer:
    def __init__(self, mirror: Mirror, source: Source, fence: Callable[[], None], ended: Callable[[], object]) -> None:
        self._mirror = mirror
        self._fence = fence
        self._branch = f"refs/heads/{source.push_branch}"
        self._refspec = source.refspec
        self._options = source.options
        self._waiting: list[_Job] = []
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    async def submit(self, job: _Job) -> Sequence[Written | Exception]:
        self._waiting.append(job)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"write {self._branch}")
        return await job.future

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        batch: list[_Job] = []
        try:
            while self._waiting:
                await asyncio.sleep(GATHER)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                try:
                    await self._write(batch)
                except Exception as error:  # noqa: BLE001 - handed to those whose push it was; who came later is not concerned
                    for job in batch:
                        _fail(job, error)
        except BaseException as error:
            for job in (*batch, *self._waiting):
                if not job.future.done():
                    job.future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
        finally:
            self._task = None
            self._ended()

    async def _write(self, batch: Sequence[_Job]) -> None:
        try:
            await self._together(batch)
        except PushRejected:
            if len(batch) == 1:
                raise
            for job in batch:  # find out whose commit is not welcome
                if not job.future.done():
                    try:
                        await self._together([job])
                    except Exception as error:  # noqa: BLE001 - handed to the one who waits
                        _fail(job, error)

    async def _together(self, batch: Sequence[_Job]) -> None:
        for attempt in range(1, MAX_TRIES + 1):
            jobs = [job for job in batch if not job.future.done()]
            if not jobs:
                return
            refs = await self._mirror.ls_remote()
            head = refs.commit(self._branch)
            top, results = await self._build_all(jobs, refs, head)
            try:
                if top is not None:
                    await self._push(top, head, refs)
            except LostRace as error:
                # Another reference that cannot be moved forward stays where it is, however often we try.
                if attempt == MAX_TRIES or error.ref not in {"", self._branch}:
                    raise
                await asyncio.sleep(random.uniform(0, min(0.02 * attempt, MAX_WAIT)))  # noqa: S311 - spreads writers, protects nothing
                continue
            for job, those in results:
                if not job.future.done():
                    moved = top or ""
                    job.future.set_result([w if isinstance(w, Exception) else replace(w, head=moved) for w in those])
            return
        raise TimedOut(f"gave up on {self._branch}")

    async def _build_all(
        self, jobs: Sequence[_Job], refs: RemoteRefs, head: str | None
    ) -> tuple[str | None, list[tuple[_Job, list[Written | Exception]]]]:
        top: str | None = None
        results = []
        for job in jobs:
            try:
                grounds = [await self._ground(source, refs, head, top) for source in job.sources]
                newest, built = await job.build(grounds)
            except Exception as error:  # noqa: BLE001 - one job's failure is not the others'
                _fail(job, error)
                continue
            those: list[Written | Exception] = []
            for ground, each in zip(grounds, built, strict=True):
                if isinstance(ground, Exception) or isinstance(each, Exception):
                    those.append(each if isinstance(each, Exception) else cast(Exception, ground))
                    continue
                those.append(Written(ground, each.commit, each.message))
            top = newest or top
            results.append((job, those))
        return top, results

    async def _ground(self, source: Source, refs: RemoteRefs, head: str | None, top: str | None) -> Ground | Exception:
        try:
            checkout = await self._mirror.resolve(source.reference, refs, choose_version(source.reference.semver))
            base = top or head or checkout.commit
            if top is None:
                await self._mirror.fetch(base)
        except ReconcileError as error:
            return error
        return Ground(checkout, head, base)

    async def _push(self, commit: str, head: str | None, refs: RemoteRefs) -> None:
        updates = [RefUpdate(commit, self._branch, head)]
        if self._refspec is not None and self._refspec[1] != self._branch:
            updates.append(await self._further(commit, head, refs, *self._refspec[1:]))
        self._fence()
        await self._mirror.push(updates, self._options)

    async def _further(self, commit: str, head: str | None, refs: RemoteRefs, target: str, force: bool) -> RefUpdate:
        """The update of the reference that a refspec names: only forward, unless the refspec says otherwise."""
        present = refs.refs.get(target)
        if force or present is None or present == head:
            return RefUpdate(commit, target, present)
        # It is elsewhere: git can tell forward from sideways only with the history at hand.
        await self._mirror.fetch(Resolved(present, target), depth=0)
        if head is not None:
            await self._mirror.fetch(Resolved(head, self._branch), depth=0)
        return RefUpdate(commit, target, present, lease=False)


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
