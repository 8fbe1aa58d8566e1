"""What the statuses of automations say of commits that an earlier process pushed."""

from __future__ import annotations

from typing import Any

from imagebot.api import IMAGE_UPDATE_AUTOMATION
from imagebot.bot.traces import Pushes
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.ports.store import Change, ChangeType
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


def noted(*resources: AnyResource) -> Pushes:
    pushes = Pushes()
    for each in resources:
        pushes.note(Change(ChangeType.ADDED, None, each))
    return pushes


def test_a_commit_stands_for_the_images_that_its_automation_had_put_in_place() -> None:
    pushes = noted(pushed("one", COMMIT, web="1.1", db="16"), pushed("two", OTHER, api="2.0"), pushed("three", web="1.0"))
    expected = sorted([trace_of("registry.test/web", "1.1"), trace_of("registry.test/db", "16")])
    assert list(pushes.traces(COMMIT)) == expected
    assert pushes.traces(OTHER) == (trace_of("registry.test/api", "2.0"),)
    assert pushes.traces("c" * 40) == pushes.traces("") == ()


def test_it_follows_the_statuses() -> None:
    pushes = noted(pushed("one", COMMIT, web="1.1"))
    pushes.note(Change(ChangeType.MODIFIED, pushed("one", COMMIT, web="1.1"), pushed("one", OTHER, web="1.2")))
    assert pushes.traces(COMMIT) == ()
    assert pushes.traces(OTHER) == (trace_of("registry.test/web", "1.2"),)
    pushes.note(Change(ChangeType.DELETED, pushed("one", OTHER, web="1.2"), pushed("one", OTHER, web="1.2")))
    assert pushes.traces(OTHER) == ()
