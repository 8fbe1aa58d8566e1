"""Stories of choices that are held: downgrades, holds of people, soaking, moved tags; told by the whole service."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from tests.support.lab import Lab, Running, eventually, image_policy, image_repository, lab, obj, ready
from tests.support.service_facts import told


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


def hold(name: str, mode: str, **spec: Any) -> dict[str, Any]:
    """An ImageHold for the policy web."""
    return obj("imagebot.dev/v1alpha1", "ImageHold", name, {"imageRef": {"policy": "web"}, "mode": mode, **spec})


def held(policy: AnyResource) -> tuple[str, str]:
    """Reason and message of the condition Held."""
    found = cond.get(policy.status.conditions, "Held")
    return (found.reason, found.message) if found else ("", "")


def choice(policy: AnyResource) -> str:
    """The chosen tag."""
    return policy.status.latest_ref.tag if policy.status.latest_ref else ""


async def until(running: Running, tag: str, reason: str = "") -> AnyResource:
    """The policy web with this choice, and with Held of this reason; empty: without it."""

    async def probe() -> AnyResource | None:
        found = await running.get("ImagePolicy", "web")
        return found if (choice(found), held(found)[0]) == (tag, reason) else None

    found: AnyResource = await eventually(probe, f"choice {tag!r} held by {reason!r}", 40)
    return found


def scan(world: Lab, value: str) -> None:
    """Ask for a scan."""
    body = image_repository("web", world.image("web"))
    body["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": value}
    world.declare(body)


def warnings(world: Lab, reason: str) -> list[str]:
    """Warning events with this reason."""
    return [row.message for row in told(world.state) if (row.type, row.reason) == ("Warning", reason)]


async def test_a_shortened_list_moves_nothing_backwards_until_somebody_allows_it(world: Lab) -> None:
    for tag in ("1.0.0", "1.1.0"):
        world.registry.push_image("web", tag)
    bare = world.declare_app()
    async with world.start() as running:
        await eventually(lambda: b"web:1.1.0" in bare.file("deploy.yaml"), "the first commit")
        world.registry.delete_tag("web", "1.1.0")
        scan(world, "1")
        found = await until(running, "1.1.0", "DowngradeHeld")
        assert ready(found)[:2] == ("True", "Succeeded")
        assert "ranks behind it" in held(found)[1]
    # The memory of tags is empty after a start; that of the choice is not.
    async with world.start() as running:
        await until(running, "1.1.0", "DowngradeHeld")
        scan(world, "2")
        allowed = image_policy("web")
        allowed["metadata"]["annotations"] = {"imagebot.dev/allow-downgrade": "1.0.0"}
        world.declare(allowed)
        await until(running, "1.0.0")
        await eventually(lambda: b"web:1.0.0" in bare.file("deploy.yaml"), "the commit that goes back")
        # What is allowed is allowed once.
        world.registry.push_image("web", "1.2.0")
        scan(world, "3")
        await until(running, "1.2.0")
        world.registry.delete_tag("web", "1.2.0")
        scan(world, "4")
        await until(running, "1.2.0", "DowngradeHeld")
        world.declare(image_policy("web", downgrade="Allow"))
        await until(running, "1.0.0")
    assert len(warnings(world, "DowngradeHeld")) == 2


async def test_an_edit_of_the_rule_may_go_back_but_a_pause_may_not(world: Lab) -> None:
    for tag in ("1.0.0", "2.0.0"):
        world.registry.push_image("web", tag)
    world.declare_app()
    async with world.start() as running:
        await until(running, "2.0.0")
        world.declare(image_policy("web", suspend=True))

        async def suspended() -> bool:
            return bool((await running.get("ImagePolicy", "web")).spec.suspend)

        await eventually(suspended, "the pause")
        world.registry.delete_tag("web", "2.0.0")
        scan(world, "1")
        world.declare(image_policy("web"))
        await until(running, "2.0.0", "DowngradeHeld")
        world.declare(image_policy("web", "<3"))
        await until(running, "1.0.0")


async def test_people_reject_and_pin_and_a_hold_ends_by_itself(world: Lab) -> None:
    for tag in ("1.0.0", "1.1.0"):
        world.registry.push_image("web", tag)
    bare = world.declare_app()
    async with world.start() as running:
        await eventually(lambda: b"web:1.1.0" in bare.file("deploy.yaml"), "the first commit")
        rejected = hold("leaks", "Reject", tags=["1.1.0"], reason="leaks memory")
        world.declare(rejected)
        found = await until(running, "1.0.0", "Rejected")
        assert held(found)[1] == "1.1.0 is rejected by ImageHold leaks (leaks memory)"
        await eventually(lambda: b"web:1.0.0" in bare.file("deploy.yaml"), "the commit that goes back")
        world.declare(hold("freeze", "Pin"))
        await until(running, "1.0.0", "Pinned")
        world.registry.push_image("web", "1.2.0")
        scan(world, "1")
        world.withdraw(rejected)

        async def kept_back() -> bool:
            return "without it the choice would be 1.2.0" in held(await running.get("ImagePolicy", "web"))[1]

        await eventually(kept_back, "the newer tag to be kept back")
        soon = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        world.declare(hold("freeze", "Pin", expiresAt=soon))
        await until(running, "1.2.0")
        await eventually(lambda: b"web:1.2.0" in bare.file("deploy.yaml"), "the commit after the hold")
    assert len(bare.log()) == 4


async def test_a_rejected_choice_without_another_leaves_git_to_people(world: Lab) -> None:
    world.registry.push_image("web", "1.0.0")
    digest = world.registry.push_image("web", "1.1.0")
    bare = world.declare_app()
    world.declare(hold("old", "Reject", tags=["1.0.0"]))
    await world.once()
    assert b"web:1.1.0" in bare.file("deploy.yaml")
    mended = bare.file("deploy.yaml").replace(b"web:1.1.0", b"web:0.9.0")
    bare.commit({"deploy.yaml": mended})
    world.declare(hold("bad", "Reject", digests=[digest]))
    made = await world.once()
    assert made.ready("ImagePolicy", "web") == ("False", "Rejected", "1.1.0 is rejected by ImageHold bad")
    await world.once()
    assert bare.file("deploy.yaml") == mended
    world.registry.push_image("web", "1.2.0")
    made = await world.once()
    assert made.ready("ImagePolicy", "web")[0] == "True"
    assert b"web:1.2.0" in bare.file("deploy.yaml")


async def test_a_tag_is_chosen_when_its_digest_was_known_for_long_enough(world: Lab) -> None:
    world.registry.push_image("web", "1.0.0")
    world.declare_app()
    async with world.start() as running:
        await until(running, "1.0.0")
    world.registry.push_image("web", "1.1.0")
    world.declare(image_policy("web", minimumAge="1h"))
    async with world.start() as running:
        found = await until(running, "1.0.0", "Soaking")
        seen = [(sight.tag, sight.digest) for sight in found.status.first_seen]
        assert [tag for tag, _ in seen] == ["1.1.0"]
        assert ready(found)[:2] == ("True", "Succeeded")
    # What was seen is remembered over a restart, and the wait ends by itself.
    world.declare(image_policy("web", minimumAge="3s"))
    async with world.start() as running:
        found = await until(running, "1.1.0")
        assert found.status.first_seen is None


async def test_the_first_choice_waits_too(world: Lab) -> None:
    world.registry.push_image("web", "1.0.0")
    bare = world.declare_app()
    world.declare(image_policy("web", minimumAge="1h"))
    made = await world.once()
    assert made.ready("ImagePolicy", "web")[:2] == ("False", "Soaking")
    assert b"web:0.9.0" in bare.file("deploy.yaml")
    world.declare(image_policy("web", minimumAge="1s"))
    async with world.start() as running:
        await until(running, "1.0.0")
    assert warnings(world, "Soaking") == []


@pytest.mark.parametrize("meaning", ["Hold", "Alarm", "Follow"])
async def test_a_tag_that_was_moved_is_followed_held_or_told_of(world: Lab, meaning: str) -> None:
    world.registry.push_image("web", "1.0.0")
    world.declare_app()
    policy = image_policy("web", digestReflectionPolicy="Always", interval="1h", onMutation=meaning)
    world.declare(policy)
    async with world.start() as running:
        first = (await until(running, "1.0.0")).status.latest_ref.digest
        second = world.registry.push_image("web", "1.0.0", created="2025-01-01T00:00:00Z")
        running.request("ImagePolicy", "web")
        if meaning == "Hold":
            found = await until(running, "1.0.0", "TagMutated")
            assert found.status.latest_ref.digest == first
            policy["metadata"]["annotations"] = {"imagebot.dev/allow-mutation": second}
            world.declare(policy)

        async def followed() -> bool:
            found = await running.get("ImagePolicy", "web")
            return bool(found.status.latest_ref.digest == second) and held(found) == ("", "")

        await eventually(followed, "the new digest", 40)
    assert len(warnings(world, "TagMutated")) == (meaning != "Follow")


async def test_what_is_held_costs_no_write_while_nothing_changes(world: Lab) -> None:
    for tag in ("1.0.0", "1.1.0", "1.2.0"):
        world.registry.push_image("web", tag)
    world.declare_app()
    world.declare(hold("leaks", "Reject", tags=["1.2.0"]), hold("freeze", "Pin", tags=["1.0.0"]))
    async with world.start() as running:
        await until(running, "1.0.0", "Pinned")
        await running.until_ready("ImageUpdateAutomation", "web")
        await running.service.manager.drained()
        before = running.writes("ImagePolicy")
        running.request("ImagePolicy", "web")
        await running.service.manager.drained()
        assert running.writes("ImagePolicy") == before


async def test_explain_names_what_is_kept_back(world: Lab) -> None:
    for tag in ("1.0.0", "1.1.0", "1.2.0"):
        world.registry.push_image("web", tag)
    world.declare_app()
    world.declare(hold("leaks", "Reject", tags=["1.2.0"], reason="leaks memory"), hold("freeze", "Pin", tags=["1.0.0"]))
    await world.once()
    command = [sys.executable, "-m", "reconcile", "explain", "imgpol/web"]
    place = ["--dir", str(world.folder), "--state", str(world.state)]
    done = await asyncio.to_thread(subprocess.run, [*command, *place], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    kept_back = done.stdout.partition("Kept back")[2]
    assert "kept at 1.0.0 by ImageHold freeze; without it the choice would be 1.2.0" in kept_back
    assert re.search(r"1\.2\.0 +rejected +by ImageHold leaks \(leaks memory\)", kept_back)
    assert "The rule alone would choose 1.2.0" in kept_back
