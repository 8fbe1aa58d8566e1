"""Waiting until objects are current: looks at each, then only at those that are not, at growing distances."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from reconcile.api import kstatus
from reconcile.api.kstatus import Status, Summary
from reconcile.errors import NotFound, ReconcileError
from reconcile.kube.errors import KindMissing
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Health, Healthy, NotReady, Object, Reference

FIRST_LOOK, LONGEST_LOOK = 0.25, 5.0
"""Seconds between two looks at an object: short at first, then as Flux has it."""
LOOKS_AT_ONCE = 8
"""Objects that are read at the same time."""
PODS = 50
"""Pods of one workload that are looked at for the reason why it is not ready."""

WORKLOADS = {"Deployment", "StatefulSet", "ReplicaSet"}


class Reader(Protocol):
    """What a wait needs of a cluster."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """The object; raises NotFound."""
        ...

    async def some(self, api_version: str, kind: str, namespace: str, selector: str, most: int) -> Sequence[Object]:
        """The first objects of a kind in a namespace."""
        ...


class Wait:
    """One wait; `run` ends with every object current or raises NotReady."""

    def __init__(self, reader: Reader, clock: Clock, which: Sequence[Object | Reference], healthy: Healthy | None) -> None:
        self._reader, self._clock, self._healthy = reader, clock, healthy
        self._health: dict[Reference, Health] = {}
        self._last: dict[Reference, Object] = {}
        self._slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        for entry in which:
            reference = entry if isinstance(entry, Reference) else Reference.of(entry)
            self._health[reference] = Health(reference, None)
            if not isinstance(entry, Reference):
                self._last[reference] = entry

    async def run(self, timeout: float, *, fail_fast: bool) -> Sequence[Health]:
        """Wait for so many seconds at most; the health of all when they are current. Raises NotReady."""
        try:
            async with asyncio.timeout(timeout):
                done = await self._settle(fail_fast)
        except TimeoutError:
            raise NotReady("timeout waiting for", self._behind()) from None
        if not done:
            raise NotReady("failed early due to stalled resources", self._behind())
        return tuple(self._health.values())

    async def _settle(self, fail_fast: bool) -> bool:
        """Look until all are current (True) or no further look helps (False)."""
        due, wait = list(self._health), FIRST_LOOK
        while due:
            async with asyncio.TaskGroup() as group:
                for reference in due:
                    group.create_task(self._look(reference))
            behind = self._behind()
            stuck = [
                each for each in behind if each.summary is not None and each.summary.status is Status.FAILED and not each.error
            ]
            if stuck and (fail_fast or len(stuck) == len(behind)):
                return False
            if behind:
                due = [each.reference for each in behind]
                await self._clock.sleep(wait)
                wait = min(wait * 1.5, LONGEST_LOOK)
            else:
                # All have been current, though not all at the same time: those not seen in this round are looked at again.
                due = [] if len(due) == len(self._health) else list(self._health)
        return True

    def _behind(self) -> list[Health]:
        return [each for each in self._health.values() if not each.current]

    async def _look(self, reference: Reference) -> None:
        async with self._slots:
            try:
                summary = await self._judge(reference)
            except ReconcileError as error:
                self._health[reference] = replace(self._health[reference], error=str(error))
            else:
                self._health[reference] = Health(reference, summary)

    async def _judge(self, reference: Reference) -> Summary:
        try:
            found = await self._reader.get(reference.api_version, reference.kind, reference.namespace, reference.name)
        except NotFound as error:
            if _may_be_gone(reference, self._last.get(reference)):
                return kstatus.current("Job has ended and is gone")
            return Summary(Status.NOT_FOUND, str(error))
        except KindMissing as error:
            return Summary(Status.UNKNOWN, str(error))
        self._last[reference] = found
        own = self._healthy(found) if self._healthy is not None else None
        if own is not None:
            return own
        said = kstatus.summarize(found, self._clock.now())
        if said.status is not Status.IN_PROGRESS or reference.group != "apps" or reference.kind not in WORKLOADS:
            return said
        selector = selector_text((found.get("spec") or {}).get("selector") or {})
        if not selector:
            return said
        try:
            pods = await self._reader.some("v1", "Pod", reference.namespace, selector, PODS)
        except ReconcileError:
            return said  # whoever may not read Pods is told less
        return kstatus.with_pods(found, said, pods, self._clock.now())


def _may_be_gone(reference: Reference, last: Object | None) -> bool:
    """A Job that is cleaned up after its end, by Kubernetes itself."""
    spec = (last or {}).get("spec") or {}
    return (reference.group, reference.kind) == ("batch", "Job") and spec.get("ttlSecondsAfterFinished") is not None


def selector_text(selector: Mapping[str, object]) -> str:
    """A LabelSelector object as the text that the API takes."""
    labels, expressions = selector.get("matchLabels"), selector.get("matchExpressions")
    parts = [f"{name}={value}" for name, value in labels.items()] if isinstance(labels, dict) else []
    for entry in expressions if isinstance(expressions, list) else ():
        values = ",".join(entry.get("values") or ())
        match entry.get("operator"):
            case "In" | "NotIn" as operator:
                parts.append(f"{entry['key']} {operator.lower()} ({values})")
            case "Exists":
                parts.append(str(entry["key"]))
            case "DoesNotExist":
                parts.append(f"!{entry['key']}")
    return ",".join(parts)
