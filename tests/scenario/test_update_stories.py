"""Stories of an update, told by the whole service: a real registry, a real Git server, a folder of manifests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, automation, eventually, git_repository, image_policy, image_repository, lab, marked


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


async def test_a_new_tag_becomes_one_commit_that_changes_only_the_tag(world: Lab) -> None:
    world.registry.push_image("web", "1.0.0")
    bare = world.declare_app()
    before = bare.file("deploy.yaml")
    async with world.start() as running:
        await eventually(lambda: b"web:1.0.0" in bare.file("deploy.yaml"), "the first commit")
        world.registry.push_image("web", "1.1.0")
        repository = await running.get("ImageRepository", "web")
        body = image_repository("web", world.image("web"))
        body["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "now"}
        world.declare(body)
        await eventually(lambda: b"web:1.1.0" in bare.file("deploy.yaml"), "the second commit")
        assert repository.meta.generation == 1

        async def reported() -> bool:
            found = await running.get("ImageUpdateAutomation", "web")
            return bool(found.status.last_push_commit == bare.head())

        await eventually(reported, "the status with the pushed commit")
    assert bare.file("deploy.yaml") == before.replace(b":0.9.0", b":1.1.0")
    assert len(bare.log()) == 3


async def test_a_single_pass_says_changed_then_unchanged(world: Lab) -> None:
    world.registry.push_image("web", "1.0.0")
    bare = world.declare_app()
    first = await world.once()
    assert first.ready("ImageUpdateAutomation", "web") == ("True", "Succeeded", "repository up-to-date")
    assert first.changed
    second = await world.once()
    assert not second.changed
    assert len(bare.log()) == 2


async def test_two_policies_make_one_commit(world: Lab) -> None:
    for name in ("web", "api"):
        world.registry.push_image(name, "2.0.0")
    bare = world.repository("app.git", {f"{name}.yaml": marked(world.image(name), name, "1.0.0") for name in ("web", "api")})
    world.declare(
        git_repository("app", world.url("app.git")),
        automation("app", "app"),
        *(image_repository(name, world.image(name)) for name in ("web", "api")),
        *(image_policy(name) for name in ("web", "api")),
    )
    await world.once()
    assert b"web:2.0.0" in bare.file("web.yaml")
    assert b"api:2.0.0" in bare.file("api.yaml")
    assert len(bare.log()) == 2
