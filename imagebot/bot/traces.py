"""Which images the last commit of each automation stands for, from its status: known after a restart, too."""

from __future__ import annotations

import asyncio

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import ReconcileError
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.bus import trace_of
from reconcile.runtime.index import Referrers

KIND = "ImageUpdateAutomation"
PATIENCE = 5.0
"""Seconds that the first question may wait for the list of automations: a trace is worth no more."""


class Pushes:
    """Traces of commits that are the last push of an automation. Bounded by the number of automations.

    A status does not say which of its images a commit changed, so all those count that the automation had put in place.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_commit: Referrers[str] = Referrers(_commit)
        self._traces: dict[Key, tuple[str, ...]] = {}
        self._begun = False

    def note(self, change: Change) -> None:
        """Take over a change of an automation."""
        self._by_commit.note(change)
        key, observed = change.new.key, change.new.status.observed_policies or {}
        if change.type is ChangeType.DELETED or not change.new.status.last_push_commit:
            self._traces.pop(key, None)
        else:
            self._traces[key] = tuple(trace_of(ref.name, ref.tag) for ref in observed.values())

    async def traces(self, commit: str) -> tuple[str, ...]:
        """Trace ids of a commit, ordered; none where no automation has pushed it last."""
        if not self._begun:
            await self._begin()
        return tuple(sorted({trace for key in self._by_commit.of(commit) for trace in self._traces.get(key, ())}))

    async def _begin(self) -> None:
        """See what there was at the start: others may ask before they have been told of."""
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._store.list(KIND)
        except (ReconcileError, TimeoutError):
            found = ()
        if not self._begun:
            self._begun = True
            for each in found:
                self.note(Change(ChangeType.ADDED, None, each))


def _commit(resource: AnyResource) -> list[str]:
    commit = resource.status.last_push_commit
    return [commit] if commit else []
