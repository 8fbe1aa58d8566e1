"""Autoscalers of targets, as Flagger treats them: HorizontalPodAutoscaler (autoscaling/v2) and KEDA's ScaledObject.

The target's autoscaler has a copy for the primary. At zero replicas a HorizontalPodAutoscaler does nothing; a ScaledObject would
scale the target up again, so it is paused.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from copy import deepcopy
from typing import ClassVar

from canary.api import AutoscalerRef
from canary.errors import Problem
from canary.site import MANAGER, Site
from canary.workload.base import Scaler
from canary.workload.podtemplate import SUFFIX, copied, own
from reconcile.api.mergepatch import difference
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

PAUSED = "autoscaling.keda.sh/paused-replicas"
"""KEDA's annotation: keep so many replicas."""


def make_scaler(site: Site, objects: Objects) -> Scaler | None:
    """What acts on the autoscaler of a Canary; None where it names none.

    Any version of autoscaling is accepted in `autoscalerRef`: what is asked for is autoscaling/v2, which serves all of them.
    """
    return _scaler(site, objects)


def _scaler(site: Site, objects: Objects) -> CopyingScaler | None:
    ref = site.spec.autoscaler_ref
    if ref is None:
        return None
    return KedaScaler(objects, ref) if ref.kind == "ScaledObject" else HpaScaler(objects, ref)


async def least_replicas(site: Site, objects: Objects) -> int:
    """The fewest pods that the target's autoscaler allows, and one at least; one without an autoscaler.

    Raises:
        Problem: The autoscaler could not be read. One that is missing is for `Scaler.initialize` to tell.
    """
    scaler = _scaler(site, objects)
    found = await scaler.find(site, scaler.original) if scaler is not None else None
    if scaler is None or found is None:
        return 1
    return max(1, int(found["spec"].get(scaler.LEAST) or 0))


class CopyingScaler(ABC):
    """A kind of autoscaler of which the primary has a copy."""

    API_VERSION: ClassVar[str]
    KIND: ClassVar[str]
    SHOWN: ClassVar[str]
    """How messages name the kind where it is read."""
    MADE: ClassVar[str]
    """And where it is written."""
    LEAST: ClassVar[str]
    """Field of the spec with the fewest replicas."""
    MOST: ClassVar[str]
    """And with the most."""

    def __init__(self, objects: Objects, ref: AutoscalerRef) -> None:
        self._objects = objects
        self._ref = ref

    @property
    def original(self) -> str:
        """Name of the target's autoscaler."""
        return self._ref.name

    @property
    def copy(self) -> str:
        """Name of the primary's autoscaler."""
        return self._ref.name + SUFFIX

    @abstractmethod
    def primary_metadata(self, found: Object) -> Object:
        """Labels and annotations of a new copy."""

    @abstractmethod
    def primary_spec(self, found: Object, site: Site) -> Object:
        """The spec of the copy as the target's autoscaler makes it."""

    def enforced(self, present: Object, wanted: Object) -> Object:
        """The spec of an existing copy, with what a promotion enforces."""
        del present
        return wanted

    async def initialize(self, site: Site) -> None:
        """Create the primary's autoscaler if it does not exist.

        Raises:
            Problem: `HorizontalPodAutoscaler A.NS get query error: …`,
                `creating HorizontalPodAutoscaler v2 A-primary.NS failed: …`; for KEDA `Keda ScaledObject …`.
        """
        found = await self._get(site)
        if await self.find(site, self.copy) is not None:
            return
        wanted = {
            "apiVersion": self.API_VERSION,
            "kind": self.KIND,
            "metadata": {
                "name": self.copy,
                "namespace": site.namespace,
                **self.primary_metadata(found),
                "ownerReferences": [site.owner],
            },
            "spec": self._bounded(self.primary_spec(found, site)),
        }
        try:
            await self._objects.create(wanted, manager=MANAGER)
        except ReconcileError as error:
            raise Problem(f"creating {self.MADE} {self.copy}.{site.namespace} failed: {error}") from error

    async def promote(self, site: Site) -> None:
        """Bring the spec of the primary's autoscaler to the target's; its labels and annotations stay.

        Raises:
            Problem: As `initialize`; `updating … A-primary.NS failed: …`.
        """
        found = await self._get(site)
        present = await self.find(site, self.copy)
        if present is None:
            await self.initialize(site)
            return
        spec = self.enforced(present.get("spec") or {}, self._bounded(self.primary_spec(found, site)))
        await self._patch(site, self.copy, difference(present, {**present, "spec": spec}))

    @abstractmethod
    async def pause(self, site: Site) -> None:
        """Keep the target's autoscaler from scaling the target up."""

    @abstractmethod
    async def resume(self, site: Site) -> None:
        """Let it scale again."""

    def _bounded(self, spec: Object) -> Object:
        """With the bounds that the Canary sets for the primary."""
        replicas = self._ref.primary_scaler_replicas
        if replicas is not None and replicas.min_replicas is not None:
            spec[self.LEAST] = replicas.min_replicas
        if replicas is not None and replicas.max_replicas is not None:
            spec[self.MOST] = replicas.max_replicas
        return spec

    async def find(self, site: Site, name: str) -> Object | None:
        """An autoscaler of this kind; raises Problem when it could not be read."""
        try:
            return await self._objects.find(self._reference(site, name))
        except ReconcileError as error:
            raise Problem(f"{self.SHOWN} {name}.{site.namespace} get query error: {error}") from error

    async def _get(self, site: Site) -> Object:
        """The target's autoscaler."""
        try:
            return await self._objects.get(self._reference(site, self._ref.name))
        except ReconcileError as error:
            raise Problem(f"{self.SHOWN} {self._ref.name}.{site.namespace} get query error: {error}") from error

    async def _patch(self, site: Site, name: str, patch: Object) -> None:
        try:
            await self._objects.patch(self._reference(site, name), patch, manager=MANAGER)
        except ReconcileError as error:
            raise Problem(f"updating {self.MADE} {name}.{site.namespace} failed: {error}") from error

    def _reference(self, site: Site, name: str) -> Reference:
        return Reference(self.API_VERSION, self.KIND, site.namespace, name)


