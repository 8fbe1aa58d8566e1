"""Stamps: what tells that an object has not moved, known without asking for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeAlias

import orjson

from reconcile.ports.cluster import Object, Reference

UNCOUNTED = frozenset({"deployment.kubernetes.io/revision"})
"""Annotations that Kubernetes' own controllers keep: they say nothing about what anybody wants."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A state of an object: while its mark is the same, nobody has changed anything in it but its status."""

    uid: str
    state: str
    """Its generation where the kind has one, which counts changes of all but metadata and status; else its resourceVersion."""
    notes: str
    """Digest of its labels and annotations."""
    ending: bool = False
    """Whether its deletion was asked for."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Mark:
        """The mark of an object, from its metadata."""
        metadata = found["metadata"]
        generation = metadata.get("generation")
        state = f"g{generation}" if generation is not None else f"v{metadata.get('resourceVersion', '')}"
        kept = {name: text for name, text in (metadata.get("annotations") or {}).items() if name not in UNCOUNTED}
        notes = digest([metadata.get("labels") or {}, kept])
        return cls(str(metadata.get("uid", "")), state, notes, bool(metadata.get("deletionTimestamp")))


def digest(data: Any) -> str:
    """Short digest of plain data; the order of keys does not count."""
    return hashlib.blake2b(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()


class Sight(Enum):
    """What is known of an object without a mark."""

    NONE = "none"
    """There is none with an owner's label."""
    UNKNOWN = "unknown"
    """Its kind is not followed, or not up to date at present: it has to be asked for."""


Seen: TypeAlias = Mark | Sight


@dataclass(frozen=True, slots=True)
class Touched:
    """A managed object was added, changed in more than its status, or deleted, and not by us."""

    which: Reference
    owners: frozenset[tuple[str, str]]
    """Namespace and name of the owners that its labels name, before and after."""


Notice = Callable[[Touched], None]
"""Told of a change; must return at once and never raise."""


class Stamps(Protocol):
    """Marks of the objects that carry the label of an owner, kept up to date by watches of metadata alone."""

    async def follow(self, kinds: Iterable[tuple[str, str]]) -> None:
        """Follow these kinds (apiVersion, kind) from now on; waits a bounded time until what exists of them is known."""
        ...

    def seen(self, which: Reference) -> Seen:
        """What is known of an object; costs nothing."""
        ...

    def wrote(self, found: Object) -> None:
        """The answer to a write or read of ours: known at once, before the watch brings it, and without a notice."""
        ...

    def subscribe(self, notice: Notice) -> None:
        """Tell `notice` of each change of a followed object."""
        ...
