"""A loop over the objects of one kind: what wakes them, their queue, workers and timers, the delay after a failure, metrics.

What a pass does is its subclass's: `runtime.controller` has the one that speaks in conditions.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import ReconcileError
from reconcile.ports.clock import Clock
from reconcile.ports.events import EventSink
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.logs import bound, get_logger
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Outcome, Success, Verdict
from reconcile.runtime.queue import KeyQueue
from reconcile.runtime.schedule import Timers

log = get_logger("controller")

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


class KeyedLoop(ABC):
    """One kind: its queue, its workers, its passes.

    A subclass says what a pass is (`_pass`), and may say what wakes an object (`_wakes`) and what is to be dropped with it
    (`_gone`). Passes over one object never overlap; an object that is woken during its pass gets one more.

    Args:
        kind: Whose objects these are.
        around: What every loop is given.
        name: Name of the controller, for events.
        workers: Passes at once.
        watches: Whom changes of other kinds of the store concern.
    """

    def __init__(
        self,
        kind: str,
        around: Surroundings,
        *,
        name: str,
        workers: int,
        watches: Mapping[str, Mapper] | None = None,
    ) -> None:
        self.kind = kind
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

    # --- what a subclass says

    @abstractmethod
    async def _pass(self, key: Key) -> Verdict | None:
        """One pass over an object.

        Returns:
            When to come back: `after` seconds, or after a growing delay with `back_off`. None: there is nothing to come back for,
            and nothing to count, because the object is gone, is not ours, or was woken anew.

        Raises:
            Exception: It failed where it could not tell anybody; the object is looked at again after a growing delay.
        """

    def _wakes(self, change: Change) -> bool:
        """Whether a change of an object of ours asks for a pass.

        Creation, a new generation, a new request, or the start of deletion; labels, other annotations and status do not.
        """
        if change.old is None:
            return True
        old, new = change.old.meta, change.new.meta
        return (
            old.uid != new.uid
            or old.generation != new.generation
            or old.requested_at != new.requested_at
            or old.deletion_timestamp != new.deletion_timestamp
        )

    async def _gone(self, resource: AnyResource) -> None:  # noqa: B027 - most keep nothing
        """An object of ours does not exist any more: drop what was kept for it."""

    # --- what wakes an object

    async def notice(self, change: Change) -> None:
        """Look at a change of our own kind or of one we watch, and wake whom it concerns."""
        if change.new.kind == self.kind:
            key = change.new.key
            for note in self.notes:
                note(change)
            if change.type is ChangeType.DELETED:
                await self._forget(change.new)
            elif self._wakes(change) or self._joins(change):
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
                self.outcomes[key] = light(error)
                verdict = Verdict(back_off=True, result="error")
            except (Exception, asyncio.CancelledError) as caught:
                failure = unless_stopped(caught)
                log.exception("unexpected failure of the controller")
                around.metrics.reconcile_panics.labels(self.label).inc()
                self.outcomes[key] = light(failure)
                verdict = Verdict(back_off=True, result="error")
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

    async def _forget(self, resource: AnyResource) -> None:
        key = resource.key
        self._around.timers.cancel(self._timer(key))
        self.failures.pop(key, None)
        self.outcomes.pop(key, None)
        self.effects.pop(key, None)
        self._around.metrics.forget(self.kind, key.namespace, key.name)
        try:
            await self._gone(resource)
        except Exception:
            log.exception("could not clean up after an object", kind=self.kind, name=key.name, namespace=key.namespace)


def light(outcome: Outcome) -> Outcome:
    """`outcome` without the frames of its traceback: what is kept until the next pass must not keep alive what the pass held."""
    error: BaseException | None = outcome if isinstance(outcome, Exception) else None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return outcome


def unless_stopped(caught: BaseException) -> Exception:
    """What a pass ended with, as an error: also when something that it waited for was cancelled, as the worker must live on.

    Raises what was caught when it is the worker itself that is to stop.
    """
    if isinstance(caught, Exception):
        return caught
    task = asyncio.current_task()
    if not isinstance(caught, asyncio.CancelledError) or task is None or task.cancelling():
        raise caught
    error = RuntimeError("what the pass waited for was cancelled")
    error.__cause__ = caught
    return error
