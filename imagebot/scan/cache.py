"""What scans found, kept in memory per ImageRepository object: a restart scans again.

Upstream keeps one list per image for all objects, so that two objects with different exclusions overwrite each other; here each
object has its own. Short lists are kept packed, long ones as an index that policies share and that only learns differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from imagebot.policy.index import TagIndex
from reconcile.api.meta import Key

PACKED = 4096
"""Lists up to this length are unpacked for each choice, which takes milliseconds; longer ones keep their index."""
LATEST = 10


class KeptTags:
    """The tags that a scan kept, in descending byte order."""

    __slots__ = ("_index", "_packed", "count", "latest")

    def __init__(self, tags: Sequence[str], before: KeptTags | None = None) -> None:
        """Keep `tags`; `before` is the list of the scan before, whose index is brought up to date instead of built anew."""
        self.count = len(tags)
        self.latest = tuple(tags[:LATEST])
        self._index: TagIndex | None = None
        self._packed = b""
        if self.count <= PACKED:
            self._packed = "\n".join(tags).encode("utf-8", "surrogatepass")
        elif before is not None and before._index is not None:  # noqa: SLF001 - the same class
            self._index = before._index  # noqa: SLF001
            self._index.replace(tags)
        else:
            self._index = TagIndex(tags)

    def index(self) -> TagIndex:
        """The tags as policies want them."""
        if self._index is not None:
            return self._index
        text = self._packed.decode("utf-8", "surrogatepass")
        return TagIndex(text.split("\n") if text else ())


@dataclass(slots=True)
class Scanned:
    """The result of the last good scan of one object. `digest` is that of the raw pages."""

    canonical: str
    exclusions: tuple[str, ...]
    digest: str
    tags: KeptTags
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
