"""Runs Canaries: when each is looked at, and what one look consists of.

A Canary that rests costs nothing: it is woken by a change of what it consists of. A run ticks at a fixed rate, by the moment
noted in its status, so a restart neither skips a step nor hurries one. Between two ticks of a run a change wakes it early
only when there is something to do that waiting would not better: a newer revision, a mended target, a first primary that has
become ready, or the request of a person.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from datetime import timedelta

from canary.act import act, show_phase, write_pending
from canary.api import CANARY, CanarySpec, CanaryStatus, TargetRef
from canary.census import Census
from canary.deletion import FINALIZER, finalise
from canary.effects import Route, Write
from canary.errors import Problem
from canary.following import Following, following
from canary.machine import decide, initialized, primary_failed
from canary.observe import ENDING, RESTING, RUNNING, ask, detect, observe, wish_of
from canary.phases import Phase
from canary.plan import Strategy, make_plan
from canary.prepare import PrimaryNotReady, TargetUnreadable, cannot_mirror, prepare, read_target, validate
from canary.routing import make_router
from canary.routing.base import ALL_PRIMARY, Router
from canary.seen import Ask, Seen, Step
from canary.site import Site
from canary.status import Present, accepted, due_of, phase_of, refused, written
from canary.stopwatches import Stopwatches
from canary.tick import ACTION, PAUSE, Tick, Tools
from canary.workload import make_workload
from canary.workload.autoscaler import make_scaler
from canary.workload.base import Workload
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource, Resource
from reconcile.errors import Conflict, NotFound, ReconcileError
from reconcile.ports.clock import timestamp
from reconcile.ports.objects import Moved, Objects
from reconcile.ports.store import Change
from reconcile.runtime.logs import get_logger
from reconcile.runtime.loop import KeyedLoop, Surroundings
from reconcile.runtime.outcome import Success, Verdict

log = get_logger("canary")

RESYNC = 600.0
"""Seconds after which a resting Canary is looked at although nothing has changed: what no watch tells is seen then."""
TERMINATING = 5.0
"""Seconds between two looks at a Canary that gives back what it took over."""
PATIENCE = 30.0
"""Seconds that such a Canary may wait for its target without a word."""
EARLY = 0.05
"""Seconds by which a tick may begin before it is due: timers are not exact."""
AGAIN = 1.0
"""Seconds that a resting Canary with a problem is left alone, however often it is woken."""
TOLD_BY_STATUS = frozenset({"serving.knative.dev"})
"""API groups whose objects say in their status which revision there is. Elsewhere a status says only how things go, for which
the next tick is early enough, unless a Canary is blocked."""


@dataclass
class _Memory:
    """What is remembered of a Canary between two ticks; everything in it may be lost."""

    due: float = 0.0
    """Monotonic moment of the next tick."""
    last: float = float("-inf")
    blocked: str = ""
    """What kept the last tick from its end: target, primary, other, or nothing."""
    stirred: bool = False
    """Whether something reported another status during the last look."""
    generation: int = 0
    told_suspended: bool = False
    shown: bool = False
    """Whether its phase is in the metrics."""
    deleted_in: Phase | None = None
    waits_for: str = ""
    """What a Canary that is to go waits for, as it was told last."""
    unwritten: bool = False
    uncounted: int = 0
    """See `Tick`: what a status that could not be written does not have."""
    road: tuple[Router, Site] | None = None
    """By what the last tick routed."""


class CanaryLoop(KeyedLoop):
    """The controller of the kind Canary.

    Args:
        tools: What ticks work with.
        mesh: Objects of the cluster that the routes are in.
        around: What every loop is given.
        workers: Ticks at once; a tick mostly waits for hooks and metrics.
    """

    def __init__(self, tools: Tools, mesh: Objects, around: Surroundings, *, workers: int) -> None:
        super().__init__("Canary", around, name=CANARY.controller, workers=workers)
        self._memory: dict[Key, _Memory] = {}
        self._following = Following()
        self._tools = replace(tools, objects=self._following.reading(tools.objects))
        self._mesh = self._following.reading(mesh)
        self._workloads: dict[tuple[str, str], Workload] = {}
        self._routers: dict[str, Router] = {}
        self._stopwatches = Stopwatches(tools.clock.now, tools.clock.monotonic)
        self.notes.append(Census(tools.exported).note)
        tools.objects.subscribe(self._moved)
        if mesh is not tools.objects:
            mesh.subscribe(self._moved)

    # --- what wakes a Canary

    def _moved(self, moved: Moved) -> None:
        for key in self._following.of(moved.which):
            memory = self._memory.get(key)
            if memory is None or not moved.status_only or memory.blocked or moved.which.group in TOLD_BY_STATUS:
                self.add(key)
            else:
                memory.stirred = True

    def _wakes(self, change: Change) -> bool:
        if change.old is None or super()._wakes(change):
            return True
        old, new = change.old.meta.annotations, change.new.meta.annotations
        return any(old.get(name) != new.get(name) for name in (ACTION, PAUSE))

    async def _gone(self, resource: AnyResource) -> None:
        key = resource.key
        self._memory.pop(key, None)
        self._following.forget(key)
        self._stopwatches.forget(key)
        self._tools.exported.forget(key)

    # --- one look

    async def _pass(self, key: Key) -> Verdict | None:
        try:
            found = await self._tools.store.get("Canary", key)
        except NotFound:
            return None
        if not self._around.mine(found):
            return None
        canary: Resource[CanarySpec, CanaryStatus] = found
        memory = self._memory.setdefault(key, _Memory())
        tick = self._tick(canary)
        if canary.meta.deletion_timestamp:
            return await self._terminate(tick, memory)
        canary = await self._finalizers(canary)
        if wrong := validate(tick.site) or cannot_mirror(tick):
            return await self._invalid(tick, memory, wrong)
        good = accepted(canary.status, canary.spec.target_ref.kind, tick.now)
        if canary.status.phase and good is not canary.status:
            canary = await self._tools.store.write_status(canary, good)
        if canary.spec.suspend:
            if not memory.told_suspended:
                await tick.say("Normal", "skipping canary run as object is suspended")
            memory.told_suspended = True
            return Verdict()
        memory.told_suspended = False
        if not canary.status.phase:
            canary = await self._first_seen(tick)
        tick = self._tick(canary)
        asked = canary.meta.requested_at
        if asked and asked != canary.status.last_handled_reconcile_at:
            tick.pending["last_handled_reconcile_at"] = asked
        with following(self._following, key) as look:
            if (wait := await self._early(tick, memory)) is not None:
                await write_pending(tick)  # who asked for a look has an answer; a run keeps its rhythm
                return Verdict(after=wait)
            verdict = await self._look(tick, memory)
            look.complete = True
            return verdict

    def _tick(self, canary: Resource[CanarySpec, CanaryStatus]) -> Tick:
        tools, now = self._tools, self._tools.clock.now()
        site = Site(canary, tools.settings)
        plan = make_plan(canary.spec, site.provider)
        return Tick(
            tools=tools,
            site=site,
            plan=plan,
            workload=self._workload(canary.spec.target_ref),
            router=self._router(site.provider),
            scaler=make_scaler(site, tools.objects),
            events=tools.events(plan.interval),
            now=now,
            due=now + timedelta(seconds=plan.interval),
            phase=phase_of(canary.status),
            stored=canary,
        )

    def _workload(self, ref: TargetRef) -> Workload:
        known = self._workloads.get((ref.kind, ref.api_version))
        if known is None:
            known = make_workload(ref.kind, ref.api_version, self._tools.objects, self._tools.settings, self._tools.clock)
            self._workloads[ref.kind, ref.api_version] = known
        return known

    def _router(self, provider: str) -> Router:
        if provider not in self._routers:
            self._routers[provider] = make_router(provider, self._mesh, self._tools.settings)
        return self._routers[provider]

    async def _finalizers(self, canary: Resource[CanarySpec, CanaryStatus]) -> Resource[CanarySpec, CanaryStatus]:
        """Our finalizer is there exactly while `revertOnDeletion` asks for it, and not before the first phase was written."""
        has, wanted = FINALIZER in canary.meta.finalizers, bool(canary.spec.revert_on_deletion)
        if has == wanted or (wanted and not canary.status.phase):
            return canary
        others = [name for name in canary.meta.finalizers if name != FINALIZER]
        return await self._tools.store.write_finalizers(canary, [*others, FINALIZER] if wanted else others)

    async def _first_seen(self, tick: Tick) -> Resource[CanarySpec, CanaryStatus]:
        present = Present(tick.site.spec.target_ref.kind, tick.plan, None, None, 0, tick.now)
        status = written(tick.site.status, Write(Phase.INITIALIZING), present)
        canary = await self._tools.store.write_status(tick.canary, status)
        return await self._finalizers(canary)

    async def _invalid(self, tick: Tick, memory: _Memory, wrong: str) -> Verdict:
        """Said once for each version of the spec, by event and condition: only an edit can mend it."""
        if memory.generation != tick.canary.meta.generation:
            memory.generation = tick.canary.meta.generation
            log.error("canary is not valid", error=wrong)
            await tick.say("Warning", f"{tick.site.name}.{tick.site.namespace} is not valid: {wrong}")
        status = refused(tick.site.status, wrong, tick.now)
        await self._tools.store.write_status(tick.canary, status)
        return Verdict(result="error")

    async def _terminate(self, tick: Tick, memory: _Memory) -> Verdict | None:
        if FINALIZER not in tick.canary.meta.finalizers:
            return None
        if memory.deleted_in is None:
            memory.deleted_in = tick.phase
        tick.phase = memory.deleted_in
        try:
            waits_for = await finalise(tick)
        except Problem as error:
            await self._warn(tick, str(error))
            return Verdict(after=min(30.0, tick.plan.interval), result="requeue_after")
        waited = self._stopwatches.elapsed(tick.canary.key, "phase", tick.site.status.phase_since)
        if waits_for and waits_for != memory.waits_for and waited > PATIENCE:
            memory.waits_for = waits_for
            await tick.say("Warning", waits_for)
        return Verdict(after=TERMINATING, result="requeue_after") if waits_for else None

    # --- when

    async def _early(self, tick: Tick, memory: _Memory) -> float | None:
        """Seconds to wait because it is too early for a tick; None when the time has come or there is a reason not to wait."""
        now = self._tools.clock.monotonic()
        if tick.phase in RESTING and not memory.blocked:
            return None
        if memory.due == 0.0 and tick.phase in RUNNING | ENDING | {Phase.WAITING}:
            # After a start: the status says when.
            left = (due_of(tick.site.status, tick.now, tick.plan.interval) - tick.now).total_seconds()
            if left <= EARLY and await self._died_after_routing(tick):
                left = tick.plan.interval
            memory.due, memory.generation = now + left, tick.canary.meta.generation
        left = min(memory.due - now, tick.plan.interval)  # the interval may have become shorter
        memory.due = now + left
        if left <= EARLY:
            return None
        if tick.phase in RESTING:
            return None if now - memory.last >= AGAIN else AGAIN
        return None if await self._reason(tick, memory) else left

    async def _died_after_routing(self, tick: Tick) -> bool:
        """Whether the routes are a step ahead of the status: the step was made, only not noted, and has its full time before it.

        The status follows then. A weight that somebody set by hand while nobody looked is treated the same.
        """
        if tick.plan.strategy is not Strategy.CANARY or tick.phase not in {Phase.PROGRESSING, Phase.PROMOTING}:
            return False
        try:
            await read_target(tick)
            live = await tick.router.weights(tick.site)
        except (Problem, ReconcileError):
            return False
        if live.canary == (tick.site.status.canary_weight or 0):
            return False
        log.info("the routes are a step ahead of the status, going on from there", weight=live.canary)
        await act(tick, Step((Write(weight=live.canary),)))
        return True

    async def _reason(self, tick: Tick, memory: _Memory) -> bool:
        """Whether something happened that a tick before its time is for."""
        if wish_of(tick) is not None:
            return True
        try:
            if tick.phase in {Phase.NEW, Phase.INITIALIZING}:
                if memory.generation != tick.canary.meta.generation:
                    return True
                if memory.blocked not in {"target", "primary"}:
                    return False
                await read_target(tick)
                return memory.blocked == "target" or (await tick.workload.primary_ready(tick.site)).ready
            if tick.phase in RUNNING:
                await read_target(tick)
                tick.configs = await tick.workload.configs(tick.site)
                known = dict(tick.pending)
                changed, reverted = await detect(tick)
                tick.pending = known  # a tick will note what this look has seen
                return changed or reverted
        except Problem:
            return False
        return False

    # --- the tick

    async def _look(self, tick: Tick, memory: _Memory) -> Verdict:
        clock, exported = self._tools.clock, self._tools.exported
        began = clock.monotonic()
        lateness = began - memory.due if memory.due else 0.0
        interval = tick.plan.interval
        # A fixed rate: what one tick is late, the next is not.
        memory.due = memory.due + interval if 0.0 <= lateness < interval and memory.due else began + interval
        memory.last, memory.generation = began, tick.canary.meta.generation
        if not memory.shown:
            memory.shown = True
            show_phase(tick)
        tick.due = tick.now + timedelta(seconds=memory.due - began)
        started, before = time.perf_counter(), tick.phase
        tick.unwritten, tick.uncounted = memory.unwritten, memory.uncounted
        try:
            result = await self._run(tick, memory)
        finally:
            memory.unwritten, memory.uncounted = tick.unwritten, tick.uncounted
            self._start_stopwatches(tick)
        if tick.raised is not None and memory.due - tick.raised < interval / 2:
            memory.due = tick.raised + interval  # gates took long: what they let in is not judged before it has had its time
        if tick.analysed:
            exported.duration(tick.site, time.perf_counter() - started)
        exported.tick(result, lateness if before not in RESTING else 0.0)
        await self._acknowledge(tick)
        key, phase = tick.canary.key, phase_of(tick.site.status)
        if memory.blocked and memory.stirred:
            self.add(key)  # what it is blocked by may be over already
        self.outcomes[key] = Success(phase.value or "new")
        if phase in RESTING and not memory.blocked:
            memory.due = 0.0
            if phase is not before:
                self.add(key)  # what changed during the last steps of a run has not been looked at
            return Verdict(after=RESYNC * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret
        return Verdict(after=max(EARLY, memory.due - clock.monotonic()), result="requeue_after")

    async def _acknowledge(self, tick: Tick) -> None:
        """Answer who asked for this look, also if it got nowhere."""
        asked = tick.pending.get("last_handled_reconcile_at")
        if asked:
            tick.pending = {"last_handled_reconcile_at": asked}
            await write_pending(tick)

    async def _run(self, tick: Tick, memory: _Memory) -> str:
        """The steps of a tick, with their failures told; a word for how it ended."""
        memory.blocked, memory.stirred = "", False
        try:
            try:
                await self._leave_road(tick, memory)
                await prepare(tick)
                memory.road = tick.router, tick.site
            except PrimaryNotReady as error:
                memory.blocked = "primary"
                return await self._primary_not_ready(tick, error)
            except TargetUnreadable:
                raise
            except Problem as error:
                if tick.phase not in RUNNING:
                    raise
                tick.hindered = str(error)
            if tick.initializing:
                tick.configs = await tick.workload.configs(tick.site)
                await act(tick, initialized(self._seen(tick)))
                return "initialized"
            seen = await observe(tick, lambda name, since: self._stopwatches.elapsed(tick.canary.key, name, since))
            return await self._decide(tick, seen)
        except TargetUnreadable as error:
            memory.blocked = "target"
            await self._warn(tick, str(error))
            if error.missing and tick.phase in RUNNING | ENDING:
                await self._without_target(tick)
        except Problem as error:
            memory.blocked = memory.blocked or "other"
            await self._warn(tick, str(error))
        except Conflict as error:
            log.info("somebody else has moved the canary, beginning anew", error=str(error))
            memory.blocked = "other"
            self.add(tick.canary.key)
            return "conflict"
        except ReconcileError as error:
            memory.blocked = "other"
            log.error("tick failed", error=str(error))
            await self._warn(tick, str(error))
        except Exception as error:
            memory.blocked = "other"
            await self._warn(tick, f"internal error: {type(error).__name__}, see the log of the controller")
            raise
        return "error"

    async def _warn(self, tick: Tick, text: str) -> None:
        """Say what went wrong, unless it went wrong because somebody else leads: that one has its own to say."""
        try:
            self._tools.fence()
        except ReconcileError as error:
            log.info("not said, as somebody else leads", error=str(error), message=text)
            return
        await tick.say("Warning", text)

    async def _leave_road(self, tick: Tick, memory: _Memory) -> None:
        """Take the canary's share off the routes of before, when an edit during a run has named another provider or Service.

        They stay where they are, and may still be used.
        """
        if memory.road is None or tick.phase not in RUNNING | ENDING:
            return
        router, site = memory.road
        if (site.provider, site.apex) != (tick.site.provider, tick.site.apex):
            self._tools.fence()
            await router.set_weights(site, ALL_PRIMARY)

    async def _without_target(self, tick: Tick) -> None:
        """There is nothing that could answer: all traffic goes to the primary, and the run begins anew when there is."""
        try:
            live = await tick.router.weights(tick.site)
            if live != ALL_PRIMARY:
                await act(tick, Step((Route(ALL_PRIMARY), Write(weight=0, iterations=0))))
        except ReconcileError as error:
            await self._warn(tick, str(error))

    async def _decide(self, tick: Tick, seen: Seen) -> str:
        decision, asked = decide(seen), False
        while isinstance(decision, Ask):
            seen = seen.answered(decision.question, await ask(tick, decision.question))
            decision, asked = decide(seen), True
        if asked:
            await self._still_wanted(tick)
        await act(tick, decision)
        if tick.phase in RESTING and not decision.effects:
            self._tools.exported.status(tick.site, tick.phase.value)
        return "held" if decision.held else "step" if decision.effects else "nothing"

    async def _still_wanted(self, tick: Tick) -> None:
        """Raise Conflict when the Canary was suspended or deleted while hooks and metrics were asked, which may take long."""
        key = tick.canary.key
        try:
            now = await self._tools.store.get("Canary", key)
        except NotFound as error:
            raise Conflict(f"Canary {key} is gone") from error
        if now.meta.uid != tick.canary.meta.uid or now.meta.deletion_timestamp or now.spec.suspend:
            raise Conflict(f"Canary {key} was deleted or suspended meanwhile")

    def _start_stopwatches(self, tick: Tick) -> None:
        """From the moment in which the status got them: a jump of the wall clock before the next look counts for nothing then."""
        status, key = tick.site.status, tick.canary.key
        since = {
            "phase": status.phase_since,
            "hold": status.hold_since,
            "gate": status.gate_since,
            "not ready": status.not_ready_since,
        }
        for name, moment in since.items():
            self._stopwatches.elapsed(key, name, moment)

    async def _primary_not_ready(self, tick: Tick, error: PrimaryNotReady) -> str:
        elapsed = self._stopwatches.elapsed(tick.canary.key, "not ready", tick.site.status.not_ready_since)
        readiness = error.readiness
        if elapsed > tick.plan.deadline + tick.plan.interval:
            readiness = replace(readiness, retriable=False)
        if tick.plan.skip and readiness.retriable:
            return "waiting"  # Flagger would not wait, and would not say so
        if tick.phase is not Phase.FAILED:
            await tick.say("Warning", readiness.text)
        if not tick.site.status.not_ready_since:
            tick.pending["not_ready_since"] = timestamp(tick.now)
        if readiness.retriable:
            await write_pending(tick)
        else:
            tick.configs = await tick.workload.configs(tick.site)
            await act(tick, primary_failed(self._seen(tick), readiness))
        return "not ready"

    def _seen(self, tick: Tick) -> Seen:
        site = tick.site
        target = f"{site.target}.{site.namespace}"
        return Seen(f"{site.name}.{site.namespace}", target, site.spec.target_ref.kind, tick.plan, tick.phase)
