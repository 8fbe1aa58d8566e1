"""What the machine does when the world around a run breaks: nothing is promoted or given traffic that cannot take it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canary.effects import Promote, Route, ScaleDown, ScaleUp, Write
from canary.machine import decide
from canary.phases import Phase
from canary.routing.base import Weights
from canary.seen import Question, Reply, Seen, Step, Wish
from canary.workload.base import READY, Readiness
from tests.support.machineworld import MachineWorld, plan_of

BROKEN = Readiness(False, "web-primary.test not ready: too late", retriable=False)
SLOW = Readiness(False, "web-primary.test not ready: 1 of 2")
ASLEEP = Readiness(False, "canary deployment web.test not ready: scaled to zero", asleep=True)
FAILING = (Reply("errors", False, "Halt web.test advancement errors 7.10 > 5", metric=True),)


def seen_of(phase: Phase = Phase.PROGRESSING, *, skip: bool = False, **seen: object) -> Seen:
    plan = plan_of(skip=skip, stepWeight=20, maxWeight=40)
    return replace(Seen("web.test", "web.test", "Deployment", plan, phase, live=Weights.at(20)), **seen)  # type: ignore[arg-type]


def step_of(seen: Seen) -> Step:
    found = decide(seen)
    assert isinstance(found, Step)
    return found


def routes(step: Step) -> list[int]:
    return [effect.weights.canary for effect in step.effects if isinstance(effect, Route)]


def phases(step: Step) -> list[Phase]:
    return [effect.phase for effect in step.effects if isinstance(effect, Write) and effect.phase is not None]


def texts(step: Step) -> list[str]:
    return MachineWorld(plan_of(stepWeight=20)).texts(step.effects)


def test_a_metric_that_says_no_counts_though_another_one_says_nothing() -> None:
    nothing = Reply("duration", False, "Halt advancement no values found", held=True, metric=True)
    found = step_of(seen_of(answers={Question.CHECKS: (nothing, *FAILING)}))
    assert Write(failed=1) in found.effects
    assert texts(found) == ["Halt web.test advancement errors 7.10 > 5"]
    assert found.held


def test_a_rollback_that_was_begun_ends_though_the_target_has_lost_its_pods() -> None:
    found = step_of(seen_of(failed=3, ready=ASLEEP))
    assert (phases(found), routes(found)) == ([Phase.FAILED], [0])


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.WAITING_PROMOTION])
def test_a_target_without_pods_gets_pods_before_it_gets_traffic(phase: Phase) -> None:
    found = step_of(seen_of(phase, ready=ASLEEP))
    assert (routes(found), phases(found)) == ([], [])
    assert ScaleUp() in found.effects
    assert texts(found) == [ASLEEP.text]
    late = step_of(seen_of(phase, ready=replace(ASLEEP, retriable=False)))
    assert (phases(late), ScaleUp() in late.effects) == ([Phase.FAILED], False)


def test_a_run_that_ends_well_wants_no_pods_for_the_target() -> None:
    found = step_of(seen_of(Phase.FINALISING, ready=ASLEEP))
    assert phases(found) == [Phase.SUCCEEDED]
    assert ScaleUp() not in found.effects
    assert phases(step_of(seen_of(Phase.PROMOTING, ready=ASLEEP))) == [Phase.FINALISING]


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.FINALISING])
@pytest.mark.parametrize("skip", [False, True])
def test_all_traffic_goes_only_to_a_target_that_can_take_it(phase: Phase, skip: bool) -> None:
    found = step_of(seen_of(phase, skip=skip, primary=BROKEN, ready=ASLEEP))
    assert (routes(found), phases(found), ScaleUp() in found.effects) == ([], [], True)
    assert texts(found) == [BROKEN.text, ASLEEP.text]
    assert routes(step_of(seen_of(phase, skip=skip, primary=BROKEN, ready=READY))) == [100]


def test_a_revision_that_comes_during_the_promotion_gets_out_of_the_traffic_at_once() -> None:
    slow = replace(SLOW, text="canary deployment web.test not ready: 1 of 2")
    plan = plan_of(stepWeight=20, maxWeight=40, stepWeightPromotion=10)
    found = step_of(seen_of(Phase.PROMOTING, plan=plan, changed=True, ready=slow))
    assert (routes(found), phases(found)) == ([0], [Phase.FINALISING])
    assert phases(step_of(seen_of(Phase.FINALISING, changed=True, ready=slow))) == [Phase.SUCCEEDED]


def test_a_revision_that_comes_during_the_promotion_is_not_promoted_with_it_when_the_analysis_is_skipped() -> None:
    for phase in (Phase.PROMOTING, Phase.FINALISING):
        assert Promote() not in step_of(seen_of(phase, skip=True, changed=True)).effects


@pytest.mark.parametrize("primary", [SLOW, BROKEN])
def test_a_skipped_analysis_keeps_the_target_until_the_primary_is_ready(primary: Readiness) -> None:
    found = step_of(seen_of(skip=True, primary=primary))
    assert (phases(found), routes(found)) == ([Phase.PROMOTING], [])
    assert Promote() in found.effects
    assert ScaleDown() not in found.effects
    waiting = step_of(seen_of(Phase.PROMOTING, skip=True, primary=SLOW))
    assert (texts(waiting), len(waiting.effects)) == ([SLOW.text], 1)
    assert phases(step_of(seen_of(Phase.PROMOTING, skip=True))) == [Phase.SUCCEEDED]


def test_a_known_good_revision_mends_a_broken_primary_without_an_outage() -> None:
    world = MachineWorld.initialized(plan_of(stepWeight=20))
    world.live, world.running, world.primary = Weights.at(100), True, BROKEN
    found = step_of(replace(world.seen(), phase=Phase.PROGRESSING, known_good=True))
    assert (phases(found), routes(found), ScaleDown() in found.effects) == ([Phase.PROMOTING], [], False)


def failed_promotion() -> MachineWorld:
    world = MachineWorld.initialized(plan_of(stepWeight=20, maxWeight=20))
    world.revision = "two"
    for _ in range(3):
        world.tick()
    world.primary = BROKEN
    world.tick()
    assert (world.phase, world.live.canary, world.running) == (Phase.FAILED, 100, True)
    return world


def test_after_a_promotion_that_failed_the_next_revision_is_analysed_where_it_is_and_mends_the_primary() -> None:
    world = failed_promotion()
    world.revision = "three"
    weights = []
    for _ in range(2):
        world.tick()
        weights.append(world.live.canary)
    assert (world.phase, weights) == (Phase.PROMOTING, [100, 100])
    world.primary = READY
    world.tick()
    world.tick()
    assert (world.phase, world.live.canary, world.promoted) == (Phase.SUCCEEDED, 0, "three")


def test_after_a_promotion_that_failed_nothing_sends_the_traffic_to_the_broken_primary() -> None:
    world = failed_promotion()
    world.revision = "three"
    world.tick()
    world.revision = "four"
    world.tick()
    assert (world.phase, world.live.canary, world.status.canary_weight) == (Phase.PROGRESSING, 100, 100)
    world.replies[Question.CHECKS] = FAILING
    for _ in range(3):
        world.tick()
    assert (world.phase, world.live.canary, world.running, world.status.canary_weight) == (Phase.FAILED, 100, True, 100)
    world.revision = world.promoted
    world.tick()
    assert (world.phase, world.live.canary) == (Phase.FAILED, 100)
    world.primary = READY
    world.tick()
    assert (world.phase, world.live.canary) == (Phase.SUCCEEDED, 0)


def test_an_audience_on_the_target_is_not_all_the_traffic() -> None:
    plan = plan_of(iterations=2, match=[{"headers": {"x": {"exact": "y"}}}])
    found = step_of(seen_of(plan=plan, live=Weights.at(100), primary=BROKEN))
    assert (routes(found), phases(found)) == ([0], [Phase.FAILED])


@pytest.mark.parametrize(
    ("seen", "ends"),
    [
        ({"wish": Wish.ROLLBACK}, Phase.FAILED),
        ({"failed": 3}, Phase.FAILED),
        ({"ready": replace(SLOW, retriable=False)}, Phase.FAILED),
        ({"changed": True, "reverted": True}, Phase.SUCCEEDED),
        ({"failed": 2, "answers": {Question.CHECKS: FAILING}}, Phase.FAILED),
    ],
    ids=["wish", "threshold", "deadline", "revert", "checks"],
)
def test_a_run_that_cannot_go_on_can_still_be_ended(seen: dict[str, object], ends: Phase) -> None:
    found = step_of(seen_of(hindered="HTTPRoute web.test parent gateway is not ready", **seen))
    assert (phases(found), routes(found)) == ([ends], [0])


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.PROMOTING, Phase.FINALISING])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("live", [0, 20])
@pytest.mark.parametrize("wish", [None, Wish.PROMOTE])
def test_a_run_that_cannot_go_on_says_why(phase: Phase, skip: bool, live: int, wish: Wish | None) -> None:
    seen = seen_of(phase, skip=skip, live=Weights.at(live), wish=wish, hindered="no route", answers={Question.CHECKS: ()})
    found = step_of(seen)
    assert (texts(found), len(found.effects)) == (["no route"], 1)


def test_nothing_goes_on_while_the_status_cannot_be_written() -> None:
    found = step_of(seen_of(unwritten=True, answers={Question.CHECKS: ()}))
    assert found.effects[0] == Write()
    assert routes(found) == [40]
