"""The laws of the Objects port, run on every Objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Moved, Objects
from tests.support.kube import THING
from tests.support.objects import LAST_APPLIED, MemoryObjects

MANAGER = "tests"
UNSERVED = ("nobody.example/v1", "Nothing")


@dataclass
class World:
    """Objects, and what changes them from outside; a change is over when reads have it."""

    objects: Objects
    namespace: str
    declare: Callable[[Object], Awaitable[Object]]
    change: Callable[[Reference, Object], Awaitable[Object]]
    status: Callable[[Reference, Object], Awaitable[Object]]
    withdraw: Callable[[Reference], Awaitable[None]]

    def thing(self, name: str = "a", **more: Any) -> Object:
        """An object of the tests' own kind."""
        meta = {"name": name, "namespace": self.namespace, **more}
        return {"apiVersion": THING.api_version, "kind": THING.kind, "metadata": meta, "spec": {"size": 1, "tags": {"x": "y"}}}

    def config(self, kind: str = "ConfigMap", name: str = "c", **more: Any) -> Object:
        """A ConfigMap or Secret."""
        meta = {"name": name, "namespace": self.namespace, **more}
        return {"apiVersion": "v1", "kind": kind, "metadata": meta, "data": {"key": "dmFsdWU="}}

    def at(self, kind: str = THING.kind, name: str = "a") -> Reference:
        """Which object."""
        return Reference("v1" if kind in {"ConfigMap", "Secret"} else THING.api_version, kind, self.namespace, name)


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    objects = MemoryObjects()
    objects.missing_kinds.add(UNSERVED)

    async def declare(body: Object) -> Object:
        return objects.put(body)

    async def change(which: Reference, patch: Object) -> Object:
        return objects.change(which, patch)

    async def status(which: Reference, body: Object) -> Object:
        return objects.status(which, body)

    async def withdraw(which: Reference) -> None:
        objects.remove(which)

    yield World(objects, "default", declare, change, status, withdraw)


