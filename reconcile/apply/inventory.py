"""The inventory of an applier: which objects it has applied, in Flux's format. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconcile.errors import Invalid
from reconcile.ports.cluster import Reference

RBAC = "rbac.authorization.k8s.io"
_COLONS = frozenset({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `status.inventory.entries`."""

    id: str
    """`<namespace>_<name>_<group>_<kind>`; no namespace for kinds without one, no group for the core."""
    v: str
    """API version without the group."""

    @classmethod
    def of(cls, reference: Reference) -> Entry:
        """The entry of an object."""
        name = reference.name
        if reference.group == RBAC and reference.kind in _COLONS:
            name = name.replace(":", "__")
        version = reference.api_version.rpartition("/")[2]
        return cls(f"{reference.namespace}_{name}_{reference.group}_{reference.kind}", version)

    @property
    def reference(self) -> Reference:
        """The object; raises Invalid when the entry cannot be one of an object."""
        parts = self.id.split("_", 1)
        rest = parts[1].rsplit("_", 2) if len(parts) == 2 else []
        if len(rest) != 3:
            raise Invalid(f"inventory entry {self.id!r} is not <namespace>_<name>_<group>_<kind>")
        name, group, kind = rest
        if not (name and kind and self.v):
            raise Invalid(f"inventory entry {self.id!r} names no object")
        return Reference(f"{group}/{self.v}" if group else self.v, kind, parts[0], name.replace("__", ":"))


def entries_of(references: Iterable[Reference]) -> list[Entry]:
    """Entries of objects, in order, each once."""
    return list(dict.fromkeys(Entry.of(reference) for reference in references))


def references_of(entries: Iterable[Entry]) -> tuple[list[Reference], list[Entry]]:
    """The objects of an inventory, and the entries that cannot be ones of objects: nothing can be done about those."""
    found: list[Reference] = []
    unreadable: list[Entry] = []
    for entry in entries:
        try:
            found.append(entry.reference)
        except Invalid:
            unreadable.append(entry)
    return found, unreadable


def stale(old: Iterable[Entry], new: Iterable[Entry]) -> list[Entry]:
    """What left the set: entries of the old inventory whose id the new one does not have."""
    kept = {entry.id for entry in new}
    return [entry for entry in old if entry.id not in kept]


def merged(old: Sequence[Entry], more: Iterable[Entry]) -> list[Entry]:
    """The old inventory and what it does not have yet: what an apply that may still fail is about to touch.

    An id that is in both has the version of `more`.
    """
    found = {entry.id: entry for entry in old}
    found.update({entry.id: entry for entry in more})
    return list(found.values())
