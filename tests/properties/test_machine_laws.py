"""Laws of the canary machine over random sequences of what it may observe.

It always ends; it never promotes what has failed `threshold` checks; it never skips a gate; it never moves in a way that the
table has not; weights add up; what is promoted is what was analysed.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from canary.effects import Promote, Route, ScaleUp, Write
from canary.phases import Phase, require
from canary.plan import HookType, Plan, Strategy
from canary.routing.base import TOTAL, Weights
from canary.seen import Question, Reply
from canary.workload.base import READY, Readiness
from tests.support.machineworld import MachineWorld, plan_of

GATES = [Question.CONFIRM_ROLLOUT, Question.CONFIRM_TRAFFIC_INCREASE, Question.CONFIRM_PROMOTION]
HOOKS = [*GATES, Question.PRE_ROLLOUT, Question.ROLLBACK]
RESTING = {Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED}
LONGEST_RUN = 400
"""Ticks within which a run ends once everything answers well: a hundred steps up, a hundred back, and some."""

steps = st.one_of(
    st.fixed_dictionaries({"stepWeight": st.integers(1, 100), "maxWeight": st.integers(0, 100)}),
    st.fixed_dictionaries({"stepWeights": st.lists(st.integers(1, 120), min_size=1, max_size=5, unique=True).map(sorted)}),
    st.fixed_dictionaries({"iterations": st.integers(1, 5)}),
    st.fixed_dictionaries({"iterations": st.integers(1, 5), "match": st.just([{"headers": {"x": {"exact": "y"}}}])}),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    analysis: dict[str, Any] = dict(draw(steps))
    analysis["threshold"] = draw(st.integers(1, 4))
    analysis["mirror"] = draw(st.booleans())
    analysis["stepWeightPromotion"] = draw(st.sampled_from([0, 0, 7, 50, 100]))
    analysis["onFail"] = draw(st.sampled_from([None, "Hold", "Rollback"]))
    hooks = draw(st.sets(st.sampled_from(HOOKS)))
    analysis["webhooks"] = [{"name": h.value, "url": "http://hook.test", "type": h.value} for h in sorted(hooks)]
    if analysis["onFail"] is None:
        del analysis["onFail"]
    provider = draw(st.sampled_from(["istio", "kubernetes"]))
    return plan_of(provider, skip=draw(st.sampled_from([False, False, False, True])), **analysis)


readiness = st.sampled_from([READY] * 6 + [Readiness(False, "not ready"), Readiness(False, "too late", retriable=False)])


@st.composite
def observations(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "primary": draw(readiness),
        "ready": draw(readiness),
        "revision": draw(st.sampled_from([None] * 8 + ["one", "two", "three"])),
        "answers": {q: draw(st.booleans()) for q in GATES},
        "pre": draw(st.booleans()),
        "rollback": draw(st.sampled_from([False] * 9 + [True])),
        "checks": draw(st.sampled_from(["pass", "pass", "pass", "fail", "hold"])),
    }


def observe(world: MachineWorld, seen: dict[str, Any]) -> None:
    world.primary, world.ready = seen["primary"], seen["ready"]
    world.revision = seen["revision"] or world.revision
    checks = seen["checks"]
    world.replies = {
        **{q: (Reply(q.value, passed),) for q, passed in seen["answers"].items()},
        Question.PRE_ROLLOUT: (Reply("pre", seen["pre"]),),
        Question.ROLLBACK: (Reply("rollback", seen["rollback"]),),
        Question.CHECKS: (Reply("metric", checks == "pass", held=checks == "hold", metric=True),),
    }


@settings(max_examples=300, deadline=None)
@given(plans(), st.lists(observations(), max_size=40))
def test_what_no_sequence_of_observations_can_bring_about(plan: Plan, sequence: list[dict[str, Any]]) -> None:
    world = MachineWorld.initialized(plan)
    world.revision = "two"
    failed = 0
    for seen in sequence:
        observe(world, seen)
        before, live = world.phase, world.live
        effects = world.tick().effects
        require(before, world.phase)
        asked = {question: world.replies[question][-1].passed for question in world.asked}
        for effect in effects:
            if isinstance(effect, Route):
                assert effect.weights.primary + effect.weights.canary == TOTAL
                assert 0 <= effect.weights.canary <= TOTAL
                beyond_hope = not seen["primary"].ready and not seen["primary"].retriable
                everything = plan.strategy is not Strategy.AB_TESTING and live.canary == TOTAL
                assert effect.weights.canary or not (beyond_hope and everything), "all traffic to what cannot take it"
        if any(isinstance(effect, ScaleUp) for effect in effects):
            failed = 0
            assert HookType.CONFIRM_ROLLOUT not in plan.hooks or asked[Question.CONFIRM_ROLLOUT]
        if any(isinstance(effect, Write) and effect.sync for effect in effects):
            failed = 0
        if before in {Phase.PROGRESSING, Phase.WAITING_PROMOTION} and asked.get(Question.CHECKS) is False:
            failed += seen["checks"] == "fail"
        if asked.get(Question.PRE_ROLLOUT) is False:
            failed += 1
        if any(isinstance(effect, Promote) for effect in effects):
            assert before in {Phase.PROGRESSING, Phase.WAITING_PROMOTION} or plan.skip
            assert failed < plan.threshold or plan.skip, "promoted after too many failures"
            assert plan.skip or HookType.CONFIRM_PROMOTION not in plan.hooks or asked[Question.CONFIRM_PROMOTION]
            stranded = live.canary == TOTAL and not seen["primary"].retriable
            assert plan.skip or seen["primary"].ready or stranded, (
                "promoted although the traffic needs a primary that is not ready"
            )
            assert seen["ready"].ready
            assert world.status.last_applied_spec == world.revision
        raised = world.live.canary > live.canary
        weighted = plan.strategy.value == "canary"
        if raised and weighted and HookType.CONFIRM_TRAFFIC_INCREASE in plan.hooks and world.phase is Phase.PROGRESSING:
            assert live.mirrored or asked[Question.CONFIRM_TRAFFIC_INCREASE]
        if world.phase is Phase.FAILED and before is not Phase.FAILED and world.running and plan.weighted:
            kept = plan.hold_on_failure or not seen["primary"].ready or before in {Phase.PROMOTING, Phase.FINALISING}
            assert kept, "a failed target is scaled away unless somebody needs it"


@settings(max_examples=200, deadline=None)
@given(plans(), st.lists(observations(), max_size=15))
def test_every_run_ends_once_the_world_is_well(plan: Plan, sequence: list[dict[str, Any]]) -> None:
    world = MachineWorld.initialized(plan)
    world.revision = "two"
    for seen in sequence:
        observe(world, seen)
        world.tick()
    well = {"primary": READY, "ready": READY, "revision": None, "answers": dict.fromkeys(GATES, True), "pre": True,
            "rollback": False, "checks": "pass"}  # fmt: skip
    for _ in range(LONGEST_RUN):
        observe(world, well)
        if world.phase in RESTING and not world.tick().effects:
            break
        world.tick()
    assert world.phase in RESTING
    if world.phase is not Phase.FAILED:
        assert world.promoted == world.revision
        assert world.live == Weights.at(0)


@settings(max_examples=100, deadline=None)
@given(plans(), st.lists(observations(), max_size=20))
def test_the_same_observation_always_gives_the_same_decision(plan: Plan, sequence: list[dict[str, Any]]) -> None:
    first, second = MachineWorld.initialized(plan), MachineWorld.initialized(plan)
    first.revision = second.revision = "two"
    for seen in sequence:
        observe(first, seen)
        observe(second, seen)
        assert first.tick() == second.tick()
        assert first.status == second.status