@pytest.fixture(params=[memory_world], ids=["memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with request.param() as made:
        yield made


def version(body: Object | None) -> str:
    assert body is not None
    return str(body["metadata"]["resourceVersion"])


# --- reading


async def test_a_read_is_the_caller_s_own(world: World) -> None:
    await world.declare(world.thing())
    first = await world.objects.get(world.at())
    assert (first["apiVersion"], first["kind"], first["spec"]) == (THING.api_version, THING.kind, {"size": 1, "tags": {"x": "y"}})
    assert "managedFields" not in first["metadata"]
    first["spec"]["tags"]["x"] = "changed"
    assert (await world.objects.get(world.at()))["spec"]["tags"] == {"x": "y"}


async def test_what_is_not_there_is_not_found_in_the_words_of_kubernetes(world: World) -> None:
    words = 'things.kubetests.imagebot.dev "nobody" not found'
    for read in (world.objects.get, world.objects.read):
        with pytest.raises(NotFound) as caught:
            await read(world.at(name="nobody"))
        assert str(caught.value) == words
    with pytest.raises(NotFound) as caught:
        await world.objects.get(Reference("apps/v1", "Deployment", world.namespace, "nobody"))
    assert str(caught.value) == 'deployments.apps "nobody" not found'
    assert await world.objects.find(world.at(name="nobody")) is None
    assert await world.objects.stamp(world.at("ConfigMap", "nobody")) is None


async def test_an_absent_kind_is_no_absent_object(world: World) -> None:
    which = Reference(*UNSERVED, world.namespace, "a")
    body = {"apiVersion": which.api_version, "kind": which.kind, "metadata": {"name": "a", "namespace": world.namespace}}
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: world.objects.get(which),
        lambda: world.objects.find(which),
        lambda: world.objects.stamp(which),
        lambda: world.objects.read(which),
        lambda: world.objects.create(body, manager=MANAGER),
        lambda: world.objects.patch(which, {"spec": {}}, manager=MANAGER),
        lambda: world.objects.delete(which),
    ]
    for attempt in attempts:
        with pytest.raises(ReconcileError) as caught:
            await attempt()
        assert not isinstance(caught.value, NotFound | Conflict)


async def test_an_object_without_a_namespace(world: World) -> None:
    name = f"class-{world.namespace}"
    which = Reference("networking.k8s.io/v1", "IngressClass", "", name)
    assert await world.objects.find(which) is None
    wanted = {"apiVersion": which.api_version, "kind": which.kind, "metadata": {"name": name}}
    made = await world.objects.create({**wanted, "spec": {"controller": "example.com/tests"}}, manager=MANAGER)
    assert await world.objects.get(which) == made
    assert await world.objects.delete(which)
    assert await world.objects.find(which) is None


# --- writing


async def test_what_was_created_is_what_the_next_read_has(world: World) -> None:
    assert await world.objects.find(world.at()) is None
    made = await world.objects.create(world.thing(labels={"l": "1"}), manager=MANAGER)
    assert (made["metadata"]["generation"], made["metadata"]["labels"]) == (1, {"l": "1"})
    assert made["metadata"]["uid"]
    assert "managedFields" not in made["metadata"]
    assert await world.objects.get(world.at()) == made == await world.objects.read(world.at())


async def test_an_object_is_created_once(world: World) -> None:
    await world.objects.find(world.at())
    made = await world.objects.create(world.thing(), manager=MANAGER)
    with pytest.raises(Conflict, match='"a" already exists'):
        await world.objects.create(world.thing(labels={"l": "2"}), manager=MANAGER)
    assert await world.objects.get(world.at()) == made


async def test_an_object_that_somebody_else_created_is_known_after_the_conflict(world: World) -> None:
    await world.objects.find(world.at())
    await world.declare(world.thing(labels={"by": "somebody"}))
    with pytest.raises(Conflict):
        await world.objects.create(world.thing(), manager=MANAGER)
    assert (await world.objects.get(world.at()))["metadata"]["labels"] == {"by": "somebody"}


async def test_what_was_patched_is_what_the_next_read_has(world: World) -> None:
    await world.declare(world.thing(annotations={"keep": "1", "drop": "1"}))
    before = await world.objects.get(world.at())
    patch = {"spec": {"size": 2, "tags": {"x": None, "z": "1"}}, "metadata": {"annotations": {"drop": None}}}
    after = await world.objects.patch(before, patch, manager=MANAGER)
    assert after["spec"] == {"size": 2, "tags": {"z": "1"}}
    assert (after["metadata"]["annotations"], after["metadata"]["generation"]) == ({"keep": "1"}, 2)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert await world.objects.get(world.at()) == after


async def test_labels_are_no_new_generation(world: World) -> None:
    await world.declare(world.thing())
    before = await world.objects.get(world.at())
    after = await world.objects.patch(before, {"metadata": {"labels": {"l": "1"}}}, manager=MANAGER)
    assert after["metadata"]["generation"] == before["metadata"]["generation"] == 1
    assert version(after) != version(before)


async def test_a_patch_that_changes_nothing_moves_nothing_and_tells_nobody(world: World) -> None:
    await world.declare(world.thing())
    before = await world.objects.get(world.at())
    first = await world.objects.patch(before, {"spec": {"size": 5}}, manager=MANAGER)
    told: list[Moved] = []
    world.objects.subscribe(told.append)
    assert await world.objects.patch(first, {"spec": {"size": 5}}, manager=MANAGER) == first
    assert await world.objects.patch(world.at(), {"spec": {"size": 5}}, manager=MANAGER) == first
    assert (await world.objects.get(world.at()), told) == (first, [])


async def test_an_empty_patch_is_a_copy(world: World) -> None:
    await world.declare(world.thing())
    before = await world.objects.get(world.at())
    same = await world.objects.patch(before, {}, manager=MANAGER)
    assert same == before
    assert same is not before
    assert await world.objects.patch(world.at(), {}, manager=MANAGER) == before


async def test_a_patch_based_on_what_has_changed_since_is_refused(world: World) -> None:
    await world.declare(world.thing())
    outdated = await world.objects.get(world.at())
    newer = await world.objects.patch(outdated, {"spec": {"size": 2}}, manager=MANAGER)
    with pytest.raises(Conflict, match='"a": the object has been modified'):
        await world.objects.patch(outdated, {"spec": {"size": 3}}, manager=MANAGER)
    assert await world.objects.get(world.at()) == newer
    again = await world.objects.patch(newer, {"spec": {"size": 3}}, manager=MANAGER)
    assert again["spec"]["size"] == 3


async def test_a_patch_of_a_reference_is_of_whatever_is_there(world: World) -> None:
    await world.declare(world.thing())
    await world.objects.get(world.at())
    await world.change(world.at(), {"spec": {"tags": {"theirs": "1"}}})
    after = await world.objects.patch(world.at(), {"spec": {"tags": {"ours": "1"}}}, manager=MANAGER)
    assert after["spec"]["tags"] == {"x": "y", "theirs": "1", "ours": "1"}
    assert await world.objects.get(world.at()) == after


async def test_a_patch_makes_no_object(world: World) -> None:
    with pytest.raises(NotFound, match='"a" not found'):
        await world.objects.patch(world.at(), {"spec": {"size": 2}}, manager=MANAGER)
    await world.declare(world.thing())
    held = await world.objects.get(world.at())
    await world.withdraw(world.at())
    with pytest.raises(NotFound, match='"a" not found'):
        await world.objects.patch(held, {"spec": {"size": 2}}, manager=MANAGER)
    assert await world.objects.find(world.at()) is None


async def test_a_status_is_not_ours_to_write(world: World) -> None:
    made = await world.objects.create({**world.thing(), "status": {"note": "ours"}}, manager=MANAGER)
    after = await world.objects.patch(made, {"status": {"note": "ours"}, "spec": {"size": 2}}, manager=MANAGER)
    for body in (made, after, await world.objects.get(world.at())):
        assert "note" not in (body.get("status") or {})


# --- deleting


async def test_what_was_deleted_is_gone_for_the_next_read(world: World) -> None:
    await world.declare(world.thing())
    held = await world.objects.get(world.at())
    assert await world.objects.delete(held)
    assert await world.objects.find(world.at()) is None
    assert not await world.objects.delete(world.at())


async def test_what_somebody_else_deleted_is_gone(world: World) -> None:
    await world.declare(world.thing())
    await world.objects.get(world.at())
    await world.withdraw(world.at())
    assert await world.objects.find(world.at()) is None
    again = await world.objects.create(world.thing(), manager=MANAGER)
    assert await world.objects.get(world.at()) == again


async def test_an_object_that_is_held_stays_until_it_is_let_go(world: World) -> None:
    await world.declare(world.thing(finalizers=["imagebot.test/hold"]))
    await world.objects.get(world.at())
    assert await world.objects.delete(world.at())
    ending = await world.objects.get(world.at())
    assert ending["metadata"]["deletionTimestamp"]
    await world.objects.patch(ending, {"metadata": {"finalizers": []}}, manager=MANAGER)
    assert await world.objects.find(world.at()) is None


async def test_another_object_of_the_same_name_is_not_deleted(world: World) -> None:
    await world.declare(world.thing())
    first = await world.objects.get(world.at())
    await world.objects.delete(first)
    second = await world.objects.create(world.thing(), manager=MANAGER)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    with pytest.raises(Conflict):
        await world.objects.delete(first)
    assert await world.objects.get(world.at()) == second


# --- notices


async def test_every_change_of_a_followed_kind_is_told_when_reads_have_it(world: World) -> None:
    await world.declare(world.thing())
    await world.objects.get(world.at())
    told: list[Moved] = []
    world.objects.subscribe(told.append)
    changed = await world.change(world.at(), {"spec": {"size": 7}})
    assert (told, version(await world.objects.get(world.at()))) == ([Moved(world.at())], version(changed))
    told.clear()
    await world.status(world.at(), {"note": "n"})
    assert (told, (await world.objects.get(world.at()))["status"]["note"]) == ([Moved(world.at(), status_only=True)], "n")
    told.clear()
    await world.declare(world.thing("b"))
    assert told == [Moved(world.at(name="b"))]
    told.clear()
    await world.withdraw(world.at())
    assert told == [Moved(world.at())]


async def test_what_is_more_than_a_status_is_told_as_that(world: World) -> None:
    await world.declare(world.thing())
    await world.status(world.at(), {"note": "n"})
    before = await world.objects.get(world.at())
    told: list[Moved] = []
    world.objects.subscribe(told.append)
    await world.change(world.at(), {"metadata": {"labels": {"l": "1"}}})
    await world.change(world.at(), {"metadata": {"annotations": {"a": "1"}}})
    await world.objects.patch(world.at(), {"spec": {"size": before["spec"]["size"] + 1}}, manager=MANAGER)
    assert told == [Moved(world.at())] * 3


async def test_what_exists_when_a_kind_is_first_read_is_no_change(world: World) -> None:
    told: list[Moved] = []
    world.objects.subscribe(told.append)
    await world.declare(world.thing())
    await world.objects.get(world.at())
    assert told == []


# --- metadata only


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_content_that_nobody_should_hold_is_known_by_its_stamp(world: World, kind: str) -> None:
    which = world.at(kind, "c")
    declared = await world.declare(world.config(kind, labels={"l": "1"}, annotations={"a": "1", LAST_APPLIED: "{}"}))
    first = await world.objects.stamp(which)
    assert first is not None
    assert (first.uid, first.version) == (declared["metadata"]["uid"], version(declared))
    assert (first.labels, first.annotations) == ({"l": "1"}, {"a": "1"})
    changed = await world.change(which, {"data": {"key": "b3RoZXI="}})
    second = await world.objects.stamp(which)
    assert second is not None
    assert (second.uid, second.version) == (first.uid, version(changed))
    assert (await world.objects.read(which))["data"] == {"key": "b3RoZXI="}
    await world.withdraw(which)
    assert await world.objects.stamp(which) is None


async def test_content_that_nobody_should_hold_is_not_held(world: World) -> None:
    await world.declare(world.config())
    for read in (world.objects.get, world.objects.find):
        with pytest.raises(Invalid, match="metadata only"):
            await read(world.at("ConfigMap", "c"))


async def test_a_stamp_follows_our_own_writes(world: World) -> None:
    which = world.at("ConfigMap", "c")
    assert await world.objects.stamp(which) is None
    made = await world.objects.create(world.config(), manager=MANAGER)
    first = await world.objects.stamp(which)
    assert first is not None
    assert first.version == version(made)
    after = await world.objects.patch(made, {"data": {"more": "1"}}, manager=MANAGER)
    second = await world.objects.stamp(which)
    assert second is not None
    assert (second.version, after["data"]) == (version(after), {"key": "dmFsdWU=", "more": "1"})
    assert await world.objects.delete(which)
    assert await world.objects.stamp(which) is None


async def test_a_stamp_can_be_had_of_any_kind(world: World) -> None:
    declared = await world.declare(world.thing(labels={"l": "1"}))
    stamp = await world.objects.stamp(world.at())
    assert stamp is not None
    assert (stamp.version, stamp.labels) == (version(declared), {"l": "1"})
