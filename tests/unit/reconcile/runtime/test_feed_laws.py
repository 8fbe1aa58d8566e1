"""A watcher that was slow knows in the end what one that was quick knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from reconcile.api.meta import CommonSpec, CommonStatus, ObjectMeta
from reconcile.api.resource import AnyResource, Resource
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.feed import Feed, merge


def thing(name: str, version: int) -> AnyResource:
    return Resource("v1", "Thing", ObjectMeta(name=name, resource_version=str(version)), CommonSpec(), CommonStatus())


def history(steps: list[tuple[str, bool]]) -> list[Change]:
    """A possible life of some objects: each step writes an object or deletes it."""
    now: dict[str, AnyResource] = {}
    found = []
    for version, (name, deletes) in enumerate(steps):
        old = now.get(name)
        if deletes:
            if old is not None:
                found.append(Change(ChangeType.DELETED, old, now.pop(name)))
            continue
        now[name] = thing(name, version)
        found.append(Change(ChangeType.MODIFIED if old else ChangeType.ADDED, old, now[name]))
    return found


def apply(state: dict[str, AnyResource], change: Change) -> None:
    """What a watcher does with a change; it checks that the change fits what it knows."""
    name = change.new.meta.name
    assert state.get(name) == change.old or (change.type is ChangeType.DELETED and name in state)
    assert (name in state) == (change.type is not ChangeType.ADDED)
    if change.type is ChangeType.DELETED:
        del state[name]
    else:
        state[name] = change.new


HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30).map(history)


@given(HISTORIES, st.lists(st.booleans(), min_size=30, max_size=30))
def test_merged_changes_say_what_all_changes_say(changes: list[Change], reads: list[bool]) -> None:
    quick: dict[str, AnyResource] = {}
    slow: dict[str, AnyResource] = {}
    pending: dict[str, Change] = {}
    for change, read in zip(changes, reads, strict=False):
        apply(quick, change)
        name = change.new.meta.name
        waiting = pending.pop(name, None)
        merged = merge(waiting, change) if waiting is not None else change
        if merged is not None:
            pending[name] = merged
        if read and pending:
            apply(slow, pending.pop(next(iter(pending))))
    for change in pending.values():
        apply(slow, change)
    assert slow == quick


@given(HISTORIES)
def test_a_watcher_of_the_feed_ends_up_with_the_truth(changes: list[Change]) -> None:
    async def run() -> dict[str, AnyResource]:
        feed, state = Feed(), dict[str, AnyResource]()
        watch = feed.watch(["Thing"], [])
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        for change in changes:
            feed.publish(change)
        feed.publish(Change(ChangeType.ADDED, None, thing("end", 0)))
        change = await first
        while change.new.meta.name != "end":
            apply(state, change)
            change = await anext(watch)
        await watch.aclose()  # type: ignore[attr-defined]
        assert not feed._subscriptions
        return state

    truth: dict[str, AnyResource] = {}
    for change in changes:
        apply(truth, change)
    assert asyncio.run(run()) == truth


async def test_a_backlog_is_bounded_by_the_number_of_objects() -> None:
    feed = Feed()
    watch = feed.watch(["Thing"], [thing("a", 0)])
    await anext(watch)
    for version in range(1, 1000):
        feed.publish(Change(ChangeType.MODIFIED, thing("a", version - 1), thing("a", version)))
    (subscription,) = feed._subscriptions
    assert len(subscription.pending) == 1
    change = await anext(watch)
    assert (change.old, change.new) == (thing("a", 0), thing("a", 999))
    await watch.aclose()  # type: ignore[attr-defined]


async def test_what_exists_is_looked_at_when_the_watch_begins() -> None:
    now = [thing("a", 0)]

    def existing() -> Iterator[AnyResource]:
        yield from now

    watch = Feed().watch(["Thing"], existing())
    now.append(thing("b", 1))
    assert [(await anext(watch)).new.meta.name for _ in range(2)] == ["a", "b"]
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_watcher_sees_only_the_kinds_it_asked_for() -> None:
    feed = Feed()
    watch = feed.watch(["Other"], [])
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    feed.publish(Change(ChangeType.ADDED, None, thing("a", 0)))
    await asyncio.sleep(0)
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
