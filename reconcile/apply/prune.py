"""Deletes objects that left a set: only those that are ours, in the reverse of the order in which they were applied."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from reconcile.api.kstatus import Status, Summary
from reconcile.apply.changeset import Action, Change, ChangeSet, PruneFailed, server_words
from reconcile.apply.order import delete_order
from reconcile.apply.owner import Marks, Owner
from reconcile.errors import Conflict, Invalid, ReconcileError
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Cluster, ClusterError, Health, NotReady, Object, Propagation, Reference

GONE_LOOK = 2.0
"""Seconds between two looks whether deleted objects are gone, as Flux has it."""
LOOKS_AT_ONCE = 8
"""Objects that are read at the same time."""
BATCH = 64
"""Objects that are read before the first of them is deleted."""

_Identity = tuple[str, str, str, str]


class Pruner:
    """One prune of one owner's objects."""

    def __init__(self, cluster: Cluster, owner: Owner, marks: Marks, concurrent: int) -> None:
        self._cluster, self._owner, self._marks = cluster, owner, marks
        self._slots = asyncio.Semaphore(concurrent)

    async def prune(self, stale: Iterable[Reference], keep: Iterable[Reference] = ()) -> ChangeSet:
        """Delete objects; raises PruneFailed with what is left. See `Applier.prune`."""
        wanted = {_identity(reference, reference.namespace) for reference in keep}
        changes: list[Change] = []
        failures: list[str] = []
        left: list[Reference] = []
        ordered = delete_order(stale)
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            for reference, found in zip(batch, await self._read(batch), strict=True):
                try:
                    action = await self._end(reference, found, wanted)
                except ReconcileError as error:
                    failures.append(_failure(reference, error))
                    left.append(reference)
                    continue
                if action is not None:
                    changes.append(Change(reference, action))
        done = ChangeSet(tuple(changes))
        if failures:
            raise PruneFailed(failures, done, left)
        return done

    async def _read(self, batch: Sequence[Reference]) -> list[Object | ReconcileError | None]:
        async def read(reference: Reference) -> Object | ReconcileError | None:
            async with self._slots:
                try:
                    return await self._cluster.find(reference)
                except ReconcileError as error:
                    return error

        return await asyncio.gather(*map(read, batch))

    async def _end(self, reference: Reference, found: Object | ReconcileError | None, wanted: set[_Identity]) -> Action | None:
        """What becomes of one object; None for one that is in the set under another name for the same place."""
        if isinstance(found, Invalid) and not isinstance(found, ClusterError):
            return Action.SKIPPED  # no object can be named so: there is nothing to wait for
        if isinstance(found, ReconcileError):
            raise found
        if found is None:
            return Action.DELETED
        metadata = found["metadata"]
        if _identity(reference, metadata.get("namespace") or "") in wanted:
            return None
        if not self._owner.owns(found) or self._marks.kept(found):
            return Action.SKIPPED
        if metadata.get("deletionTimestamp"):
            return Action.DELETED
        try:
            await self._cluster.delete(reference, propagation=Propagation.BACKGROUND, uid=str(metadata.get("uid") or ""))
        except Conflict:
            # Another object has this name by now: it is looked at for itself.
            return await self._end(reference, await self._cluster.find(reference), wanted)
        return Action.DELETED


def _identity(reference: Reference, namespace: str) -> _Identity:
    return reference.group, reference.kind, namespace, reference.name


def _failure(reference: Reference, error: ReconcileError) -> str:
    return f"{reference} delete failed: {error}"


async def wait_gone(cluster: Cluster, clock: Clock, references: Iterable[Reference], timeout: float) -> None:
    """Wait until objects are gone.

    Args:
        cluster: Where they are.
        clock: Time.
        references: The objects.
        timeout: Seconds in all.

    Raises:
        NotReady: Some are still there, or cannot be read; names them.
    """
    left = list(dict.fromkeys(references))
    end = clock.monotonic() + timeout
    slots = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def look(reference: Reference) -> Health | None:
        async with slots:
            try:
                found = await cluster.find(reference)
            except ReconcileError as error:
                return Health(reference, None, server_words(error))
            return None if found is None else Health(reference, Summary(Status.TERMINATING, _held(found)))

    while left:
        behind = [health for health in await asyncio.gather(*map(look, left)) if health is not None]
        left = [health.reference for health in behind]
        wait = min(GONE_LOOK, end - clock.monotonic())
        if left and wait <= 0:
            raise NotReady("timeout waiting for", behind)
        if left:
            await clock.sleep(wait)


def _held(found: Object) -> str:
    finalizers = found["metadata"].get("finalizers") or []
    return f"has finalizers {', '.join(map(str, finalizers))}" if finalizers else ""
