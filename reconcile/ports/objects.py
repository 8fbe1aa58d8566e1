"""Objects: anybody's objects, read from memory and written as merge patches. Beside `Cluster`, which applies what others wrote.

A kind is followed from its first read on: what exists is listed once, every later read costs nothing, and whoever subscribed is
told of each change. Kinds whose content nobody should hold in memory (Secret, ConfigMap) are followed by metadata only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconcile.ports.cluster import Object, Reference


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of an object whose content is not kept."""

    uid: str
    version: str
    """Its `resourceVersion`: the content is another one only if this is."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """An object was added, changed or deleted."""

    which: Reference
    status_only: bool = False
    """It is another one in its status and in nothing else: what somebody reports, not what somebody wants."""


Notice = Callable[[Moved], None]
"""Told of a change; must return at once and never raise."""


class Objects(Protocol):
    """Reads of followed kinds, and writes.

    Laws (`tests/contract/test_objects.py`): what a write was answered is what the next read has; a patch that changes nothing
    does not move the `resourceVersion`; a patch based on an object raises Conflict when the object has changed since it was read.
    """

    async def get(self, which: Reference) -> Object:
        """A copy of the object, the caller's own; raises NotFound with Kubernetes' words (`deployments.apps "web" not found`).

        Raises another ReconcileError when the kind is not served or may not be read: an absent kind is no absent object.
        """
        ...

    async def find(self, which: Reference) -> Object | None:
        """As `get`, with None when there is no such object."""
        ...

    async def stamp(self, which: Reference) -> Stamp | None:
        """The metadata of an object of a kind that is followed by metadata only; None when there is no such object."""
        ...

    async def read(self, which: Reference) -> Object:
        """The object as the server has it now, by one request that is not remembered; raises NotFound."""
        ...

    async def create(self, wanted: Object, *, manager: str) -> Object:
        """Make an object; raises Conflict when there is one of this name."""
        ...

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        """Merge patch (RFC 7386); the object as it is then.

        Based on an object as it was read: raises Conflict when it has changed since. Based on a reference: whatever it is now.
        An empty patch costs no request.
        """
        ...

    async def delete(self, which: Object | Reference) -> bool:
        """Ask for an object's end; False when there was none."""
        ...

    def subscribe(self, notice: Notice) -> None:
        """Tell `notice` of every change of the kinds that are followed."""
        ...
