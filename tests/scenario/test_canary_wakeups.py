"""What Canaries cost in looks, reads and writes: counts, which keep a service of a thousand of them quick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from canary.phases import Phase
from reconcile.ports.cluster import Reference
from tests.support.canaryworld import INTERVAL, NAMESPACE, CanaryWorld, canary, canary_world, deployment

TARGET, PRIMARY = (Reference("apps/v1", "Deployment", NAMESPACE, name) for name in ("web", "web-primary"))
STEPS = 6
"""Ticks of a run of the ladder 20, 40: scale up, 20, 40, promote, route to the primary, finish."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CanaryWorld]:
    async with canary_world(tmp_path) as made:
        yield made


async def resting(world: CanaryWorld) -> None:
    await world.declare(deployment(), canary())
    await world.until(Phase.INITIALIZED)
    await world.work()
    world.objects.forget()


def asked(world: CanaryWorld) -> int:
    """Looks that were asked for since the start."""
    return world.loop.queue.adds


async def test_what_workloads_report_wakes_no_canary_that_rests(world: CanaryWorld) -> None:
    await resting(world)
    before = asked(world)
    for ready in range(5):
        world.objects.status(PRIMARY, {"availableReplicas": ready, "replicas": 5})
        world.objects.status(TARGET, {"replicas": ready})
        await world.work()
    assert (asked(world) - before, world.objects.reads) == (0, [])


async def test_what_somebody_wants_wakes_it_once(world: CanaryWorld) -> None:
    await resting(world)
    before = asked(world)
    world.objects.change(PRIMARY, {"metadata": {"labels": {"team": "shop"}}})
    await world.work()
    assert (asked(world) - before, world.objects.writes) == (1, [])


async def test_drift_is_put_right_in_one_look(world: CanaryWorld) -> None:
    """Its own write is no news to a Canary."""
    await resting(world)
    before = asked(world)
    world.objects.change(Reference("v1", "Service", NAMESPACE, "web"), {"spec": {"selector": {"app": "nobody"}}})
    await world.work()
    assert (asked(world) - before, world.objects.writes) == (1, [("patch", "Service", "web")])


async def test_a_primary_that_becomes_ready_is_waited_for_by_its_status(world: CanaryWorld) -> None:
    world.pods.held = {"web-primary"}
    await world.declare(deployment(), canary())
    await world.run(0.5 * INTERVAL)
    assert await world.phase() is Phase.INITIALIZING
    world.pods.held = set()
    world.pods.run()
    await world.work()
    assert await world.phase() is Phase.INITIALIZED


async def test_a_run_looks_hardly_more_often_than_it_ticks(world: CanaryWorld) -> None:
    await resting(world)
    before = asked(world)
    world.release("2")
    await world.until(Phase.SUCCEEDED)
    await world.work()
    # Beside the ticks: what patches of whatever is there bring (scaling twice, the promotion), and one look at the end.
    assert asked(world) - before <= STEPS + 4


async def test_a_run_writes_what_changes_and_its_status_once_a_tick(world: CanaryWorld) -> None:
    await resting(world)
    statuses: list[str] = []
    world.kill = lambda word: statuses.append(word) if word.startswith("status") else None
    world.release("2")
    await world.until(Phase.SUCCEEDED)
    assert world.objects.writes == [
        ("patch", "Deployment", "web"),
        ("patch", "VirtualService", "web"),
        ("patch", "VirtualService", "web"),
        ("patch", "Deployment", "web-primary"),
        ("patch", "VirtualService", "web"),
        ("patch", "Deployment", "web"),
    ]
    assert len(statuses) == STEPS
