"""Killed while it proposes a change: the next start opens no second request and loses none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.child import Start
from tests.faults.launcher import launching
from tests.faults.points import REQUEST_POINTS, Stop, When
from tests.support.forges import PROVIDERS, fake_forge
from tests.support.lab import Lab, automation, git_repository, image_policy, image_repository, lab, marked, secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def once(world: Lab, number: int, stop: Stop | None) -> Start:
    arguments = ("once", str(world.folder), "--state", str(world.state), "--no-docker-config")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(world.root), "TMPDIR": str(world.root)}
    return Start(arguments, str(world.root / f"log-{number}"), str(world.root), environment, stop, str(world.root / "mark"))


async def test_each_step_of_a_request(tmp_path: Path) -> None:
    whens: tuple[When, ...] = ("before", "after")
    points = [Stop(point, when, "kill tree") for point in REQUEST_POINTS for when in whens]
    async with launching() as launcher:
        for number, stop in enumerate(points):
            folder = tmp_path / str(number)
            (folder / "forge").mkdir(parents=True)
            with fake_forge(PROVIDERS[number % len(PROVIDERS)], folder / "forge") as forge:
                async with lab(folder) as world:
                    world.registry.push_image("web", "1.1.0")
                    forge.repository.commit({"deploy.yaml": marked(world.image("web"), "web", "1.0.0").encode()})
                    token = {key: value.decode() for key, value in forge.secret.items()}
                    wanted = {"provider": forge.provider, "secretRef": {"name": "forge"}, "address": forge.address}
                    world.declare(
                        image_repository("web", world.image("web")),
                        image_policy("web"),
                        git_repository("fleet", forge.url),
                        secret("forge", token),
                        automation("fleet", "fleet", push={"pullRequest": wanted}),
                    )
                    killed = await launcher.start(once(world, 1, stop))
                    assert await killed.wait(60) == -9, f"{stop} was not reached"
                    for turn in (2, 3):
                        again = await launcher.start(once(world, turn, None))
                        log = world.root / f"log-{turn}"
                        assert await again.wait(60) in {0, 2}, f"{stop}: {log.read_text()}"
                    request = forge.only()
                    assert (request.state, request.base) == ("open", "main"), stop
                    assert b"web:1.1.0" in forge.repository.file("deploy.yaml", request.branch)
                    assert forge.repository.git("rev-list", "--count", f"main..{request.branch}") == "1"
                    forge.repository.check()
