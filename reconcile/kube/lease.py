"""Lease on coordination.k8s.io/v1: one of several processes leads, and stops before another may begin.

The rules are those of client-go's leader election. A holder renews the Lease every `retry` seconds. When it has not managed to
for `renew` seconds, it has to assume that it is not the leader any more: whatever it does is cancelled. Others take over after
they have seen the same Lease for `duration` seconds. The difference is the time that the old leader has to come to an end.

Two things are stricter. A process that was frozen (SIGSTOP, a suspended machine) and wakes up may run on for a moment before it
is cancelled: so every write asks `require` first, which reads the clock. And the lease never outlives the work: it is renewed
only inside `hold()`, which owns the renewing task and gives the lease back on every path out.

The holder can leave notes for those that wait: annotations, which go with its renewals and are read with the looks that those who
wait take anyway, so that they cost no request. They are as old as two retry periods at most, and vanish with their holder's turn.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from reconcile.errors import ReconcileError
from reconcile.kube.client import Client, Object
from reconcile.kube.errors import KubeError, LeaseLost, ObjectMissing, Outdated, Target
from reconcile.ports.clock import Clock
from reconcile.runtime.logs import get_logger

log = get_logger("leader-election")

LEASE_NAME = "imagebot-leader-election"
MANAGER = "imagebot"
NOTES = "imagebot.dev/"
"""Prefix of the annotations that are a holder's notes."""
RELEASE_TIMEOUT = 5.0
"""Seconds that giving the lease back may take."""
REQUEST_TIMEOUT = 10.0
"""Seconds for one request about the lease."""


def steady() -> float:
    """Seconds that run on while the process is frozen and while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


def identity() -> str:
    """A name for this process that no other has: `hostname_uuid`, as upstream."""
    return f"{socket.gethostname() or os.uname().nodename}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds, as the flags `--leader-election-*` of upstream have them."""

    duration: float = 35.0
    """After how long without a sign of the holder others take over."""
    renew: float = 30.0
    """After how long without success the holder stops."""
    retry: float = 5.0
    """Between two tries to get or to keep the lease."""

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew < self.duration:
            raise ValueError("a lease needs retry period < renew deadline < lease duration")


