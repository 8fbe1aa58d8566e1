"""ImageUpdateAutomation: bring the marked values of a repository to what the policies chose; commit and push.

Behaves like Flux's ImageUpdateAutomation; what is better stands in `docs/differences.md`: every push has a lease, a lost race is
run again, branch and refspec are pushed together or not at all, a changed spec and a request lead to a full run, an idle interval
costs one `ls-remote`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta

from imagebot.api import ImagePolicy, ImageRef, ImageUpdateAutomation
from imagebot.bot.job import Job, brought
from imagebot.bot.proposal import Proposal
from imagebot.bot.source import Source, Sources, source_key
from imagebot.bot.update import MarkerMemory, Update
from imagebot.bot.writer import Ground, Writers, Written
from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.selectors import compile_selector
from reconcile.errors import Failed, Invalid, ReasonedError, ReconcileError, Stalled
from reconcile.git.errors import PushFailed, SigningFailed
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.tags import choose_version
from reconcile.git.types import RemoteRefs
from reconcile.ports.clock import Clock, parse_timestamp, timestamp
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import Bus, Pushed, trace_of
from reconcile.runtime.index import Dependants
from reconcile.runtime.logs import get_logger
from reconcile.runtime.outcome import Success
from reconcile.runtime.run import Reconciler, Run

log = get_logger("controller")

UP_TO_DATE = "repository up-to-date"
NO_CHANGE = "no change since last reconciliation"
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
    ) -> None:
        """`settled` waits until choices that are under way are made; `fence` raises when nothing may be pushed; `bus` is told of
        pushes."""
        self._bus = bus or Bus()
        self._settled = settled
        self._store = store
        self._sources = sources
        self._mirrors = mirrors
        self.clock = clock
        self._writers = Writers(fence)
        self.memory = MarkerMemory()
        self.dependants: Dependants[Key] = Dependants(source_key)
        """Automations by their GitRepository."""
        self._grounds: dict[Key, tuple[str, Ground]] = {}
        """Where each automation found everything in order last: cheap runs of every mode compare with it."""

    async def reconcile(self, run: Run) -> Success:
        """One pass; raises Stalled for what only an edit mends, Failed for the rest."""
        resource: ImageUpdateAutomation = run.resource
        self._stamp(run)
        refs = await self._policies(resource)
        source = await self._sources.find(resource)
        mirror = self._mirrors.mirror(source.url, source.credentials, source.timeout)
        if await self._nothing_due(run, refs, source, mirror):
            return Success(UP_TO_DATE, after=resource.spec.interval, quiet=True, trace=NO_CHANGE)
        await self._settled()
        refs = await self._policies(resource)
        job = Job(resource, refs, source, mirror, self.memory, self.clock)
        try:
            written = await self._writers.write(mirror, source, job.build)
        except ReasonedError:
            raise
        except (PushFailed, SigningFailed) as error:
            raise Failed("GitOperationFailed", f"failed to update source: {error}") from error
        except ReconcileError as error:
            raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error
        return self._report(run, refs, source, mirror, job.latest, written)

    async def removed(self, resource: AnyResource) -> None:
        """Forget what was remembered; nothing is ever removed from Git."""
        self._grounds.pop(resource.key, None)

    async def close(self) -> None:
        """Abandon pushes that are under way."""
        await self._writers.close()

    async def propose(self, resource: ImageUpdateAutomation, tops: Mapping[tuple[str, str], str]) -> Proposal:
        """What a pass over the automation would commit now; nothing is pushed and no status is written.

        Args:
            resource: The automation.
            tops: By URL and branch, commits of other proposals that would be pushed there before.

        Raises:
            Stalled: Only an edit mends it.
            Failed: The source cannot be read, or nothing can be built on it.
        """
        refs = await self._policies(resource)
        source, mirror, ground = await self.ground(resource, tops)
        job = Job(resource, refs, source, mirror, self.memory, self.clock)
        try:
            built = await job.build(ground)
        except ReasonedError:
            raise
        except SigningFailed as error:
            raise Failed("GitOperationFailed", f"failed to update source: {error}") from error
        except ReconcileError as error:
            raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error
        return Proposal(source, mirror, refs, ground, built, job.latest)

    async def ground(self, resource: ImageUpdateAutomation, tops: Mapping[tuple[str, str], str]) -> tuple[Source, Mirror, Ground]:
        """Where a pass over the automation would write now, and on top of what; see `propose`."""
        source = await self._sources.find(resource)
        mirror = self._mirrors.mirror(source.url, source.credentials, source.timeout)
        try:
            remote = await mirror.ls_remote()
            checkout = await mirror.resolve(source.reference, remote, choose_version(source.reference.semver))
            head = remote.commit(f"refs/heads/{source.push_branch}")
            top = tops.get((source.url, source.push_branch))
            if top is None:
                await mirror.fetch(head or checkout.commit)
        except ReconcileError as error:
            raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error
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

    # --- steps

    def _stamp(self, run: Run) -> None:
        last = run.resource.status.last_automation_run_time
        due = last is None or run.now - parse_timestamp(last) >= HEARTBEAT
        run.stamp(lambda status: status.model_copy(update={"last_automation_run_time": run.timestamp}), due=due)

    async def _policies(self, resource: ImageUpdateAutomation) -> dict[str, ImageRef]:
        try:
            matches = compile_selector(resource.spec.policy_selector)
        except Invalid as error:
            raise Stalled("InvalidPolicySelector", f"failed to parse policy selector: {error}") from error
        policies: Iterable[ImagePolicy] = await self._store.list("ImagePolicy", resource.key.namespace)
        return {p.key.name: p.status.latest_ref for p in policies if p.status.latest_ref is not None and matches(p.meta.labels)}

    async def _nothing_due(self, run: Run, refs: Mapping[str, ImageRef], source: Source, mirror: Mirror) -> bool:
        """Whether the remote and the policies are as the last completed run left them; costs one `ls-remote`."""
        status = run.resource.status
        ready = cond.get(status.conditions, cond.READY)
        settled = ready is not None and ready.status == "True" and not run.new_generation and not run.requested
        if not settled or (status.observed_policies or {}) != refs or status.observed_source_revision is None:
            return False
        try:
            remote = await mirror.ls_remote()
            if source.same_branch and source.refspec is None:
                head = remote.commit(f"refs/heads/{source.push_branch}")
                return bool(status.observed_source_revision == f"{source.push_branch}@sha1:{head}")
            return await self._same_ground(run.resource.key, source, mirror, remote)
        except ReconcileError as error:
            raise Failed("GitOperationFailed", f"failed to checkout source: {error}") from error

    async def _same_ground(self, key: Key, source: Source, mirror: Mirror, remote: RemoteRefs) -> bool:
        last = self._grounds.get(key)
        if last is None or last[0] != _shape(source):
            return False
        checkout = await mirror.resolve(source.reference, remote, choose_version(source.reference.semver))
        head = remote.commit(f"refs/heads/{source.push_branch}")
        return (checkout, head) == (last[1].checkout, last[1].push_head)

    def _report(
        self, run: Run, refs: Mapping[str, ImageRef], source: Source, mirror: Mirror, update: Update, written: Written
    ) -> Success:
        head = written.commit or written.ground.push_head
        self._grounds[run.resource.key] = (_shape(source), Ground(written.ground.checkout, head, written.ground.base))
        revision = written.ground.checkout.revision
        if source.same_branch and head is not None:
            revision = f"{source.push_branch}@sha1:{head}"
        run.set(observed_policies=dict(refs) or None, observed_source_revision=revision, skipped=list(update.skipped) or None)
        if written.commit is None:
            return Success(UP_TO_DATE, after=run.resource.spec.interval, quiet=True, trace=UP_TO_DATE)
        run.set(last_push_commit=written.commit, last_push_time=timestamp(self.clock.now()))
        traces = tuple(sorted(trace_of(ref.name, ref.tag) for ref in brought(refs, update)))
        log.info("pushed", commit=written.commit, trace=list(traces))
        self._bus.pushed(Pushed(mirror.url, source.push_branch, written.commit, traces, written.head))
        summary = f"pushed commit '{written.commit[:7]}' to branch '{source.push_branch}'"
        if source.refspec is not None:
            summary += f" and refspecs '{source.refspec[0]}'"
        if written.message:
            summary += f"\n{written.message}"
        return Success(UP_TO_DATE, after=run.resource.spec.interval, event=summary, quiet=True, changed=True)


def _shape(source: Source) -> str:
    return f"{source.url} {source.reference} {source.push_branch} {source.refspec} {source.options}"
