"""Who refers to whom, kept up to date from changes, so that waking dependants costs what they are and not what exists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.ports.store import Change, ChangeType

T = TypeVar("T", bound=Hashable)


class Dependants(Generic[T]):
    """Objects of one kind by what they refer to; bounded by the number of objects."""

    def __init__(self, refers: Callable[[AnyResource], T]) -> None:
        self._refers = refers
        self._of: dict[Key, T] = {}
        self._by: dict[T, dict[Key, None]] = {}

    def note(self, change: Change) -> None:
        """Take over a change of an object of the kind."""
        key = change.new.key
        old = self._of.pop(key, None)
        if old is not None:
            self._by[old].pop(key, None)
            if not self._by[old]:
                del self._by[old]
        if change.type is not ChangeType.DELETED:
            target = self._refers(change.new)
            self._of[key] = target
            self._by.setdefault(target, {})[key] = None

    def of(self, target: T) -> Collection[Key]:
        """Keys of the objects that refer to `target`."""
        return list(self._by.get(target, ()))
