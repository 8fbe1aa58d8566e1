"""One pass over one Kustomization whose source and dependencies are ready: build, apply, prune, wait, say what came of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from reconcile.api import conditions as cond
from reconcile.api.appliers import Inventory, InventoryEntry
from reconcile.api.duration import format_duration
from reconcile.apply.changeset import Action, ChangeSet, Drift, PruneFailed
from reconcile.apply.engine import Applier
from reconcile.apply.health import HealthCheckCanceled, HealthCheckFailed, wait
from reconcile.apply.inventory import Entry, entries_of, merged, stale
from reconcile.apply.memory import seen_state
from reconcile.apply.owner import Owner
from reconcile.apply.prepare import prepared
from reconcile.artifact.errors import ArtifactMissing, FetchError
from reconcile.artifact.fetch import Opened
from reconcile.errors import Failed, ReconcileError, Waiting
from reconcile.kustomize.decrypt import EncryptedSecret
from reconcile.kustomize.failure import BuildFailed, PathNotFound
from reconcile.kustomize.history import Snapshot, with_snapshot
from reconcile.kustomize.inputs import Surround, configs, digest, versions
from reconcile.kustomize.sources import OUR_GROUP, Input, plain_metadata
from reconcile.kustomize.target import Target
from reconcile.kustomize.times import Times
from reconcile.kustomize.tools import Tools
from reconcile.ports.cluster import Healthy, Object, Reference
from reconcile.ports.events import EventType
from reconcile.runtime.backoff import jittered
from reconcile.runtime.bus import traced
from reconcile.runtime.logs import get_logger
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Run

log = get_logger("kustomize")

HEALTHY = "Healthy"
SUCCEEDED = "ReconciliationSucceeded"
FAILED = "ReconciliationFailed"
AT_ONCE = 0.001
"""Seconds: as soon as the queue lets it."""
SLOW = 1.0
"""Seconds after which a pass shows how far it has got; most are over before."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build led to."""

    objects: list[Object]
    digest: str
    """Of the objects, for the history."""


