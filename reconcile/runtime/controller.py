"""Runs a reconciler: takes keys from the queue, makes passes, writes the status, tells people, decides when to come back.

Retry policy, conditions, events and metrics exist here once; reconcilers hold only their domain.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconcile.api import conditions as cond
from reconcile.api.meta import EVENT_ANNOTATIONS, FINALIZER, CommonStatus, Key
from reconcile.api.resource import AnyResource, dump
from reconcile.errors import Conflict, NotFound, ReconcileError
from reconcile.ports.clock import Clock, timestamp
from reconcile.ports.events import Event, EventSink, EventType
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime import outcome as results
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.logs import bound, get_logger
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Outcome, Pending, Success, Verdict
from reconcile.runtime.queue import KeyQueue
from reconcile.runtime.run import Reconciler, Run, status_with_conditions
from reconcile.runtime.schedule import Timers

log = get_logger("controller")

MAX_CONFLICTS = 5
BACKLOG = 2
"""Waiting objects per worker above which passes do not show their progress."""
Mapper = Callable[[Change], Awaitable[Iterable[Key]]]


@dataclass
class Surroundings:
    """What every controller is given."""

    store: Store
    clock: Clock
    timers: Timers
    events: EventSink
    metrics: Metrics
    back_off: BackOff = field(default_factory=BackOff)
    mine: Callable[[AnyResource], bool] = lambda _: True
    """Which objects are ours to reconcile: those of our shard. The others are only read."""
    retry: bool = True
    """False in a single pass: an object that fails is not looked at again."""


class Controller:
    """One kind: its queue, its workers, its reconciler."""

    def __init__(
        self,
        reconciler: Reconciler,
        around: Surroundings,
        *,
        name: str,
        workers: int,
        watches: Mapping[str, Mapper] | None = None,
    ) -> None:
        self.reconciler = reconciler
        self.kind = reconciler.kind
        self.name = name
        self.workers = workers
        self.watches = dict(watches or {})
        self.notes: list[Callable[[Change], None]] = []
        """Told of every change of our own kind before anybody is woken: indexes live here."""
        self.queue: KeyQueue[Key] = KeyQueue()
        self.failures: dict[Key, int] = {}
        self.outcomes: dict[Key, Outcome] = {}
        """Last outcome of each object: what a single pass reports."""
        self.effects: dict[Key, Success] = {}
        """Last outcome of each object that changed something outside."""
        self._around = around
        around.metrics.announce(self.label, workers)

    @property
    def label(self) -> str:
        """Name of the controller in metrics and logs: the kind in lower case, as upstream."""
        return self.kind.lower()

    # --- what wakes an object

    async def notice(self, change: Change) -> None:
        """Look at a change of our own kind or of one we watch, and wake whom it concerns."""
        if change.new.kind == self.kind:
            key = change.new.key
            for note in self.notes:
                note(change)
            if change.type is ChangeType.DELETED:
                await self._forget(change.new)
            elif _wakes(change) or self._joins(change):
                self.add(key)
        mapper = self.watches.get(change.new.kind)
        if mapper is not None:
            for key in await self._concerned(mapper, change):
                self.add(key)

    def _joins(self, change: Change) -> bool:
        """Whether the object has come into our shard: its labels changed."""
        mine = self._around.mine
        return change.old is not None and mine(change.new) and not mine(change.old)

    async def _concerned(self, mapper: Mapper, change: Change) -> Iterable[Key]:
        try:
            return await mapper(change)
        except Exception:
            # A change that nobody notices would be worse than a pass too many.
            log.exception("could not tell whom a change concerns; waking all", controller=self.label, kind=change.new.kind)
            self._around.metrics.reconcile_panics.labels(self.label).inc()
            return [resource.key for resource in await self._around.store.list(self.kind)]

    def add(self, key: Key) -> None:
        """Ask for a pass over `key` now."""
        self._around.metrics.queue_adds.labels(self.label).inc()
        self.queue.add(key)
        self._around.metrics.queue_depth.labels(self.label).set(len(self.queue))

    # --- the work

    async def work(self) -> None:
        """One worker: never ends; run as many as `workers` says."""
        active = self._around.metrics.active_workers.labels(self.label)
        while True:
            key = await self.queue.take()
            self._around.metrics.queue_depth.labels(self.label).set(len(self.queue))
            active.inc()
            try:
                await self.step(key)
            finally:
                active.dec()
                self.queue.done(key)
                self._around.metrics.queue_depth.labels(self.label).set(len(self.queue))

    async def step(self, key: Key) -> None:
        """One pass with everything round it; raises nothing but cancellation."""
        around = self._around
        around.timers.cancel(self._timer(key))
        started = time.perf_counter()
        identity = str(uuid.uuid4())
        with bound(controller=self.label, namespace=key.namespace, name=key.name, reconcileID=identity):
            try:
                verdict = await self._pass(key)
            except ReconcileError as error:  # the store itself: nothing could be written
                log.error("could not reconcile", error=str(error))
                self.outcomes[key] = _light(error)
                verdict = Verdict((), observed=False, back_off=True, result="error")
            except Exception as error:
                log.exception("unexpected failure of the controller")
                around.metrics.reconcile_panics.labels(self.label).inc()
                self.outcomes[key] = _light(error)
                verdict = Verdict((), observed=False, back_off=True, result="error")
        spent = time.perf_counter() - started
        around.metrics.reconcile_time.labels(self.label).observe(spent)
        if verdict is None:
            return
        around.metrics.duration.labels(self.kind, key.name, key.namespace).observe(spent)
        around.metrics.reconciles.labels(self.label, verdict.result).inc()
        self._come_back(key, verdict)

    def _come_back(self, key: Key, verdict: Verdict) -> None:
        around, delay = self._around, verdict.after
        if verdict.back_off:
            self.failures[key] = self.failures.get(key, 0) + 1
            around.metrics.reconcile_errors.labels(self.label).inc()
            delay = around.back_off.delay(self.failures[key])
        else:
            self.failures.pop(key, None)
        if not delay or not around.retry:  # upstream's requeue after 0 s means: not by time
            return
        if verdict.back_off:
            around.metrics.queue_retries.labels(self.label).inc()
        around.timers.later(self._timer(key), delay, lambda: self.add(key))

    def _timer(self, key: Key) -> str:
        return f"{self.kind}/{key}"

    async def _pass(self, key: Key) -> Verdict | None:
        around = self._around
        try:
            resource = await around.store.get(self.kind, key)
        except NotFound:
            self.failures.pop(key, None)
            return None
        if not around.mine(resource):
            return None
        if resource.meta.deletion_timestamp:
            return await self._delete(resource)
        if FINALIZER not in resource.meta.finalizers:
            try:
                resource = await around.store.write_finalizers(resource, [*resource.meta.finalizers, FINALIZER])
            except Conflict:
                self.add(key)
                return None
            except NotFound:
                return None
        around.metrics.suspended.labels(self.kind, key.name, key.namespace).set(bool(resource.spec.suspend))
        if resource.spec.suspend:
            return await self._suspended(resource)
        return await self._reconcile(resource)

    async def _delete(self, resource: AnyResource) -> Verdict | None:
        await self.reconciler.removed(resource)
        left = [f for f in resource.meta.finalizers if f != FINALIZER]
        if left != resource.meta.finalizers:
            try:
                await self._around.store.write_finalizers(resource, left)
            except Conflict:
                self.add(resource.key)
            except NotFound:
                return None
        return None

    async def _suspended(self, resource: AnyResource) -> Verdict | None:
        asked = resource.meta.requested_at
        if self.reconciler.acknowledges_suspended and asked and asked != resource.status.last_handled_reconcile_at:
            await self._write(resource, resource.status.model_copy(update={"last_handled_reconcile_at": asked}))
        return Verdict((), observed=False)

    async def _reconcile(self, resource: AnyResource) -> Verdict | None:
        around = self._around
        run = Run(resource, around.clock.now(), lambda: self._announce(run))
        generation = resource.meta.generation
        run.conditions = results.begin(
            run.conditions, generation=generation, observed=resource.status.observed_generation, now=run.timestamp
        )
        if run.new_generation or (self.reconciler.announces_requests and run.requested):
            await self._announce(run)
        outcome: Outcome
        try:
            outcome = await self.reconciler.reconcile(run)
        except ReconcileError as error:
            outcome = error
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Something that the reconciler waited for was cancelled, not this worker: it must live on.
            outcome = RuntimeError("what the pass waited for was cancelled")
            outcome.__cause__ = error
        except Exception as error:
            log.exception("reconciler failed unexpectedly")
            around.metrics.reconcile_panics.labels(self.label).inc()
            outcome = error
        ended = timestamp(around.clock.now())
        verdict = results.conclude(run.conditions, outcome, generation=generation, now=ended)
        if isinstance(outcome, Pending) and not run.new_generation:
            return verdict  # what the object said before still holds, nothing is worth a write
        if await self._finish(run, verdict) is None:
            return None  # the object is gone, and with it everything there was to say
        self.outcomes[resource.key] = _light(outcome)
        if isinstance(outcome, Success) and outcome.changed:
            self.effects[resource.key] = outcome
        self._tell(resource, run, verdict, outcome)
        around.metrics.show_conditions(self.kind, resource.key, verdict.conditions)
        return verdict

    # --- writing

    async def _announce(self, run: Run) -> None:
        """Show how far the pass has got. Not while many others wait: after a start, writing what is over in a moment would keep
        everybody from the end for longer than it lasts."""
        if len(self.queue) > BACKLOG * self.workers:
            return
        written = await self._write(run.resource, status_with_conditions(run.status, run.conditions))
        if written is None:
            return
        # The pass goes on with the spec and the request that it began with, also if somebody changed them meanwhile: it must not
        # say of a generation that it has seen it when it has not.
        meta = run.resource.meta.model_copy(update={"resource_version": written.meta.resource_version})
        run.resource = replace(run.resource, meta=meta, status=written.status)

    async def _finish(self, run: Run, verdict: Verdict) -> AnyResource | None:
        before = run.resource.status
        # A pass that ends as the last one did has changed nothing, whatever it showed on the way.
        status = status_with_conditions(run.status, cond.keep_times(verdict.conditions, before.conditions))
        if verdict.observed:
            status = status.model_copy(update={"observed_generation": run.resource.meta.generation})
        if run.resource.meta.requested_at:
            status = status.model_copy(update={"last_handled_reconcile_at": run.resource.meta.requested_at})
        if run.heartbeat or dump(status) != dump(before):
            for change in run.stamps:
                status = change(status)
        return await self._write(run.resource, status)

    async def _write(self, resource: AnyResource, status: CommonStatus) -> AnyResource | None:
        """Write if it differs; on a conflict read again and put our status on the newer object. None: the object is gone."""
        store = self._around.store
        for _ in range(MAX_CONFLICTS):
            if dump(status) == dump(resource.status):
                return resource
            try:
                written = await store.write_status(resource, status)
            except Conflict:
                self._around.metrics.store_conflicts.labels(self.kind).inc()
                try:
                    newer = await store.get(self.kind, resource.key)
                except NotFound:
                    return None
                if newer.meta.uid != resource.meta.uid:
                    return None
                resource = newer
                continue
            except NotFound:
                return None
            self._around.metrics.status_writes.labels(self.kind).inc()
            return written
        raise Conflict(f"the status of {self.kind} {resource.key} was changed by somebody else {MAX_CONFLICTS} times in a row")

    # --- telling

    def _tell(self, before: AnyResource, run: Run, verdict: Verdict, outcome: Outcome) -> None:
        old = cond.get(before.status.conditions, cond.READY)
        if verdict.warning is not None:
            reason, message = verdict.warning[0], cond.cut(verdict.warning[1])
            log.error("reconciliation failed", reason=reason, error=message)
            if old is None or old.status != "False" or (old.reason, old.message) != (reason, message):
                self._emit(before, EventType.WARNING, reason, message, {})
            return
        if isinstance(outcome, Pending) or not isinstance(outcome, Success):
            return
        recovered = old is None or old.status != "True"
        news = old is not None and old.message != cond.cut(outcome.message) and not outcome.quiet
        if outcome.event is not None or recovered or news:
            text = outcome.event if outcome.event is not None else outcome.message
            log.info(text.partition("\n")[0])
            self._emit(before, EventType.NORMAL, cond.SUCCEEDED, text, outcome.metadata)
        elif run.requested and outcome.trace:
            self._emit(before, EventType.TRACE, cond.SUCCEEDED, outcome.trace, {})

    def _emit(self, resource: AnyResource, kind: EventType, reason: str, message: str, metadata: Mapping[str, str]) -> None:
        forwarded = {
            k.removeprefix(EVENT_ANNOTATIONS): v
            for k, v in resource.meta.annotations.items()
            if k.startswith(EVENT_ANNOTATIONS) and k != EVENT_ANNOTATIONS
        }
        self._around.metrics.events.labels(self.kind, kind.value, reason).inc()
        self._around.events.emit(Event(resource, kind, reason, cond.cut(message), self.name, {**forwarded, **metadata}))

    async def _forget(self, resource: AnyResource) -> None:
        key = resource.key
        self._around.timers.cancel(self._timer(key))
        self.failures.pop(key, None)
        self.outcomes.pop(key, None)
        self.effects.pop(key, None)
        self._around.metrics.forget(self.kind, key.namespace, key.name)
        try:
            await self.reconciler.removed(resource)
        except Exception:
            log.exception("could not clean up after an object", kind=self.kind, name=key.name, namespace=key.namespace)


def _wakes(change: Change) -> bool:
    """Creation, a new generation, a new request, or the start of deletion; labels, other annotations and status do not."""
    if change.old is None:
        return True
    old, new = change.old.meta, change.new.meta
    return (
        old.uid != new.uid
        or old.generation != new.generation
        or old.requested_at != new.requested_at
        or old.deletion_timestamp != new.deletion_timestamp
    )


def _light(outcome: Outcome) -> Outcome:
    """`outcome` without the frames of its traceback: what is kept until the next pass must not keep alive what the pass held."""
    error: BaseException | None = outcome if isinstance(outcome, Exception) else None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return outcome
