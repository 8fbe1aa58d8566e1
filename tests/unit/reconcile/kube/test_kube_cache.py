"""The cache between list, watch and our own writes: messages come late, doubled and out of order, and must not do harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.api.meta import Key
from reconcile.kube.cache import Cache
from reconcile.kube.kindcache import newer
from reconcile.kube.recent import Recent
from reconcile.kube.store import difference
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.feed import Feed
from tests.support.kube import THING, scheme_of

V1 = THING.api_version


def body(name: str = "a", version: int = 10, *, uid: str = "u1", size: Any = 1, **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "generation": 1, **metadata}
    return {"apiVersion": V1, "kind": THING.kind, "metadata": meta, "spec": {"size": size}}


class Told(Feed):
    """A feed that only remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[str] = []

    def publish(self, change: Change) -> None:
        old = change.old.meta.resource_version if change.old else "-"
        self.changes.append(f"{change.type} {change.new.key.name} {old} {change.new.meta.resource_version}")


@pytest.fixture
def feed() -> Told:
    return Told()


@pytest.fixture
def cache(feed: Told) -> Cache:
    made = Cache(THING, scheme_of(THING), feed)
    made.begin()
    made.page(V1, [body()])
    made.end()
    feed.changes.clear()
    return made


def version(cache: Cache, name: str = "a") -> str | None:
    found = cache.get(Key("ns", name))
    return found.meta.resource_version if found else None


def test_an_object_without_a_status_was_never_observed(cache: Cache) -> None:
    found = cache.get(Key("ns", "a"))
    assert found is not None
    assert found.status.observed_generation == -1


def test_the_echo_of_a_write_is_no_news(cache: Cache, feed: Told) -> None:
    cache.wrote(body(version=12))
    cache.changed(body(version=11))
    cache.changed(body(version=12))
    assert (version(cache), feed.changes) == ("12", ["MODIFIED a 10 12"])


def test_an_echo_that_was_faster_than_the_answer_is_the_same_object(cache: Cache, feed: Told) -> None:
    cache.changed(body(version=12))
    assert cache.wrote(body(version=12)) is cache.get(Key("ns", "a"))
    assert feed.changes == ["MODIFIED a 10 12"]


def test_a_list_that_began_before_a_write_does_not_undo_it(cache: Cache, feed: Told) -> None:
    cache.begin()
    cache.wrote(body(version=12))
    cache.page(V1, [body(version=10)])
    cache.end()
    assert (version(cache), feed.changes) == ("12", ["MODIFIED a 10 12"])


def test_a_list_of_a_server_that_was_restored_from_a_backup_is_believed(cache: Cache) -> None:
    cache.begin()
    cache.page(V1, [body(version=3)])
    cache.end()
    assert version(cache) == "3"


def test_what_a_list_does_not_name_is_gone(cache: Cache, feed: Told) -> None:
    cache.begin()
    cache.page(V1, [body("b", 11, uid="u2")])
    assert version(cache) == "10"  # not before the list is complete
    cache.end()
    assert (version(cache), version(cache, "b"), len(cache)) == (None, "11", 1)
    assert feed.changes == ["ADDED b - 11", "DELETED a 10 10"]


def test_a_list_that_broke_off_removes_nothing(cache: Cache, feed: Told) -> None:
    cache.begin()
    cache.page(V1, [])
    cache.begin()
    cache.page(V1, [body()])
    cache.end()
    assert (version(cache), feed.changes) == ("10", [])


def test_another_object_of_the_same_name_is_another_one(cache: Cache, feed: Told) -> None:
    cache.changed(body(version=20, uid="u2"))
    assert feed.changes == ["DELETED a 10 10", "ADDED a - 20"]
    cache.deleted(body(version=15, uid="u1"))  # late, and about the first
    assert version(cache) == "20"


def test_an_object_whose_last_finalizer_went_stays_gone(cache: Cache, feed: Told) -> None:
    cache.wrote(body(version=12, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert version(cache) is None
    cache.changed(body(version=11, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["x"]))
    cache.deleted(body(version=13))
    assert (version(cache), feed.changes) == (None, ["DELETED a 10 10"])
    cache.changed(body(version=14, uid="u2"))
    assert version(cache) == "14"


def test_the_answer_to_a_write_does_not_bring_back_what_is_gone(cache: Cache, feed: Told) -> None:
    cache.deleted(body(version=11))
    cache.wrote(body(version=12))
    cache.wrote(body("stranger", 12, uid="u9"))
    assert (len(cache), feed.changes) == (0, ["DELETED a 10 10"])


def test_an_object_that_becomes_unreadable_is_left_out_until_it_is_readable(cache: Cache, feed: Told) -> None:
    cache.changed(body(version=11, size="large"))
    assert (version(cache), cache.unreadable) == (None, {Key("ns", "a"): "11"})
    cache.changed(body(version=12))
    assert (version(cache), cache.unreadable) == ("12", {})
    assert feed.changes == ["DELETED a 10 10", "ADDED a - 12"]
    cache.changed(body("b", 13, uid="u2", size="large"))
    cache.deleted(body("b", 14, uid="u2", size="large"))
    assert cache.unreadable == {}


def test_objects_are_in_order_of_key(cache: Cache) -> None:
    for name, space in (("c", "ns"), ("b", "aa"), ("a", "aa")):
        cache.changed(body(name, 11, uid=name, namespace=space))
    assert [str(found.key) for found in cache.all()] == ["aa/a", "aa/b", "ns/a", "ns/c"]
    assert [str(found.key) for found in cache.all("aa")] == ["aa/a", "aa/b"]
    assert list(cache.all("nowhere")) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"), [("10", "9", True), ("9", "10", False), ("9", "9", False), ("x", "9", True)]
)
def test_versions_are_compared_as_numbers(one: str, other: str, expected: bool) -> None:
    assert newer(one, other) is expected


values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as its text has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def strictly(value: Any) -> Any:
    """Tells 1 from True."""
    if isinstance(value, dict):
        return {name: strictly(inner) for name, inner in value.items()}
    return [strictly(inner) for inner in value] if isinstance(value, list) else (type(value), value)


@given(objects, objects)
def test_the_difference_applied_to_the_old_gives_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = difference(old, new)
    assert strictly(merged(old, patch)) == strictly(new)
    assert (patch == {}) == (strictly(old) == strictly(new))


@pytest.fixture
async def recent() -> AsyncIterator[Recent[str, int]]:
    made: Recent[str, int] = Recent(0.05, most=2)
    yield made
    made.clear()


async def test_a_failure_is_not_remembered_and_an_answer_not_for_long(recent: Recent[str, int]) -> None:
    asked: list[str] = []

    async def fail() -> int:
        asked.append("fail")
        raise ValueError("no")

    async def load() -> int:
        asked.append("load")
        return len(asked)

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await recent.get("k", fail)
    assert await recent.get("k", load) == await recent.get("k", load) == 3
    async with asyncio.timeout(5):
        while recent._values:
            await asyncio.sleep(0.01)
    await recent.get("k", load)
    assert asked == ["fail", "fail", "load", "load"]


async def test_the_memory_is_bounded(recent: Recent[str, int]) -> None:
    async def load() -> int:
        return 1

    for key in "abcde":
        await recent.get(key, load)
    assert list(recent._values) == ["d", "e"]


def test_changes_have_the_names_of_kubernetes() -> None:
    assert [change.value for change in ChangeType] == ["ADDED", "MODIFIED", "DELETED"]
