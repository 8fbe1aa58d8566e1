"""One pass over one object: what a reconciler is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from reconcile.api.conditions import Conditions
from reconcile.api.meta import CommonStatus
from reconcile.api.resource import AnyResource
from reconcile.ports.clock import timestamp
from reconcile.ports.events import EventType
from reconcile.runtime import outcome


class Run:
    """The object as it was read, its status as it will be written, and the moment at which the pass began.

    A reconciler changes `status` through `set`; the controller writes it once at the end, if it differs. `progress` may write
    in between, so that watchers see how far a long pass has got.
    """

    def __init__(
        self,
        resource: AnyResource,
        now: datetime,
        write: Callable[[bool], Awaitable[None]],
        tell: Callable[[EventType, str, str, Mapping[str, str]], None],
    ) -> None:
        self.resource = resource
        self.status: Any = resource.status
        self.conditions: Conditions = tuple(resource.status.conditions or ())
        self.now = now
        self.stamps: list[Callable[[Any], Any]] = []
        self.heartbeat = False
        self.metadata: Mapping[str, str] = {}
        """What every event of this pass carries, such as the revision."""
        self._write = write
        self._tell = tell

    @property
    def new_generation(self) -> bool:
        """Whether the spec has changed since the last pass that reached an end."""
        return bool(self.resource.meta.generation != self.resource.status.observed_generation)

    @property
    def requested(self) -> bool:
        """Whether somebody asks for this pass by annotation."""
        asked = self.resource.meta.requested_at
        return bool(asked) and asked != self.resource.status.last_handled_reconcile_at

    @property
    def timestamp(self) -> str:
        """The moment at which the pass began, RFC 3339."""
        return timestamp(self.now)

    def set(self, **fields: Any) -> None:
        """Replace fields of the status (Python names)."""
        self.status = self.status.model_copy(update=fields)

    def stamp(self, change: Callable[[Any], Any], *, due: bool) -> None:
        """A change of status that is not worth a write of its own (the time of the last run); with `due` it is."""
        self.stamps.append(change)
        self.heartbeat = self.heartbeat or due

    async def progress(self, message: str, *, write: bool) -> None:
        """Say how far the pass has got; with `write` at once, else only if the pass fails here."""
        generation = self.resource.meta.generation
        self.conditions = outcome.progress(self.conditions, message, generation=generation, now=self.timestamp)
        if write:
            await self._write(False)

    async def save(self) -> None:
        """Write the status as it is now, whatever else is waiting: what must not be forgotten if we are killed from here on."""
        await self._write(True)

    def tell(self, kind: EventType, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        """Tell people what happened in the middle of the pass."""
        self._tell(kind, reason, message, {**self.metadata, **(metadata or {})})


class Reconciler(ABC):
    """What a controller runs. Stateless between passes except for caches."""

    kind: str
    announces_requests = False
    """Whether a pass that was only asked for shows Reconciling at once (as ImageRepository and ImageUpdateAutomation do)."""
    announces_start = True
    """Whether a pass shows Reconciling from its start; else from its first word of progress on (as Kustomization does)."""
    acknowledges_suspended = True
    """Whether a suspended object still records the last request."""

    @abstractmethod
    async def reconcile(self, run: Run) -> outcome.Success | outcome.Pending:
        """Move the object one step; raises Stalled, Failed, Waiting or anything else (back-off)."""

    def static(self, resource: AnyResource) -> bool:  # noqa: ARG002 - a default
        """Whether an object is only data: there is nothing to do for it, and nothing of ours may be on it."""
        return False

    def observes_suspended(self, resource: AnyResource) -> bool:  # noqa: ARG002 - a default
        """Whether a suspended object still notes its generation as handled."""
        return False

    def when_suspended(self, resource: AnyResource) -> Mapping[str, Any]:  # noqa: ARG002 - a default
        """Fields of the status (Python names) that change because an object is suspended, with their values."""
        return {}

    async def finalize(self, resource: AnyResource) -> None:  # noqa: B027 - most leave nothing outside
        """The object is to be deleted and waits for us: take back what was done outside. Raises what `reconcile` may raise."""

    async def removed(self, resource: AnyResource) -> None:  # noqa: B027 - most keep nothing
        """The object is being deleted, or is gone: drop what was kept for it."""


def status_with_conditions(status: CommonStatus, conditions: Conditions) -> CommonStatus:
    """`status` with these conditions."""
    return status.model_copy(update={"conditions": list(conditions) or None})
