"""Carries out what the machine decided, effect by effect in order. The only place from which a run changes anything.

An effect that fails ends the tick with its text as an event; those after it are not carried out, and the next tick begins
from what was reached. The status is written by compare-and-set: if somebody else has moved the phase meanwhile, the tick is
not ours to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from canary.effects import (
    Alert,
    Count,
    Effect,
    Handled,
    PostRollout,
    Promote,
    PromoteScaler,
    Route,
    Say,
    ScaleDown,
    ScaleUp,
    Write,
)
from canary.errors import Problem
from canary.exported import COMPLETED, SKIPPED
from canary.hooks import HookFailed
from canary.plan import HookType, hooks_of
from canary.seen import Step
from canary.status import Present, phase_of, shown_checks, written
from canary.tick import ACTION, Tick
from reconcile.errors import Conflict, ReconcileError
from reconcile.ports.clock import parse_timestamp, timestamp
from reconcile.runtime.logs import get_logger

log = get_logger("canary")

TRIES = 5
"""How often a status that somebody else has written meanwhile is written on top of theirs."""


async def act(tick: Tick, step: Step) -> None:
    """Carry out a step, then write what is left. Raises Problem when an effect fails, Conflict when the Canary is not ours."""
    _note_waits(tick, step)
    alerts: list[asyncio.Task[None]] = []
    try:
        for place, effect in enumerate(step.effects):
            tick.tools.fence()
            if isinstance(effect, Alert):
                # Chats may be slow, and what follows may be a rollback: they are told beside it, one alert after the other.
                alerts.append(asyncio.create_task(_alert(effect, tick, alerts[-1:])))
                continue
            try:
                await _carry_out(effect, tick)
            except Conflict:
                raise
            except ReconcileError as error:
                if not _only_counts(effect, step.effects[place:]):
                    raise
                log.error("the failed check could not be written, rolling back all the same", error=str(error))
        await write_pending(tick)
    except asyncio.CancelledError:
        for told in alerts:
            told.cancel()
        raise
    finally:
        await asyncio.gather(*alerts, return_exceptions=True)


async def _alert(alert: Alert, tick: Tick, before: Sequence[asyncio.Task[None]]) -> None:
    site = tick.site
    await asyncio.gather(*before)
    await tick.tools.alerts.send(site, alert.message, alert.severity, details=alert.details)


def _only_counts(effect: Effect, rest: Sequence[Effect]) -> bool:
    """Whether this notes a failed check for which traffic is taken away next: that needs no note."""
    return isinstance(effect, Write) and effect.failed is not None and any(isinstance(each, Route) for each in rest)


def _note_waits(tick: Tick, step: Step) -> None:
    if tick.measured is not None:
        tick.pending["checks"] = shown_checks(tick.measured)
    if step.held != bool(tick.site.status.hold_since):
        tick.pending["hold_since"] = timestamp(tick.now) if step.held else None
    if step.gated != bool(tick.site.status.gate_since):
        tick.pending["gate_since"] = timestamp(tick.now) if step.gated else None


async def write_pending(tick: Tick) -> None:
    """Write what no effect has written; nothing when there is nothing new."""
    if tick.pending:
        await _write(tick, Write())


async def _carry_out(effect: Effect, tick: Tick) -> None:
    site, scaler, workload = tick.site, tick.scaler, tick.workload
    match effect:
        case Say():
            await tick.say(effect.kind, effect.message, effect.phase)
        case Route():
            await _route(effect, tick)
        case ScaleUp():
            if scaler is not None:
                await scaler.resume(site)
            await workload.scale_from_zero(site)
        case ScaleDown():
            if scaler is not None:
                await scaler.pause(site)
            await workload.scale_to_zero(site)
        case Promote():
            await _promote(tick)
        case PromoteScaler():
            if scaler is not None:
                await scaler.promote(site)
        case Write():
            await _write(tick, effect)
        case Count():
            _count(effect, tick)
        case PostRollout():
            await _post_rollout(effect, tick)
        case Handled():
            tick.pending["last_handled_action"] = site.canary.meta.annotations.get(ACTION)


async def _route(effect: Route, tick: Tick) -> None:
    cookies = await tick.router.set_weights(tick.site, effect.weights)
    if effect.weights.canary:
        tick.raised = tick.tools.clock.monotonic()
    tick.tools.exported.weights(tick.site, effect.weights.primary, effect.weights.canary)
    if cookies is not None:
        fields = {
            "session_affinity_cookie": cookies.session or None,
            "previous_session_affinity_cookie": cookies.previous or None,
            "primary_session_affinity_cookie": cookies.primary or None,
        }
        tick.pending |= fields
        # Later effects of this tick have to know them; what is written is compared with what was read, which has them not.
        tick.site = tick.site.with_status(**fields)


async def _promote(tick: Tick) -> None:
    # The target may have moved while hooks and metrics were asked: what was not judged is not promoted.
    now, configs = await tick.workload.target(tick.canary), await tick.workload.configs(tick.site)
    if now.revision != tick.found.revision or configs != tick.configs:
        raise Problem(f"{tick.site.target}.{tick.site.namespace} has got a newer revision meanwhile, it is analysed first")
    await tick.workload.promote(tick.site)


def _count(effect: Count, tick: Tick) -> None:
    strategy = tick.plan.stated.value
    if effect.success:
        tick.tools.exported.success(tick.site, strategy, SKIPPED if effect.skipped else COMPLETED)
    else:
        tick.tools.exported.failure(tick.site, strategy)


async def _post_rollout(effect: PostRollout, tick: Tick) -> None:
    for hook in hooks_of(tick.site.spec, HookType.POST_ROLLOUT):
        try:
            await tick.tools.hooks.call(tick.site, hook, phase=effect.told.value, checksum=tick.checksum)
        except HookFailed as error:
            await tick.say("Warning", f"Post-rollout hook {hook.name} failed {error}", effect.phase)
            return
        await tick.say("Normal", f"Post-rollout check {hook.name} passed", effect.phase)


# --- the status


async def _write(tick: Tick, write: Write) -> None:
    resource, began = tick.stored, phase_of(tick.stored.status)
    if tick.uncounted and write.failed is None and write.phase is None:
        write = replace(write, failed=tick.uncounted)
    pending, tick.pending = tick.pending, {}
    for _ in range(TRIES):
        status = written(resource.status, write, await _present(tick)).model_copy(update=_fitting(write, pending))
        try:
            found: Any = await tick.tools.store.write_status(resource, status)
        except Conflict as error:
            lost = error
            resource = await tick.tools.store.get("Canary", resource.key)
            if resource.meta.uid != tick.canary.meta.uid or phase_of(resource.status) is not began:
                raise
            continue
        except ReconcileError:
            tick.unwritten, tick.uncounted = True, write.failed or tick.uncounted
            raise
        tick.unwritten, tick.uncounted = False, 0
        tick.stored = found
        tick.site = replace(tick.site, canary=replace(tick.canary, meta=found.meta, status=found.status))
        show_phase(tick)
        return
    tick.unwritten, tick.uncounted = True, write.failed or tick.uncounted
    raise Problem(f"the status of Canary {resource.key} was changed by somebody else {TRIES} times in a row: {lost}")


def _fitting(write: Write, pending: dict[str, Any]) -> dict[str, Any]:
    """What is pending, without what a new phase begins anew."""
    anew = {"not_ready_since", "hold_since", "gate_since"} if write.phase is not None else set[str]()
    if write.sync:
        anew |= {"last_applied_spec", "tracked_configs", "tracked_binary", "last_promoted_spec", "target_generation"}
    return {name: value for name, value in pending.items() if name not in anew}


async def _present(tick: Tick) -> Present:
    target = tick.target
    if target is not None:
        # Our own scaling has moved the generation since the target was read; what is in work is the revision that was judged.
        now = await tick.workload.target(tick.canary)
        target = now if now.revision == target.revision else target
    return Present(
        kind=tick.site.spec.target_ref.kind,
        plan=tick.plan,
        target=target,
        configs=tick.configs,
        known_good=tick.site.spec.analysis.known_good_revisions or 0,
        now=tick.now,
        due=tick.due,
    )


def show_phase(tick: Tick) -> None:
    """Put the phase into the metrics."""
    status = tick.site.status
    phase = phase_of(status)
    if phase.value in {"Initialized", "Progressing", "Succeeded", "Failed"}:
        tick.tools.exported.status(tick.site, phase.value)
    if status.phase_since:
        tick.tools.exported.phase(tick.site, phase.value, parse_timestamp(status.phase_since).timestamp())
