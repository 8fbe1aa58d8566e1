"""Runs a reconciler: makes passes, writes the status, tells people, decides when to come back.

Retry policy, conditions and events exist here once; reconcilers hold only their domain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconcile.api import conditions as cond
from reconcile.api.meta import FINALIZER, CommonStatus, Key
from reconcile.api.resource import AnyResource, dump
from reconcile.errors import Conflict, NotFound, ReconcileError
from reconcile.ports.clock import timestamp
from reconcile.ports.events import EventType
from reconcile.runtime import outcome as results
from reconcile.runtime.bus import traced
from reconcile.runtime.logs import get_logger
from reconcile.runtime.loop import KeyedLoop, Mapper, Surroundings, light, unless_stopped
from reconcile.runtime.outcome import Outcome, Pending, Success, Verdict
from reconcile.runtime.run import Reconciler, Run, status_with_conditions
from reconcile.runtime.telling import Teller

log = get_logger("controller")

MAX_CONFLICTS = 5
BACKLOG = 2
"""Waiting objects per worker above which passes do not show their progress."""


class Controller(KeyedLoop):
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
        super().__init__(reconciler.kind, around, name=name, workers=workers, watches=watches)
        self.reconciler = reconciler
        self._teller = Teller(around.events, around.metrics, name)

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
        if self.reconciler.static(resource):
            return await self._clear(resource)
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
        if resource.meta.deletion_timestamp and FINALIZER in resource.meta.finalizers:
            await self.reconciler.finalize(resource)
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

    async def _clear(self, resource: AnyResource) -> Verdict | None:
        """Leave nothing of ours on an object that is only data, perhaps since its last change."""
        if dump(resource.status):
            written = await self._write(resource, type(resource.status)())
            if written is None:
                return None
            resource = written
        if FINALIZER not in resource.meta.finalizers:
            return None
        return await self._delete(resource)

    async def _suspended(self, resource: AnyResource) -> Verdict | None:
        asked = resource.meta.requested_at
        changes: dict[str, Any] = dict(self.reconciler.when_suspended(resource))
        if self.reconciler.acknowledges_suspended and asked:
            changes["last_handled_reconcile_at"] = asked
        if self.reconciler.observes_suspended(resource):
            changes["observed_generation"] = resource.meta.generation
        if changes:
            await self._write(resource, resource.status.model_copy(update=changes))
        return Verdict()

    async def _reconcile(self, resource: AnyResource) -> Verdict | None:
        around = self._around
        run = Run(
            resource,
            around.clock.now(),
            lambda must: self._announce(run, must=must),
            lambda kind, reason, message, metadata: self._teller.tell(run.resource, kind, reason, message, metadata),
        )
        generation = resource.meta.generation
        if self.reconciler.announces_start:
            run.conditions = results.begin(
                run.conditions, generation=generation, observed=resource.status.observed_generation, now=run.timestamp
            )
            if run.new_generation or (self.reconciler.announces_requests and run.requested):
                await self._announce(run)
        outcome: Outcome
        try:
            outcome = await self.reconciler.reconcile(run)
        except asyncio.CancelledError as caught:
            outcome = unless_stopped(caught)
        except ReconcileError as error:
            outcome = error
        except Exception as error:
            log.exception("reconciler failed unexpectedly")
            around.metrics.reconcile_panics.labels(self.label).inc()
            outcome = error
        ended = timestamp(around.clock.now())
        verdict = results.conclude(
            run.conditions, outcome, generation=generation, now=ended, announced=self.reconciler.announces_start
        )
        if isinstance(outcome, Pending) and not run.new_generation:
            return verdict  # what the object said before still holds, nothing is worth a write
        if await self._finish(run, verdict) is None:
            return None  # the object is gone, and with it everything there was to say
        self.outcomes[resource.key] = light(outcome)
        if isinstance(outcome, Success) and outcome.changed:
            self.effects[resource.key] = outcome
        self._tell(resource, run, verdict, outcome)
        around.metrics.show_conditions(self.kind, resource.key, verdict.conditions)
        return verdict

    # --- writing

    async def _announce(self, run: Run, *, must: bool = False) -> None:
        """Show how far the pass has got. Not while many others wait, unless it `must` be: after a start, writing what is over in
        a moment would keep everybody from the end for longer than it lasts."""
        if not must and len(self.queue) > BACKLOG * self.workers:
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
            if verdict.told and (old is None or old.status != "False" or (old.reason, old.message) != (reason, message)):
                self._teller.tell(before, EventType(verdict.told), reason, verdict.event, run.metadata)
            return
        if isinstance(outcome, Pending) or not isinstance(outcome, Success):
            return
        recovered = old is None or old.status != "True"
        news = old is not None and old.message != cond.cut(outcome.message) and not outcome.quiet
        if outcome.event is not None or recovered or news:
            text = outcome.event if outcome.event is not None else outcome.message
            metadata = {**run.metadata, **outcome.metadata}
            log.info(text.partition("\n")[0], **traced(metadata))
            self._teller.tell(before, EventType(outcome.event_type), outcome.event_reason or outcome.reason, text, metadata)
        elif run.requested and outcome.trace:
            self._teller.tell(before, EventType.TRACE, cond.SUCCEEDED, outcome.trace, {})

    async def _gone(self, resource: AnyResource) -> None:
        await self.reconciler.removed(resource)
