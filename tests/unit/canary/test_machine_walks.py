"""Walks through the machine: each tick with the phase, the weight and the words that people see."""

from __future__ import annotations

import pytest

from canary.effects import Alert, Promote, Route, Write
from canary.machine import decide, primary_failed
from canary.phases import TABLE, IllegalMove, Phase, require
from canary.routing.base import Weights
from canary.seen import Ask, Question, Reply, Seen, Step, Wish
from canary.workload.base import Readiness
from tests.support.machineworld import MachineWorld, plan_of

HOOK = {"name": "gate", "url": "http://gate.test"}
NO = (Reply("gate", False, "closed"),)
YES = (Reply("gate", True),)


def walk(world: MachineWorld, ticks: int) -> list[tuple[str, int, int]]:
    """Phase, canary weight in the routes, and iterations after each tick."""
    found = []
    for _ in range(ticks):
        world.tick()
        found.append((world.phase.value, world.live.canary, world.status.iterations or 0))
    return found


def started(**analysis: object) -> MachineWorld:
    provider = str(analysis.pop("provider", "istio"))
    world = MachineWorld.initialized(plan_of(provider, **analysis))
    world.revision = "two"
    return world


def test_a_ladder_of_weights_takes_as_many_ticks_as_steps_and_four() -> None:
    world = started(stepWeight=20, maxWeight=40)
    assert walk(world, 7) == [
        ("Progressing", 0, 0), ("Progressing", 20, 0), ("Progressing", 40, 0), ("Promoting", 40, 0), ("Finalising", 0, 0),
        ("Succeeded", 0, 0), ("Succeeded", 0, 0),
    ]  # fmt: skip
    assert world.promoted == "two"
    assert world.promotions() == 1
    assert world.texts() == [
        "New revision detected! Scaling up web.test",
        "Starting canary analysis for web.test",
        "Advance web.test canary weight 20",
        "Advance web.test canary weight 40",
        "Copying web.test template spec to web-primary.test",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down web.test",
    ]


def test_a_list_of_steps_is_followed_and_bounded_by_100() -> None:
    assert [w for _, w, _ in walk(started(stepWeights=[5, 15, 40]), 5)] == [0, 5, 15, 40, 40]
    assert [w for _, w, _ in walk(started(stepWeights=[25, 150]), 4)] == [0, 25, 100, 100]
    assert [w for _, w, _ in walk(started(stepWeight=15, maxWeight=40), 5)] == [0, 15, 30, 45, 45]
    assert [w for _, w, _ in walk(started(stepWeight=70), 4)] == [0, 70, 100, 100]


def test_a_weight_set_by_hand_is_the_current_one() -> None:
    world = started(stepWeight=10, maxWeight=60)
    walk(world, 2)
    world.live = Weights.at(40)
    assert walk(world, 1) == [("Progressing", 50, 0)]


def test_mirroring_comes_before_the_first_weight() -> None:
    world = started(stepWeight=20, maxWeight=40, mirror=True)
    walk(world, 1)
    world.tick()
    assert world.live == Weights(100, 0, mirrored=True)
    world.tick()
    assert world.live == Weights(80, 20)


def test_traffic_goes_back_in_steps_when_asked_to() -> None:
    world = started(stepWeight=50, maxWeight=50, stepWeightPromotion=20)
    assert walk(world, 7)[3:] == [("Promoting", 30, 0), ("Promoting", 10, 0), ("Finalising", 0, 0), ("Succeeded", 0, 0)]


def test_a_shift_back_that_was_done_before_a_crash_goes_on() -> None:
    world = started(stepWeight=50, maxWeight=50, stepWeightPromotion=20)
    walk(world, 3)
    world.live = Weights.at(0)
    assert walk(world, 2) == [("Finalising", 0, 0), ("Succeeded", 0, 0)]


def test_an_a_b_test_counts_and_writes_its_routes_each_time() -> None:
    world = started(iterations=2, match=[{"headers": {"x": {"exact": "y"}}}])
    assert walk(world, 6) == [
        ("Progressing", 0, 0), ("Progressing", 100, 1), ("Progressing", 100, 2), ("Promoting", 100, 2), ("Finalising", 0, 0),
        ("Succeeded", 0, 0),
    ]  # fmt: skip
    assert sum(isinstance(effect, Route) for effect in world.log) == 3


def test_blue_green_switches_once_before_it_promotes() -> None:
    world = started(iterations=2)
    assert walk(world, 7) == [
        ("Progressing", 0, 0), ("Progressing", 0, 1), ("Progressing", 0, 2), ("Progressing", 100, 3), ("Promoting", 100, 3),
        ("Finalising", 0, 0), ("Succeeded", 0, 0),
    ]  # fmt: skip