class HpaScaler(CopyingScaler):
    """Kubernetes' HorizontalPodAutoscaler."""

    API_VERSION: ClassVar[str] = "autoscaling/v2"
    KIND: ClassVar[str] = "HorizontalPodAutoscaler"
    SHOWN: ClassVar[str] = "HorizontalPodAutoscaler"
    MADE: ClassVar[str] = "HorizontalPodAutoscaler v2"
    LEAST: ClassVar[str] = "minReplicas"
    MOST: ClassVar[str] = "maxReplicas"

    def primary_metadata(self, found: Object) -> Object:
        """Labels, but those of Flux."""
        return {"labels": own(found["metadata"].get("labels"))}

    def primary_spec(self, found: Object, site: Site) -> Object:
        """The same for the primary."""
        spec: Object = deepcopy(found["spec"])
        spec["scaleTargetRef"] = {**(spec.get("scaleTargetRef") or {}), "name": site.primary}
        return spec

    def enforced(self, present: Object, wanted: Object) -> Object:
        """Bounds, metrics and behaviour."""
        parts = (self.LEAST, self.MOST, "metrics", "behavior")
        kept = {name: value for name, value in present.items() if name not in parts}
        return kept | {name: wanted[name] for name in parts if name in wanted}

    async def pause(self, site: Site) -> None:
        """Nothing to do: without replicas it is at rest."""

    async def resume(self, site: Site) -> None:
        """Nothing to do: it wakes up with the first replica."""


class KedaScaler(CopyingScaler):
    """KEDA's ScaledObject."""

    API_VERSION: ClassVar[str] = "keda.sh/v1alpha1"
    KIND: ClassVar[str] = "ScaledObject"
    SHOWN: ClassVar[str] = "Keda ScaledObject"
    MADE: ClassVar[str] = "Keda ScaledObject"
    LEAST: ClassVar[str] = "minReplicaCount"
    MOST: ClassVar[str] = "maxReplicaCount"

    def primary_metadata(self, found: Object) -> Object:
        """Labels and annotations, but those of Flux and the one that pauses the original."""
        annotations = copied(found["metadata"].get("annotations"))
        annotations.pop(PAUSED, None)
        return {"labels": own(found["metadata"].get("labels")), "annotations": annotations}

    def primary_spec(self, found: Object, site: Site) -> Object:
        """The same for the primary, with queries that ask about it."""
        spec: Object = deepcopy(found["spec"])
        spec["scaleTargetRef"] = {**(spec.get("scaleTargetRef") or {}), "name": site.primary}
        advanced = spec.setdefault("advanced", {})
        config = advanced.setdefault("horizontalPodAutoscalerConfig", {})
        if config.get("name"):
            config["name"] += SUFFIX
        for trigger in spec.get("triggers") or ():
            metadata = trigger.get("metadata") or {}
            if "query" in metadata:
                metadata["query"] = self._query(metadata["query"], trigger.get("name") or "", site)
        return spec

    def _query(self, query: str, trigger: str, site: Site) -> str:
        """The query of the primary's trigger: the Canary's own; without any, the target's with the name of the primary in it."""
        queries = self._ref.primary_scaler_queries
        if queries:
            return queries.get(trigger, query)
        return re.sub(rf"{re.escape(site.target)}(?:-canary|-primary)?", lambda _: site.primary, query)

    async def pause(self, site: Site) -> None:
        """Keep the target at zero.

        Raises:
            Problem: `Keda ScaledObject A.NS get query error: …`, `updating Keda ScaledObject A.NS failed: …`.
        """
        await self._annotate(site, "0")

    async def resume(self, site: Site) -> None:
        """Let KEDA scale the target again; raises as `pause`."""
        await self._annotate(site, None)

    async def _annotate(self, site: Site, value: str | None) -> None:
        found = await self._get(site)
        if (found["metadata"].get("annotations") or {}).get(PAUSED) != value:
            await self._patch(site, self._ref.name, {"metadata": {"annotations": {PAUSED: value}}})
