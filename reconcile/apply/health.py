"""Waits until objects are healthy, in Flux's words, and no longer than anybody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from reconcile.api.kstatus import Status
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Cluster, Health, Healthy, NotReady, Object, Reference


class HealthCheckFailed(ReconcileError):
    """Objects did not become healthy; the text is Flux's.

    Attributes:
        health: The objects that are not current.
        details: One line for each of them that says what it waits for.
    """

    def __init__(self, late: NotReady) -> None:
        super().__init__(flux_text(late))
        self.health = late.health
        self.details = tuple(map(str, late.health))


class HealthCheckCanceled(ReconcileError):
    """Nobody waits for the outcome any more."""


def flux_text(late: NotReady) -> str:
    """`timeout waiting for: […]` or `failed early due to stalled resources: […]`, with statuses and errors alone."""
    what = str(late).partition(": [")[0]
    return f"{what}: [{', '.join(map(_line, late.health))}]"


def _line(health: Health) -> str:
    if health.error:
        return f"{health.reference} status: '{Status.UNKNOWN}': {health.error}"
    if health.summary is None:
        return f"can't determine status for {health.reference}"
    unknown = health.summary.status is Status.UNKNOWN and health.summary.message
    return f"{health.reference} status: '{health.summary.status}'" + (f": {health.summary.message}" if unknown else "")


async def wait(
    cluster: Cluster,
    which: Sequence[Object | Reference],
    *,
    timeout: float,
    healthy: Healthy | None = None,
    fail_fast: bool = True,
    canceled: asyncio.Event | None = None,
) -> Sequence[Health]:
    """Wait until all objects are current; how each is doing then.

    Args:
        cluster: Where they are, with whose rights they are read.
        which: The objects; a Job that sets `ttlSecondsAfterFinished`, given as an object, may be gone.
        timeout: Seconds in all.
        healthy: Judges kinds that have expressions of their own; see `readers.Readers`.
        fail_fast: Give up as soon as one has failed.
        canceled: Ends the wait when set: the source has moved on.

    Raises:
        HealthCheckFailed: Some are not current and the time is over, or they have failed.
        HealthCheckCanceled: `canceled` was set first.
    """
    if not which:
        return ()
    waiting = asyncio.ensure_future(cluster.wait(which, timeout=timeout, healthy=healthy, fail_fast=fail_fast))
    stop = asyncio.ensure_future(canceled.wait()) if canceled is not None else None
    try:
        await asyncio.wait({waiting, stop} if stop is not None else {waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise HealthCheckCanceled("New reconciliation triggered")
        return await waiting
    except NotReady as late:
        raise HealthCheckFailed(late) from late
    finally:
        ended = [task for task in (waiting, stop) if task is not None and not task.done()]
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)