def test_blue_green_mirrors_until_the_switch() -> None:
    world = started(iterations=2, mirror=True)
    walk(world, 3)
    assert world.live.mirrored
    assert "Stop traffic mirroring and route all traffic to canary" in world.texts(world.tick().effects)
    assert world.live == Weights.at(100)


def test_the_kubernetes_provider_counts_ten_iterations_and_says_so_each_time() -> None:
    world = started(provider="kubernetes", stepWeight=10)
    walk(world, 1)
    texts = world.texts(world.tick().effects)
    assert texts[-3:] == [
        "Progressive traffic is not supported when using the kubernetes provider",
        "Setting canaryAnalysis.iterations: 10",
        "Advance web.test canary iteration 1/10",
    ]
    assert not any(isinstance(effect, Route) for effect in world.log)


def test_failed_checks_hold_the_run_and_the_tick_that_reaches_the_threshold_rolls_back() -> None:
    world = started(stepWeight=20, maxWeight=40, threshold=2)
    walk(world, 2)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt web.test advancement errors 7.10 > 5", metric=True),)
    assert walk(world, 1) == [("Progressing", 20, 0)]
    assert world.status.failed_checks == 1
    last = world.tick()
    assert (world.phase, world.live, world.running) == (Phase.FAILED, Weights.at(0), False)
    assert world.texts(last.effects) == [
        "Halt web.test advancement errors 7.10 > 5",
        "Rolling back web.test failed checks threshold reached 2",
        "Canary failed! Scaling down web.test",
    ]
    assert Alert("error", "Failed checks threshold reached 2") in last.effects
    assert (world.status.failed_checks, world.promoted) == (0, "one")
    assert world.tick().effects == ()


def test_the_count_of_failures_is_not_taken_back_by_a_success() -> None:
    world = started(stepWeight=20, maxWeight=40, threshold=2)
    walk(world, 2)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt", metric=True),)
    world.tick()
    del world.replies[Question.CHECKS]
    assert walk(world, 4)[-1] == ("Succeeded", 0, 0)
    assert world.status.failed_checks == 1


def test_whoever_dies_between_the_count_and_the_rollback_is_followed_by_a_rollback() -> None:
    world = started(stepWeight=20, maxWeight=40, threshold=2)
    walk(world, 2)
    world.apply(Write(failed=2))
    assert world.texts(world.tick().effects)[0] == "Rolling back web.test failed checks threshold reached 2"


def test_a_failed_pre_rollout_hook_counts_and_all_are_asked_again() -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "pre-rollout"}])
    walk(world, 1)
    world.replies[Question.PRE_ROLLOUT] = (Reply("smoke", True), Reply("gate", False, "test failed"))
    texts = world.texts(world.tick().effects)
    assert texts == [
        "Starting canary analysis for web.test",
        "Pre-rollout check smoke passed",
        "Halt web.test advancement pre-rollout check gate failed test failed",
    ]
    assert world.status.failed_checks == 1


@pytest.mark.parametrize("muted", [False, True])
def test_a_closed_gate_at_the_start_keeps_the_target_at_zero(muted: bool) -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "confirm-rollout"}])
    world.replies[Question.CONFIRM_ROLLOUT] = (Reply("gate", False, "closed", muted=muted),)
    first = world.tick()
    assert world.texts(first.effects) == ["Halt web.test advancement waiting for approval gate"]
    assert (Alert("warn", "Canary is waiting for approval.") in first.effects) is not muted
    assert (world.phase, world.running) == (Phase.WAITING, False)
    assert world.tick().effects == ()
    world.replies[Question.CONFIRM_ROLLOUT] = YES
    assert walk(world, 1) == [("Progressing", 0, 0)]
    assert world.running


def test_a_closed_gate_for_more_traffic_is_no_failure_and_is_asked_each_tick() -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "confirm-traffic-increase"}])
    world.replies[Question.CONFIRM_TRAFFIC_INCREASE] = NO
    assert walk(world, 3)[-1] == ("Progressing", 0, 0)
    assert world.status.failed_checks == 0
    assert Question.CONFIRM_TRAFFIC_INCREASE in world.asked


def test_a_closed_gate_before_the_promotion_shows_weight_0_while_routes_stay() -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "confirm-promotion"}])
    world.replies[Question.CONFIRM_PROMOTION] = NO
    assert walk(world, 4)[-1] == ("WaitingPromotion", 40, -1)
    assert world.status.canary_weight == 0
    assert not world.promotions()
    world.replies[Question.CONFIRM_PROMOTION] = YES
    assert walk(world, 1) == [("Promoting", 40, -1)]


