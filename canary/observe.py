"""Gathers what a decision needs: one frozen value. Reads only; nothing here changes anything outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from canary.errors import Problem
from canary.hooks import HookFailed
from canary.metrics.base import Check, Verdict
from canary.phases import Phase
from canary.plan import HookType, hooks_of
from canary.routing.base import Weights
from canary.seen import Question, Reply, Seen, Wish
from canary.status import known_configs, tracked
from canary.tick import ACTION, PAUSE, Tick
from canary.workload.base import READY, Readiness
from canary.workload.revision import is_ours
from reconcile.ports.clock import timestamp

Elapsed = Callable[[str, str | None], float]
"""Seconds since a moment that the status keeps (field, RFC 3339), by a clock that does not jump while the process lives."""

WISHES: Mapping[Phase, frozenset[Wish]] = {
    **dict.fromkeys((Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED), frozenset({Wish.RETRY})),
    **dict.fromkeys((Phase.PROGRESSING, Phase.WAITING_PROMOTION), frozenset({Wish.PROMOTE, Wish.ROLLBACK})),
    Phase.WAITING: frozenset(Wish),
}
"""What can be asked for in which phase."""
RESTING = {Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED}
RUNNING = {Phase.PROGRESSING, Phase.WAITING_PROMOTION}
ENDING = {Phase.PROMOTING, Phase.FINALISING}


async def observe(tick: Tick, elapsed: Elapsed) -> Seen:
    """All that is known before anybody is asked.

    What cannot be read is never a change. It raises Problem, but for what a run can be rolled back without: that only hinders it.
    """
    site, plan, status = tick.site, tick.plan, tick.site.status
    changed, reverted = await _changes(tick)
    forget_wish(tick)
    idle = tick.phase in RESTING and not changed and not reverted and wish_of(tick) is None
    seen = Seen(
        canary=f"{site.name}.{site.namespace}",
        target=f"{site.target}.{site.namespace}",
        kind=site.spec.target_ref.kind,
        plan=plan,
        phase=tick.phase,
        failed=max(status.failed_checks or 0, tick.uncounted),
        iterations=status.iterations or 0,
        changed=changed,
        reverted=reverted,
        known_good=tick.target is not None and tick.target.revision in (status.known_good or ()),
        wish=wish_of(tick),
        paused=site.canary.meta.annotations.get(PAUSE, ""),
        waited=elapsed("phase", status.phase_since),
        held=elapsed("hold", status.hold_since),
        gated=elapsed("gate", status.gate_since),
        unwritten=tick.unwritten,
    )
    if idle:
        if status.not_ready_since:
            tick.pending["not_ready_since"] = None  # nothing is waited for any more
        return seen
    primary, ready = await tick.workload.primary_ready(site), READY
    if tick.phase in RUNNING | ENDING:
        ready = await tick.workload.canary_ready(site)
    live = await _live(tick)
    primary, ready = _overdue(tick, elapsed, primary), _overdue(tick, elapsed, ready)
    waiting = not (primary.ready and ready.ready)
    if waiting != bool(status.not_ready_since):
        tick.pending["not_ready_since"] = timestamp(tick.now) if waiting else None
    return replace(seen, live=live, primary=primary, ready=ready, hindered=tick.hindered)


async def _changes(tick: Tick) -> tuple[bool, bool]:
    """See `detect`. In a run, configuration that cannot be read is taken to be what it was."""
    known = None
    try:
        tick.configs = await tick.workload.configs(tick.site)
        known = tick.configs
        return await detect(tick)
    except Problem as error:
        if tick.phase not in RUNNING:
            raise
        tick.hindered = tick.hindered or str(error)
        if known is None:
            tick.configs = known_configs(tick.site.status)
        return tick.found.revision != tick.site.status.last_applied_spec, False


async def _live(tick: Tick) -> Weights:
    """The weights of the routes; in a run whose routes cannot be read, those that were set last."""
    try:
        live = await tick.router.weights(tick.site)
    except Problem as error:
        if tick.phase not in RUNNING | ENDING:
            raise
        tick.hindered = tick.hindered or str(error)
        return Weights.at(tick.site.status.canary_weight or 0)
    tick.tools.exported.weights(tick.site, live.primary, live.canary)
    return live


def _overdue(tick: Tick, elapsed: Elapsed, readiness: Readiness) -> Readiness:
    """A workload that has not been ready for longer than its deadline fails, also if nobody says so in its own status.

    One interval more than the deadline, so that the workload's own controller has the first word.
    """
    if readiness.ready or not readiness.retriable:
        return readiness
    spent = elapsed("not ready", tick.site.status.not_ready_since)
    return replace(readiness, retriable=spent <= tick.plan.deadline + tick.plan.interval)


async def detect(tick: Tick) -> tuple[bool, bool]:
    """Whether the target or its configuration is another than the one in work, and whether it is the promoted one again.

    Hashes that Flagger wrote cannot be compared with ours, and a new API server may show an old object with new defaults. What
    nobody has touched (the generation is the one that was noted), or what the primary runs already, is no change then.
    """
    status, target = tick.site.status, tick.found
    applied = status.last_applied_spec or ""
    if not applied:
        return True, False
    revision_moved = target.revision != applied
    configs_moved = dict(tick.configs or {}) != known_configs(status)
    if not revision_moved and not configs_moved and tick.phase is not Phase.WAITING:
        return False, False  # while a gate is closed it is the one before that counts as in work
    same = tick.phase not in ENDING and await tick.workload.same_as_primary(tick.site)
    if not revision_moved and not configs_moved:
        return False, same
    if tick.phase in {Phase.INITIALIZED, Phase.SUCCEEDED}:
        if same:
            _adopt(tick)
        return not same, False
    untouched = revision_moved and (not is_ours(applied) or (target.generation or -1) == status.target_generation)
    if untouched and not configs_moved:
        _adopt(tick)
        return False, False
    return True, same


def _adopt(tick: Tick) -> None:
    """Note the hash of what is known under another one."""
    tick.pending["last_applied_spec"] = tick.found.revision
    tick.pending |= tracked(tick.configs)
    tick.pending["target_generation"] = tick.found.generation or None
    if tick.phase in {Phase.INITIALIZED, Phase.SUCCEEDED}:
        tick.pending["last_promoted_spec"] = tick.found.revision


def wish_of(tick: Tick) -> Wish | None:
    """What a person asks for by annotation, nobody has done yet, and can be done in this phase."""
    text = tick.site.canary.meta.annotations.get(ACTION, "")
    if not text or text == tick.site.status.last_handled_action:
        return None
    words = text.lower().split()
    return Wish(words[0]) if words and words[0] in WISHES.get(tick.phase, ()) else None


def forget_wish(tick: Tick) -> None:
    """Note a request that has no sense now as handled: it must not be carried out on a later run that nobody meant."""
    text = tick.site.canary.meta.annotations.get(ACTION, "")
    if text and text != tick.site.status.last_handled_action and wish_of(tick) is None:
        tick.pending["last_handled_action"] = text


# --- questions


async def ask(tick: Tick, question: Question) -> tuple[Reply, ...]:
    """Ask hooks or metrics. The first answer that settles the question is the last: the rest is not asked."""
    if question is not Question.CHECKS:
        tick.analysed = tick.analysed or question is Question.PRE_ROLLOUT
        return await _hooks(tick, HookType(question.value), until_passed=question is Question.ROLLBACK)
    tick.analysed = True
    replies = await _hooks(tick, HookType.ROLLOUT)
    if replies and not replies[-1].passed:
        return replies
    tick.measured = tuple(await tick.tools.checks.measure(tick.site, tick.now))
    for check in tick.measured:
        tick.tools.exported.verdict(tick.site, check.metric, check.verdict.value)
    return (*replies, *(_reply(tick, check) for check in tick.measured))


async def _hooks(tick: Tick, wanted: HookType, *, until_passed: bool = False) -> tuple[Reply, ...]:
    """Ask the hooks of a type. Those of a run are told Progressing also while it waits for its promotion, as Flagger does."""
    phase = tick.phase if wanted in {HookType.CONFIRM_ROLLOUT, HookType.ROLLBACK} else Phase.PROGRESSING
    replies: list[Reply] = []
    for hook in hooks_of(tick.site.spec, wanted):
        try:
            await tick.tools.hooks.call(tick.site, hook, phase=phase.value, checksum=tick.checksum)
            replies.append(Reply(hook.name, True))
        except HookFailed as error:
            replies.append(Reply(hook.name, False, str(error), muted=bool(hook.mute_alert)))
        if replies[-1].passed is until_passed:
            break
    return tuple(replies)


def _reply(tick: Tick, check: Check) -> Reply:
    """What a check means for the run, by what the spec says about having no data."""
    if check.verdict is Verdict.PASS:
        return Reply(check.metric, True, metric=True)
    if check.verdict is Verdict.NO_DATA:
        analysis = tick.site.spec.analysis
        metric = next((m for m in analysis.metrics or () if m.name == check.metric), None)
        policy = (metric.on_no_data if metric is not None else None) or analysis.on_no_data
        if policy == "Pass":
            return Reply(check.metric, True, check.text, metric=True)
        return Reply(check.metric, False, check.text, held=policy == "Hold", metric=True)
    return Reply(check.metric, False, check.text, metric=True)
