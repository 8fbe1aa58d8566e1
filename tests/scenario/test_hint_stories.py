"""Stories of hints: a push, a webhook, and the commit that does not wait for the interval."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.hints import TOKEN, Sender, hinted, path
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
    secret,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        made.registry.push_image("other", "1.0.0")
        yield made


async def latest(running: Running, name: str, namespace: str = "apps") -> str | None:
    """The first tag that the last scan of an object found."""
    found = (await running.get("ImageRepository", name, namespace)).status.last_scan_result
    return found.latest_tags[0] if found is not None else None


async def test_a_push_and_a_hint_lead_to_a_commit_without_waiting_for_the_interval(world: Lab) -> None:
    bare = world.declare_app()
    hinted(world, "generic-hmac")
    async with world.start() as running, Sender(running) as sender:
        await eventually(lambda: len(bare.log()) == 2, "the first commit")
        shown = (await running.get("ImageRepository", "web")).status
        assert (shown.hint_path, shown.hint_problem) == (path(), None)
        world.registry.push_image("web", "1.1.0")
        assert await sender.send({"image": world.image("web"), "tag": "1.1.0"}) == 202
        await eventually(lambda: b"web:1.1.0" in bare.file("deploy.yaml"), "the commit", 40)
        assert sender.count("generic-hmac", "scan") == 1


async def test_the_notifications_of_a_registry_scan_every_object_of_the_image_in_the_namespace(world: Lab) -> None:
    hinted(world, "distribution")
    world.declare(
        image_repository("again", world.image("web")),
        image_repository("other", world.image("other")),
        {**image_repository("web", world.image("web")), "metadata": {"name": "web", "namespace": "elsewhere"}},
    )
    event = {"action": "push", "target": {"repository": "web", "tag": "1.1.0", "digest": "sha256:" + "0" * 64}}
    async with world.start() as running, Sender(running) as sender:
        for name in ("again", "other"):
            await running.until_ready("ImageRepository", name)
        await eventually(lambda: latest(running, "web", "elsewhere"), "the scan in the other namespace")
        world.registry.push_image("web", "1.1.0")
        world.registry.requests.clear()
        assert await sender.send({"events": [event]}, headers={"authorization": f"Bearer {TOKEN}"}) == 202

        async def both() -> bool:
            return [await latest(running, name) for name in ("web", "again")] == ["1.1.0", "1.1.0"]

        await eventually(both, "the scans of both objects", 40)
        await sender.queue.drained()
        # One listing serves those who ask at the same time; the other namespace and the other image are left alone.
        assert world.registry.requests["tags"] <= 2
        assert await latest(running, "web", "elsewhere") == "1.0.0"


async def test_a_tag_that_moved_is_followed_where_its_digest_counts(world: Lab) -> None:
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
    hinted(world, "distribution")
    world.declare(
        image_policy("web", digestReflectionPolicy="Always", interval="1h"),
        git_repository("web", world.url("app.git")),
        automation("web", "web"),
    )
    async with world.start() as running, Sender(running) as sender:
        await eventually(lambda: len(bare.log()) == 2, "the first commit")
        digest = world.registry.push_image("web", "1.0.0", labels={"build": "2"})
        world.registry.requests.clear()
        event = {"action": "push", "target": {"repository": "web", "tag": "1.0.0", "digest": digest}}
        assert await sender.send({"events": [event]}, headers={"authorization": TOKEN}) == 202
        await eventually(lambda: f"web:1.0.0@{digest}".encode() in bare.file("deploy.yaml"), "the new digest", 40)
        assert sender.count("distribution", "digest") == 1
        assert world.registry.requests["tags"] == 0


async def test_hints_that_change_nothing_ask_the_registry_nothing(world: Lab) -> None:
    """Another image, a known tag, an excluded one, something else than a push, the same again, a suspended object."""
    hinted(world, "dockerhub", exclusionList=["-dev$"])
    world.declare(image_policy("web"))

    def hub(name: str, tag: str) -> dict[str, object]:
        return {"push_data": {"tag": tag, "pushed_at": 1}, "repository": {"repo_name": name}}

    async with world.start() as running, Sender(running) as sender:
        await running.until_ready("ImagePolicy", "web")
        world.registry.requests.clear()
        assert await sender.send(hub("someone/else", "2.0.0"), headers={}) == 202
        assert sender.count("dockerhub", "foreign") == 1
        assert await sender.send(hub("someone/else", "2.0.0"), headers={}) == 202
        assert sender.count("dockerhub", "repeated") == 1
        assert await sender.send({"zen": "keep it simple"}, headers={}) == 202
        assert sender.count("dockerhub", "ignored") == 1
    hinted(world, "generic-hmac", exclusionList=["-dev$"])
    async with world.start() as running, Sender(running) as sender:
        await running.until_ready("ImagePolicy", "web")
        world.registry.requests.clear()
        for tag, outcome in (("1.0.0", "known"), ("1.1.0-dev", "excluded")):
            assert await sender.send({"tag": tag}) == 202
            assert sender.count("generic-hmac", outcome) == 1
        await sender.queue.drained()
        assert sum(world.registry.requests.values()) == 0
        hinted(world, "generic-hmac", suspend=True)

        async def suspended() -> bool:
            return bool((await running.get("ImageRepository", "web")).spec.suspend)

        await eventually(suspended, "the object suspended")
        assert await sender.send({"tag": "9.9.9"}) == 202
        assert sender.count("generic-hmac", "suspended") == 1
        await sender.queue.drained()
        assert sum(world.registry.requests.values()) == 0


async def test_a_secret_that_is_no_good_is_said_and_does_not_stop_scans(world: Lab) -> None:
    hinted(world, "quay")
    for data, said in (
        ({"token": "short"}, "secret 'apps/hint': key 'token' is shorter than 16 bytes; make one with: openssl rand -hex 32"),
        ({"password": "x"}, "secret 'apps/hint': key 'token' is missing or empty"),
    ):
        world.declare(secret("hint", data))
        done = await world.once()
        assert done.ready("ImageRepository", "web")[0] == "True"
        status = done.objects["ImageRepository", "apps/web"].status
        assert (status.hint_path, status.hint_problem) == (None, said)
    world.declare(secret("hint", {"token": TOKEN}))
    status = (await world.once()).objects["ImageRepository", "apps/web"].status
    assert (status.hint_path, status.hint_problem) == (path(), None)


async def test_a_service_that_does_not_listen_says_so(world: Lab) -> None:
    hinted(world, "quay")
    world.settings.packages["hints_addr"] = ""  # type: ignore[index]
    status = (await world.once()).objects["ImageRepository", "apps/web"].status
    assert status.hint_path is None
    assert status.hint_problem == "nobody listens: start the service with --hints-addr"
