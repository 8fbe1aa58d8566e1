"""Store: our kinds, with or without a cluster. What makes implementations honest is one contract suite that runs on each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from reconcile.api.meta import CommonStatus, Key
from reconcile.api.resource import AnyResource


class ChangeType(StrEnum):
    """What happened to an object; names as in a Kubernetes watch."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of an object as a watcher sees it: states in between may have been skipped.

    `old` is the state of which this watcher was told last (None when it was told of none), `new` the present one (for DELETED
    the last known).
    """

    type: ChangeType
    old: AnyResource | None
    new: AnyResource


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret as it is read: `data` is decoded. Its repr shows keys only."""

    key: Key
    type: str
    data: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Secret({self.key}, type={self.type!r}, keys={sorted(self.data)})"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What is needed of a ServiceAccount."""

    key: Key
    image_pull_secrets: tuple[str, ...]
    annotations: Mapping[str, str]


class Store(Protocol):
    """Reads our kinds, watches them, writes status and finalizers; makes, changes and deletes objects that are the service's own;
    reads Secrets, ServiceAccounts and namespace labels.

    Laws (`tests/contract/test_store.py`): a status or finalizer write based on an outdated `resource_version` raises Conflict
    and changes nothing; a change of spec raises `generation`, a status write does not; an equal write does not move
    `resource_version` and wakes nobody; an object with finalizers that is deleted stays, with a deletion timestamp, until the
    last of them is removed; `list` is ordered by key; what was written is read from then on; an object that was made survives a
    restart, and one that people declare under its name takes its place.
    """

    async def get(self, kind: str, key: Key) -> AnyResource:
        """The object; raises NotFound."""
        ...

    async def list(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        """All objects of a kind, of one namespace if given, ordered by key."""
        ...

    def watch(self, kinds: Sequence[str]) -> AsyncIterator[Change]:
        """What exists now as ADDED, then every change; never ends. Changes that were not taken yet are merged per object."""
        ...

    async def write_status(self, resource: AnyResource, status: CommonStatus) -> AnyResource:
        """Replace the status of the object as read; returns it as written. Raises Conflict or NotFound."""
        ...

    async def write_finalizers(self, resource: AnyResource, finalizers: Sequence[str]) -> AnyResource:
        """Replace the finalizers of the object as read. Raises Conflict or NotFound."""
        ...

    async def create(self, resource: AnyResource) -> AnyResource:
        """Make an object with the kind, key, labels, annotations and spec of `resource`; returns it as kept.

        Raises Conflict when there is one of this name.
        """
        ...

    async def update(self, resource: AnyResource) -> AnyResource:
        """Replace labels, annotations and spec of the object as read, nothing when they are equal; returns it as written.

        Raises Conflict or NotFound, and Invalid when the object is people's and cannot be written.
        """
        ...

    async def delete(self, resource: AnyResource) -> None:
        """Delete the object as read; raises as `update`."""
        ...

    async def secret(self, key: Key) -> Secret:
        """A Secret; raises NotFound with Kubernetes' text, Invalid when a value cannot be had."""
        ...

    async def service_account(self, key: Key) -> ServiceAccount:
        """A ServiceAccount; raises NotFound."""
        ...

    async def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace; none when it is not known."""
        ...
