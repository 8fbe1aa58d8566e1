"""Killed at every request to the forge and to Git while a request is opened, updated and closed: nothing is doubled or lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.child import Start
from tests.faults.launcher import Launcher, launching
from tests.scenario.test_pull_request_stories import HEAD, Team, ready, states
from tests.support.forges import fake_forge
from tests.support.lab import lab, marked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ENOUGH = 40
"""More requests than any of the runs makes."""


@asynccontextmanager
async def started(folder: Path, provider: str) -> AsyncIterator[Team]:
    (folder / "forge").mkdir(parents=True)
    with fake_forge(provider, folder / "forge") as forge:
        async with lab(folder) as world:
            team = Team(world, forge)
            team.begin()
            team.propose(on_revert="Overwrite")
            yield team
        assert forge.problems == []


class Watch:
    """Stands before the forge and its Git server, and acts at the request of a number."""

    def __init__(self, team: Team) -> None:
        self.number = 0
        self.at = -1
        self.act: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        forge: Any = team.forge
        for server in {id(each): each for each in (forge.api, forge.front)}.values():
            server.intercept = self._before(server.intercept)

    def _before(self, inner: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def intercept(handler: Any) -> bool:
            with self._lock:
                number, self.number = self.number, self.number + 1
            if number == self.at:
                self.act()
            return bool(inner(handler))

        return intercept


async def killed_at(launcher: Launcher, team: Team, watch: Watch, number: int) -> bool:
    """A run in a process of its own, killed when its request of this number arrives; whether it made so many."""
    world = team.world
    arguments = ("once", str(world.folder), "--state", str(world.state), "--no-docker-config")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(world.root), "TMPDIR": str(world.root)}
    pid: list[int] = []
    known = threading.Event()

    def kill() -> None:
        assert known.wait(30)
        os.kill(pid[0], signal.SIGKILL)

    watch.number, watch.at, watch.act = 0, number, kill
    child = await launcher.start(Start(arguments, str(world.root / "log"), str(world.root), environment))
    pid.append(child.pid)
    known.set()
    code = await child.wait(60)
    watch.at = -1
    # Of a request that was half sent, the forge saw no body.
    team.forge.problems[:] = [problem for problem in team.forge.problems if "the body must be" not in problem]
    assert code in {0, 2, -signal.SIGKILL}, (world.root / "log").read_text()
    return code == -signal.SIGKILL


async def settled(team: Team) -> str:
    """The state of the newest request after a start that nobody disturbs."""
    done = await team.once()
    assert ready(done)[0] == "True", ready(done)
    return states(done)[-1]


def assert_one_open(team: Team, number: int, tag: str) -> None:
    """One open request with one commit on one branch."""
    (request,) = team.forge.opened()
    assert (request.number, request.branch, request.title) == (number, HEAD, f"Update web to {tag}")
    assert tag in request.body
    assert request.comments == []
    assert f"web:{tag}" in team.file("web", HEAD)
    assert team.repository.git("rev-list", "--count", f"main..{HEAD}") == "1"
    assert team.repository.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split() == [HEAD, "main"]


@pytest.mark.parametrize("provider", ["github", "gitlab"])
async def test_killed_at_each_request_while_a_request_is_opened_updated_and_closed(tmp_path: Path, provider: str) -> None:
    async with launching() as launcher, started(tmp_path, provider) as team:
        watch = Watch(team)
        reached = [0, 0, 0]

        async def killed(phase: int, number: int) -> None:
            if reached[phase] == number and await killed_at(launcher, team, watch, number):
                reached[phase] += 1

        for number in range(ENOUGH):
            first, second = f"1.{number}.1", f"1.{number}.2"
            team.release("web", first)
            await killed(0, number)
            assert await settled(team) == "Open"
            assert_one_open(team, number + 1, first)

            team.release("web", second)
            await killed(1, number)
            assert await settled(team) == "Open"
            assert_one_open(team, number + 1, second)

            team.repository.commit({"web/deploy.yaml": marked(team.world.image("web"), "web", second).encode()})
            await killed(2, number)
            assert await settled(team) == "Superseded"
            assert not (await team.once()).changed
            assert not team.forge.opened()
            assert len(team.forge.requests) == number + 1
            assert len(team.forge.requests[number + 1].comments) <= 1
            assert team.repository.head(HEAD) is None
            team.repository.check()
            if max(reached) <= number:
                break
        assert min(reached) >= 5, reached
        assert max(reached) < ENOUGH, "there were requests that nobody was killed at"