def test_counted_strategies_ask_a_closed_gate_every_second_tick() -> None:
    world = started(iterations=2, match=[{"headers": {"x": {"exact": "y"}}}], webhooks=[{**HOOK, "type": "confirm-promotion"}])
    world.replies[Question.CONFIRM_PROMOTION] = NO
    walk(world, 3)
    seen = []
    for _ in range(4):
        world.tick()
        seen.append((world.phase.value, world.status.iterations, Question.CONFIRM_PROMOTION in world.asked))
    waiting = Phase.WAITING_PROMOTION.value
    assert seen == [(waiting, 1, True), (waiting, 2, False), (waiting, 1, True), (waiting, 2, False)]


def test_a_rollback_hook_that_says_yes_rolls_back() -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "rollback"}])
    walk(world, 1)
    assert world.texts(world.tick().effects)[0] == "Rollback hook hook not signaling a rollback"
    world.replies[Question.ROLLBACK] = YES
    assert world.texts(world.tick().effects)[:2] == ["Rollback check gate passed", "Rolling back web.test manual webhook invoked"]
    assert world.phase is Phase.FAILED


def test_a_newer_revision_begins_the_run_again() -> None:
    world = started(stepWeight=20, maxWeight=40)
    walk(world, 3)
    world.revision = "three"
    assert world.texts(world.tick().effects) == ["New revision detected! Restarting analysis for web.test"]
    assert (world.phase, world.live) == (Phase.PROGRESSING, Weights.at(0))
    assert walk(world, 5)[-1] == ("Succeeded", 0, 0)
    assert world.promoted == "three"


@pytest.mark.parametrize("ticks", [1, 2, 3])
def test_going_back_to_the_promoted_revision_ends_the_run_without_a_promotion(ticks: int) -> None:
    world = started(stepWeight=20, maxWeight=40)
    walk(world, ticks)
    world.revision = "one"
    world.tick()
    assert (world.phase, world.live, world.running, world.promotions()) == (Phase.SUCCEEDED, Weights.at(0), False, 0)
    assert (world.promoted, world.status.last_applied_spec) == ("one", "one")


def test_going_back_to_the_promoted_revision_ends_a_failure() -> None:
    world = started(stepWeight=20, threshold=1)
    walk(world, 2)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt", metric=True),)
    walk(world, 1)
    assert world.phase is Phase.FAILED
    world.revision = "one"
    assert walk(world, 1) == [("Succeeded", 0, 0)]


def test_a_skipped_analysis_promotes_in_one_tick() -> None:
    world = MachineWorld.initialized(plan_of(skip=True, stepWeight=20))
    world.revision = "two"
    assert walk(world, 2) == [("Progressing", 0, 0), ("Succeeded", 0, 0)]
    assert world.promotions() == 1


def test_a_known_good_revision_skips_the_analysis() -> None:
    seen = Seen("web.test", "web.test", "Deployment", plan_of(stepWeight=20), Phase.PROGRESSING, known_good=True)
    found = decide(seen)
    assert isinstance(found, Step)
    assert Promote() in found.effects


def test_an_unready_target_halts_and_one_beyond_its_deadline_rolls_back() -> None:
    world = started(stepWeight=20)
    walk(world, 1)
    world.ready = Readiness(False, "canary deployment web.test not ready: waiting")
    assert world.texts(world.tick().effects) == ["canary deployment web.test not ready: waiting"]
    assert world.phase is Phase.PROGRESSING
    world.ready = Readiness(False, "canary deployment web.test not ready: too late", retriable=False)
    last = world.tick()
    assert world.phase is Phase.FAILED
    assert any(isinstance(effect, Alert) and "Progress deadline exceeded" in effect.message for effect in last.effects)


def test_the_target_keeps_its_pods_while_the_primary_is_broken() -> None:
    world = started(stepWeight=20)
    walk(world, 2)
    world.primary = Readiness(False, "web-primary.test not ready", retriable=False)
    walk(world, 1)
    assert (world.phase, world.running) == (Phase.FAILED, True)


def test_a_primary_that_cannot_take_the_promotion_leaves_all_traffic_on_the_target() -> None:
    world = started(stepWeight=20, maxWeight=20)
    walk(world, 3)
    assert world.phase is Phase.PROMOTING
    world.primary = Readiness(False, "web-primary.test not ready: deadline", retriable=False)
    texts = world.texts(world.tick().effects)
    assert texts[-1] == "Promotion of web.test failed, primary not ready: web-primary.test not ready: deadline"
    assert (world.phase, world.live, world.running, world.status.canary_weight) == (Phase.FAILED, Weights.at(100), True, 100)


