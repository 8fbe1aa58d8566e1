"""Every write of a run fails once, three times, or for ever: no second promotion, no traffic to what cannot take it, and words.

A first run without faults lists the writes that the controller makes. Then each of them is made to fail, in one way after the
other. What fails for ever may hold a run up, but somebody has to be told which object it was and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from canary.metrics.base import Verdict
from canary.phases import Phase
from reconcile.errors import Conflict, NotFound, ReconcileError, TimedOut
from tests.support.canaryworld import INTERVAL, CanaryWorld, canary, canary_world, deployment

CAUSE = "made to fail by this test"
ENDLESS = 10**6


@dataclass
class Fault:
    """Makes one kind of write fail.

    Attributes:
        what: The write, in the world's words: `patch Deployment web`.
        error: What it raises.
        times: How often.
        done: The write is carried out all the same, and only its answer is lost.
    """

    what: str
    error: type[ReconcileError]
    times: int = 1
    done: bool = False
    seen: list[str] = field(default_factory=list)
    begun: bool = False
    hits: int = 0

    def __call__(self, word: str) -> None:
        if not self.begun:
            return
        if not word.startswith("after "):
            self.seen.append(word)
        if self.times and word == f"{'after ' if self.done else ''}{self.what}":
            self.times -= 1
            self.hits += 1
            raise self.error(f"{self.what.split(maxsplit=1)[1]}: {CAUSE}")


class Judge:
    """Looks at the world after each of its steps."""

    def __init__(self, world: CanaryWorld) -> None:
        self._world = world
        self.images = [world.image("web-primary")]
        world.watch.append(self)

    def __call__(self) -> None:
        world = self._world
        ready, routed = world.pods.available("web"), world.routed()
        assert ready + world.pods.available("web-primary") >= 2, f"too few pods; {world.texts()[-3:]}"
        assert routed == 0 or ready > 0, f"{routed} % of the traffic go to a target without pods; {world.texts()[-3:]}"
        if self.images[-1] != world.image("web-primary"):
            self.images.append(world.image("web-primary"))


@dataclass
class Story:
    """How a run goes, and how it ends undisturbed."""

    verdict: Verdict
    end: Phase
    images: list[str]
    held: bool = False


ONE, TWO = "example.org/web:1", "example.org/web:2"
STORIES = {
    "success": Story(Verdict.PASS, Phase.SUCCEEDED, [ONE, TWO]),
    "failure": Story(Verdict.FAIL, Phase.FAILED, [ONE]),
    "deadline": Story(Verdict.PASS, Phase.FAILED, [ONE], held=True),
}


async def play(folder: Path, story: Story, fault: Fault) -> tuple[Phase, list[str], list[str], CanaryWorld]:
    """Where it ended, what the primary ran, and what was told."""
    folder.mkdir()
    async with canary_world(folder) as world:
        world.kill = fault
        await world.declare(deployment(), canary(spec={"progressDeadlineSeconds": 20}))
        await world.until(Phase.INITIALIZED)
        fault.begun = True
        judge = Judge(world)
        if story.held:
            world.pods.held.add("web")
        world.release("2")
        await world.run(2.5 * INTERVAL)
        world.measures.verdicts = [story.verdict]
        await world.run(22 * INTERVAL)
        return await world.phase(), judge.images, world.texts(), world


def writes_of(story: str) -> list[str]:
    """Names of the writes of an undisturbed run."""
    started = ["patch Deployment web", "status Progressing"]
    routed = ["patch VirtualService web"]
    ends = {
        "success": [*routed, "patch Deployment web-primary", "status Promoting", "status Finalising", "status Succeeded"],
        "failure": [*routed, "status Failed"],
        "deadline": ["status Failed"],
    }
    return [*started, *ends[story]]


@pytest.mark.parametrize("name", STORIES)
async def test_these_are_the_writes_of_a_run(tmp_path: Path, name: str) -> None:
    fault = Fault("nothing", ReconcileError, 0)
    phase, images, _, world = await play(tmp_path / "run", STORIES[name], fault)
    assert sorted(set(fault.seen)) == sorted(writes_of(name))
    assert (phase, images) == (STORIES[name].end, STORIES[name].images)
    assert (world.pods.available("web"), world.routed()) == (0, 0)


PASSING: dict[str, Callable[[str], Fault]] = {
    "a conflict": lambda what: Fault(what, Conflict),
    "not found": lambda what: Fault(what, NotFound),
    "denied three times": lambda what: Fault(what, ReconcileError, 3),
    "too slow": lambda what: Fault(what, TimedOut),
    "done, but the answer is lost": lambda what: Fault(what, TimedOut, done=True),
    "done, but the answer is lost three times": lambda what: Fault(what, TimedOut, 3, done=True),
}


@pytest.mark.parametrize("how", PASSING)
@pytest.mark.parametrize("name", STORIES)
async def test_a_write_that_fails_for_a_while_changes_no_end(tmp_path: Path, name: str, how: str) -> None:
    story = STORIES[name]
    for place, what in enumerate(writes_of(name)):
        fault = PASSING[how](what)
        phase, images, texts, world = await play(tmp_path / str(place), story, fault)
        assert fault.hits, f"{what} was never tried"
        assert (phase, images) == (story.end, story.images), f"{what}: {texts[-8:]}"
        assert (world.pods.available("web"), world.routed()) == (0, 0), what


@pytest.mark.parametrize("error", [Conflict, ReconcileError])
@pytest.mark.parametrize("name", STORIES)
async def test_a_write_that_fails_for_ever_is_told_with_object_and_cause(
    tmp_path: Path, name: str, error: type[ReconcileError]
) -> None:
    story = STORIES[name]
    for place, what in enumerate(writes_of(name)):
        fault = Fault(what, error, ENDLESS)
        phase, images, texts, world = await play(tmp_path / str(place), story, fault)
        assert images in (story.images, story.images[:1]), what
        assert fault.hits < 150, "it wakes itself again and again"
        assert any(CAUSE in text for text in texts), f"{what}: nobody is told; {texts[-5:]}"
        if what.startswith("patch"):
            shown = [text for text in texts if CAUSE in text]
            assert all(what.rsplit(maxsplit=1)[1] in text for text in shown), shown[-1]
            assert phase is not story.end or what == "patch Deployment web", what
        if story.end is Phase.FAILED:
            assert world.routed() == 0 or what == "patch VirtualService web", "bad traffic though routes could be written"