class Pass:
    """The state of a pass, and its steps in order."""

    def __init__(self, tools: Tools, run: Run, given: Input, times: Times, readers: Healthy | None) -> None:
        self.tools, self.run, self.given, self.times, self.readers = tools, run, given, times, readers
        self.resource = run.resource
        self.before = run.resource.status
        """The status as it was when the pass began."""
        self.owner = Owner(self.resource.key.name, self.resource.key.namespace)
        self.began = tools.clock.monotonic()
        self.read: Mapping[str, str] = {}
        self.tool = ""
        self.changed = False

    async def go(self) -> Success | Pending:
        """The pass. Raises what a reconciler raises."""
        tools, spec, artifact = self.tools, self.resource.spec, self.given.artifact
        self.read = await versions(tools.objects, configs(self.resource, tools.age_secret))
        self.tool = await tools.renderer.version()
        known = tools.renderer.known_reach(artifact.digest, spec)
        if known is not None and await self._nothing_to_do(self._digest(known)):
            return await self._same(self._digest(known))
        await self._progress(f"Fetching manifests for revision {self.given.revision} with a timeout of {self._timeout}")
        try:
            async with tools.artifacts.opened(artifact) as opened:
                inputs = self._digest(await tools.renderer.reach(opened, artifact.digest, spec))
                if known is None and await self._nothing_to_do(inputs):
                    return await self._same(inputs)
                built = await self._build(opened)
        except PathNotFound as error:
            raise self._failed("ArtifactFailed", str(error)) from error
        except ArtifactMissing as error:
            text = f"Source is not ready, artifact not found, retrying in {format_duration(tools.requeue)}"
            raise Waiting("ArtifactFailed", text, tools.requeue, told="") from error
        except FetchError as error:
            raise self._failed("ArtifactFailed", str(error)) from error
        return await self._apply(built, inputs)

    # --- what is the same as last time

    def _digest(self, reach: str) -> str:
        tools = self.tools
        surround = Surround(tools.targets.account(self.resource), tools.strict, self.tool)
        return digest(self.resource, reach, self.read, surround)

    async def _nothing_to_do(self, inputs: str) -> bool:
        """Whether the last successful pass was made from the same inputs, and no object has moved since."""
        status = self.before
        if inputs != status.applied_inputs or not status.applied_state or self.resource.spec.kube_config is not None:
            return False
        if not cond.is_true(status.conditions, cond.READY) or status.inventory is None:
            return False
        references = [Entry(one.id, one.v).reference for one in status.inventory.entries]
        stamps = self.tools.stamps
        if stamps is None:
            return not references
        await stamps.follow({(one.api_version, one.kind) for one in references})
        return bool(seen_state((one, stamps.seen(one)) for one in references) == status.applied_state)

    async def _same(self, inputs: str) -> Success | Pending:
        """End a pass in which there was nothing to build and nothing to apply; health is looked at all the same."""
        run, revision = self.run, self.given.revision
        # Whoever asked, or has been shown progress, is not to see it hang.
        seen = run.requested or run.new_generation or run.resource.status is not self.before
        noted = revision == self.before.last_applied_revision
        if not seen and not noted and self.tools.waking.put_off(self.resource.key, revision):
            return Pending(f"has nothing to do for revision {revision}, which is noted later")
        await self._health([Entry(one.id, one.v).reference for one in self.before.inventory.entries])
        return self._succeeded(inputs, self.before.applied_state, None)

    # --- steps

    async def _build(self, opened: Opened) -> Built:
        self.run.set(last_attempted_revision=self.given.revision)
        await self._progress(f"Building manifests for revision {self.given.revision} with a timeout of {self._timeout}")
        try:
            objects = await self.tools.renderer.render(self.resource, opened, self.tools.age_secret)
        except BuildFailed as error:
            raise self._failed("BuildFailed", str(error)) from error
        except EncryptedSecret as error:
            raise self._failed(FAILED, str(error)) from error
        raw = await asyncio.to_thread(lambda: orjson.dumps(objects, option=orjson.OPT_SORT_KEYS))
        return Built(objects, "sha256:" + hashlib.sha256(raw).hexdigest())

    async def _apply(self, built: Built, inputs: str) -> Success:
        spec = self.resource.spec
        target = await self.tools.targets.find(self.resource, self.times.retry)
        await self._progress(f"Detecting drift for revision {self.given.revision} with a timeout of {self._timeout}")
        applier = self.tools.applier(target)
        metadata = spec.common_metadata
        old = [Entry(one.id, one.v) for one in self.before.inventory.entries] if self.before.inventory is not None else []
        try:
            objects = await asyncio.to_thread(
                prepared,
                built.objects,
                self.owner,
                labels=metadata.labels if metadata else None,
                annotations=metadata.annotations if metadata else None,
            )
            changes = await applier.apply(
                objects, owner=self.owner, force=bool(spec.force), ignore=spec.ignore or (), intend=self._intend
            )
        except ReconcileError as error:
            self._note(built, FAILED)
            raise self._failed(FAILED, str(error)) from error
        self._tell(changes, (Action.CREATED, Action.CONFIGURED))
        self.changed = bool(changes.changed)
        new = entries_of(changes.references())
        self._set_inventory(new)
        await self._prune(applier, built, stale(old, new), changes.references())
        references = changes.references(without=(Action.SKIPPED,))
        await self._health(references, target, built)
        state = applier.state(self.owner, changes.references()) if target.local else ""
        return self._succeeded(inputs, state, built)

    async def _intend(self, references: Sequence[Reference]) -> None:
        """Write down what is about to be applied, if it is new: a pass that fails must not leave what nobody knows of."""
        known = [Entry(one.id, one.v) for one in self.run.status.inventory.entries] if self.run.status.inventory else []
        more = merged(known, entries_of(references))
        if more != known:
            self._set_inventory(more)
            await self.run.save()

    def _set_inventory(self, entries: Sequence[Entry]) -> None:
        self.run.set(inventory=Inventory(entries=[InventoryEntry(id=one.id, v=one.v) for one in entries]))

    async def _prune(self, applier: Applier, built: Built, left: Sequence[Entry], wanted: Sequence[Reference]) -> None:
        if not left or not self.resource.spec.prune:
            return
        try:
            changes = await applier.prune([one.reference for one in left], owner=self.owner, keep=wanted)
        except PruneFailed as error:
            current = [Entry(one.id, one.v) for one in self.run.status.inventory.entries]
            self._set_inventory(merged(current, entries_of(error.left)))
            self._note(built, "PruneFailed")
            raise self._failed("PruneFailed", str(error)) from error
        self.changed = True
        self._tell(changes, (Action.DELETED, Action.SKIPPED))

    # --- health

    def _awaited(self, references: Sequence[Reference]) -> list[Reference]:
        spec, key = self.resource.spec, self.resource.key
        if spec.wait:
            myself = (OUR_GROUP, "Kustomization", key.namespace, key.name)
            return [one for one in references if (one.group, one.kind, one.namespace, one.name) != myself]
        found: list[Reference] = []
        for check in spec.health_checks or ():
            named = Reference(check.api_version or "apps/v1", check.kind, check.namespace or "", check.name)
            # Without a namespace an object that was applied is meant, wherever it is: upstream looks for it in none, in vain.
            placed = [one for one in references if (one.group, one.kind, one.name) == (named.group, named.kind, named.name)]
            found += [named] if check.namespace or not placed else placed
        return list(dict.fromkeys(found))

    async def _health(self, references: Sequence[Reference], target: Target | None = None, built: Built | None = None) -> None:
        """Wait until what is to be healthy is so; nothing is shown of a wait that is over at once."""
        awaited = self._awaited(references)
        if not awaited:
            self.run.conditions = cond.drop(self.run.conditions, HEALTHY)
            return
        target = target or await self.tools.targets.find(self.resource, self.times.retry)
        began, moved_on = self.tools.clock.monotonic(), self.tools.waking.begin(self.resource.key)
        try:
            await self._wait(awaited, target, moved_on)
        except HealthCheckCanceled:
            raise self._canceled() from None
        except HealthCheckFailed as error:
            self._put(HEALTHY, "False", "HealthCheckFailed", str(error))
            self._note(built, "HealthCheckFailed")
            spent = format_duration(self._since(began))
            raise self._failed("HealthCheckFailed", f"health check failed after {spent}: {error}") from error
        finally:
            self.tools.waking.end(self.resource.key)
        old = cond.get(self.before.conditions, HEALTHY)
        new_revision = self.before.last_applied_revision != self.given.revision
        text = f"Health check passed in {format_duration(self._since(began))}"
        if old is None or old.status != "True" or (new_revision and self.changed):
            self._put(HEALTHY, "True", cond.SUCCEEDED, text)
            self.run.tell(EventType.NORMAL, cond.PROGRESSING, text)

    async def _wait(self, awaited: Sequence[Reference], target: Target, moved_on: asyncio.Event) -> None:
        """Raises HealthCheckFailed, or HealthCheckCanceled when there is something newer to do than to wait."""
        waiting = asyncio.ensure_future(
            wait(
                target.cluster,
                awaited,
                timeout=self.times.timeout,
                healthy=self.readers,
                fail_fast=self.tools.fail_fast,
                canceled=moved_on,
            )
        )
        try:
            done, _ = await asyncio.wait({waiting}, timeout=SLOW)
            if not done:
                text = f"Running health checks for revision {self.given.revision} with a timeout of {self._timeout}"
                self._put(HEALTHY, "Unknown", cond.PROGRESSING, text)
                await self._progress(text, write=True)
            await waiting
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})

    def _canceled(self) -> Failed:
        by_source = self.tools.waking.by_source(self.resource.key)
        what = str(self.given.name) if by_source else f"Kustomization/{self.resource.key}"
        return Failed(
            "HealthCheckCanceled",
            f"New reconciliation triggered by {what}",
            event=f"Health checks canceled due to new reconciliation triggered by {what}",
            told="Normal",
            after=AT_ONCE,
        )

    # --- the end

    def _succeeded(self, inputs: str, state: str | None, built: Built | None) -> Success:
        given, before = self.given, self.before
        new = before.last_applied_revision != given.revision
        recovered = not cond.is_true(before.conditions, cond.READY)
        self.run.set(
            last_applied_revision=given.revision,
            last_attempted_revision=given.revision,
            last_applied_origin_revision=given.origin,
            applied_inputs=inputs,
            applied_state=state or None,
        )
        if new or recovered or self.changed:
            self._note(built, SUCCEEDED)
        spent, interval = format_duration(self._since(self.began)), self.resource.spec.interval
        told = new or recovered or self.changed
        return Success(
            f"Applied revision: {given.revision}",
            after=jittered(self.times.interval, self.tools.jitter),
            reason=SUCCEEDED,
            event=f"Reconciliation finished in {spent}, next run in {format_duration(float(interval))}" if told else None,
            quiet=True,
            # That a revision changes nothing here matters to those who show its state elsewhere, and to nobody else.
            event_type="Normal" if recovered or self.changed or built is not None else "Posted",
            changed=self.changed,
            metadata={f"{OUR_GROUP}/commit_status": "update"},
        )

    # --- small things

    @property
    def _timeout(self) -> str:
        return format_duration(self.times.timeout)

    def _since(self, began: float) -> float:
        return max(self.tools.clock.monotonic() - began, 1e-9)

    async def _progress(self, message: str, *, write: bool = False) -> None:
        """Show how far the pass has got; written only when it takes long enough for somebody to ask."""
        self._put(cond.READY, "Unknown", cond.PROGRESSING, "Reconciliation in progress")
        slow = write or self._since(self.began) > SLOW
        await self.run.progress(message, write=False)
        self._put(cond.READY, "Unknown", cond.PROGRESSING, "Reconciliation in progress")
        if slow:
            await self.run.save()

    def _put(self, kind: str, status: Any, reason: str, message: str) -> None:
        generation = self.resource.meta.generation
        self.run.conditions = cond.put(
            self.run.conditions, kind, status, reason, message, generation=generation, now=self.run.timestamp
        )

    def _failed(self, reason: str, message: str) -> Failed:
        return Failed(reason, message, after=self.times.retry)

    def _note(self, built: Built | None, outcome: str) -> None:
        """Write the outcome into the history; without a build it is that of the objects of the last pass."""
        history = self.run.status.history
        if built is None and not history:
            return
        snapshot = Snapshot(
            digest=built.digest if built is not None else history[0].digest,
            outcome=outcome,
            time=self.run.timestamp,
            seconds=self._since(self.began),
            metadata=plain_metadata(self.given),
        )
        self.run.set(history=with_snapshot(history, snapshot))

    def _tell(self, changes: ChangeSet, actions: Collection[Action]) -> None:
        lines = changes.lines(actions)
        if lines:
            text = "\n".join(lines)
            log.info("objects changed", revision=self.given.revision, objects=text, **traced(self.run.metadata))
            self.run.tell(EventType.NORMAL, cond.PROGRESSING, text)
        put_back = [f"{change.reference}: {', '.join(_by_whom(one) for one in change.drift)}" for change in changes.drifted]
        if put_back:
            self.run.tell(
                EventType.NORMAL, "DriftCorrected", "put back what was changed outside the source\n" + "\n".join(put_back)
            )


def _by_whom(drift: Drift) -> str:
    return f"{drift.path} (changed by {', '.join(drift.managers)})" if drift.managers else drift.path
