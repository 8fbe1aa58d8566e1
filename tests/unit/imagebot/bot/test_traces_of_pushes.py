"""What the statuses of automations say of commits that an earlier process pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from imagebot.api import IMAGE_UPDATE_AUTOMATION
from imagebot.bot.traces import Pushes
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.errors import ReconcileError
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import trace_of
from tests.support.lab import automation

SCHEME = Scheme()
SCHEME.register(IMAGE_UPDATE_AUTOMATION)
COMMIT, OTHER = "a" * 40, "b" * 40


def pushed(name: str, commit: str = "", **tags: str) -> AnyResource:
    """An automation whose last push is `commit`, with images by their tags."""
    observed = {image: {"name": f"registry.test/{image}", "tag": tag} for image, tag in tags.items()}
    status: dict[str, Any] = {"observedPolicies": observed}
    if commit:
        status["lastPushCommit"] = commit
    return SCHEME.decode(IMAGE_UPDATE_AUTOMATION, {**automation(name, "fleet"), "status": status})


class Listed:
    """The reading side of a Store, with automations that a test gives."""

    def __init__(self, found: Sequence[AnyResource] = (), error: ReconcileError | None = None) -> None:
        self.found, self.error, self.lists = found, error, 0

    async def list(self, kind: str) -> Sequence[AnyResource]:
        assert kind == "ImageUpdateAutomation"
        self.lists += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.found


def pushes_of(listed: Listed) -> Pushes:
    return Pushes(cast(Store, listed))


def noted(*resources: AnyResource) -> Pushes:
    pushes = pushes_of(Listed())
    for each in resources:
        pushes.note(Change(ChangeType.ADDED, None, each))
    return pushes


async def test_a_commit_stands_for_the_images_that_its_automation_had_put_in_place() -> None:
    pushes = noted(pushed("one", COMMIT, web="1.1", db="16"), pushed("two", OTHER, api="2.0"), pushed("three", web="1.0"))
    expected = sorted([trace_of("registry.test/web", "1.1"), trace_of("registry.test/db", "16")])
    assert list(await pushes.traces(COMMIT)) == expected
    assert await pushes.traces(OTHER) == (trace_of("registry.test/api", "2.0"),)
    assert await pushes.traces("c" * 40) == await pushes.traces("") == ()


async def test_it_follows_the_statuses() -> None:
    pushes = noted(pushed("one", COMMIT, web="1.1"))
    pushes.note(Change(ChangeType.MODIFIED, pushed("one", COMMIT, web="1.1"), pushed("one", OTHER, web="1.2")))
    assert await pushes.traces(COMMIT) == ()
    assert await pushes.traces(OTHER) == (trace_of("registry.test/web", "1.2"),)
    pushes.note(Change(ChangeType.DELETED, pushed("one", OTHER, web="1.2"), pushed("one", OTHER, web="1.2")))
    assert await pushes.traces(OTHER) == ()


async def test_who_asks_before_automations_were_told_of_is_answered_all_the_same() -> None:
    listed = Listed([pushed("one", COMMIT, web="1.1")])
    pushes = pushes_of(listed)
    found = await asyncio.gather(*(pushes.traces(COMMIT) for _ in range(3)))
    assert set(found) == {(trace_of("registry.test/web", "1.1"),)}
    pushes.note(Change(ChangeType.MODIFIED, pushed("one", COMMIT, web="1.1"), pushed("one", OTHER, web="1.2")))
    before = listed.lists
    assert await pushes.traces(COMMIT) == ()
    assert listed.lists == before, "later questions are answered from memory"


async def test_automations_that_cannot_be_read_keep_nobody_waiting() -> None:
    listed = Listed(error=ReconcileError("forbidden"))
    pushes = pushes_of(listed)
    assert await pushes.traces(COMMIT) == await pushes.traces(OTHER) == ()
    assert listed.lists == 1
