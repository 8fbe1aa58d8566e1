"""What people and clusters do to a Canary in the middle of its work: edits, deletions, lost objects, clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary.metrics.base import Check, Verdict
from canary.phases import Phase
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canaryworld import INTERVAL, ISTIO, KEY, NAMESPACE, CanaryWorld, Measures, canary, canary_world, deployment
from tests.support.clock import VirtualClock

TARGET = Reference("apps/v1", "Deployment", NAMESPACE, "web")
PRIMARY = Reference("apps/v1", "Deployment", NAMESPACE, "web-primary")
CLOSED = "http://127.0.0.1:1/"
"""Nobody listens there: a gate that is closed."""
MISSING = 'deployment web.test get query error: deployments.apps "web" not found'


class JumpingClock(VirtualClock):
    """Its wall time can be set by hand, as people and NTP do it."""

    jumped = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.jumped)


class During(Measures):
    """Metrics that all is well by, and something that happens while they are asked, once."""

    def __init__(self, happens: Callable[[], Awaitable[None] | None]) -> None:
        super().__init__()
        self._happens: Callable[[], Awaitable[None] | None] | None = happens

    async def measure(self, site: Site, now: datetime) -> Sequence[Check]:
        happens, self._happens = self._happens, None
        work = happens() if happens is not None else None
        if work is not None:
            await work
        return await super().measure(site, now)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CanaryWorld]:
    async with canary_world(tmp_path) as made:
        yield made


async def running(
    world: CanaryWorld, *, ticks: float = 1.5, target: Object | None = None, held: bool = False, **how: Any
) -> None:
    """A run of revision 2 that is under way; after a tick and a half 20 % of the traffic are on it, unless its pods are held."""
    await world.declare(target or deployment(), canary(**how))
    await world.until(Phase.INITIALIZED)
    if held:
        world.pods.held.add("web")
    world.release("2")
    await world.run(ticks * INTERVAL)


def measure(world: CanaryWorld, measures: Measures) -> None:
    world.measures = measures
    world.loop._tools = replace(world.loop._tools, checks=measures)  # type: ignore[arg-type]


async def annotate(world: CanaryWorld, text: str, **how: Any) -> None:
    body = canary(**how)
    body["metadata"]["annotations"] = {"imagebot.dev/action": text}
    await world.declare(body)
    world.loop.add(KEY)
    await world.work()


async def delete(world: CanaryWorld) -> None:
    (world._folder / "Canary-web.yaml").unlink()
    await world.store.sync()
    world.loop.add(KEY)


def weight(world: CanaryWorld, name: str = "web") -> int:
    found = world.objects.now(Reference(ISTIO, "VirtualService", NAMESPACE, name))
    assert found is not None
    return sum(r["weight"] for r in found["spec"]["http"][0]["route"] if r["destination"]["host"] == f"{name}-canary")


# --- edits


async def test_a_run_that_is_suspended_stays_where_it_is_until_it_is_resumed(world: CanaryWorld) -> None:
    await running(world)
    await world.declare(canary(spec={"suspend": True}))
    await world.run(30 * INTERVAL)
    assert (world.routed(), world.pods.available("web")) == (20, 2)
    await world.declare(canary())
    await world.until(Phase.SUCCEEDED, ticks=6)


async def test_a_canary_that_is_suspended_while_its_metrics_are_asked_gets_no_more_traffic(world: CanaryWorld) -> None:
    await running(world)
    measure(world, During(lambda: world.declare(canary(spec={"suspend": True}))))
    await world.run(3 * INTERVAL)
    assert (world.measures.asked, world.routed()) == (1, 20)


async def test_a_canary_that_is_deleted_while_its_metrics_are_asked_changes_nothing_any_more(world: CanaryWorld) -> None:
    await running(world)
    measure(world, During(lambda: delete(world)))
    world.objects.forget()
    await world.run(3 * INTERVAL)
    assert (world.measures.asked, world.objects.writes) == (1, [])


async def test_configuration_that_changes_while_metrics_are_asked_is_not_promoted(world: CanaryWorld) -> None:
    uses = [{"name": "settings", "configMap": {"name": "settings"}}]
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": NAMESPACE}}
    world.objects.put({**settings, "data": {"a": "1"}})
    await running(world, ticks=2.5, target=deployment(volumes=uses))
    assert world.routed() == 40
    copy = Reference("v1", "ConfigMap", NAMESPACE, "settings-primary")

    def edit() -> None:
        world.objects.put({**settings, "data": {"a": "2"}})

    measure(world, During(edit))
    await world.run(INTERVAL)
    assert world.objects.now(copy)["data"] == {"a": "1"}  # type: ignore[index]
    assert any("newer revision meanwhile" in text for text in world.texts())
    await world.until(Phase.SUCCEEDED)
    assert world.objects.now(copy)["data"] == {"a": "2"}  # type: ignore[index]


@pytest.mark.parametrize("ticks", [1.5, 2.5, 3.5, 4.5])
async def test_skipping_the_analysis_in_the_middle_of_a_run_promotes_once(world: CanaryWorld, ticks: float) -> None:
    await running(world, ticks=ticks)
    await world.declare(canary(spec={"skipAnalysis": True}))
    await world.until(Phase.SUCCEEDED, ticks=3)
    assert (world.image("web-primary"), world.routed()) == ("example.org/web:2", 0)
    assert (world.pods.available("web-primary"), world.pods.available("web")) == (2, 0)


async def test_another_strategy_in_the_middle_of_a_run_goes_on_from_there(world: CanaryWorld) -> None:
    await running(world)
    await world.declare(canary(iterations=2))
    await world.until(Phase.SUCCEEDED, ticks=8)
    await running_again(world, "3")
    await world.declare(canary(stepWeight=50))
    await world.until(Phase.SUCCEEDED, ticks=8)
    assert world.image("web-primary") == "example.org/web:3"


async def running_again(world: CanaryWorld, tag: str) -> None:
    world.release(tag)
    await world.run(1.5 * INTERVAL)
    assert await world.phase() is Phase.PROGRESSING


@pytest.mark.parametrize("provider", ["kubernetes", "nginx"])
async def test_another_provider_in_the_middle_of_a_run_leaves_no_traffic_behind(world: CanaryWorld, provider: str) -> None:
    await running(world)
    assert weight(world) == 20
    await world.declare(canary(provider, iterations=2, spec={"ingressRef": None}))
    await world.run(INTERVAL)
    assert weight(world) == 0


async def test_another_name_of_the_service_in_the_middle_of_a_run_leaves_no_traffic_behind(world: CanaryWorld) -> None:
    await running(world)
    service = {"port": 80, "targetPort": 8080, "name": "shop"}
    await world.declare(canary(spec={"service": service}))
    await world.run(INTERVAL)
    assert (weight(world), weight(world, "shop")) == (0, 20)
    await world.until(Phase.SUCCEEDED, ticks=8)
    assert (weight(world), weight(world, "shop")) == (0, 0)


async def test_a_shorter_interval_holds_from_now_on(world: CanaryWorld) -> None:
    await world.declare(deployment(), canary(interval="30m"))
    await world.run(INTERVAL)
    await world.run(1800)
    assert await world.phase() is Phase.INITIALIZED
    world.release("2")
    await world.run(INTERVAL)
    assert await world.phase() is Phase.PROGRESSING
    await world.declare(canary(interval="10s"))
    await world.until(Phase.SUCCEEDED, ticks=7)


async def test_a_canary_that_was_refused_says_so_no_more_when_it_is_mended(world: CanaryWorld) -> None:
    await running(world, ticks=8)
    assert await world.phase() is Phase.SUCCEEDED
    same = {"sessionAffinity": {"cookieName": "a", "primaryCookieName": "a"}}
    await world.declare(canary(**same))
    await world.run(INTERVAL)
    assert [c.reason for c in (await world.status()).conditions or ()] == ["Invalid"]
    await world.declare(canary())
    await world.run(INTERVAL)
    conditions = (await world.status()).conditions or []
    assert [(c.status, c.reason) for c in conditions] == [("True", "Succeeded")]


@pytest.mark.parametrize("text", ["  ", "please", "promote", "retry"])
async def test_a_request_that_nobody_understands_or_needs_does_no_harm(world: CanaryWorld, text: str) -> None:
    await running(world, ticks=8)
    world.objects.forget()
    await annotate(world, text if text != "retry" else "rollback 7")
    assert (await world.phase(), world.objects.writes) == (Phase.SUCCEEDED, [])


async def test_what_waits_for_its_start_ends_when_the_revision_is_taken_back(world: CanaryWorld) -> None:
    gate = {"name": "gate", "url": CLOSED, "type": "confirm-rollout", "timeout": "1s"}
    await running(world, webhooks=[gate])
    assert await world.phase() is Phase.WAITING
    world.release("1")
    await world.run(INTERVAL)
    assert (await world.phase(), world.pods.available("web")) == (Phase.SUCCEEDED, 0)
    await annotate(world, "retry 1", webhooks=[gate])
    await world.run(3 * INTERVAL)
    assert await world.phase() is Phase.WAITING
    await annotate(world, "retry 1")
    await world.until(Phase.SUCCEEDED, ticks=8)
    assert (await world.status()).last_handled_action == "retry 1"


async def test_what_a_slow_answer_lets_in_has_its_time_before_it_is_judged(world: CanaryWorld) -> None:
    await running(world)
    begun, judged = world.clock.monotonic(), []

    class Slow(Measures):
        async def measure(self, site: Site, now: datetime) -> Sequence[Check]:
            judged.append((world.clock.monotonic() - begun, world.routed()))
            world.clock._passed += 3.5 * INTERVAL
            return await super().measure(site, now)

    measure(world, Slow())
    await world.until(Phase.SUCCEEDED)
    (first, _), (second, weight_then) = judged
    assert (second - first, weight_then) == (4.5 * INTERVAL, 40)


# --- lost and changed objects


async def test_a_target_that_is_deleted_in_the_middle_of_a_run_gets_no_traffic(world: CanaryWorld) -> None:
    await running(world)
    world.objects.remove(TARGET)
    await world.run(INTERVAL)
    assert (world.routed(), await world.phase()) == (0, Phase.PROGRESSING)
    assert world.texts()[-1] == MISSING
    world.objects.forget()
    await world.run(5 * INTERVAL)
    assert world.objects.writes == []
    world.objects.put(deployment("2"))
    world.pods.run()
    await world.until(Phase.SUCCEEDED, ticks=8)
    assert world.image("web-primary") == "example.org/web:2"


async def test_a_target_that_people_scale_to_zero_gets_its_pods_before_any_traffic(world: CanaryWorld) -> None:
    await running(world, ticks=1)
    world.objects.change(TARGET, {"spec": {"replicas": 0}})
    world.pods.run()
    await world.run(INTERVAL)
    assert "canary deployment web.test not ready: deployment web.test is scaled to zero" in world.texts()
    await world.until(Phase.SUCCEEDED, ticks=8)


async def test_a_rollback_by_deadline_that_was_cut_off_is_finished(world: CanaryWorld) -> None:
    await running(world, held=True, spec={"progressDeadlineSeconds": 20})
    failures = [3]

    def refuse(what: str) -> None:
        if what == "status Failed" and failures[0]:
            failures[0] -= 1
            raise ReconcileError("the status cannot be written")

    world.kill = refuse
    await world.until(Phase.FAILED, ticks=12)
    assert (failures, world.routed(), world.pods.available("web")) == ([0], 0, 0)
    assert not any("Advance" in text for text in world.texts())


@pytest.mark.parametrize("gone", ["HorizontalPodAutoscaler", "ConfigMap"])
async def test_a_run_that_has_lost_what_it_needs_says_so_and_can_be_rolled_back(world: CanaryWorld, gone: str) -> None:
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "minReplicas": 2,
            "maxReplicas": 4,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        },
    }
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": NAMESPACE}, "data": {"a": "1"}}
    ref = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "web"}
    how: dict[str, Any] = {"spec": {"autoscalerRef": ref}, "threshold": 3}
    world.objects.put(scaler)
    world.objects.put(settings)
    await running(world, target=deployment(volumes=[{"name": "c", "configMap": {"name": "web"}}]), **how)
    assert world.routed() == 20
    world.objects.remove(Reference("v1" if gone == "ConfigMap" else "autoscaling/v2", gone, NAMESPACE, "web"))
    await world.run(2 * INTERVAL)
    assert (world.routed(), await world.phase()) == (20, Phase.PROGRESSING)
    assert 'web"' in world.texts()[-1], world.texts()[-1]
    assert "not found" in world.texts()[-1]
    if gone == "ConfigMap":
        await annotate(world, "rollback 1", **how)
    else:
        world.measures.verdicts = [Verdict.FAIL]
        await world.run(3 * INTERVAL)
    assert (await world.phase(), world.routed(), world.pods.available("web")) == (Phase.FAILED, 0, 0)


async def test_a_route_that_no_gateway_accepts_can_still_be_taken_back(world: CanaryWorld) -> None:
    gateway = {"name": "gateway", "namespace": "istio"}
    service = {"port": 80, "targetPort": 8080, "gatewayRefs": [gateway]}
    await running(world, provider="gatewayapi:v1", spec={"service": service})
    route = Reference("gateway.networking.k8s.io/v1", "HTTPRoute", NAMESPACE, "web")

    def share() -> list[int]:
        return [each["weight"] for each in world.objects.now(route)["spec"]["rules"][0]["backendRefs"]]  # type: ignore[index]

    assert share() == [80, 20]
    refused = {"type": "Accepted", "status": "False", "observedGeneration": 1}
    world.objects.status(route, {"parents": [{"parentRef": gateway, "conditions": [refused]}]})
    await world.run(2 * INTERVAL)
    assert share() == [80, 20]
    assert world.texts()[-1].startswith("HTTPRoute web.test parent gateway is not ready")
    world.measures.verdicts = [Verdict.FAIL]
    await world.run(2 * INTERVAL)
    assert (share(), await world.phase(), world.pods.available("web")) == ([100, 0], Phase.FAILED, 0)


async def test_routes_of_a_kind_that_is_gone_keep_the_pods_and_are_named(world: CanaryWorld) -> None:
    await running(world)
    world.objects.missing_kinds.add((ISTIO, "VirtualService"))
    world.measures.verdicts = [Verdict.FAIL]
    await world.run(5 * INTERVAL)
    assert (await world.phase(), world.pods.available("web")) == (Phase.PROGRESSING, 2)
    assert "VirtualService web.test" in world.texts()[-1]
    world.objects.missing_kinds.clear()
    await world.until(Phase.FAILED, ticks=2)
    assert (world.routed(), world.pods.available("web")) == (0, 0)


async def test_a_primary_that_is_lost_in_the_middle_of_a_run_is_not_made_of_what_is_on_trial(world: CanaryWorld) -> None:
    await running(world)
    world.objects.remove(PRIMARY)
    await world.run(5 * INTERVAL)
    assert (world.objects.now(PRIMARY), world.routed(), world.pods.available("web")) == (None, 20, 2)
    assert "web-primary" in world.texts()[-1]
    world.release("1")
    await world.until(Phase.SUCCEEDED, ticks=4)
    assert (world.image("web-primary"), world.routed()) == ("example.org/web:1", 0)


async def test_after_a_failed_promotion_the_next_revision_mends_the_primary_without_an_outage(world: CanaryWorld) -> None:
    await running(world, ticks=2.5, spec={"progressDeadlineSeconds": 20})
    world.pods.failed.add("web-primary")
    world.pods.held.add("web-primary")
    await world.until(Phase.FAILED, ticks=8)
    assert (world.routed(), world.pods.available("web")) == (100, 2)
    routed: list[int] = []
    world.watch.append(lambda: routed.append(world.routed()))
    world.release("3")
    await world.until(Phase.PROMOTING, ticks=4)
    assert set(routed) == {100}
    world.pods.failed.clear()
    world.pods.held.clear()
    world.pods.run()
    await world.until(Phase.SUCCEEDED, ticks=4)
    assert (world.image("web-primary"), world.routed(), world.pods.available("web")) == ("example.org/web:3", 0, 0)


async def test_what_is_kept_to_be_looked_at_is_followed_by_the_next_revision(world: CanaryWorld) -> None:
    await running(world, onFail="Hold")
    world.measures.verdicts = [Verdict.FAIL]
    await world.until(Phase.FAILED, ticks=3)
    assert (world.routed(), world.pods.available("web")) == (0, 2)
    world.measures.verdicts = [Verdict.PASS]
    world.release("3")
    await world.until(Phase.SUCCEEDED, ticks=7)
    assert (world.image("web-primary"), world.pods.available("web")) == ("example.org/web:3", 0)


@pytest.mark.parametrize("ticks", [3.5, 4.5])
async def test_a_revision_that_comes_during_the_promotion_gets_a_run_of_its_own(world: CanaryWorld, ticks: float) -> None:
    await running(world, ticks=ticks)
    assert await world.phase() in {Phase.PROMOTING, Phase.FINALISING}
    world.pods.held.add("web")
    world.release("3")
    await world.run(INTERVAL)
    assert world.routed() == 0
    world.pods.held.clear()
    world.pods.run()
    await world.run(INTERVAL)
    await world.until(Phase.PROMOTING, ticks=8)
    assert "Promotion completed! Scaling down web.test" in world.texts()
    await world.until(Phase.SUCCEEDED, ticks=3)
    assert world.image("web-primary") == "example.org/web:3"


# --- deletion


@pytest.mark.parametrize("ticks", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL])
async def test_a_canary_can_be_deleted_with_revert_in_every_phase(world: CanaryWorld, ticks: float, verdict: Verdict) -> None:
    world.measures.verdicts = [verdict]
    await running(world, ticks=ticks, spec={"revertOnDeletion": True})
    await delete(world)
    await world.run(3 * INTERVAL)
    assert await world.store.list("Canary", NAMESPACE) == []
    assert world.pods.available("web") == 2
    service = world.objects.now(Reference("v1", "Service", NAMESPACE, "web"))
    assert service is not None


async def test_a_canary_whose_target_goes_with_it_does_not_wait_for_it(world: CanaryWorld) -> None:
    await running(world, spec={"revertOnDeletion": True})
    world.objects.remove(TARGET)
    await delete(world)
    await world.run(INTERVAL)
    assert await world.store.list("Canary", NAMESPACE) == []
    assert world.texts()[-1] == "Terminated canary web.test"


async def test_a_canary_that_cannot_go_says_once_what_it_waits_for(world: CanaryWorld) -> None:
    await running(world, ticks=8, spec={"revertOnDeletion": True})
    world.pods.held.add("web")
    await delete(world)
    await world.run(600)
    waits = [text for text in world.texts() if text.startswith("canary deployment web.test not ready")]
    assert len(waits) == 1
    assert len(await world.store.list("Canary", NAMESPACE)) == 1
    world.pods.held.clear()
    world.pods.run()
    await world.run(INTERVAL)
    assert await world.store.list("Canary", NAMESPACE) == []


# --- time


async def test_no_jump_of_the_clock_lets_a_deadline_pass(tmp_path: Path) -> None:
    world, clock = CanaryWorld(tmp_path), JumpingClock()
    world.clock = clock
    await world.open()
    await running(world, ticks=0, held=True, spec={"progressDeadlineSeconds": 60})
    for jump in (3600.0, -7200.0, 86400.0):
        await world.run(INTERVAL)
        clock.jumped += jump
    assert await world.phase() is Phase.PROGRESSING
    world.release("3")
    await world.run(0)
    clock.jumped += 3600
    await world.run(INTERVAL)
    clock.jumped -= 3600
    await world.run(INTERVAL)
    assert (await world.phase(), world.routed()) == (Phase.PROGRESSING, 0)
    world.pods.held.clear()
    world.pods.run()
    await world.until(Phase.SUCCEEDED, ticks=8)
    await world.close()


@pytest.mark.parametrize("jump", [-86400.0, 3600.0])
async def test_a_restart_after_a_jump_of_the_clock_loses_no_more_than_an_interval(tmp_path: Path, jump: float) -> None:
    world, clock = CanaryWorld(tmp_path), JumpingClock()
    world.clock = clock
    await world.open()
    await running(world)
    clock.jumped = jump
    world.start()
    await world.run(INTERVAL)
    assert world.routed() == 40
    await world.close()


# --- ourselves


async def test_who_does_not_lead_any_more_says_and_writes_nothing(world: CanaryWorld) -> None:
    await running(world)

    def lost() -> None:
        raise ReconcileError("somebody else leads")

    world.loop._tools = replace(world.loop._tools, fence=lost)
    told, status = len(world.texts()), await world.status()
    world.objects.forget()
    await world.run(3 * INTERVAL)
    assert (len(world.texts()), world.objects.writes, world.routed()) == (told, [], 20)
    assert await world.status() == status


async def test_a_mistake_of_ours_is_told(world: CanaryWorld) -> None:
    await running(world)

    def mistake() -> None:
        raise ZeroDivisionError

    measure(world, During(mistake))
    await world.run(INTERVAL)
    assert "internal error: ZeroDivisionError, see the log of the controller" in world.texts()
    await world.until(Phase.SUCCEEDED)


async def test_no_chat_holds_up_a_rollback(world: CanaryWorld) -> None:
    await running(world, threshold=1)
    told: list[tuple[str, int]] = []

    class Chats:
        async def send(self, site: Site, message: str, severity: str, *, details: bool) -> None:
            while world.routed():
                await asyncio.sleep(0)
            told.append((message, world.routed()))

    world.loop._tools = replace(world.loop._tools, alerts=Chats())  # type: ignore[arg-type]
    world.measures.verdicts = [Verdict.FAIL]
    async with asyncio.timeout(20):
        await world.run(INTERVAL)
    assert told == [("Failed checks threshold reached 1", 0)]


async def test_failed_checks_count_though_the_status_cannot_be_written(world: CanaryWorld) -> None:
    await running(world, threshold=3)
    assert world.routed() == 20

    def refuse(what: str) -> None:
        if what.startswith("status"):
            raise ReconcileError("the status cannot be written")

    world.kill = refuse
    world.measures.verdicts = [Verdict.PASS, Verdict.FAIL]
    await world.run(INTERVAL)
    assert world.routed() == 40
    await world.run(3 * INTERVAL)
    assert (world.routed(), await world.phase()) == (0, Phase.PROGRESSING)
    world.kill = lambda _: None
    await world.until(Phase.FAILED, ticks=2)
    assert world.pods.available("web") == 0


async def test_no_step_is_made_blindly_while_the_status_cannot_be_written(world: CanaryWorld) -> None:
    await running(world, stepWeight=10, maxWeight=90)

    def refuse(what: str) -> None:
        if what.startswith("status"):
            raise ReconcileError("the status cannot be written")

    world.kill = refuse
    await world.run(5 * INTERVAL)
    assert world.routed() == 20
    assert world.texts()[-1] == "the status cannot be written"


# --- cost


async def test_a_resting_canary_looks_at_nothing_that_is_not_its_own(world: CanaryWorld) -> None:
    await running(world, ticks=10)
    assert await world.phase() is Phase.SUCCEEDED
    world.objects.put(deployment(name="other"))
    await world.work()
    world.objects.forget()
    for number in range(5):
        world.objects.change(Reference("apps/v1", "Deployment", NAMESPACE, "other"), {"spec": {"replicas": number}})
        world.pods.run()
        body = canary()
        body["metadata"]["labels"] = {"number": str(number)}
        (world._folder / "Canary-web.yaml").write_text(yaml.safe_dump(body))
        await world.store.sync()
        await world.work()
    assert (world.objects.reads, world.objects.writes) == ([], [])
