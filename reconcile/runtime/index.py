"""Who refers to whom, kept up to date from changes, so that waking dependants costs what they are and not what exists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Generic, TypeVar

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.ports.store import Change, ChangeType

T = TypeVar("T", bound=Hashable)


class Referrers(Generic[T]):
    """Objects of one kind by all that they refer to; bounded by the number of objects."""

    def __init__(self, refers: Callable[[AnyResource], Iterable[T]]) -> None:
        self._refers = refers
        self._of: dict[Key, tuple[T, ...]] = {}
        self._by: dict[T, dict[Key, None]] = {}

    def note(self, change: Change) -> None:
        """Take over a change of an object of the kind."""
        key = change.new.key
        targets = () if change.type is ChangeType.DELETED else tuple(dict.fromkeys(self._refers(change.new)))
        if targets == self._of.get(key, ()):
            return  # it keeps its place
        for old in self._of.pop(key, ()):
            self._by[old].pop(key, None)
            if not self._by[old]:
                del self._by[old]
        if targets:
            self._of[key] = targets
        for target in targets:
            self._by.setdefault(target, {})[key] = None

    def of(self, target: T) -> Collection[Key]:
        """Keys of the objects that refer to `target`, in the order in which they came to do so."""
        return list(self._by.get(target, ()))


class Dependants(Referrers[T]):
    """Objects of one kind by the one thing that each refers to."""

    def __init__(self, refers: Callable[[AnyResource], T]) -> None:
        super().__init__(lambda resource: (refers(resource),))