def test_a_first_primary_that_fails_leaves_the_target_alone() -> None:
    seen = Seen("web.test", "web.test", "Deployment", plan_of(stepWeight=20), Phase.INITIALIZING)
    found = primary_failed(seen, Readiness(False, "deadline", retriable=False))
    assert not any(isinstance(effect, Route) for effect in found.effects)
    assert primary_failed(Seen("a", "a", "b", plan_of(stepWeight=20), Phase.FAILED), Readiness(False)).effects == ()


def test_a_run_without_values_waits_when_it_is_to_and_fails_when_it_has_waited_long_enough() -> None:
    world = started(stepWeight=20, threshold=1, maxHold="25s")
    walk(world, 2)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt advancement no values found", held=True, metric=True),)
    assert walk(world, 3)[-1] == ("Progressing", 20, 0)
    assert world.status.failed_checks == 0
    assert walk(world, 1)[-1][0] == "Failed"


def test_a_person_promotes_through_a_closed_gate_and_rolls_back() -> None:
    world = started(stepWeight=20, maxWeight=40, webhooks=[{**HOOK, "type": "confirm-promotion"}])
    world.replies[Question.CONFIRM_PROMOTION] = NO
    walk(world, 5)
    world.wish = Wish.PROMOTE
    assert walk(world, 1)[-1][0] == "Promoting"
    other = started(stepWeight=20, maxWeight=40)
    walk(other, 2)
    other.wish = Wish.ROLLBACK
    assert walk(other, 1)[-1] == ("Failed", 0, 0)


def test_a_person_retries_a_failed_revision() -> None:
    world = started(stepWeight=20, threshold=1)
    walk(world, 2)
    world.wish = Wish.ROLLBACK
    walk(world, 1)
    world.wish = Wish.RETRY
    assert walk(world, 1)[-1][0] == "Progressing"


def test_a_paused_run_is_still_judged() -> None:
    world = started(stepWeight=20, threshold=1)
    walk(world, 2)
    world.paused = "lunch"
    assert walk(world, 2)[-1] == ("Progressing", 20, 0)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt", metric=True),)
    assert walk(world, 1)[-1][0] == "Failed"


def test_a_gate_with_a_deadline_ends_the_run() -> None:
    world = started(stepWeight=20, gateDeadline="15s", webhooks=[{**HOOK, "type": "confirm-rollout"}])
    world.replies[Question.CONFIRM_ROLLOUT] = NO
    assert [phase for phase, _, _ in walk(world, 3)] == ["Waiting", "Waiting", "Failed"]


def test_a_closed_gate_for_more_traffic_has_a_deadline_too() -> None:
    world = started(stepWeight=20, gateDeadline="15s", webhooks=[{**HOOK, "type": "confirm-traffic-increase"}])
    world.replies[Question.CONFIRM_TRAFFIC_INCREASE] = NO
    assert [phase for phase, _, _ in walk(world, 4)] == ["Progressing", "Progressing", "Progressing", "Failed"]


def test_failing_may_keep_the_pods() -> None:
    world = started(stepWeight=20, threshold=1, onFail="Hold")
    walk(world, 2)
    world.replies[Question.CHECKS] = (Reply("errors", False, "Halt", metric=True),)
    walk(world, 1)
    assert (world.phase, world.live, world.running) == (Phase.FAILED, Weights.at(0), True)


def test_a_move_that_the_table_has_not_is_an_error() -> None:
    for move in TABLE:
        require(move.source, move.target)
    with pytest.raises(IllegalMove, match="no move from Initialized to Promoting"):
        require(Phase.INITIALIZED, Phase.PROMOTING)
    with pytest.raises(IllegalMove, match="no move from none to Succeeded"):
        require(Phase.NEW, Phase.SUCCEEDED)


def test_the_table_names_each_move_once_and_every_phase_is_reached() -> None:
    pairs = [(move.source, move.target) for move in TABLE]
    assert len(pairs) == len(set(pairs))
    assert {move.target for move in TABLE} == set(Phase) - {Phase.NEW, Phase.TERMINATED}


def test_nothing_is_asked_where_there_are_no_hooks() -> None:
    seen = Seen("web.test", "web.test", "Deployment", plan_of(stepWeight=20), Phase.PROGRESSING, live=Weights.at(20))
    assert decide(seen) == Ask(Question.CHECKS)
