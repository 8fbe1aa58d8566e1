"""Why a Canary failed, waits, holds or does not start: a chain of sentences from what was found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from canary.cli.facts import Facts, Kind, Line
from canary.cli.links import (
    SETUP_FAILED,
    Lines,
    ago,
    asked,
    blocked,
    blockers,
    check_words,
    command,
    failed_checks,
    gate,
    last_words,
    lasting,
    next_step,
    not_ready,
    recent,
    traffic_gate,
    unread,
    unready,
    weights,
)
from canary.cli.view import RESTING, progress, short
from canary.metrics.base import Verdict
from canary.phases import Phase
from canary.plan import HookType
from reconcile.cli.columns import age


def explain(facts: Facts) -> list[Line]:
    """The chain: first the verdict, then what it follows from, then what can be done."""
    stopped = list(_stopped(facts))
    if stopped:
        return stopped
    return [*_PHASES[facts.view.phase](facts), *asked(facts), *unread(facts)]


def _stopped(facts: Facts) -> Lines:
    """What keeps a Canary from being looked at at all."""
    view = facts.view
    meta, spec, status = view.canary.meta, view.canary.spec, view.canary.status
    if meta.deletion_timestamp:
        yield from _deleting(facts)
    elif facts.invalid:
        yield Line(Kind.VERDICT, "The service refuses this Canary, because its spec asks for what cannot be.")
        yield Line(Kind.BAD, f"{facts.invalid}.")
        yield Line(Kind.DO, "Correct the manifest; the edit is noticed at once.")
    elif spec.suspend:
        yield Line(Kind.VERDICT, "It is suspended: nothing is done until that ends.")
        if facts.changed and view.phase in RESTING:
            yield Line(Kind.NOTE, "A new revision of the target waits for that.")
        yield Line(Kind.DO, f"imagebot resume canary {meta.name} -n {meta.namespace}")
    elif not status.phase:
        yield Line(Kind.VERDICT, "No controller has looked at it yet.")
        yield Line(
            Kind.DO,
            "Does imagebot run in this cluster, with the controllers of canaries and for this namespace? "
            "See its pods, and --controllers, --watch-all-namespaces and --watch-label-selector of imagebot run.",
        )


def _deleting(facts: Facts) -> Lines:
    view = facts.view
    yield Line(Kind.VERDICT, f"It has been in deletion for {age(view.canary.meta.deletion_timestamp or '', facts.now)}.")
    if facts.target_problem:
        yield Line(Kind.BAD, f"{facts.target_problem}: there is nothing to give back to.")
    elif view.canary.spec.revert_on_deletion:
        yield Line(Kind.WAITS, "The target gets its pods and the traffic back first (revertOnDeletion).")
    for name in view.canary.meta.finalizers:
        yield Line(Kind.NOTE, f"The finalizer {name} keeps it until then.")


# --- the phases


def _setting_up(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "It is being set up: the primary is made from the target, and gets the traffic when it is ready.")
    if (yield from blocked(facts)):
        return
    if facts.primary is not None and not facts.primary.ready:
        yield from not_ready(facts, facts.primary, "traffic and pods are left to the target then")
    elif facts.primary is not None:
        yield Line(Kind.GOOD, "The primary is ready.")
        yield from last_words(facts)
    if (text := recent(facts, SETUP_FAILED)) is not None:
        yield Line(Kind.NOTE, f"{text}; setting up goes on without, but a run would fail.")


def _resting(facts: Facts) -> Lines:
    view, primary = facts.view, facts.primary
    what = "it was set up" if view.phase is Phase.INITIALIZED else "the last run has succeeded"
    if facts.changed and not blockers(facts):
        yield Line(Kind.VERDICT, f"There is a new revision: {what}, and no run has begun since.")
        if primary is not None and not primary.ready:
            yield Line(Kind.BAD, f"{primary.text}.")
            yield Line(Kind.NOTE, "No run begins while the primary is not ready.")
        else:
            yield Line(Kind.WAITS, "A run begins when the service looks next, which is within seconds if it runs.")
    elif blockers(facts):
        yield Line(Kind.VERDICT, f"No run is under way ({what}), and none can begin.")
        yield from blocked(facts)
    else:
        yield Line(Kind.VERDICT, f"Nothing is to be done: {what}, and the target has not changed since.")
        if facts.same:
            yield Line(Kind.GOOD, "The primary runs what the target says.")
        if primary is not None and not primary.ready:
            yield Line(Kind.BAD, f"{primary.text}.")
        yield Line(Kind.NOTE, "A run begins when the pod template of the target changes, or a ConfigMap or Secret that it uses.")
    if view.paused:
        yield Line(Kind.NOTE, f"The next run will be held at its start: {view.paused}.")
        yield Line(Kind.DO, command("resume", view))


def _waiting(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "A new revision waits at the gate: nothing is scaled up, no traffic is sent to it.")
    if (yield from blocked(facts)):
        return
    if facts.primary is not None and not facts.primary.ready:
        yield from not_ready(facts, facts.primary, "the run fails then")
        return
    yield from gate(facts, HookType.CONFIRM_ROLLOUT)
    yield Line(Kind.DO, f"Open the gate, or let this run in: {command('promote', facts.view)}")
    yield Line(Kind.DO, f"To give the revision up: {command('rollback', facts.view)}")


def _progressing(facts: Facts) -> Lines:
    view, status = facts.view, facts.view.canary.status
    yield Line(Kind.VERDICT, f"A run is under way, at {progress(view)}, {lasting(status.phase_since, facts.now)}.")
    if (yield from blocked(facts)) or (yield from unready(facts)):
        return
    if facts.changed:
        yield Line(Kind.NOTE, "The target has changed meanwhile: the analysis begins anew at once.")
    yield from failed_checks(facts)
    if status.hold_since:
        limit = view.plan.max_hold
        until = f"; after {short(limit)} that counts as a failed check (maxHold)" if limit is not None else ""
        yield Line(Kind.WAITS, f"It holds {lasting(status.hold_since, facts.now)}, because metrics have no data{until}.")
        yield Line(Kind.DO, "Does the canary get any requests? A rollout webhook can make some: a load test.")
    elif view.paused:
        yield Line(Kind.WAITS, f"Somebody holds it where it is: {view.paused}. Failing checks still roll it back.")
        yield Line(Kind.DO, command("resume", view))
    else:
        yield from traffic_gate(facts)
    yield from weights(facts)
    yield from next_step(facts)


def _waiting_promotion(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "All steps are done; the promotion waits for an approval.")
    if (yield from blocked(facts)) or (yield from unready(facts)):
        return
    yield from gate(facts, HookType.CONFIRM_PROMOTION)
    yield Line(Kind.NOTE, "Checks go on meanwhile, and failing ones still roll it back.")
    yield from failed_checks(facts)
    if facts.view.paused:
        yield Line(Kind.WAITS, f"Somebody holds it besides: {facts.view.paused}. The gate is not asked then.")
        yield Line(Kind.DO, command("resume", facts.view))
    yield Line(Kind.DO, f"Open the gate, or promote now: {command('promote', facts.view)}")
    yield Line(Kind.DO, f"To give the revision up: {command('rollback', facts.view)}")


def _promoting(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "The analysis is done: the primary gets the new revision, and the traffic when it is ready.")
    if (yield from blocked(facts)):
        return
    if facts.primary is not None and not facts.primary.ready:
        yield from not_ready(facts, facts.primary, "all traffic goes to the canary then, which can take it, and the run fails")
        return
    if facts.ready is not None and not facts.ready.ready:
        yield from not_ready(facts, facts.ready, "the run fails then")
        return
    yield from weights(facts)
    yield from next_step(facts)


def _finalising(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "All traffic is on the primary again; the pods of the target go with the next step.")
    if not (yield from blocked(facts)) and not (yield from unready(facts)):
        yield from next_step(facts)


def _failed(facts: Facts) -> Lines:
    view, status = facts.view, facts.view.canary.status
    why = status.failure or recent(facts, "Rolling back|failed|not ready", any_age=True) or "its Events are gone, see the logs"
    if not status.last_promoted_spec:
        yield Line(Kind.VERDICT, "It could not be set up: its first primary has never been ready.")
        yield Line(Kind.BAD, f"{why}.")
        yield Line(Kind.NOTE, "Traffic and pods were left to the target.")
        yield from blocked(facts)
        yield Line(Kind.DO, "Mend the target; setting up goes on by itself when the primary is ready.")
        return
    yield Line(Kind.VERDICT, f"The last run failed, {ago(status.phase_since, facts.now)}.")
    yield Line(Kind.BAD, f"{why}.")
    for check in status.checks or ():
        if check.verdict != Verdict.PASS and (check.message or "") != why:
            yield Line(Kind.BAD, check_words(check.metric, check.verdict, check.value, check.threshold, check.message))
    yield from _after_failure(facts)
    if (yield from blocked(facts)):
        return
    if facts.changed:
        yield Line(Kind.WAITS, "The target has changed since: a run begins when the service looks next.")
        if facts.primary is not None and not facts.primary.ready:
            yield Line(Kind.NOTE, "No run begins while the primary is not ready.")
        return
    yield Line(Kind.NOTE, "The revision that failed is not tried again by itself.")
    yield Line(Kind.DO, f"Give the target a new revision, or the one before; or try this one again: {command('retry', view)}")


def _after_failure(facts: Facts) -> Lines:
    view = facts.view
    if view.weight:
        yield Line(Kind.BAD, "All traffic is on the canary: the primary got the revision, and could not take it.")
    elif view.plan.hold_on_failure:
        yield Line(Kind.NOTE, "All traffic is on the primary; the pods of the target are kept to be looked at (onFail: Hold).")
    else:
        yield Line(Kind.NOTE, "All traffic is on the primary, with the revision before; the target has no pods.")
    if facts.primary is not None and not facts.primary.ready:
        yield Line(Kind.BAD, f"{facts.primary.text}.")


def _terminating(facts: Facts) -> Lines:
    yield Line(Kind.VERDICT, "It is being deleted.")
    yield from blocked(facts)


_PHASES: Mapping[Phase, Callable[[Facts], Lines]] = {
    Phase.NEW: _setting_up,
    Phase.INITIALIZING: _setting_up,
    Phase.INITIALIZED: _resting,
    Phase.WAITING: _waiting,
    Phase.PROGRESSING: _progressing,
    Phase.WAITING_PROMOTION: _waiting_promotion,
    Phase.PROMOTING: _promoting,
    Phase.FINALISING: _finalising,
    Phase.SUCCEEDED: _resting,
    Phase.FAILED: _failed,
    Phase.TERMINATING: _terminating,
    Phase.TERMINATED: _terminating,
}
