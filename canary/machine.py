"""The machine: what one tick does, from what was observed. Pure; see `phases` for the rules and the table of moves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

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
from canary.endings import (
    Effects,
    back_at_promoted,
    back_to_primary,
    failed_check,
    gate_overdue,
    hindered,
    not_ready,
    promotion_failed,
    rollback,
    stranded,
    threshold_reached,
    wished_rollback,
)
from canary.phases import Phase, require
from canary.plan import HookType, Strategy
from canary.routing.base import ALL_PRIMARY, TOTAL, Weights
from canary.seen import Ask, Question, Reply, Seen, Step, Wish
from canary.weights import advance, shift_back, step
from canary.workload.base import Readiness


class _Need(Exception):
    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


def decide(seen: Seen) -> Ask | Step:
    """What this tick does, or what has to be known first. Raises IllegalMove when that would be a move the table has not."""
    handler = _HANDLERS.get(seen.phase)
    if handler is None:
        return Step()
    try:
        effects = tuple(handler(seen))
    except _Need as need:
        return Ask(need.question)
    for effect in effects:
        if isinstance(effect, Write) and effect.phase is not None:
            require(seen.phase, effect.phase)
    held = any(not reply.passed and reply.held for reply in seen.answers.get(Question.CHECKS, ()))
    gated = any(not reply.passed for reply in seen.answers.get(Question.CONFIRM_TRAFFIC_INCREASE, ()))
    return Step(effects, held=held, gated=gated)


def primary_failed(seen: Seen, readiness: Readiness) -> Step:
    """What a tick does whose first primary cannot become ready: the target keeps the traffic and its pods."""
    if seen.phase is Phase.FAILED:
        return Step()
    require(seen.phase, Phase.FAILED)
    return Step(
        (
            Say(
                "Warning",
                f"Canary failed! The primary of {seen.target} did not become ready, traffic stays on the target",
                Phase.FAILED,
            ),
            Alert("error", f"Progress deadline exceeded {readiness.text}"),
            Write(Phase.FAILED, sync=True, why=readiness.text),
            Count(success=False),
            PostRollout(Phase.FAILED),
        )
    )


def initialized(seen: Seen) -> Step:
    """What a tick does that has found everything in place for the first time."""
    require(seen.phase, Phase.INITIALIZED)
    return Step(
        (
            Write(Phase.INITIALIZED, sync=True),
            Say("Normal", f"Initialization done! {seen.canary}", Phase.INITIALIZED),
            Alert("info", f"New {seen.kind} detected, initialization completed.", details=True),
        )
    )


# --- the phases


def _rest(seen: Seen) -> Effects:
    if seen.phase is Phase.FAILED and seen.reverted:
        yield from back_at_promoted(seen)
    elif seen.changed or seen.wish is Wish.RETRY:
        yield from _start(seen)


def _start(seen: Seen) -> Effects:
    """A new revision at the gate."""
    if seen.reverted and seen.phase is Phase.WAITING and seen.wish is not Wish.RETRY:
        yield from back_at_promoted(seen)
        return
    if seen.wish is Wish.ROLLBACK and seen.phase is Phase.WAITING:
        yield from wished_rollback(seen)
        return
    if not seen.skips and not seen.primary.ready and not stranded(seen):
        yield from not_ready(seen, seen.primary)
        return
    passes, closed = _gate(seen, Question.CONFIRM_ROLLOUT)
    for name in passes:
        yield Say("Normal", f"Confirm-rollout check {name} passed")
    if closed is not None:
        if seen.phase is not Phase.WAITING:
            yield Write(Phase.WAITING)
            yield Say("Warning", f"Halt {seen.canary} advancement waiting for approval {closed.name}")
            if not closed.muted:
                yield Alert("warn", "Canary is waiting for approval.")
        elif _overdue(seen):
            yield from gate_overdue(seen, closed)
        return
    if seen.wish in {Wish.RETRY, Wish.PROMOTE}:
        yield Handled()
    yield Say("Normal", f"New revision detected! Scaling up {seen.target}", Phase.PROGRESSING)
    yield Alert("info", "New revision detected, progressing canary analysis.", details=True)
    yield ScaleUp()
    yield _begun(seen)


def _begun(seen: Seen) -> Write:
    return Write(Phase.PROGRESSING, sync=True, weight=TOTAL if stranded(seen) else None)


def _run(seen: Seen) -> Effects:
    """A run: Progressing and WaitingPromotion."""
    plan = seen.plan
    if seen.reverted:
        yield from back_at_promoted(seen)
        return
    if not seen.skips and not seen.primary.ready and not stranded(seen):
        yield from not_ready(seen, seen.primary)
        return
    if seen.changed:
        yield Say("Normal", f"New revision detected! Restarting analysis for {seen.target}")
        yield from back_to_primary(seen)
        yield _begun(seen)
        return
    if seen.wish is Wish.ROLLBACK:
        yield from wished_rollback(seen)
        return
    if seen.failed >= plan.threshold and not seen.skips:
        # Before the target is looked at: a rollback that was begun may have taken its pods already.
        yield from threshold_reached(seen, seen.failed, "")
        return
    if not seen.ready.ready:
        yield from not_ready(seen, seen.ready)
        return
    if seen.skips:
        yield from hindered(seen) if seen.hindered else _skip(seen)
        return
    for reply in _replies(seen, Question.ROLLBACK, HookType.ROLLBACK):
        if reply.passed:
            yield Say("Warning", f"Rollback check {reply.name} passed")
            yield Say("Warning", f"Rolling back {seen.canary} manual webhook invoked")
            yield Alert("warn", "Rolling back manual webhook invoked")
            yield from rollback(seen, f"the rollback hook {reply.name} asked for it")
            return
        yield Say("Normal", f"Rollback hook {reply.name} not signaling a rollback")
    if seen.wish is Wish.PROMOTE and not seen.hindered:
        yield Handled()
        yield from _promote(seen)
        return
    yield from _analyse(seen)


def _analyse(seen: Seen) -> Effects:
    plan = seen.plan
    mirroring = plan.mirror and seen.live.mirrored
    if seen.live.canary == 0 and seen.iterations == 0 and not mirroring:
        if seen.hindered:
            yield from hindered(seen)
            return
        yield Say("Normal", f"Starting canary analysis for {seen.target}")
        for reply in _replies(seen, Question.PRE_ROLLOUT, HookType.PRE_ROLLOUT):
            if not reply.passed:
                text = f"Halt {seen.canary} advancement pre-rollout check {reply.name} failed {reply.text}"
                yield from failed_check(seen, text)
                return
            yield Say("Normal", f"Pre-rollout check {reply.name} passed")
    else:
        worst = _worst(_checks(seen))
        if worst is not None:
            text = (
                worst.text if worst.metric else f"Halt {seen.canary} advancement external check {worst.name} failed {worst.text}"
            )
            if worst.held and not (plan.max_hold is not None and seen.held > plan.max_hold):
                yield Say("Warning", text)
            else:
                yield from failed_check(seen, text)
            return
    if seen.hindered:
        yield from hindered(seen)
        return
    for note in plan.notes:
        yield Say("Warning", note)
    if seen.paused:
        yield Say("Normal", f"Halt {seen.canary} advancement paused: {seen.paused}")
        return
    if seen.unwritten:
        yield Write()  # nothing goes on before the status can be written again
    yield from _STRATEGIES[plan.strategy](seen)


def _promoting(seen: Seen) -> Effects:
    halted = yield from _ending(seen)
    if halted:
        return
    plan = seen.plan
    yield PromoteScaler()
    if not plan.weighted:
        yield Write(Phase.FINALISING)
    elif plan.step_weight_promotion <= 0 or seen.changed:
        # A newer revision was not analysed: it gets out of the traffic at once.
        yield Say("Normal", "Routing all traffic to primary")
        yield Route(ALL_PRIMARY)
        yield Write(Phase.FINALISING)
    else:
        after = shift_back(seen.live, plan.step_weight_promotion)
        if after != seen.live:
            yield Route(after)
            yield Say("Normal", f"Advance {seen.canary} primary weight {after.primary}")
        yield Write(Phase.FINALISING) if after.canary == 0 else Write(weight=after.canary)


def _finalising(seen: Seen) -> Effects:
    halted = yield from _ending(seen)
    if halted:
        return
    yield ScaleDown()
    yield Write(Phase.SUCCEEDED)
    yield Count(success=True)
    yield PostRollout(Phase.SUCCEEDED, Phase.SUCCEEDED)
    yield Say("Normal", f"Promotion completed! Scaling down {seen.target}", Phase.SUCCEEDED)
    yield Alert("info", "Canary analysis completed successfully, promotion finished.")


def _ending(seen: Seen) -> Generator[Effect, None, bool]:
    """What may keep Promoting and Finalising from going on; returns whether it does."""
    if not seen.primary.ready:
        yield Say("Warning", seen.primary.text)
        if not seen.primary.retriable:
            yield from promotion_failed(seen)
        return True
    # With a ready primary, a target that has no pods, or has others than those that were promoted, holds nothing up.
    if not seen.ready.ready and not seen.ready.asleep and not seen.changed:
        yield from not_ready(seen, seen.ready)
        return True
    if seen.hindered:
        yield from hindered(seen)
        return True
    if seen.plan.skip and not seen.changed:
        yield from _skip(seen)
        return True
    return False


# --- the strategies


def _canary(seen: Seen) -> Effects:
    plan, live = seen.plan, seen.live
    by = step(live.canary, plan.step_weight, plan.step_weights)
    if by > 0 and not live.mirrored and seen.phase is not Phase.WAITING_PROMOTION:
        passes, closed = _gate(seen, Question.CONFIRM_TRAFFIC_INCREASE)
        for name in passes:
            yield Say("Normal", f"Confirm-traffic-increase check {name} passed")
        if closed is not None and plan.gate_deadline is not None and seen.gated > plan.gate_deadline:
            yield from gate_overdue(seen, closed)
            return
        if closed is not None:
            yield Say("Warning", f"Halt {seen.canary} advancement waiting for traffic increase approval {closed.name}")
            if not closed.muted:
                yield Alert("warn", "Canary traffic increase is waiting for approval.")
            return
    if live.canary >= plan.top_weight:
        yield from _confirmed_promotion(seen)
        return
    if by <= 0:
        return
    mirroring_first = plan.mirror and live.canary == 0 and not live.mirrored
    after = Weights.at(0, mirrored=True) if mirroring_first else advance(live, by)
    yield Route(after)
    yield Write(weight=after.canary)
    yield Say("Normal", f"Advance {seen.canary} canary weight {after.canary}")


def _ab_testing(seen: Seen) -> Effects:
    if seen.iterations < seen.plan.iterations:
        yield Route(Weights.at(TOTAL))
        yield from _iterate(seen)
    else:
        yield from _confirmed_promotion(seen)


def _blue_green(seen: Seen) -> Effects:
    plan = seen.plan
    if seen.iterations < plan.iterations:
        if plan.mirror and plan.weighted and not seen.live.mirrored:
            yield Route(Weights.at(0, mirrored=True))
        yield from _iterate(seen)
        return
    if seen.iterations > plan.iterations:
        yield from _confirmed_promotion(seen)
        return
    closed = yield from _promotion_gate(seen)
    if closed:
        return
    if plan.weighted:
        mirrored = plan.mirror and seen.live.mirrored
        yield Say(
            "Normal", "Stop traffic mirroring and route all traffic to canary" if mirrored else "Routing all traffic to canary"
        )
        yield Route(Weights.at(TOTAL))
    yield Write(iterations=seen.iterations + 1)


def _iterate(seen: Seen) -> Effects:
    count = seen.iterations + 1
    yield Write(iterations=count)
    yield Say("Normal", f"Advance {seen.canary} canary iteration {count}/{seen.plan.iterations}")


# --- the promotion


def _confirmed_promotion(seen: Seen) -> Effects:
    closed = yield from _promotion_gate(seen)
    if not closed:
        yield from _promote(seen)


def _promotion_gate(seen: Seen) -> Generator[Effect, None, bool]:
    """Returns whether a confirm-promotion gate is closed."""
    passes, closed = _gate(seen, Question.CONFIRM_PROMOTION)
    for name in passes:
        yield Say("Normal", f"Confirm-promotion check {name} passed")
    if closed is None:
        return False
    if seen.phase is not Phase.WAITING_PROMOTION:
        yield Write(Phase.WAITING_PROMOTION, iterations=seen.plan.iterations - 1)
        yield Say("Warning", f"Halt {seen.canary} advancement waiting for promotion approval {closed.name}")
        if not closed.muted:
            yield Alert("warn", "Canary promotion is waiting for approval.")
    elif _overdue(seen):
        yield from gate_overdue(seen, closed)
    else:
        yield Write(iterations=seen.plan.iterations - 1)
    return True


def _promote(seen: Seen) -> Effects:
    yield _copying(seen)
    yield Promote()
    yield Write(Phase.PROMOTING)


def _copying(seen: Seen) -> Say:
    name, _, namespace = seen.target.partition(".")
    return Say("Normal", f"Copying {seen.target} template spec to {name}-primary.{namespace}")


def _skip(seen: Seen) -> Effects:
    """Promote without checks: in one tick, but for a primary that could not take the traffic yet."""
    if not seen.primary.ready:
        yield from _promote(seen)
        return
    yield Route(ALL_PRIMARY)
    yield _copying(seen)
    yield Promote()
    yield PromoteScaler()
    yield ScaleDown()
    yield Write(Phase.SUCCEEDED)
    yield Count(success=True, skipped=True)
    yield PostRollout(Phase.SUCCEEDED, Phase.SUCCEEDED)
    yield Say("Normal", f"Promotion completed! Canary analysis was skipped for {seen.target}", Phase.SUCCEEDED)
    yield Alert("info", "Canary analysis was skipped, promotion finished.")


# --- hooks


def _overdue(seen: Seen) -> bool:
    return seen.plan.gate_deadline is not None and seen.waited > seen.plan.gate_deadline


def _gate(seen: Seen, question: Question) -> tuple[list[str], Reply | None]:
    """Names of the hooks that let the run pass, and the one that does not; a person who says promote opens every gate."""
    if seen.wish is Wish.PROMOTE:
        return [], None
    passes: list[str] = []
    for reply in _replies(seen, question, HookType(question.value)):
        if not reply.passed:
            return passes, reply
        passes.append(reply.name)
    return passes, None


def _replies(seen: Seen, question: Question, wanted: HookType) -> tuple[Reply, ...]:
    """The answer; nothing is asked where there are no hooks."""
    if wanted not in seen.plan.hooks:
        return ()
    return _answer(seen, question)


def _checks(seen: Seen) -> tuple[Reply, ...]:
    return _answer(seen, Question.CHECKS)


def _worst(replies: tuple[Reply, ...]) -> Reply | None:
    """The first that says no, before the first that says nothing; None when all is well."""
    failed = [reply for reply in replies if not reply.passed]
    return next((reply for reply in failed if not reply.held), failed[0] if failed else None)


def _answer(seen: Seen, question: Question) -> tuple[Reply, ...]:
    try:
        return seen.answers[question]
    except KeyError:
        raise _Need(question) from None


_STRATEGIES: Mapping[Strategy, Callable[[Seen], Effects]] = {
    Strategy.CANARY: _canary,
    Strategy.AB_TESTING: _ab_testing,
    Strategy.BLUE_GREEN: _blue_green,
}

_HANDLERS: Mapping[Phase, Callable[[Seen], Effects]] = {
    Phase.INITIALIZED: _rest,
    Phase.SUCCEEDED: _rest,
    Phase.FAILED: _rest,
    Phase.WAITING: _start,
    Phase.PROGRESSING: _run,
    Phase.WAITING_PROMOTION: _run,
    Phase.PROMOTING: _promoting,
    Phase.FINALISING: _finalising,
}
