"""Cluster: what we act upon, objects of any kind and of anybody. Our own kinds are the Store's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from reconcile.api.kstatus import Status, Summary
from reconcile.errors import Invalid, ReconcileError, TimedOut

Object = dict[str, Any]
"""An object of Kubernetes as its JSON has it."""

Healthy = Callable[[Object], Summary | None]
"""Says how an object is doing; None leaves it to the rules of kstatus."""


class ClusterError(ReconcileError):
    """A request to a cluster failed; has the API server's own words, where it was the server that refused.

    Attributes:
        reason: The `reason` of its Status object, such as `Invalid`; empty when it gave none.
        text: Its message to the letter, of which `str(error)` may say more; empty when it did not answer.
    """

    def __init__(self, message: str, *, reason: str = "", text: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.text = text


class UnknownKind(ClusterError):
    """The server does not serve such a kind in this version."""


class Propagation(StrEnum):
    """What becomes of the objects that a deleted one owns; words as in Kubernetes' DeleteOptions."""

    BACKGROUND = "Background"
    """They are deleted afterwards."""
    FOREGROUND = "Foreground"
    """They are deleted first; until then their owner stays, with a deletion timestamp."""
    ORPHAN = "Orphan"
    """They stay."""


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whose rights count: a user by the name that RBAC knows, such as `system:serviceaccount:NAMESPACE:NAME`, and groups."""

    user: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """Which object; `namespace` is empty for kinds that have none."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """The reference of an object; raises Invalid when it does not say what it is."""
        meta = found.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        parts = (found.get("apiVersion"), found.get("kind"), meta.get("namespace") or "", meta.get("name"))
        api_version, kind, namespace, name = (part if isinstance(part, str) else "" for part in parts)
        if not (api_version and kind and name):
            raise Invalid(f"an object needs apiVersion, kind and metadata.name; this one has {api_version!r}, {kind!r}, {name!r}")
        return cls(api_version, kind, namespace, name)

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True)
class Health:
    """How one object of a wait was doing when it was looked at last; None when no look succeeded."""

    reference: Reference
    summary: Summary | None
    error: str = ""
    """Why the last look failed; empty when it did not."""

    @property
    def current(self) -> bool:
        """Whether it is as its spec wants it."""
        return self.summary is not None and self.summary.status is Status.CURRENT and not self.error

    def __str__(self) -> str:
        if self.summary is None:
            said, why = f"can't determine status for {self.reference}", self.error
        else:
            said, why = f"{self.reference} status: '{self.summary.status}'", self.error or self.summary.message
        return f"{said}: {why}" if why else said


class NotReady(TimedOut):
    """Objects did not become current; `health` has those that are not, in the order in which they were given."""

    def __init__(self, what: str, health: Sequence[Health]) -> None:
        super().__init__(f"{what}: [{', '.join(map(str, health))}]")
        self.health = tuple(health)


class Cluster(Protocol):
    """Reads, applies and deletes objects of any kind, as one user. Objects are plain dictionaries, as their JSON.

    Laws: applying what is there already does not move its `resourceVersion`; a dry run changes nothing; a field that another
    manager owns is not changed without `force`; a delete with a `uid` never deletes another object of the same name.
    """

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """The object; raises NotFound."""
        ...

    async def list(self, api_version: str, kind: str, namespace: str | None = None, selector: str = "") -> Sequence[Object]:
        """Objects of a kind, of one namespace if given, by label selector; raises LimitExceeded rather than leave some out."""
        ...

    async def known(self, api_version: str, kind: str) -> bool:
        """Whether the cluster serves this kind in this version."""
        ...

    async def namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of this kind are in namespaces; raises UnknownKind."""
        ...

    async def find(self, which: Reference) -> Object | None:
        """The object, in another version of its group if this one is not served any more; None when there is none.

        Any error but the absence of the object or of its kind is raised: what cannot be read is not gone.
        """
        ...

    async def dry_run(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
        """The object as it would be after `apply`, defaults and admission included. Raises what `apply` raises."""
        ...

    async def apply(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
        """Server-side apply under a manager's name; the object as it is then.

        Raises:
            Conflict: Another manager owns a field; the text names it and the field. With `force` the field becomes ours.
            Invalid: The object does not pass validation, or says not what it is.
            NotFound: Its namespace does not exist.
        """
        ...

    async def json_patch(self, which: Object | Reference, operations: Sequence[Object], *, manager: str) -> Object:
        """JSON patch (RFC 6902); the object as it is then.

        Raises:
            Conflict: The patch sets `/metadata/resourceVersion`, and the object has another one.
            NotFound: There is no such object.
        """
        ...

    async def delete(
        self, which: Object | Reference, *, propagation: Propagation = Propagation.BACKGROUND, uid: str = ""
    ) -> bool:
        """Ask for an object's end; False when there was none. It may stay for a while: finalizers, foreground deletion.

        Raises:
            Conflict: There is an object of this name, but its uid is not `uid`.
        """
        ...

    async def wait(
        self,
        which: Sequence[Object | Reference],
        *,
        timeout: float,
        healthy: Healthy | None = None,
        fail_fast: bool = False,
    ) -> Sequence[Health]:
        """Look at objects until all are current; how each is doing then.

        Args:
            which: The objects. A Job given as an object that sets `ttlSecondsAfterFinished` may be gone: it is done.
            timeout: Seconds in all.
            healthy: How to judge an object; the rules of kstatus if not given.
            fail_fast: Give up when one has failed, not only when nothing is left that could still become current.

        Raises:
            NotReady: The time is over or no wait helps; a TimedOut that names each object that is not current, and why.
        """
        ...

    def acting_as(self, whom: Impersonation) -> Cluster:
        """The same cluster with somebody else's rights."""
        ...
