"""What scans found, kept in memory per ImageRepository object: a restart scans again.

Upstream keeps one list per image for all objects, so that two objects with different exclusions overwrite each other; here each
object has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from imagebot.policy.index import TagIndex
from reconcile.api.meta import Key
from reconcile.registry.tags import TagPages


@dataclass(slots=True)
class Scanned:
    """The result of the last good scan of one object."""

    canonical: str
    exclusions: tuple[str, ...]
    pages: TagPages
    index: TagIndex
    revision: str
    at: datetime


class TagStore:
    """Last scans by key of the ImageRepository; bounded by the number of objects."""

    def __init__(self) -> None:
        self._scans: dict[Key, Scanned] = {}
        self._waiting: dict[Key, set[Key]] = {}
        self.wake: Callable[[Key], None] = lambda _: None
        """Called with each policy that waited for a first scan that is now there."""

    def get(self, key: Key) -> Scanned | None:
        """The last scan of this object, None when there is none since the start."""
        return self._scans.get(key)

    def put(self, key: Key, scanned: Scanned) -> None:
        """Keep a scan and wake who waited for it."""
        self._scans[key] = scanned
        for policy in self._waiting.pop(key, ()):
            self.wake(policy)

    def wait(self, key: Key, policy: Key) -> None:
        """Remember that a policy waits for the first scan of this object."""
        self._waiting.setdefault(key, set()).add(policy)

    def drop(self, key: Key) -> None:
        """Forget an object."""
        self._scans.pop(key, None)
        self._waiting.pop(key, None)

    def __len__(self) -> int:
        return len(self._scans)
