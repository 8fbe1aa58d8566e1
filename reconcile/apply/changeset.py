"""What was done to the objects of a set, and the errors that say how far it went. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.cluster import ClusterError, Reference


class Action(StrEnum):
    """What became of an object; the words of Flux's events."""

    CREATED = "created"
    """Made, or made again after it was deleted because a field of it cannot be changed."""
    CONFIGURED = "configured"
    """Changed."""
    UNCHANGED = "unchanged"
    """As it should be already."""
    SKIPPED = "skipped"
    """Left alone, as its annotations or somebody's ownership ask."""
    DELETED = "deleted"
    """Deletion was asked for, or it was gone already."""


CHANGED = frozenset({Action.CREATED, Action.CONFIGURED})
"""Actions of an apply that events tell of."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A field of a live object that was not as it should be."""

    path: str
    """JSON pointer (RFC 6901)."""
    managers: tuple[str, ...] = ()
    """Field managers other than ours that own it: who changed it. Empty when nobody does, as after a removal."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object of a change set."""

    reference: Reference
    action: Action
    drift: tuple[Drift, ...] = ()
    """What was put back, where the same payload had been applied before or another manager owns what differed."""

    def __str__(self) -> str:
        return f"{self.reference} {self.action}"


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What was done, in the order in which it was done."""

    changes: tuple[Change, ...] = ()

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __add__(self, other: ChangeSet) -> ChangeSet:
        return ChangeSet(self.changes + other.changes)

    @property
    def changed(self) -> tuple[Change, ...]:
        """What was created or configured."""
        return tuple(change for change in self.changes if change.action in CHANGED)

    @property
    def drifted(self) -> tuple[Change, ...]:
        """Objects in which something was put back."""
        return tuple(change for change in self.changes if change.drift)

    def lines(self, actions: Iterable[Action] = CHANGED) -> list[str]:
        """`<Kind>/<namespace>/<name> <action>` for these actions, in order; those of an event by default."""
        wanted = frozenset(actions)
        return [str(change) for change in self.changes if change.action in wanted]

    def references(self, *, without: Iterable[Action] = ()) -> list[Reference]:
        """The objects, in order, but for those of some actions."""
        left_out = frozenset(without)
        return [change.reference for change in self.changes if change.action not in left_out]


class ApplyFailed(ReconcileError):
    """A set could not be applied to its end.

    The text is what Flux writes: the failure, a line break, and a line for each change of the stages that were completed.

    Attributes:
        changes: Everything that was done, those of the stage that failed included.
        failures: One text for each object that failed.
    """

    def __init__(self, failures: Sequence[str], completed: ChangeSet, changes: ChangeSet | None = None) -> None:
        lines = [_first(failures), *completed.lines()]
        super().__init__("".join(f"{line}\n" for line in lines))
        self.failures = tuple(failures)
        self.changes = completed if changes is None else changes


MOST_FAILURES = 10
"""Failures of one set that its error spells out."""


def _first(failures: Sequence[str]) -> str:
    more = len(failures) - MOST_FAILURES
    return "\n".join([*failures[:MOST_FAILURES], *([f"and {more} more objects failed"] if more > 0 else [])])


class PruneFailed(ReconcileError):
    """Some objects could not be deleted; the text collects why, as Flux writes it.

    Attributes:
        changes: What was done to the others.
        left: The objects that are neither deleted nor skipped: they stay in the inventory.
    """

    def __init__(self, failures: Sequence[str], changes: ChangeSet, left: Sequence[Reference]) -> None:
        super().__init__("delete failed, errors: " + "".join(f"{failure};" for failure in failures))
        self.changes = changes
        self.left = tuple(left)


def dry_run_failure(reference: Reference, error: ReconcileError) -> str:
    """The text of a dry run that failed: Flux's words round those of the API server."""
    said = server_words(error)
    if isinstance(error, NotFound):
        return f"{reference} not found: {said}" if reference.namespace else namespace_missing(reference)
    reason = error.reason if isinstance(error, ClusterError) else ""
    return f"{reference} dry-run failed{f' ({reason})' if reason else ''}: {_explained(said, error)}"


def server_words(error: ReconcileError) -> str:
    """What the API server said to the letter; what we say where it did not answer."""
    return (error.text if isinstance(error, ClusterError) else "") or str(error)


def namespace_missing(reference: Reference) -> str:
    """The text for an object that needs a namespace and names none."""
    return f"{reference} namespace not specified: the server could not find the requested resource"


def apply_failure(reference: Reference, error: ReconcileError) -> str:
    """The text of an apply that failed although its dry run did not."""
    return f"{reference} apply failed: {_explained(server_words(error), error)}"


def _explained(said: str, error: ReconcileError) -> str:
    """The server's words, and what was added to them: which RBAC rule is missing."""
    whole = str(error)
    return whole if whole.startswith(said) and "missing RBAC rule" in whole else said
