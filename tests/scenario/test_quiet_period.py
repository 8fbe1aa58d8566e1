"""Stories of changes that wait for more: one commit for all who share a branch, when it is time, whatever happens meanwhile.

The quiet period is an hour, and the clock leaps: how long a test takes does not matter.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from imagebot.bot.trailers import read_trailers
from reconcile.api.resource import AnyResource
from reconcile.ports.clock import parse_timestamp
from tests.support.lab import (
    Lab,
    Running,
    automation,
    eventually,
    git_repository,
    image_policy,
    image_repository,
    lab,
    marked,
    ready,
)
from tests.support.leapclock import LeapClock

PATIENCE = 40.0
HOUR = 3600.0
KIND = "ImageUpdateAutomation"


class Fleet:
    """A repository with some folders, an automation for each, and images that are pushed when asked for."""

    def __init__(self, world: Lab, folders: dict[str, list[str]], **more: Any) -> None:
        self.world = world
        self.folders = folders
        self.images = [image for images in folders.values() for image in images]
        self.tags = dict.fromkeys(self.images, 0)
        files = {f"{f}/{i}.yaml": marked(world.image(i), i, "1.0.0") for f, images in folders.items() for i in images}
        self.bare = world.repository("fleet.git", files)
        for image in self.images:
            world.registry.push_image(image, "1.0.0")
        world.declare(
            git_repository("fleet", world.url("fleet.git")),
            *(image_repository(image, world.image(image)) for image in self.images),
            *(image_policy(image) for image in self.images),
        )
        for folder in folders:
            self.automation(folder, **more)

    def automation(self, folder: str, **spec: Any) -> None:
        """Declare the automation of a folder; `meta` goes to its annotations."""
        commit = {"quietPeriod": "1h", **spec.pop("commit", {})}
        annotations = spec.pop("annotations", {})
        body = automation(
            folder,
            "fleet",
            interval="1000h",
            update={"strategy": "Setters", "path": folder},
            commit={name: value for name, value in commit.items() if value is not None},
            **spec,
        )
        body["metadata"]["annotations"] = annotations
        self.world.declare(body)

    def push(self, images: Iterable[str]) -> None:
        """Push a new tag of each image, and have it scanned."""
        for image in images:
            self.tags[image] += 1
            self.world.registry.push_image(image, f"1.{self.tags[image]}.0")
            body = image_repository(image, self.world.image(image))
            body["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": str(self.tags[image])}
            self.world.declare(body)

    @property
    def commits(self) -> int:
        """Commits of the bot."""
        return len(self.bare.log()) - 1

    @property
    def pushes(self) -> int:
        """Pushes that the server has seen."""
        return sum(line.startswith("POST") and "git-receive-pack" in line for line in self.world.git.traffic.requests)

    def written(self, image: str) -> bool:
        """Whether the newest tag of an image stands in Git."""
        folder = next(name for name, images in self.folders.items() if image in images)
        return f"{image}:1.{self.tags[image]}.0".encode() in self.bare.file(f"{folder}/{image}.yaml")


async def waiting(running: Running, folder: str, changes: int) -> AnyResource:
    """Wait until an automation says how many changes wait."""
    return await said(running, folder, f"{changes} change{' waits' if changes == 1 else 's wait'} until ")


async def said(running: Running, folder: str, text: str) -> AnyResource:
    """Wait until an automation is Ready and says this."""

    async def probe() -> AnyResource | None:
        found = await running.get(KIND, folder)
        status, reason, message = ready(found)
        return found if (status, reason) == ("True", "Succeeded") and text in message else None

    return await eventually(probe, f"{folder} says {text!r}", PATIENCE)


async def settled(running: Running, *folders: str) -> list[AnyResource]:
    """Wait until nothing waits any more."""
    found = [await said(running, folder, "repository up-to-date") for folder in folders]
    assert all(each.status.pending_since is None and each.status.pending_until is None for each in found)
    return found


async def leap(running: Running, clock: LeapClock, hours: float, *folders: str) -> None:
    """Let time pass, and have these automations looked at as if their timers had come."""
    clock.leap(hours * HOUR)
    for folder in folders:
        running.request(KIND, folder)
    await idle(running)


async def idle(running: Running) -> None:
    """Wait until the service has nothing to do but to wait."""
    await running.service.manager.drained()


def pushed(running: Running) -> list[tuple[str, str]]:
    """The pushes that people were told of: automation and text."""
    return [(e.key.name, e.message) for e in running.service.store._database.events() if "pushed commit" in e.message]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


@pytest.mark.slow
async def test_25_images_in_five_minutes_for_three_automations_are_one_commit(world: Lab) -> None:
    folders = {"a": [f"a{n}" for n in range(5)], "b": [f"b{n}" for n in range(10)], "c": [f"c{n}" for n in range(10)]}
    fleet, clock = Fleet(world, folders), LeapClock()
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        world.git.traffic.clear()
        for wave in range(5):
            fleet.push(images[n] for images in folders.values() for n in range(wave, len(images), 5))
            for folder, images in folders.items():
                await waiting(running, folder, (wave + 1) * len(images) // 5)
            await leap(running, clock, 0.9, *folders)
        assert (fleet.commits, fleet.pushes) == (0, 0)
        await leap(running, clock, 0.2, "b")
        done = await settled(running, *folders)
        await idle(running)
        told = pushed(running)
    assert (fleet.commits, fleet.pushes) == (1, 1)
    assert all(fleet.written(image) for image in fleet.images)
    assert {each.status.last_push_commit for each in done} == {fleet.bare.head()}
    assert [len(each.status.observed_policies) for each in done] == [25, 25, 25]
    head = (fleet.bare.head() or "")[:7]
    assert sorted(told) == [
        (folder, f"pushed commit '{head}' to branch 'main'\nUpdate from image update automation") for folder in folders
    ]


async def test_who_asks_is_written_at_once_and_who_has_no_quiet_period_too_while_others_wait(world: Lab) -> None:
    folders = {"a": ["a0"], "b": ["b0"], "c": ["c0"], "d": ["d0"]}
    fleet, clock = Fleet(world, folders), LeapClock()
    fleet.automation("d", commit={"quietPeriod": None})
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        fleet.push(["a0", "b0", "c0", "d0"])
        for folder in "abc":
            await waiting(running, folder, 1)
        await eventually(lambda: fleet.written("d0"), "the commit without a quiet period", PATIENCE)
        fleet.automation("c", annotations={"reconcile.fluxcd.io/requestedAt": "now"})
        await settled(running, "c", "d")
        await idle(running)
        assert fleet.commits == 2
        assert (fleet.written("c0"), fleet.written("a0"), fleet.written("b0")) == (True, False, False)
        assert all([(await running.get(KIND, folder)).status.pending_until for folder in "ab"])
        await leap(running, clock, 1, "a")
        await settled(running, "a", "b")
    assert fleet.commits == 3
    assert fleet.written("a0")
    assert fleet.written("b0")


async def test_a_restart_keeps_the_moment_and_the_company(world: Lab) -> None:
    folders = {"a": ["a0"], "b": ["b0"]}
    fleet, clock = Fleet(world, folders), LeapClock()
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        fleet.push(["a0", "b0"])
        before = [(await waiting(running, folder, 1)).status for folder in folders]
    world.git.traffic.clear()
    async with world.start(clock=LeapClock(HOUR / 2)) as running:
        await idle(running)
        after = [(await waiting(running, folder, 1)).status for folder in folders]
        keys = ("pending_since", "pending_until")
        assert [[getattr(s, k) for k in keys] for s in after] == [[getattr(s, k) for k in keys] for s in before]
    assert fleet.commits == 0
    async with world.start(clock=LeapClock(HOUR * 2)) as running:
        await settled(running, *folders)
        await idle(running)
    assert (fleet.commits, fleet.pushes) == (1, 1)


async def test_what_is_taken_back_is_not_committed(world: Lab) -> None:
    """Somebody writes the image by hand while it waits; the branch is seen when the wait is over."""
    fleet, clock = Fleet(world, {"a": ["a0"]}), LeapClock()
    async with world.start(clock=clock) as running:
        await settled(running, "a")
        fleet.push(["a0"])
        await waiting(running, "a", 1)
        fleet.bare.commit({"a/a0.yaml": marked(world.image("a0"), "a0", "1.1.0").encode()}, message="by hand", force=False)
        await leap(running, clock, 1, "a")
        await settled(running, "a")
    assert fleet.bare.git("log", "--format=%s", "main").split("\n")[0] == "by hand"


async def test_who_is_suspended_drops_out_and_begins_anew(world: Lab) -> None:
    folders = {"a": ["a0"], "b": ["b0"]}
    fleet, clock = Fleet(world, folders), LeapClock()
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        fleet.push(["a0", "b0"])
        for folder in folders:
            before = await waiting(running, folder, 1)
        fleet.automation("a", suspend=True)
        found = await said(running, "a", "left as it is")
        assert (found.status.pending_since, found.status.pending_until) == (None, None)
        await leap(running, clock, 1, "b")
        await settled(running, "b")
        assert (fleet.written("a0"), fleet.written("b0")) == (False, True)
        fleet.automation("a")
        found = await waiting(running, "a", 1)
        anew = parse_timestamp(found.status.pending_since) - parse_timestamp(before.status.pending_since)
        assert anew.total_seconds() >= HOUR
        await leap(running, clock, 1, "a")
        await settled(running, "a")
    assert fleet.written("a0")
    assert fleet.commits == 2


async def test_changes_that_do_not_stop_are_written_after_the_longest_wait(world: Lab) -> None:
    fleet, clock = Fleet(world, {"a": ["a0", "a1", "a2"]}, commit={"maxWait": "100m"}), LeapClock()
    async with world.start(clock=clock) as running:
        await settled(running, "a")
        for number, image in enumerate(fleet.images):
            fleet.push([image])
            await waiting(running, "a", number + 1)
            await leap(running, clock, 0.5, "a")
        assert fleet.commits == 0
        await leap(running, clock, 0.25, "a")
        await settled(running, "a")
    assert fleet.commits == 1
    assert all(fleet.written(image) for image in fleet.images)


async def test_different_authors_get_a_commit_each_in_one_push_with_trailers(world: Lab) -> None:
    folders = {"a": ["a0"], "b": ["b0"], "c": ["c0"]}
    fleet, clock = Fleet(world, folders, commit={"trailers": True}), LeapClock()
    template = "{{ .AutomationObject }}{{ range $path, $_ := .Changed.FileChanges }} {{ $path }}{{ end }}"
    for folder, name in (("a", "bot"), ("b", "other"), ("c", "bot")):
        author = {"name": name, "email": "bot@example.com"}
        fleet.automation(folder, commit={"trailers": True, "author": author, "messageTemplate": template})
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        world.git.traffic.clear()
        fleet.push(fleet.images)
        for folder in folders:
            await waiting(running, folder, 1)
        await leap(running, clock, 1, "c")
        done = await settled(running, *folders)
    assert (fleet.commits, fleet.pushes) == (2, 1)
    second, first = fleet.bare.log()[:2]
    assert [each.status.last_push_commit for each in done] == [first, second, first]
    messages = [fleet.bare.git("log", "-1", "--format=%an%n%B", commit) for commit in (first, second)]
    assert [message.split("\n")[:2] for message in messages] == [
        ["bot", "apps/a a/a0.yaml c/c0.yaml"],
        ["other", "apps/b b0.yaml"],
    ]
    images = {image: f"{world.image(image)}:1.1.0" for image in fleet.images}
    read = [read_trailers(message.partition("\n")[2]) for message in messages]
    assert read == [{("apps", "a0"): images["a0"], ("apps", "c0"): images["c0"]}, {("apps", "b0"): images["b0"]}]


async def test_one_whose_change_is_refused_does_not_stop_the_others(world: Lab) -> None:
    folders = {"a": ["a0"], "prod": ["p0"], "z": ["z0"]}
    fleet, clock = Fleet(world, folders), LeapClock()
    fleet.bare.hook("update", '#!/bin/sh\n! git diff --name-only "$2" "$3" | grep -q ^prod/\n')
    async with world.start(clock=clock) as running:
        await settled(running, *folders)
        fleet.push(fleet.images)
        for folder in folders:
            await waiting(running, folder, 1)
        await leap(running, clock, 1, "prod")
        await settled(running, "a", "z")
        await running.until_failed(KIND, "prod", "GitOperationFailed")
        assert [fleet.written(image) for image in fleet.images] == [True, False, True]
        fleet.bare.hook("update", "#!/bin/sh\nexit 0\n")
        running.request(KIND, "prod")
        await settled(running, "prod")
    assert fleet.written("p0")


async def test_the_end_of_the_wait_comes_by_itself(world: Lab) -> None:
    fleet = Fleet(world, {"a": ["a0"]}, commit={"quietPeriod": "500ms"})
    async with world.start() as running:
        await settled(running, "a")
        fleet.push(["a0"])
        await eventually(lambda: fleet.written("a0"), "the commit", PATIENCE)
        await settled(running, "a")
    assert fleet.commits == 1


async def test_a_single_pass_leaves_what_waits_to_one_that_comes_later(world: Lab) -> None:
    fleet = Fleet(world, {"a": ["a0"]}, commit={"quietPeriod": "1h"})
    await world.once()
    world.registry.push_image("a0", "1.1.0")
    body = image_repository("a0", world.image("a0"))
    body["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "1"}
    world.declare(body)
    done = await world.once()
    assert not done.changed
    assert re.fullmatch(r"1 change waits until .*Z for more", done.ready(KIND, "a")[2])
    assert fleet.commits == 0
