"""Deployments as targets, as Flagger treats them."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from typing import Any, ClassVar

from canary.site import Site
from canary.workload.autoscaler import least_replicas
from canary.workload.base import READY, Demand, Readiness
from canary.workload.pods import PodWorkload
from reconcile.ports.clock import parse_timestamp
from reconcile.ports.cluster import Object

_FINISH = "waiting for rollout to finish"


class DeploymentWorkload(PodWorkload):
    """A Deployment and its primary, each with as many pods as the traffic needs."""

    KIND: ClassVar[str] = "Deployment"
    COPIED: ClassVar[tuple[str, ...]] = ("progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy")
    SPREAD: ClassVar[bool] = True

    def template_of(self, found: Object) -> Object:
        """The pod template."""
        template: Object = deepcopy(found["spec"]["template"])
        return template

    async def primary_spec(self, site: Site, target: Object, present: Object | None) -> Object:
        """The size of the primary.

        A new one is as large as the target; for a target without pods, as small as its autoscaler would have it. Later the size
        is the autoscaler's; without one it is the target's, except zero: no promotion takes the last pods of live traffic away.
        """
        size = replicas_of(target)
        if present is None:
            return {"replicas": size or await least_replicas(site, self._objects)}
        return {"replicas": size} if size and site.spec.autoscaler_ref is None else {}

    def readiness(self, site: Site, found: Object, percent: int) -> Readiness:
        """See `deployment_readiness`."""
        return deployment_readiness(found, percent, self.deadline(site), self._clock.now())

    def not_ready(self, site: Site, found: Readiness, *, primary: bool) -> str:
        """Flagger's prefixes."""
        if primary:
            return f"{site.primary}.{site.namespace} not ready: {found.text}"
        return f"canary deployment {site.target}.{site.namespace} not ready: {found.text}"

    def is_asleep(self, found: Object) -> bool:
        """Whether it is asked for no replicas."""
        return not replicas_of(found)

    # --- size

    async def scale_to_zero(self, site: Site) -> None:
        """Take the target's pods away.

        Raises:
            Problem: `deployment T.NS get query error: …`, `updating deployment T.NS failed: …`.
        """
        target = await self.found(site.namespace, site.target)
        if replicas_of(target):
            await self.change(target, {"replicas": 0})

    async def scale_from_zero(self, site: Site) -> None:
        """Give the target pods, if it has none: see `size_from_zero`. A target that has some keeps them.

        Raises:
            Problem: As `scale_to_zero`, and where the autoscaler cannot be read.
        """
        target = await self.found(site.namespace, site.target)
        if not replicas_of(target):
            await self.change(target, {"replicas": await self._size_from_zero(site)})

    async def give_back(self, site: Site) -> None:
        """The target gets the primary's size, as the primary goes with the Canary; it never gets smaller, and has a pod at least.

        Raises:
            Problem: As `scale_from_zero`.
        """
        target = await self.found(site.namespace, site.target)
        primary = await self._find(site.namespace, site.primary)
        size = max(replicas_of(target), replicas_of(primary) if primary is not None else 0)
        size = size or await self._size_from_zero(site)
        if size != replicas_of(target):
            await self.change(target, {"replicas": size})

    async def demand(self, site: Site) -> Demand:
        """How many pods are ready on both sides, and how many the primary is meant to have.

        Raises:
            Problem: `deployment … get query error: …`.
        """
        target = await self.found(site.namespace, site.target)
        primary = await self._find(site.namespace, site.primary)
        if primary is None:
            return Demand(0, _ready(target), replicas_of(target))
        return Demand(_ready(primary), _ready(target), replicas_of(primary))

    async def _size_from_zero(self, site: Site) -> int:
        """Without an autoscaler the primary's size; else the least that the autoscaler allows, for it adds pods as traffic comes.

        Where all the traffic comes at once (Blue/Green) the autoscaler would be too late: then it is the primary's size again.
        """
        least = await least_replicas(site, self._objects)
        if site.spec.autoscaler_ref is not None and not gets_all_at_once(site):
            return least
        primary = await self._find(site.namespace, site.primary)
        return max(least, replicas_of(primary) if primary is not None else 0)


def gets_all_at_once(site: Site) -> bool:
    """Whether the canary's first live traffic is all of it: Blue/Green, on a provider that routes."""
    analysis = site.spec.analysis
    return (analysis.iterations or 0) > 0 and not analysis.match and site.provider != "kubernetes"


def replicas_of(found: Object) -> int:
    """How many pods a Deployment is meant to have."""
    replicas = found["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _ready(found: Object) -> int:
    return int((found.get("status") or {}).get("readyReplicas") or 0)


def deployment_readiness(found: Object, percent: int, deadline: int, now: datetime) -> Readiness:
    """Whether a Deployment is rolled out and so many percent of its pods are available; Flagger's texts without prefix. Pure.

    Args:
        found: The Deployment.
        percent: Of the updated pods that must be available.
        deadline: Seconds after which pods that are still not available are a failure: scaling up does not start Kubernetes' own.
        now: The present moment.
    """
    status = found.get("status") or {}
    if found["metadata"].get("generation", 0) > status.get("observedGeneration", 0):
        return Readiness(False, f"{_FINISH}: observed deployment generation less than desired generation")
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    progressing = conditions.get("Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(False, f'deployment "{found["metadata"]["name"]}" exceeded its progress deadline', retriable=False)
    text = _unfinished(found, status, percent)
    if not text:
        return READY
    exceeded = progressing is not None and _unavailable_since(conditions.get("Available"), deadline, now)
    return Readiness(False, f"{_FINISH}: {text}", retriable=not exceeded)


def _unfinished(found: Object, status: dict[str, Any], percent: int) -> str:
    """What is missing; empty when nothing is."""
    updated = status.get("updatedReplicas") or 0
    present, available = status.get("replicas") or 0, status.get("availableReplicas") or 0
    wanted = found["spec"].get("replicas")
    if wanted is not None and updated < wanted:
        return f"{updated} out of {wanted} new replicas have been updated"
    if present > updated:
        return f"{present - updated} old replicas are pending termination"
    needed = updated * percent // 100
    if available < needed:
        return f"{available} of {needed} (readyThreshold {percent}%) updated replicas are available"
    return ""


def _unavailable_since(available: dict[str, Any] | None, deadline: int, now: datetime) -> bool:
    """Whether a Deployment has had too few pods for longer than the deadline."""
    if available is None or available.get("status") != "False" or available.get("reason") != "MinimumReplicasUnavailable":
        return False
    try:
        since = parse_timestamp(available.get("lastUpdateTime") or "")
    except ValueError:
        return False
    return (now - since).total_seconds() > deadline
