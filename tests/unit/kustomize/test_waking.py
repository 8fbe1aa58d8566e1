"""Whom the change of a source, of a dependency or of configuration wakes, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import NotFound
from reconcile.kustomize.waking import Waking, in_order
from reconcile.ports.store import Change, ChangeType, Store
from tests.support.kustomizations import condition, git_repository, kustomization, ready

NEW = "main@sha1:2"


class Held:
    """The reading side of a Store, over objects that a test gives."""

    def __init__(self, objects: Iterable[AnyResource]) -> None:
        self.objects = {one.key: one for one in objects}

    async def get(self, kind: str, key: Key) -> AnyResource:
        if key not in self.objects:
            raise NotFound(f"{kind} {key}")
        return self.objects[key]


def waking(*objects: AnyResource, woken: list[Key] | None = None, crowded: bool = False) -> Waking:
    wake = woken.append if woken is not None else lambda key: None
    made = Waking(cast(Store, Held(objects)), None, wake, "", crowded=lambda: crowded)
    for one in objects:
        made.note(Change(ChangeType.ADDED, None, one))
    return made


def moved(old: Any, new: AnyResource) -> Change:
    return Change(ChangeType.MODIFIED if old else ChangeType.ADDED, old, new)


async def names(found: Any) -> list[str]:
    return [key.name for key in await found]


async def test_a_new_artifact_wakes_those_made_from_it_in_order() -> None:
    ours = [
        kustomization("web", dependsOn=[{"name": "base"}]),
        kustomization("base", dependsOn=[{"name": "crds"}]),
        kustomization("crds"),
        kustomization("other", source="elsewhere"),
    ]
    change = moved(git_repository(revision="main@sha1:1"), git_repository(revision=NEW, digest="sha256:" + "1" * 64))
    assert await names(waking(*ours).on_source(change)) == ["crds", "base", "web"]


async def test_the_same_artifact_wakes_nobody() -> None:
    change = moved(git_repository(revision=NEW), git_repository(revision=NEW))
    assert await names(waking(kustomization("web")).on_source(change)) == []


async def test_another_content_of_the_same_revision_wakes() -> None:
    change = moved(git_repository(revision=NEW), git_repository(revision=NEW, digest="sha256:" + "1" * 64))
    assert await names(waking(kustomization("web")).on_source(change)) == ["web"]


async def test_at_the_start_those_that_have_tried_the_revision_rest() -> None:
    rested, failed = kustomization("rested", status=ready(NEW)), kustomization("failed")
    assert await names(waking(rested, failed).on_source(moved(None, git_repository(revision=NEW)))) == ["failed"]


def test_members_of_a_cycle_are_all_woken() -> None:
    found = {
        one.key: one
        for one in (
            kustomization("a", dependsOn=[{"name": "b"}]),
            kustomization("b", dependsOn=[{"name": "a"}]),
            kustomization("c"),
        )
    }
    assert {key.name for key in in_order(found)} == {"a", "b", "c"}


async def test_a_dependency_that_becomes_ready_wakes_those_that_wait_for_it() -> None:
    waits = {"conditions": [condition("Ready", "False", "DependencyNotReady")]}
    base = kustomization("base", status=ready(NEW))
    ours = [
        kustomization("waits", dependsOn=[{"name": "base"}], status=waits),
        kustomization("rests", dependsOn=[{"name": "base"}], status=ready(NEW)),
        kustomization("stranger", status=waits),
    ]
    found = waking(base, *ours)
    assert await names(found.on_dependency(moved(kustomization("base"), base))) == ["waits"]
    assert await names(found.on_dependency(moved(base, base))) == []


async def test_a_wait_for_health_ends_when_the_source_moves_on() -> None:
    one = kustomization("web", status=ready("main@sha1:1"))
    found = waking(one)
    event = found.begin(one.key)
    await found.on_source(moved(git_repository(revision="main@sha1:1"), git_repository(revision=NEW)))
    assert event.is_set()
    assert found.by_source(one.key)
    found.end(one.key)
    assert not found.by_source(one.key)


async def test_a_wait_for_health_ends_with_a_new_spec_and_not_with_a_new_status() -> None:
    one = kustomization("web")
    found = waking(one)
    event = found.begin(one.key)
    found.note(moved(one, kustomization("web", status=ready(NEW))))
    assert not event.is_set()
    found.note(moved(one, kustomization("web", generation=2)))
    assert event.is_set()
    assert not found.by_source(one.key)


# --- notes that can wait


async def test_those_made_from_a_source_keep_their_order_whoever_of_them_was_served_last() -> None:
    made = waking(*(kustomization(name) for name in ("one", "two", "three")))
    served = kustomization("one", status=ready())
    made.note(Change(ChangeType.MODIFIED, kustomization("one"), served))
    change = moved(git_repository(revision="main@sha1:1"), git_repository(revision=NEW, digest="sha256:" + "1" * 64))
    assert await names(made.on_source(change)) == ["one", "two", "three"]


def test_a_note_is_put_off_once_for_each_revision_while_others_wait() -> None:
    woken: list[Key] = []
    web = kustomization("web")
    made = waking(web, woken=woken, crowded=True)
    assert made.put_off(web.key, "main@sha1:1")
    assert woken == [web.key]
    assert not made.put_off(web.key, "main@sha1:1")
    assert made.put_off(web.key, "main@sha1:2")
    assert made.put_off(web.key, "main@sha1:3"), "a newer revision came before the note"
    assert not made.put_off(web.key, "main@sha1:3")
    assert woken == [web.key] * 3


def test_a_note_is_not_put_off_when_nobody_waits_or_somebody_waits_for_it() -> None:
    web, base = kustomization("web", dependsOn=[{"name": "base"}]), kustomization("base")
    assert not waking(web, base).put_off(web.key, NEW)
    made = waking(web, base, crowded=True)
    assert not made.put_off(base.key, NEW)
    assert made.put_off(web.key, NEW)


def test_what_was_put_off_is_forgotten_with_its_object() -> None:
    web = kustomization("web")
    made = waking(web, crowded=True)
    assert made.put_off(web.key, NEW)
    made.note(Change(ChangeType.DELETED, web, web))
    assert made.put_off(web.key, NEW), "another object of the same name"
