"""Killed at every step of a run and started again: exactly one commit, and nothing is broken."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gitrepo import BareRepository
from tests.support.lab import Lab, lab

pytestmark = pytest.mark.slow


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        yield made


def spawn(world: Lab) -> subprocess.Popen[bytes]:
    """`imagebot once` in a process of its own, in a group of its own."""
    command = [sys.executable, "-m", "reconcile", "once", str(world.folder), "--state", str(world.state), "--no-docker-config"]
    with (world.root / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process without blocking the servers of this one."""
    return await asyncio.to_thread(process.wait, 60)


async def run_to_the_end(world: Lab) -> int:
    """A run that nobody disturbs."""
    return await ended(spawn(world))


def assert_one_commit(bare: BareRepository) -> None:
    """Exactly one commit of ours with the right content, in a repository that is whole."""
    assert len(bare.log()) == 2
    assert b"web:1.0.0" in bare.file("deploy.yaml")
    bare.check()


async def requests_of_a_run(world: Lab) -> int:
    """How many requests reach the Git server in an undisturbed run."""
    world.git.traffic.clear()
    assert await run_to_the_end(world) == 2, (world.root / "log").read_text()
    return len(world.git.traffic.requests)


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "process and children"])
async def test_killed_at_each_request_to_git(tmp_path: Path, whole_group: bool) -> None:
    (tmp_path / "count").mkdir()
    async with lab(tmp_path / "count") as world:
        world.registry.push_image("web", "1.0.0")
        world.declare_app()
        steps = await requests_of_a_run(world)
    assert steps >= 4
    for step in range(steps):
        root = tmp_path / str(step)
        root.mkdir()
        async with lab(root) as world:
            world.registry.push_image("web", "1.0.0")
            bare = world.declare_app()
            process = spawn(world)
            seen = []

            def intercept(
                _: object, seen: list[int] = seen, process: subprocess.Popen[bytes] = process, step: int = step
            ) -> bool:
                seen.append(1)
                if len(seen) == step + 1:
                    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
                return False

            world.git.intercept = intercept
            assert await ended(process) == -signal.SIGKILL
            world.git.intercept = None
            assert await run_to_the_end(world) in {0, 2}, (world.root / "log").read_text()
            assert_one_commit(bare)


async def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    for turn in range(12):
        root = tmp_path / str(turn)
        root.mkdir()
        async with lab(root) as world:
            world.registry.push_image("web", "1.0.0")
            bare = world.declare_app()
            for _ in range(2):
                process = spawn(world)
                await asyncio.sleep(chance.uniform(0.3, 1.6))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                await ended(process)
            assert await run_to_the_end(world) in {0, 2}, (world.root / "log").read_text()
            assert_one_commit(bare)
            left = list(world.state.rglob("*.lock"))
            assert not left
