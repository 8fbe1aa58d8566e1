"""DaemonSets as targets, as Flagger treats them: scaled to zero by a node selector that fits no node."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from typing import ClassVar

from canary.errors import Problem
from canary.site import Site
from canary.workload.base import READY, Demand, Readiness
from canary.workload.pods import PodWorkload
from reconcile.ports.clock import parse_timestamp
from reconcile.ports.cluster import Object

NOWHERE = "flagger.app/scale-to-zero"
"""Label that no node has; a DaemonSet that wants it has no pods."""

_FINISH = "waiting for rollout to finish"
_UNDER_WAY = frozenset({"", "Initializing", "Waiting", "Progressing", "WaitingPromotion", "Promoting", "Finalising"})
"""Phases in which something waits for pods, so that the time since the last change of the status says how long."""


class DaemonSetWorkload(PodWorkload):
    """A DaemonSet and its primary, each with a pod on every node or none."""

    KIND: ClassVar[str] = "DaemonSet"
    COPIED: ClassVar[tuple[str, ...]] = ("minReadySeconds", "revisionHistoryLimit", "updateStrategy")
    STRAY: ClassVar[str] = "'"

    def template_of(self, found: Object) -> Object:
        """The pod template without the node selector that keeps pods away."""
        template: Object = deepcopy(found["spec"]["template"])
        selector = (template.get("spec") or {}).get("nodeSelector")
        if selector:
            selector.pop(NOWHERE, None)
            if not selector:
                del template["spec"]["nodeSelector"]
        return template

    async def primary_spec(self, site: Site, target: Object, present: Object | None) -> Object:
        """Nothing: nodes make its size."""
        del site, target, present
        return {}

    def check(self, site: Site, target: Object) -> None:
        """Only rolling updates reach the pods without somebody's help."""
        strategy = (target["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate"
        if strategy != "RollingUpdate":
            raise Problem(f"daemonset {site.target}.{site.namespace} must have RollingUpdate strategy but have {strategy}")

    def readiness(self, site: Site, found: Object, percent: int) -> Readiness:
        """See `daemonset_readiness`."""
        since = site.status.last_transition_time if (site.status.phase or "") in _UNDER_WAY else None
        return daemonset_readiness(found, percent, self.deadline(site), since, self._clock.now())

    def not_ready(self, site: Site, found: Readiness, *, primary: bool) -> str:
        """Flagger's prefixes; the misspelling is part of the contract."""
        if primary:
            return f"primary daemonset {site.primary}.{site.namespace} not ready: {found.text}"
        retryable = "true" if found.retriable else "false"
        return f"canary damonset {site.target}.{site.namespace} not ready with retryable {retryable}: {found.text}"

    def is_asleep(self, found: Object) -> bool:
        """Whether it wants the label that no node has."""
        return NOWHERE in ((found["spec"]["template"].get("spec") or {}).get("nodeSelector") or {})

    async def scale_to_zero(self, site: Site) -> None:
        """Take the target's pods away.

        Raises:
            Problem: `daemonset T.NS get query error: …`, `updating daemonset T.NS failed: …`.
        """
        await self._select(site, "true")

    async def scale_from_zero(self, site: Site) -> None:
        """Give the target pods again; raises as `scale_to_zero`."""
        await self._select(site, None)

    async def give_back(self, site: Site) -> None:
        """The target gets its pods again; raises as `scale_to_zero`."""
        await self._select(site, None)

    async def demand(self, site: Site) -> Demand:
        """How many pods are ready on both sides, and how many nodes want one of the primary; raises as `scale_to_zero`."""
        target = await self.found(site.namespace, site.target)
        primary = await self._find(site.namespace, site.primary)
        if primary is None:
            return Demand(0, _count(target, "numberReady"), _count(target, "desiredNumberScheduled"))
        return Demand(_count(primary, "numberReady"), _count(target, "numberReady"), _count(primary, "desiredNumberScheduled"))

    async def _select(self, site: Site, value: str | None) -> None:
        target = await self.found(site.namespace, site.target)
        present = (target["spec"]["template"].get("spec") or {}).get("nodeSelector") or {}
        if present.get(NOWHERE) != value:
            await self.change(target, {"template": {"spec": {"nodeSelector": {NOWHERE: value}}}})


def _count(found: Object, name: str) -> int:
    return int((found.get("status") or {}).get(name) or 0)


def daemonset_readiness(found: Object, percent: int, deadline: int, since: str | None, now: datetime) -> Readiness:
    """Whether a DaemonSet is rolled out and so many percent of its pods are available; Flagger's texts without prefix. Pure.

    Args:
        found: The DaemonSet.
        percent: Of the nodes that must have an available pod.
        deadline: Seconds after which it is a failure.
        since: When the Canary's status was written last, from which the seconds count; None while nothing waits for pods.
        now: The present moment.
    """
    status = found.get("status") or {}
    if found["metadata"].get("generation", 0) > status.get("observedGeneration", 0):
        return Readiness(False, f"{_FINISH}: observed daemonset generation less than desired generation")
    updated, desired = _count(found, "updatedNumberScheduled"), _count(found, "desiredNumberScheduled")
    available, needed = _count(found, "numberAvailable"), desired * percent // 100
    if updated >= desired and available >= needed:
        return READY
    if _passed(since, deadline, now):
        return Readiness(False, f"exceeded its progressDeadlineSeconds: {deadline}", retriable=False)
    if updated < desired:
        return Readiness(False, f"{_FINISH}: {updated} out of {desired} new pods have been updated")
    return Readiness(False, f"{_FINISH}: {available} of {needed} (readyThreshold {percent}%) updated pods are available")


def _passed(since: str | None, deadline: int, now: datetime) -> bool:
    try:
        return since is not None and (now - parse_timestamp(since)).total_seconds() > deadline
    except ValueError:
        return False
