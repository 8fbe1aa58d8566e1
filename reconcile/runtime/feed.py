"""Carries changes from a store to its watchers without ever blocking the store.

Changes that a watcher has not taken yet are merged per object, so a watcher's backlog is bounded by the number of objects.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.ports.store import Change, ChangeType

_Identity = tuple[str, Key]


class _Subscription:
    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.pending: OrderedDict[_Identity, Change] = OrderedDict()
        self.wake = asyncio.Event()

    def push(self, change: Change) -> None:
        identity = (change.new.kind, change.new.key)
        waiting = self.pending.pop(identity, None)
        if waiting is not None:
            merged = merge(waiting, change)
            if merged is None:
                return
            change = merged
        self.pending[identity] = change
        self.wake.set()


def merge(first: Change, second: Change) -> Change | None:
    """One change that says what both say to a watcher who saw neither; None when they cancel out."""
    if second.type is ChangeType.DELETED:
        return None if first.type is ChangeType.ADDED else Change(ChangeType.DELETED, first.old, second.new)
    if first.type is ChangeType.DELETED:
        return Change(ChangeType.MODIFIED, first.old, second.new)
    return Change(first.type, first.old, second.new)


class Feed:
    """The watchers of one store."""

    def __init__(self) -> None:
        self._subscriptions: set[_Subscription] = set()

    def publish(self, change: Change) -> None:
        """Tell every watcher of this kind."""
        for subscription in self._subscriptions:
            if change.new.kind in subscription.kinds:
                subscription.push(change)

    async def watch(self, kinds: Sequence[str], existing: Iterable[AnyResource]) -> AsyncIterator[Change]:
        """`existing` as ADDED, then what is published; never ends.

        Nothing is lost between the two if `existing` looks at the store only when it is iterated, which happens here, where
        the subscription begins.
        """
        subscription = _Subscription(frozenset(kinds))
        for resource in existing:
            subscription.push(Change(ChangeType.ADDED, None, resource))
        self._subscriptions.add(subscription)
        try:
            while True:
                while subscription.pending:
                    _, change = subscription.pending.popitem(last=False)
                    yield change
                subscription.wake.clear()
                await subscription.wake.wait()
        finally:
            self._subscriptions.discard(subscription)
