"""Killed at every step of every tick, and started again: same weights, same counters, one promotion, no outage.

A first run without a death counts the places at which the controller changes something. Then each of them, before and after the
change, ends the process once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canary.metrics.base import Verdict
from canary.phases import Phase
from tests.support.canaryworld import INTERVAL, CanaryWorld, Killed, canary, canary_world, deployment


class DeathAt:
    """Ends the process at the nth place, once; counts places."""

    def __init__(self, place: int) -> None:
        self.place, self.count = place, 0
        self.where = ""

    def __call__(self, what: str) -> None:
        self.count += 1
        if self.count == self.place:
            self.where = what
            raise Killed(what)


async def succeed(world: CanaryWorld) -> None:
    await world.declare(deployment(), world.canary)  # type: ignore[attr-defined]
    await world.until(Phase.INITIALIZED)
    world.release("2")
    await world.until(Phase.SUCCEEDED)
    assert world.image("web-primary") == "example.org/web:2"


async def fail(world: CanaryWorld) -> None:
    await world.declare(deployment(), world.canary)  # type: ignore[attr-defined]
    await world.until(Phase.INITIALIZED)
    world.release("2")
    await world.run(1.5 * INTERVAL)
    world.measures.verdicts = [Verdict.FAIL]
    await world.until(Phase.FAILED)
    assert world.image("web-primary") == "example.org/web:1"


Story = Callable[[CanaryWorld], Any]
LADDER: dict[str, Any] = {}
BLUE_GREEN = {"iterations": 2}
STEPS_BACK = {"stepWeight": 50, "maxWeight": 50, "stepWeightPromotion": 50}


async def play(folder: Path, story: Story, analysis: dict[str, Any], place: int) -> tuple[int, int, list[int], list[str]]:
    """Places, deaths, the weights that the routes had one after the other, and events."""
    folder.mkdir()
    async with canary_world(folder) as world:
        world.canary = canary(**analysis)  # type: ignore[attr-defined]
        death = DeathAt(place)
        world.kill = death
        weights: list[int] = []
        least: list[int] = []

        def look() -> None:
            least.append(world.pods.available("web-primary") + world.pods.available("web"))
            if not weights or weights[-1] != world.routed():
                weights.append(world.routed())

        world.watch.append(look)
        await story(world)
        assert min(least[1:]) >= 2, f"too few pods after a death at {death.where}"
        assert (world.pods.available("web"), world.routed()) == (0, 0), death.where
        status = await world.status()
        assert status.failed_checks == 0, death.where
        return death.count, world.deaths, weights, world.texts()


@pytest.mark.parametrize(
    ("story", "analysis"),
    [(succeed, LADDER), (fail, LADDER), (succeed, BLUE_GREEN), (succeed, STEPS_BACK)],
    ids=["success", "failure", "blue/green", "steps back"],
)
async def test_no_death_changes_what_a_run_does(tmp_path: Path, story: Story, analysis: dict[str, Any]) -> None:
    places, deaths, undisturbed, texts = await play(tmp_path / "alive", story, analysis, 0)
    assert (deaths, places > 20) == (0, True)
    ends = [text for text in texts if text.startswith(("Promotion completed", "Canary failed"))]
    for place in range(1, places + 1):
        _, deaths, weights, told = await play(tmp_path / str(place), story, analysis, place)
        assert deaths == 1
        assert weights == undisturbed, f"other weights after a death at place {place}"
        again = [text for text in told if text.startswith(("Promotion completed", "Canary failed"))]
        # The words about an end come after its status: a death in between loses them; nothing tells of two ends.
        assert len(set(again)) <= len(ends)
