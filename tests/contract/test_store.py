"""The laws of the Store port, run on every Store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagebot.api import IMAGE_REPOSITORY
from reconcile.api.conditions import put
from reconcile.api.meta import FINALIZER, Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.errors import Conflict, NotFound
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.store import Change, ChangeType, Store

KIND = "ImageRepository"


def manifest(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "image.toolkit.fluxcd.io/v1",
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": f"registry.example/{name}/app", "interval": "1m", **spec},
    }


@dataclass
class World:
    """A store and what changes the objects in it from outside."""

    store: Store
    declare: Callable[[dict[str, Any]], Awaitable[None]]
    withdraw: Callable[[dict[str, Any]], Awaitable[None]]
    reopen: Callable[[], Awaitable[Store]]
    labels: dict[str, str] = field(default_factory=dict)
    """What an object of this world must carry."""
    made: list[dict[str, Any]] = field(default_factory=list)
    """Objects to clear away."""

    def own(self, name: str, **spec: Any) -> AnyResource:
        """An object for the store to make."""
        body = manifest(name, **spec)
        body["metadata"]["labels"] = self.labels
        self.made.append(body)
        scheme = Scheme()
        scheme.register(IMAGE_REPOSITORY)
        return scheme.decode(IMAGE_REPOSITORY, body)


@asynccontextmanager
async def local_world(tmp_path: Path) -> AsyncIterator[World]:
    scheme = Scheme()
    scheme.register(IMAGE_REPOSITORY)
    folder = tmp_path / "manifests"
    folder.mkdir()

    def build() -> LocalStore:
        return LocalStore(Folder(folder, scheme), Database(tmp_path / "s.db"), scheme, SystemClock())

    store = await build().__aenter__()

    def path(body: dict[str, Any]) -> Path:
        return folder / f"{body['kind']}-{body['metadata'].get('namespace', '')}-{body['metadata']['name']}.yaml"

    async def declare(body: dict[str, Any]) -> None:
        path(body).write_text(yaml.safe_dump(body))
        await world.store.sync()  # type: ignore[attr-defined]

    async def withdraw(body: dict[str, Any]) -> None:
        path(body).unlink()
        await world.store.sync()  # type: ignore[attr-defined]

    async def reopen() -> Store:
        await world.store.__aexit__()  # type: ignore[attr-defined]
        world.store = await build().__aenter__()
        return world.store

    world = World(store, declare, withdraw, reopen)
    try:
        yield world
    finally:
        await world.store.__aexit__()  # type: ignore[attr-defined]


@pytest.fixture(params=[local_world], ids=["local"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with request.param(tmp_path) as made:
        yield made


async def collect(store: Store, kinds: list[str], count: int) -> list[Change]:
    """The next `count` changes that a new watcher sees."""
    found: list[Change] = []
    async with asyncio.timeout(5):
        async for change in store.watch(kinds):
            found.append(change)
            if len(found) == count:
                return found
    raise AssertionError("the watch ended")


def status_of(resource: Any, message: str = "m") -> Any:
    conditions = put((), "Ready", "True", "Succeeded", message, generation=1, now="2026-01-01T00:00:00Z")
    return resource.status.model_copy(update={"conditions": list(conditions)})


async def test_a_new_object_has_generation_one_and_the_default_status(world: World) -> None:
    await world.declare(manifest("a"))
    found = await world.store.get(KIND, Key("default", "a"))
    assert found.meta.generation == 1
    assert found.status.observed_generation == -1
    assert found.meta.uid
    assert found.meta.creation_timestamp


async def test_an_unknown_object_is_not_found_with_the_words_of_kubernetes(world: World) -> None:
    with pytest.raises(NotFound, match='"nobody" not found'):
        await world.store.get(KIND, Key("default", "nobody"))
    with pytest.raises(NotFound, match='secrets "nobody" not found'):
        await world.store.secret(Key("default", "nobody"))


async def test_a_spec_change_raises_the_generation_and_a_status_write_does_not(world: World) -> None:
    await world.declare(manifest("a"))
    first = await world.store.get(KIND, Key("default", "a"))
    written = await world.store.write_status(first, status_of(first))
    assert written.meta.generation == 1
    assert written.meta.resource_version != first.meta.resource_version
    await world.declare(manifest("a", interval="2m"))
    second = await world.store.get(KIND, Key("default", "a"))
    assert second.meta.generation == 2
    assert second.status.conditions == written.status.conditions
    assert second.meta.uid == first.meta.uid


async def test_a_change_of_annotations_does_not_raise_the_generation(world: World) -> None:
    await world.declare(manifest("a"))
    body = manifest("a")
    body["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "now"}
    await world.declare(body)
    found = await world.store.get(KIND, Key("default", "a"))
    assert (found.meta.generation, found.meta.requested_at) == (1, "now")


async def test_a_write_on_an_outdated_object_is_a_conflict_and_changes_nothing(world: World) -> None:
    await world.declare(manifest("a"))
    old = await world.store.get(KIND, Key("default", "a"))
    new = await world.store.write_status(old, status_of(old, "first"))
    with pytest.raises(Conflict):
        await world.store.write_status(old, status_of(old, "second"))
    with pytest.raises(Conflict):
        await world.store.write_finalizers(old, [FINALIZER])
    assert (await world.store.get(KIND, Key("default", "a"))).status == new.status


async def test_a_write_on_an_object_that_is_gone_says_so(world: World) -> None:
    await world.declare(manifest("a"))
    old = await world.store.get(KIND, Key("default", "a"))
    await world.withdraw(manifest("a"))
    with pytest.raises(NotFound):
        await world.store.write_status(old, status_of(old))


async def test_an_equal_write_moves_nothing_and_wakes_nobody(world: World) -> None:
    await world.declare(manifest("a"))
    first = await world.store.get(KIND, Key("default", "a"))
    written = await world.store.write_status(first, status_of(first))
    watch = world.store.watch([KIND])
    await anext(watch)
    again = await world.store.write_status(written, status_of(written))
    assert again.meta.resource_version == written.meta.resource_version
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(watch)
    await watch.aclose()  # type: ignore[attr-defined]


async def test_an_object_with_finalizers_stays_until_they_are_gone(world: World) -> None:
    await world.declare(manifest("a"))
    first = await world.store.get(KIND, Key("default", "a"))
    held = await world.store.write_finalizers(first, [FINALIZER])
    await world.withdraw(manifest("a"))
    going = await world.store.get(KIND, Key("default", "a"))
    assert going.meta.deletion_timestamp
    assert going.meta.uid == held.meta.uid
    await world.store.write_finalizers(going, [])
    with pytest.raises(NotFound):
        await world.store.get(KIND, Key("default", "a"))


async def test_an_object_that_comes_back_is_another_one(world: World) -> None:
    await world.declare(manifest("a"))
    first = await world.store.write_finalizers(await world.store.get(KIND, Key("default", "a")), [FINALIZER])
    await world.withdraw(manifest("a"))
    going = await world.store.get(KIND, Key("default", "a"))
    await world.store.write_finalizers(going, [])
    await world.declare(manifest("a"))
    again = await world.store.get(KIND, Key("default", "a"))
    assert again.meta.uid != first.meta.uid
    assert again.status.observed_generation == -1


async def test_a_watch_yields_what_exists_then_changes(world: World) -> None:
    await world.declare(manifest("a"))
    watch = world.store.watch([KIND])
    first = await anext(watch)
    assert (first.type, first.old, first.new.key.name) == (ChangeType.ADDED, None, "a")
    await world.declare(manifest("a", interval="2m"))
    second = await anext(watch)
    assert (second.type, second.new.meta.generation) == (ChangeType.MODIFIED, 2)
    assert second.old is not None
    assert second.old.meta.generation == 1
    await world.withdraw(manifest("a"))
    assert (await anext(watch)).type is ChangeType.DELETED
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_slow_watcher_sees_the_last_state_only(world: World) -> None:
    await world.declare(manifest("a"))
    watch = world.store.watch([KIND])
    await anext(watch)
    for seconds in range(2, 30):
        await world.declare(manifest("a", interval=f"{seconds}s"))
    change = await anext(watch)
    assert change.new.spec.interval == 29
    assert change.old is not None
    assert change.old.spec.interval == 60
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_list_is_ordered_by_key_and_limited_to_a_namespace(world: World) -> None:
    for name, namespace in (("b", "two"), ("a", "two"), ("c", "one")):
        await world.declare(manifest(name, namespace))
    assert [str(r.key) for r in await world.store.list(KIND)] == ["one/c", "two/a", "two/b"]
    assert [str(r.key) for r in await world.store.list(KIND, "two")] == ["two/a", "two/b"]


async def test_status_and_finalizers_survive_a_restart(world: World) -> None:
    await world.declare(manifest("a"))
    first = await world.store.write_finalizers(await world.store.get(KIND, Key("default", "a")), [FINALIZER])
    written = await world.store.write_status(first, status_of(first))
    store = await world.reopen()
    assert await store.get(KIND, Key("default", "a")) == written


async def test_secrets_are_read_and_never_shown(world: World) -> None:
    await world.declare(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": "default"},
            "stringData": {"password": "hunter2"},
        }
    )
    secret = await world.store.secret(Key("default", "s"))
    assert secret.data == {"password": b"hunter2"}
    assert "hunter2" not in repr(secret)


async def test_an_object_of_ours_is_made_once_read_at_once_and_survives_a_restart(world: World) -> None:
    made = await world.store.create(world.own("a"))
    assert (made.meta.generation, made.spec.interval, made.status.observed_generation) == (1, 60, -1)
    assert made.meta.uid
    assert await world.store.get(KIND, Key("default", "a")) == made
    with pytest.raises(Conflict, match="exists"):
        await world.store.create(world.own("a", interval="2m"))
    store = await world.reopen()
    assert await store.get(KIND, Key("default", "a")) == made


async def test_an_update_replaces_the_spec_and_the_texts_of_the_object_as_read(world: World) -> None:
    own = world.own("a", timeout="10s")
    own.meta.annotations["imagebot.test/one"] = "1"
    first = await world.store.create(own)
    texts = first.meta.model_copy(update={"annotations": {"imagebot.test/two": "2"}})
    second = await world.store.update(replace(first, meta=texts, spec=world.own("a", interval="2m").spec))
    assert (second.spec.interval, second.spec.timeout, second.meta.annotations) == (120, None, {"imagebot.test/two": "2"})
    assert (second.meta.generation, second.meta.uid) == (2, first.meta.uid)
    assert (await world.store.update(second)).meta.resource_version == second.meta.resource_version
    with pytest.raises(Conflict):
        await world.store.update(first)
    assert (await world.store.get(KIND, Key("default", "a"))).spec.interval == 120


async def test_an_object_of_ours_is_deleted_once_and_not_on_old_knowledge(world: World) -> None:
    first = await world.store.create(world.own("a"))
    second = await world.store.update(replace(first, spec=world.own("a", interval="2m").spec))
    with pytest.raises(Conflict):
        await world.store.delete(first)
    await world.store.delete(second)
    with pytest.raises(NotFound):
        await world.store.get(KIND, Key("default", "a"))
    with pytest.raises(NotFound):
        await world.store.delete(second)
    again = await world.store.create(world.own("a"))
    assert again.meta.uid != first.meta.uid


async def test_a_watcher_is_told_of_objects_of_ours(world: World) -> None:
    watch = world.store.watch([KIND])
    made = await world.store.create(world.own("a"))
    assert (await anext(watch)).type is ChangeType.ADDED
    await world.store.delete(made)
    assert (await anext(watch)).type is ChangeType.DELETED
    await watch.aclose()  # type: ignore[attr-defined]


async def test_what_people_declare_under_the_name_takes_the_place_of_an_object_of_ours(world: World) -> None:
    await world.store.create(world.own("a"))
    await world.declare(manifest("a", interval="2m"))
    assert (await world.store.get(KIND, Key("default", "a"))).spec.interval == 120
    await world.withdraw(manifest("a"))
    with pytest.raises(NotFound):
        await world.store.get(KIND, Key("default", "a"))
