"""Which Canary has read which object: a change of an object wakes those who read it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from reconcile.api.meta import Key
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Notice, Objects, Stamp

_looks: ContextVar[Look | None] = ContextVar("looks", default=None)
_writings: ContextVar[_Writing | None] = ContextVar("writings", default=None)


class Following:
    """Objects by Canary and Canaries by object; bounded by what exists."""

    def __init__(self) -> None:
        self._read: dict[Key, frozenset[Reference]] = {}
        self._readers: dict[Reference, set[Key]] = {}

    def of(self, which: Reference) -> list[Key]:
        """The Canaries whose last look has read this object (also when it was not there).

        Not the one that is just writing it on top of what it has read: it knows. A write on top of whatever is there may bring
        somebody else's change, and is news to its writer too.
        """
        writing = _writings.get()
        writer = writing.key if writing is not None and writing.which == which else None
        return [key for key in self._readers.get(which, ()) if key != writer]

    def note(self, key: Key, reads: frozenset[Reference]) -> None:
        """A look of a Canary has read these."""
        before = self._read.get(key, frozenset())
        if reads == before:
            return
        for which in before - reads:
            self._readers[which].discard(key)
            if not self._readers[which]:
                del self._readers[which]
        for which in reads - before:
            self._readers.setdefault(which, set()).add(key)
        if reads:
            self._read[key] = reads
        else:
            self._read.pop(key, None)

    def forget(self, key: Key) -> None:
        """The Canary is gone."""
        self.note(key, frozenset())

    def reading(self, objects: Objects) -> Objects:
        """The same objects, with reads noted while inside `following`."""
        return _Reading(objects)

    def read_by(self, key: Key) -> frozenset[Reference]:
        """What the last look of a Canary has read."""
        return self._read.get(key, frozenset())

    def __len__(self) -> int:
        return len(self._readers)


@dataclass(frozen=True, slots=True)
class _Writing:
    """A write of a look on top of what it has read."""

    key: Key
    which: Reference


@dataclass
class Look:
    """One look at a Canary; `complete` says that it has read all that it depends on."""

    index: Following
    key: Key
    reads: set[Reference] = field(default_factory=set)
    complete: bool = False

    def note(self, which: Reference) -> None:
        """Something is read: at once, since it may change before the look is over."""
        if which not in self.reads:
            self.reads.add(which)
            self.index.note(self.key, self.index.read_by(self.key) | {which})


@contextmanager
def following(index: Following, key: Key) -> Iterator[Look]:
    """Note what is read inside as what this Canary depends on; a look that is not complete forgets nothing."""
    look = Look(index, key)
    token = _looks.set(look)
    try:
        yield look
    finally:
        _looks.reset(token)
        if look.complete:
            index.note(key, frozenset(look.reads))


@contextmanager
def _writing(which: Object) -> Iterator[None]:
    """Know, in this task alone, what the look is writing on top of what it has read."""
    look = _looks.get()
    token = _writings.set(None if look is None else _Writing(look.key, Reference.of(which)))
    try:
        yield
    finally:
        _writings.reset(token)


class _Reading:
    """Objects whose reads are noted."""

    def __init__(self, inner: Objects) -> None:
        self._inner = inner

    def _note(self, which: Reference) -> None:
        if (look := _looks.get()) is not None:
            look.note(which)

    async def get(self, which: Reference) -> Object:
        self._note(which)
        return await self._inner.get(which)

    async def find(self, which: Reference) -> Object | None:
        self._note(which)
        return await self._inner.find(which)

    async def stamp(self, which: Reference) -> Stamp | None:
        self._note(which)
        return await self._inner.stamp(which)

    async def read(self, which: Reference) -> Object:
        self._note(which)
        return await self._inner.read(which)

    async def create(self, wanted: Object, *, manager: str) -> Object:
        with _writing(wanted):
            return await self._inner.create(wanted, manager=manager)

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        if isinstance(which, Reference):
            return await self._inner.patch(which, patch, manager=manager)
        with _writing(which):
            return await self._inner.patch(which, patch, manager=manager)

    async def delete(self, which: Object | Reference) -> bool:
        return await self._inner.delete(which)

    def subscribe(self, notice: Notice) -> None:
        self._inner.subscribe(notice)
