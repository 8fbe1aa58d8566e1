"""ImageUpdateAutomation: bring the marked values of a repository to what the policies chose; commit and push.

Behaves like Flux's ImageUpdateAutomation; what is better stands in `docs/differences.md`: every push has a lease, a lost race is
run again, branch and refspec are pushed together or not at all, a changed spec and a request lead to a full run, an idle interval
costs one `ls-remote`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from imagebot.api import ImagePolicy, ImageRef, ImageUpdateAutomation
from imagebot.bot.failures import failures
from imagebot.bot.gathering import Gathering, has_quiet_period
from imagebot.bot.job import Job, brought
from imagebot.bot.joint import due
from imagebot.bot.proposal import Top, top_of
from imagebot.bot.quiet import message as waiting_message
from imagebot.bot.quiet import shown
from imagebot.bot.requests.run import Requests, pending
from imagebot.bot.requests.settings import asked, settings_of
from imagebot.bot.reverts import Reverts, Scene
from imagebot.bot.source import Source, Sources, source_key
from imagebot.bot.update import MarkerMemory, Update
from imagebot.bot.writer import Ground, Writers, Written
from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.selectors import compile_selector
from reconcile.errors import Failed, Invalid, ReconcileError, Stalled
from reconcile.forges.session import Observe
from reconcile.git.errors import PushRejected
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.tags import choose_version
from reconcile.git.types import Reference, RemoteRefs
from reconcile.ports.clock import Clock, parse_timestamp, timestamp
from reconcile.ports.events import EventType
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import Bus, Pushed, trace_of
from reconcile.runtime.index import Dependants
from reconcile.runtime.logs import get_logger
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Reconciler, Run

log = get_logger("controller")

UP_TO_DATE = "repository up-to-date"
NO_CHANGE = "no change since last reconciliation"
SUSPENDED = "what waited is left as it is until this is resumed"
SOON = 0.05
"""Least seconds after which a wait is looked at again."""
HEARTBEAT = timedelta(minutes=10)
"""How old `lastAutomationRunTime` may get in the status while nothing else changes."""


class ImageUpdateAutomationReconciler(Reconciler):
    """Steps: select policies, find the source, see whether anything is due, build on the right ground, push, report."""

    kind = "ImageUpdateAutomation"
    announces_requests = True
    acknowledges_suspended = False

    def __init__(
        self,
        store: Store,
        sources: Sources,
        mirrors: Mirrors,
        clock: Clock,
        *,
        settled: Callable[[], Awaitable[None]],
        fence: Callable[[], None],
        bus: Bus | None = None,
        mine: Callable[[AnyResource], bool] = lambda _: True,
        forge_requests: Observe | None = None,
    ) -> None:
        """`settled` waits until choices that are under way are made; `fence` raises when nothing may be pushed; `bus` is told of
        pushes; `mine` says which automations are ours to write for; `forge_requests` is told of every request to a forge."""
        self._bus = bus or Bus()
        self._settled = settled
        self._store = store
        self._sources = sources
        self._mirrors = mirrors
        self.clock = clock
        self._writers = Writers(fence)
        self.memory = MarkerMemory()
        self._reverts = Reverts(store, self.memory, clock)
        self._requests = Requests(store, clock, self.memory, fence=fence, bus=self._bus, observe=forge_requests)
        self.dependants: Dependants[Key] = Dependants(source_key)
        """Automations by their GitRepository."""
        self.gathering = Gathering(store, self._writers, find=self._find, prepare=self._prepare, mine=mine)
        """Those whose changes wait for more."""
        self._grounds: dict[Key, tuple[str, Ground]] = {}
        """Where each automation found everything in order last: cheap runs of every mode compare with it."""
        self._requests.job, self._requests.hold, self._requests.release = self._job, self._hold, self._nothing_waits

    async def reconcile(self, run: Run) -> Success:
        """One pass; raises Stalled for what only an edit mends, Failed for the rest."""
        self._stamp(run)
        done = self.gathering.taken(run.resource.key)
        if done is None:
            return await self._run(run)
        if isinstance(done.result, PushRejected) and asked(run.resource) is not None:
            return await self._run(run)  # it is tried here once more, and proposed instead
        if isinstance(done.result, Exception):
            _tell(run, done.job)
            with failures():
                raise done.result
        pushed = self._report(run, done.job, done.result)
        try:
            result = await self._run(run)
        except ReconcileError:
            if pushed.event is not None:
                run.tell(EventType.NORMAL, pushed.reason, pushed.event)
            raise
        if pushed.event is None:
            return result
        if result.event is not None:
            run.tell(EventType.NORMAL, result.reason, pushed.event)
            return result
        return replace(result, event=pushed.event, changed=True)

    async def _run(self, run: Run) -> Success:
        resource: ImageUpdateAutomation = run.resource
        refs = await self._policies(resource)
        source = await self._find(resource)
        mirror = self._mirrors.mirror(source.url, source.credentials, source.timeout)
        if asked(resource) is not None or pending(resource):
            done = await self._requests.first(run, source, mirror, refs, lambda: self._choices(resource))
            if done is not None:
                return done
        # A branch that was protected yesterday is tried again, although nothing has changed since.
        if run.status.push_refused_time is None and await self._nothing_due(run, refs, source, mirror):
            self._nothing_waits(run)
            return Success(UP_TO_DATE, after=resource.spec.interval, quiet=True, trace=NO_CHANGE)
        current = resource.with_status(run.status)
        job = self._job(current, await self._choices(resource), source, mirror)
        try:
            return await self._push(run, job)
        except Failed as failure:
            _tell(run, job)
            return await self._requests.instead(run, source, mirror, job.refs, failure)

    async def _push(self, run: Run, job: Job) -> Success:
        with failures():
            if has_quiet_period(run.resource) and not run.requested:
                return await self._quietly(run, job)
            return self._report(run, job, await self._writers.write(job.mirror, job.source, job.build))

    async def _quietly(self, run: Run, job: Job) -> Success:
        """Have what is due wait for more, or write it for all who wait once the wait is over; raises what Git raises."""
        _, _, ground = await self.ground(run.resource, {})
        update = await job.update(ground)
        if not update.edits:
            return self._report(run, job, Written(ground, None, ""))
        return await self._wait(run, job, update) or self._report(run, *await self.gathering.write(job))

    async def _hold(self, run: Run, job: Job) -> Success | None:
        """Have what a job found wait for more, where the automation asks for it; None: it does not wait (any more)."""
        if not has_quiet_period(run.resource) or run.requested or not job.latest.edits:
            return None
        return await self._wait(run, job, job.latest)

    async def _wait(self, run: Run, job: Job, update: Update) -> Success | None:
        now = self.clock.now()
        since, until = await self.gathering.enter(job, now)
        if until <= now:
            return None
        run.set(pending_since=timestamp(since), pending_until=shown(until), skipped=list(update.skipped) or None)
        left = max((until - now).total_seconds(), SOON)
        text = waiting_message(len(due(update)), until, now)
        return Success(text, after=min(left, run.resource.spec.interval), quiet=True, trace=text)

    def when_suspended(self, resource: AnyResource) -> Mapping[str, Any]:
        """What waits is dropped: it is looked at anew when the automation is resumed."""
        self.gathering.leave(resource.key)
        if resource.status.pending_until is None:
            return {}
        ready = cond.get(resource.status.conditions, cond.READY)
        changes: dict[str, Any] = {"pending_since": None, "pending_until": None}
        if ready is not None and ready.status == "True":
            kept = cond.put(
                tuple(resource.status.conditions or ()),
                cond.READY,
                ready.status,
                ready.reason,
                SUSPENDED,
                generation=ready.observed_generation or resource.meta.generation,
                now=timestamp(self.clock.now()),
            )
            changes["conditions"] = list(kept)
        return changes

    async def removed(self, resource: AnyResource) -> None:
        """Forget what was remembered; nothing is ever removed from Git."""
        self._grounds.pop(resource.key, None)
        self.gathering.forget(resource.key)
        self._requests.forget(resource.key)

    async def close(self) -> None:
        """Abandon pushes that are under way."""
        await self._writers.close()
        await self._requests.close()

    async def rehearse(self, resource: ImageUpdateAutomation, tops: Mapping[Top, str]) -> tuple[Job, Ground]:
        """The job of a pass over the automation now, for which nothing is pushed and no status is written, and its ground.

        Args:
            resource: The automation.
            tops: Commits of others that would be pushed before, by branch.

        Raises:
            Stalled: Only an edit mends it.
            Failed: The source cannot be read.
        """
        refs = await self._policies(resource)
        source, mirror, ground = await self.ground(resource, tops)
        return self._job(resource, refs, source, mirror, rehearsal=True), ground

    async def ground(self, resource: ImageUpdateAutomation, tops: Mapping[Top, str]) -> tuple[Source, Mirror, Ground]:
        """Where a pass over the automation would write now, and on top of what; see `rehearse`."""
        source = await self._find(resource)
        mirror = self._mirrors.mirror(source.url, source.credentials, source.timeout)
        request = settings_of(resource, source) if asked(resource) is not None else None
        with failures():
            remote = await mirror.ls_remote()
            if request is not None and request.branch != request.base:
                base = await mirror.resolve(Reference(branch=request.base), remote)
                await mirror.fetch(base)
                return source, mirror, Ground(base, None, base.commit)
            checkout = await mirror.resolve(source.reference, remote, choose_version(source.reference.semver))
            head = remote.commit(f"refs/heads/{source.push_branch}")
            top = tops.get(top_of(source))
            if top is None:
                await mirror.fetch(head or checkout.commit)
        return source, mirror, Ground(checkout, head, top or head or checkout.commit)

    # --- what wakes an automation

    async def on_repository(self, change: Change) -> Iterable[Key]:
        """The automations of a GitRepository whose spec changed."""
        if change.type is ChangeType.MODIFIED and change.old and change.old.meta.generation == change.new.meta.generation:
            return []
        return self.dependants.of(change.new.key)

    async def on_policy(self, change: Change) -> Iterable[Key]:
        """The automations of the namespace that select a policy whose choice changed."""
        old = change.old.status.latest_ref if change.old is not None else None
        if change.type is ChangeType.DELETED or change.new.status.latest_ref == old:
            return []
        found = []
        for automation in await self._store.list(self.kind, change.new.key.namespace):
            try:
                selected = compile_selector(automation.spec.policy_selector)(change.new.meta.labels)
            except Invalid:
                selected = True  # its own pass says what is wrong
            if selected:
                found.append(automation.key)
        return found

    async def on_hold(self, change: Change) -> Iterable[Key]:
        """The automations of the namespace of a hold that was changed or has ended: what it kept back may be due."""
        if change.type is ChangeType.ADDED:
            return []
        return [automation.key for automation in await self._store.list(self.kind, change.new.key.namespace)]

    # --- steps

    def _stamp(self, run: Run) -> None:
        last = run.resource.status.last_automation_run_time
        due = last is None or run.now - parse_timestamp(last) >= HEARTBEAT
        run.stamp(lambda status: status.model_copy(update={"last_automation_run_time": run.timestamp}), due=due)

    async def _find(self, resource: ImageUpdateAutomation) -> Source:
        """The source of an automation; where it asks for pull requests, what is pushed to is another branch."""
        source = await self._sources.find(resource)
        request = settings_of(resource, source) if asked(resource) is not None else None
        return source if request is None else replace(source, push_branch=request.branch)

    async def _choices(self, resource: ImageUpdateAutomation) -> dict[str, ImageRef]:
        """The choices, once those that are under way are made."""
        await self._settled()
        return await self._policies(resource)

    async def _policies(self, resource: ImageUpdateAutomation) -> dict[str, ImageRef]:
        try:
            matches = compile_selector(resource.spec.policy_selector)
        except Invalid as error:
            raise Stalled("InvalidPolicySelector", f"failed to parse policy selector: {error}") from error
        policies: Sequence[ImagePolicy] = await self._store.list("ImagePolicy", resource.key.namespace)
        return await self._reverts.allowed([policy for policy in policies if matches(policy.meta.labels)])

    async def _nothing_due(self, run: Run, refs: Mapping[str, ImageRef], source: Source, mirror: Mirror) -> bool:
        """Whether the remote and the policies are as the last completed run left them; costs one `ls-remote`."""
        status = run.status
        ready = cond.get(status.conditions, cond.READY)
        settled = ready is not None and ready.status == "True" and not run.new_generation and not run.requested
        if not settled or (status.observed_policies or {}) != refs or status.observed_source_revision is None:
            return False
        with failures():
            remote = await mirror.ls_remote()
            if source.same_branch and source.refspec is None:
                head = remote.commit(f"refs/heads/{source.push_branch}")
                return bool(status.observed_source_revision == f"{source.push_branch}@sha1:{head}")
            return await self._same_ground(run.resource.key, source, mirror, remote)

    async def _same_ground(self, key: Key, source: Source, mirror: Mirror, remote: RemoteRefs) -> bool:
        last = self._grounds.get(key)
        if last is None or last[0] != _shape(source):
            return False
        checkout = await mirror.resolve(source.reference, remote, choose_version(source.reference.semver))
        head = remote.commit(f"refs/heads/{source.push_branch}")
        return (checkout, head) == (last[1].checkout, last[1].push_head)

    def _nothing_waits(self, run: Run) -> None:
        self.gathering.leave(run.resource.key)
        run.set(pending_since=None, pending_until=None)

    def _report(self, run: Run, job: Job, written: Written) -> Success:
        source, update = job.source, job.latest
        _tell(run, job)
        self._nothing_waits(run)
        head = written.commit or written.ground.push_head
        self._grounds[run.resource.key] = (_shape(source), Ground(written.ground.checkout, head, written.ground.base))
        revision = written.ground.checkout.revision
        if source.same_branch and head is not None:
            revision = f"{source.push_branch}@sha1:{head}"
        run.set(observed_source_revision=revision, skipped=list(update.skipped) or None, push_refused_time=None)
        run.set(observed_policies=None if job.contested else dict(job.refs) or None)
        if written.commit is None:
            return Success(UP_TO_DATE, after=run.resource.spec.interval, quiet=True, trace=UP_TO_DATE)
        run.set(last_push_commit=written.commit, last_push_time=timestamp(self.clock.now()))
        traces = tuple(sorted(trace_of(ref.name, ref.tag) for ref in brought(job.refs, update)))
        log.info("pushed", commit=written.commit, trace=list(traces))
        self._bus.pushed(Pushed(job.mirror.url, source.push_branch, written.commit, traces, written.head))
        summary = f"pushed commit '{written.commit[:7]}' to branch '{source.push_branch}'"
        if source.refspec is not None:
            summary += f" and refspecs '{source.refspec[0]}'"
        if written.message:
            summary += f"\n{written.message}"
        return Success(UP_TO_DATE, after=run.resource.spec.interval, event=summary, quiet=True, changed=True)

    async def _prepare(self, resource: ImageUpdateAutomation) -> Job:
        refs = await self._policies(resource)
        source = await self._find(resource)
        mirror = self._mirrors.mirror(source.url, source.credentials, source.timeout)
        return self._job(resource, refs, source, mirror)

    def _job(
        self,
        resource: ImageUpdateAutomation,
        refs: Mapping[str, ImageRef],
        source: Source,
        mirror: Mirror,
        *,
        rehearsal: bool = False,
    ) -> Job:
        """A job that leaves to people what they set back; in a rehearsal nothing is written for it."""

        async def people(job: Job, ground: Ground) -> Mapping[str, str]:
            shape, before = self._grounds.get(resource.key, ("", None))
            before = before if shape == _shape(source) else None
            tell = None if rehearsal else job.tell
            return await self._reverts.left_to_people(Scene(resource, refs, source, mirror, ground, job.latest, before, tell))

        return Job(resource, refs, source, mirror, self.memory, self.clock, people)


def _tell(run: Run, job: Job) -> None:
    for news in job.news:
        run.tell(*news)
    job.news.clear()


def _shape(source: Source) -> str:
    return f"{source.url} {source.reference} {source.push_branch} {source.refspec} {source.options}"