class KubeLease:
    """The Lease of cluster mode.

    Args:
        client: A connection of our own process; renewals go past its rate limit and past its fence.
        namespace: Where the Lease object is.
        clock: Waits.
        name: Of the Lease object.
        holder: Who we are; unique for the process.
        times: How patient everybody is; the same in all processes.
        now: The clock by which the lease ends.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        clock: Clock,
        *,
        name: str = LEASE_NAME,
        holder: str | None = None,
        times: LeaseTimes | None = None,
        now: Callable[[], float] = steady,
    ) -> None:
        self.holder = holder or identity()
        self.times = times or LeaseTimes()
        self.name = name
        self._client, self._clock, self._now = client, clock, now
        self._collection = Target("coordination.k8s.io", "v1", "leases", namespace)
        self._target = Target("coordination.k8s.io", "v1", "leases", namespace, name)
        self._until = -math.inf
        self._lease: Object = {}
        self._seen: tuple[Any, float] = (None, -math.inf)
        self._notes: dict[str, str | None] = {}
        self._others: dict[str, str] = {}
        self._problem = ""

    @property
    def leading(self) -> bool:
        """Whether the lease is ours at this moment."""
        return self._now() < self._until

    def require(self) -> None:
        """Raise LeaseLost unless the lease is ours at this moment: the fence of a `Client`."""
        if not self.leading:
            raise LeaseLost(f"not the leader: the lease {self._target.namespace}/{self.name} is not held", "patch", self._target)

    def note(self, name: str, text: str) -> None:
        """Leave a note, `imagebot.dev/<name>`, for those that wait, with the next renewal; it is gone with our turn."""
        self._notes[NOTES + name] = text

    def noted(self, name: str) -> str | None:
        """What the present leader has noted, as of our last look; None when it has not, when there is none and when it is us."""
        return None if self.leading else self._others.get(NOTES + name)

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Wait until the lease is ours, keep it while inside, give it back at the end; raises LeaseLost when it was lost."""
        return _Held(self)

    # --- getting it

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while True:
            try:
                if await self._try():
                    log.info("leading", lease=self.name, holder=self.holder)
                    return
                self._problem = ""
            except Outdated:
                self._problem = ""  # somebody else was faster
            except ReconcileError as error:
                self._note(error)
            # Apart by chance, so that candidates do not ask all at once.
            await self._clock.sleep(self.times.retry * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret

    async def _try(self) -> bool:
        began = self._now()
        try:
            found = await self._client.get(self._target, urgent=True, timeout=self._patience())
        except ObjectMissing:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}}
            body["spec"] = self._spec(0, taken=True)
            self._lease = await self._client.create(
                self._collection, body, manager=MANAGER, urgent=True, timeout=self._patience()
            )
        else:
            notes = {k: v for k, v in (found["metadata"].get("annotations") or {}).items() if k.startswith(NOTES)}
            free = self._free(found)
            self._others = {} if free else notes
            if not free:
                return False
            transitions = int((found.get("spec") or {}).get("leaseTransitions") or 0)
            # Those of who had it before, where nobody took them away.
            old = dict.fromkeys(notes)
            self._lease = await self._patch(found, self._spec(transitions + 1, taken=True), old)
        self._notes = {}
        self._until = began + self.times.renew
        return self.leading

    def _free(self, found: Object) -> bool:
        """Whether nobody holds it, or its holder has not been heard of for the time that it promised."""
        spec = found.get("spec") or {}
        now, version = self._now(), found["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, now)
        if spec.get("holderIdentity") in (None, "", self.holder):
            return True
        return now > self._seen[1] + float(spec.get("leaseDurationSeconds") or self.times.duration)

    # --- keeping it

    async def keep(self) -> None:
        """Renew until that fails for too long or somebody else holds it; returns when the lease is lost."""
        while True:
            await self._clock.sleep(max(0.0, min(self.times.retry, self._until - self._now())))
            if not self.leading:
                return
            began = self._now()
            try:
                self._lease = await self._patch(self._lease, self._spec(), self._notes)
                self._until, self._problem = began + self.times.renew, ""
            except Outdated:
                if not await self._still_ours():
                    self._until = -math.inf
                    return
            except ObjectMissing:  # somebody deleted it: whoever is first makes it again
                self._until = -math.inf
                return
            except ReconcileError as error:
                self._note(error)

    async def _still_ours(self) -> bool:
        try:
            found = await self._client.get(self._target, urgent=True, timeout=self._patience())
        except KubeError as error:
            self._note(error)
            return self.leading
        if (found.get("spec") or {}).get("holderIdentity") != self.holder:
            return False
        self._lease = found
        return True

    async def release(self) -> None:
        """Give the lease back if it is still ours; others have it at their next try."""
        if not self.leading:
            return
        self._until = -math.inf
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._give_back()
        except (ReconcileError, TimeoutError) as error:
            log.error("could not give the lease back; it ends by itself", lease=self.name, error=str(error))
        else:
            log.info("gave the lease back", lease=self.name)

    async def _give_back(self) -> None:
        spec, notes = {**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1}, dict.fromkeys(self._notes)
        try:
            await self._patch(self._lease, spec, notes)
        except Outdated:
            # A renewal that was cut off may have been carried out.
            if await self._still_ours():
                await self._patch(self._lease, spec, notes)

    # --- requests

    def _spec(self, transitions: int | None = None, *, taken: bool = False) -> Object:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Object = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": math.ceil(self.times.duration),
            "renewTime": moment,
        }
        if transitions is not None:
            spec["leaseTransitions"] = transitions
        return {**spec, "acquireTime": moment} if taken else spec

    async def _patch(self, based_on: Object, spec: Object, notes: Mapping[str, str | None]) -> Object:
        metadata: Object = {"resourceVersion": based_on["metadata"]["resourceVersion"]}
        if notes:
            metadata["annotations"] = dict(notes)
        patch = {"metadata": metadata, "spec": spec}
        return await self._client.merge_patch(self._target, patch, manager=MANAGER, urgent=True, timeout=self._patience())

    def _patience(self) -> float:
        """Seconds for one request: while leading, not beyond the end of the lease."""
        left = self._until - self._now()
        return max(0.05, min(REQUEST_TIMEOUT, self.times.retry * 2, left if left > 0 else REQUEST_TIMEOUT))

    def _note(self, error: ReconcileError) -> None:
        if str(error) != self._problem:
            log.error("cannot get or renew the lease", lease=self.name, error=str(error))
        self._problem = str(error)


class _Held:
    """The block in which the lease is held."""

    def __init__(self, lease: KubeLease) -> None:
        self._lease = lease
        self._lost = False
        self._leaving = False

    async def __aenter__(self) -> None:
        await self._lease.acquire()
        body = asyncio.current_task()
        assert body is not None  # noqa: S101 - a coroutine always runs in a task
        self._body, self._cancelling = body, body.cancelling()
        self._keeper = asyncio.create_task(self._keep(), name=f"lease {self._lease.name}")

    async def _keep(self) -> None:
        try:
            await self._lease.keep()
        finally:
            # Also when renewing fails in a way nobody thought of: without it the lease ends, and so must the work.
            if not self._leaving:
                self._lost = True
                log.error("lost the lease, stopping", lease=self._lease.name)
                self._body.cancel(msg="the lease was lost")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving = True
        self._keeper.cancel()
        cancelled = isinstance(error, asyncio.CancelledError)
        if self._lost and self._body.uncancel() <= self._cancelling and (cancelled or error is None):
            raise LeaseLost(f"the lease {self._lease.name} was lost") from error
        await asyncio.wait([self._keeper])
        await self._lease.release()
