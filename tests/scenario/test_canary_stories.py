"""Stories of Canaries in one process: what people see, and what is written for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from canary.metrics.base import Verdict
from canary.phases import Phase
from tests.support.canaryworld import INTERVAL, KEY, NAMESPACE, CanaryWorld, canary, canary_world, deployment


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CanaryWorld]:
    async with canary_world(tmp_path) as made:
        yield made


async def initialized(world: CanaryWorld, **analysis: object) -> None:
    provider = str(analysis.pop("provider", "istio"))
    spec = analysis.pop("spec", None)
    await world.declare(deployment(), canary(provider, spec=spec, **analysis))  # type: ignore[arg-type]
    await world.until(Phase.INITIALIZED)


async def test_a_canary_is_bootstrapped_and_then_rests_without_a_write(world: CanaryWorld) -> None:
    await initialized(world)
    assert world.image("web-primary") == "example.org/web:1"
    assert (world.pods.available("web-primary"), world.pods.available("web")) == (2, 0)
    world.objects.forget()
    writes = world.metrics.render()
    await world.run(3600)
    assert world.objects.writes == []
    assert b"imagebot_canary_ticks_total" in writes
    status = await world.status()
    assert status.last_promoted_spec == status.last_applied_spec


async def test_a_revision_that_does_well_is_promoted_on_time(world: CanaryWorld) -> None:
    await initialized(world)
    before = world.clock.monotonic()
    world.release("2")
    await world.until(Phase.SUCCEEDED)
    assert world.clock.monotonic() - before <= 6 * INTERVAL
    assert world.image("web-primary") == "example.org/web:2"
    assert (world.pods.available("web"), world.routed()) == (0, 0)
    assert world.texts()[-7:] == [
        "New revision detected! Scaling up web.test",
        "Starting canary analysis for web.test",
        "Advance web.test canary weight 20",
        "Advance web.test canary weight 40",
        "Copying web.test template spec to web-primary.test",
        "Routing all traffic to primary",
        "Promotion completed! Scaling down web.test",
    ]


async def test_a_revision_that_fails_is_taken_back_in_the_tick_that_says_so(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(2.5 * INTERVAL)
    assert world.routed() == 40
    world.measures.verdicts = [Verdict.FAIL]
    await world.run(2 * INTERVAL)
    assert (await world.phase(), world.routed(), world.pods.available("web")) == (Phase.FAILED, 0, 0)
    assert world.image("web-primary") == "example.org/web:1"
    status = await world.status()
    assert status.failure == "Halt web.test advancement errors 7.10 > 5"
    assert [check.verdict for check in status.checks or ()] == ["Fail"]
    world.objects.forget()
    await world.run(1800)
    assert world.objects.writes == []


async def test_a_revert_during_a_run_ends_it(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(2 * INTERVAL)
    world.release("1")
    await world.work()
    assert (await world.phase(), world.routed(), world.pods.available("web")) == (Phase.SUCCEEDED, 0, 0)
    assert world.image("web-primary") == "example.org/web:1"


async def test_a_newer_revision_starts_again_at_once(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    assert world.routed() == 20
    world.release("3")
    await world.work()
    assert (world.texts()[-1], world.routed()) == ("New revision detected! Restarting analysis for web.test", 0)
    await world.until(Phase.SUCCEEDED)
    assert world.image("web-primary") == "example.org/web:3"


async def test_ready_pods_always_cover_the_demand(world: CanaryWorld) -> None:
    await initialized(world)
    least: list[int] = []
    world.watch.append(lambda: least.append(world.pods.available("web-primary") + world.pods.available("web")))
    for tag, verdict in (("2", Verdict.PASS), ("3", Verdict.FAIL), ("4", Verdict.PASS)):
        world.measures.verdicts = [verdict]
        world.release(tag)
        await world.run(10 * INTERVAL)
    assert min(least) >= 2


async def test_a_target_that_never_becomes_ready_is_rolled_back_by_the_wall_clock(world: CanaryWorld) -> None:
    await initialized(world, spec={"progressDeadlineSeconds": 30})
    world.pods.held.add("web")
    world.release("2")
    await world.until(Phase.FAILED, ticks=10)
    assert (await world.status()).failure is not None
    assert world.pods.available("web-primary") == 2


async def test_a_first_primary_that_never_becomes_ready_leaves_the_target_with_its_pods(world: CanaryWorld) -> None:
    world.pods.held.add("web-primary")
    await world.declare(deployment(), canary(spec={"progressDeadlineSeconds": 20}))
    await world.until(Phase.FAILED, ticks=10)
    assert world.pods.available("web") == 2
    world.pods.held.clear()
    world.pods.run()
    await world.until(Phase.INITIALIZED, ticks=3)
    assert (world.pods.available("web-primary"), world.pods.available("web")) == (2, 0)


async def test_a_missing_target_is_said_and_its_coming_is_noticed(world: CanaryWorld) -> None:
    await world.declare(canary())
    await world.work()
    assert world.texts() == ['deployment web.test get query error: deployments.apps "web" not found']
    await world.declare(deployment())
    await world.until(Phase.INITIALIZED, ticks=2)


async def test_a_suspended_canary_says_so_once(world: CanaryWorld) -> None:
    await initialized(world)
    await world.declare(canary(spec={"suspend": True}))
    world.release("2")
    await world.run(600)
    assert world.texts().count("skipping canary run as object is suspended") == 1
    assert world.pods.available("web") == 0
    await world.declare(canary())
    await world.until(Phase.SUCCEEDED)


async def test_deleting_with_revert_gives_everything_back(world: CanaryWorld) -> None:
    await initialized(world, spec={"revertOnDeletion": True})
    (world._folder / "Canary-web.yaml").unlink()
    await world.store.sync()
    world.loop.add(KEY)
    await world.run(2 * INTERVAL)
    assert world.pods.available("web") == 2
    assert world.texts()[-2:] == ["Terminating canary web.test", "Terminated canary web.test"]
    assert await world.store.list("Canary", NAMESPACE) == []


async def ask(world: CanaryWorld, annotations: dict[str, str], **analysis: object) -> None:
    """A person annotates the Canary."""
    body = canary(**analysis)
    body["metadata"]["annotations"] = annotations
    await world.declare(body)
    world.loop.add(KEY)
    await world.work()


async def test_a_person_rolls_back_and_tries_again(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    await ask(world, {"imagebot.dev/action": "rollback 1"})
    assert (await world.phase(), world.routed()) == (Phase.FAILED, 0)
    await world.run(60)
    assert await world.phase() is Phase.FAILED
    await ask(world, {"imagebot.dev/action": "retry 2"})
    assert await world.phase() is Phase.PROGRESSING
    await world.until(Phase.SUCCEEDED)
    assert (await world.status()).last_handled_action == "retry 2"


async def test_a_request_that_has_no_sense_is_not_carried_out_later(world: CanaryWorld) -> None:
    await initialized(world)
    await ask(world, {"imagebot.dev/action": "rollback 1"})
    assert (await world.status()).last_handled_action == "rollback 1"
    world.release("2")
    await world.until(Phase.SUCCEEDED)
    assert world.image("web-primary") == "example.org/web:2"


async def test_whoever_asks_for_a_look_gets_an_answer_without_hurrying_the_run(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    await ask(world, {"reconcile.fluxcd.io/requestedAt": "now"})
    assert ((await world.status()).last_handled_reconcile_at, world.routed()) == ("now", 20)


async def test_a_paused_run_stays_where_it_is(world: CanaryWorld) -> None:
    await initialized(world)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    await ask(world, {"imagebot.dev/pause": "lunch"})
    await world.run(5 * INTERVAL)
    assert world.routed() == 20
    assert world.texts()[-1] == "Halt web.test advancement paused: lunch"
    await ask(world, {})
    await world.until(Phase.SUCCEEDED)


async def test_a_canary_that_cannot_be_is_refused_with_a_condition(world: CanaryWorld) -> None:
    await world.declare(deployment(), canary("nginx", mirror=True))
    await world.run(60)
    condition = ((await world.status()).conditions or [])[0]
    assert (condition.status, condition.reason) == ("False", "Invalid")
    assert condition.message == "mirroring is not supported by provider nginx: remove spec.analysis.mirror"
    assert len(world.texts()) == 1
    await world.declare(canary())
    await world.until(Phase.INITIALIZED)
