"""What was applied last and how it looked then, for each owner: what has not moved since costs no request. Bounded; in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from reconcile.apply.changeset import Action
from reconcile.apply.owner import Owner
from reconcile.ports.cluster import Reference
from reconcile.ports.stamps import Mark, Seen, Sight, digest

MOST_OBJECTS = 100_000
"""Objects that are remembered in all: about 600 bytes each."""


@dataclass(frozen=True, slots=True)
class Known:
    """How an object was left."""

    payload: str
    """Digest of what was wanted."""
    mark: Mark | None
    """How it looked; None when it was not looked at, or is none of ours for a watch to see."""
    action: Action


class Remembered:
    """What is remembered of the objects of one owner."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Reference, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, which: Reference) -> Known | None:
        """How an object was left."""
        return self._known.get(which)

    def put(self, which: Reference, known: Known) -> None:
        """Remember how it was left."""
        self._known[which] = known

    def forget(self, which: Reference) -> None:
        """Ask again next time."""
        self._known.pop(which, None)

    def keep(self, which: Collection[Reference]) -> None:
        """Forget all but these."""
        if len(self._known) > len(which) or self._known.keys() - set(which):
            wanted = set(which)
            self._known = {reference: known for reference, known in self._known.items() if reference in wanted}

    def state(self, which: Iterable[Reference]) -> str:
        """Digest of how these objects were left; empty when that is not known of each.

        It equals `seen_state` of the same objects for as long as nobody has changed one, also after a restart.
        """
        marks: list[tuple[Reference, Seen]] = []
        for reference in which:
            known = self._known.get(reference)
            if known is None:
                return ""
            marks.append((reference, known.mark or Sight.NONE))
        return _digest(marks)


def seen_state(seen: Iterable[tuple[Reference, Seen]]) -> str:
    """Digest of objects as watches see them; empty when one of them is not followed at present."""
    marks = list(seen)
    return "" if any(mark is Sight.UNKNOWN for _, mark in marks) else _digest(marks)


def _digest(marks: list[tuple[Reference, Seen]]) -> str:
    rows = []
    for reference, mark in marks:
        name = [reference.api_version, reference.kind, reference.namespace, reference.name]
        rows.append([*name, *([mark.uid, mark.state, mark.notes] if isinstance(mark, Mark) else ["-"])])
    return digest(sorted(rows))


class Memory:
    """The sets of all owners. Above its bound the owners that were used longest ago are forgotten.

    Args:
        most: Objects in all.
    """

    def __init__(self, most: int = MOST_OBJECTS) -> None:
        self._most = most
        self._owners: OrderedDict[Owner, Remembered] = OrderedDict()

    def of(self, owner: Owner) -> Remembered:
        """What is remembered of an owner's objects."""
        found = self._owners.get(owner)
        if found is None:
            found = self._owners[owner] = Remembered()
        self._owners.move_to_end(owner)
        while len(self._owners) > 1 and sum(len(each) for each in self._owners.values()) > self._most:
            self._owners.popitem(last=False)
        return found

    def forget(self, owner: Owner) -> None:
        """Nothing is known of an owner's objects any more."""
        self._owners.pop(owner, None)
