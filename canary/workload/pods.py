"""What Deployments and DaemonSets have in common as targets: a pod template that is copied to a primary, with its configs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

from canary.errors import Problem
from canary.plan import deadline_of
from canary.settings import CanarySettings
from canary.site import MANAGER, CanaryResource, Site
from canary.workload.base import READY, Readiness, Target
from canary.workload.podtemplate import (
    copied,
    flagger_id,
    included,
    kept_by_controllers,
    primary_labels,
    primary_template,
    unmarked,
)
from canary.workload.revision import is_ours, revision_of
from canary.workload.services import discovered_ports
from canary.workload.tracker import Tracker
from reconcile.api.mergepatch import difference
from reconcile.errors import ReconcileError
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

API_VERSION = "apps/v1"

RECREATE = "imagebot.dev/recreate-primary"
"""Annotation of a Canary: the revision of which a deleted primary may be made though it was never promoted."""

ALL = 100
"""Percent of the pods that must be available, where the Canary does not say."""


class PodWorkload(ABC):
    """A target with pods. One object serves all Canaries: it remembers checksums of ConfigMaps and Secrets.

    Fields are written by merge patches that are not tied to a version, for the status of a workload moves all the time, and each
    field that is written here is enforced anyway.
    """

    KIND: ClassVar[str]
    COPIED: ClassVar[tuple[str, ...]]
    """Fields of the spec that the primary takes over as they are."""
    SPREAD: ClassVar[bool] = False
    """Whether spread constraints of the primary are pointed to it."""
    STRAY: ClassVar[str] = ""
    """Ends Flagger's text about a missing selector label."""

    def __init__(self, objects: Objects, settings: CanarySettings, clock: Clock | None = None) -> None:
        self._objects = objects
        self._settings = settings
        self._clock = clock or SystemClock()
        self._tracker = Tracker(objects, settings)

    # --- what the kinds differ in

    @abstractmethod
    def template_of(self, found: Object) -> Object:
        """The pod template of a revision: without what scaling does to it. The caller's own."""

    @abstractmethod
    async def primary_spec(self, site: Site, target: Object, present: Object | None) -> Object:
        """The rest of the primary's spec, beside selector, template and copied fields; `present` is the primary, if there."""

    @abstractmethod
    def readiness(self, site: Site, found: Object, percent: int) -> Readiness:
        """Whether so many percent of a workload's pods are available; the text without prefix."""

    @abstractmethod
    def not_ready(self, site: Site, found: Readiness, *, primary: bool) -> str:
        """The text of a workload that is not ready, with Flagger's prefix."""

    @abstractmethod
    def is_asleep(self, found: Object) -> bool:
        """Whether a workload is asked to have no pods."""

    def check(self, site: Site, target: Object) -> None:
        """Raise Problem if a target of this shape cannot be copied."""
        del site, target

    # --- the target

    async def target(self, canary: CanaryResource) -> Target:
        """Read the target.

        Raises:
            Problem: `deployment T.NS get query error: …`, `getSelectorLabel failed: …`.
        """
        namespace, service = canary.meta.namespace, canary.spec.service
        found = await self.found(namespace, canary.spec.target_ref.name)
        label, value = self._selector(found)
        template = self.template_of(found)
        pod_spec = template.get("spec") or {}
        return Target(
            label=label,
            value=value,
            revision=revision_of(template),
            ports=discovered_ports(pod_spec, service) if service is not None and service.port_discovery else {},
            generation=found["metadata"].get("generation") or 0,
            images=tuple(f"{each.get('name')}={each.get('image')}" for each in pod_spec.get("containers") or ()),
        )

    def _selector(self, found: Object) -> tuple[str, str]:
        labels = ((found.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        for name in self._settings.selector_labels:
            if name in labels:
                return name, labels[name]
        shown, wanted = self.shown(found), " ".join(self._settings.selector_labels)
        raise Problem(f"getSelectorLabel failed: {shown} spec.selector.matchLabels must contain one of [{wanted}]{self.STRAY}")

    async def configs(self, site: Site) -> Mapping[str, str] | None:
        """Checksums of the tracked ConfigMaps and Secrets; None with tracking off.

        Raises:
            Problem: `GetTargetConfigs failed: …`.
        """
        if not self._settings.enable_config_tracking:
            return None
        target = await self.found(site.namespace, site.target)
        return await self._tracker.checksums(site.namespace, self.template_of(target).get("spec") or {})

    # --- the primary

    async def initialize(self, site: Site) -> None:
        """Create the primary and its configuration if it does not exist.

        A primary that somebody deleted is made again of the target as long as the target has what was promoted last: another
        revision was not tried, or has failed, and is not given all the traffic in this way.

        Raises:
            Problem: `createPrimaryDeployment failed: …`.
        """
        try:
            if await self._find(site.namespace, site.primary) is None:
                await self._create(site)
        except Problem as error:
            raise Problem(f"createPrimary{self.KIND} failed: {error}", retriable=error.retriable) from error

    async def _create(self, site: Site) -> None:
        target = await self.found(site.namespace, site.target)
        self.check(site, target)
        template = self.template_of(target)
        revision = revision_of(template)
        self._require_promoted(site, revision)
        configs = await self._copy_configs(site, template)
        spec = {name: target["spec"][name] for name in self.COPIED if name in target["spec"]}
        wanted = {
            "apiVersion": API_VERSION,
            "kind": self.KIND,
            "metadata": {
                "name": site.primary,
                "namespace": site.namespace,
                "labels": primary_labels(target, site),
                "annotations": copied(target["metadata"].get("annotations")),
                "ownerReferences": [site.owner],
            },
            "spec": {
                **spec,
                **await self.primary_spec(site, target, None),
                "selector": {"matchLabels": {site.label: site.primary_value}},
                "template": self._primary_template(site, template, configs, flagger_id(revision, configs)),
            },
        }
        try:
            await self._objects.create(wanted, manager=MANAGER)
        except ReconcileError as error:
            raise Problem(f"creating {self.shown(wanted)} failed: {error}") from error

    def _require_promoted(self, site: Site, revision: str) -> None:
        """Refuse to make a lost primary of a revision that nothing speaks for."""
        status, phase = site.status, site.status.phase or ""
        promoted = status.last_promoted_spec or ""
        if phase in {"", "Initializing"} or revision == promoted or not promoted:
            return
        if phase in {"Promoting", "Finalising"} and revision == status.last_applied_spec:
            return
        # Flagger's hash cannot be compared; with no run under way the target has, as far as one can know, what was promoted.
        if not is_ours(promoted) and phase in {"Initialized", "Succeeded"}:
            return
        if site.canary.meta.annotations.get(RECREATE) == revision:
            return
        kind, namespace = self.KIND.lower(), site.namespace
        raise Problem(
            f"{kind} {site.primary}.{namespace} is missing (deleted, or spec.targetRef was changed) and {site.target}.{namespace}"
            f" holds revision {revision}, which was not promoted (promoted: {promoted}); go back to the promoted revision, or "
            f"annotate the Canary with {RECREATE}={revision} to make the primary of what is there"
        )

    async def same_as_primary(self, site: Site) -> bool:
        """Whether promoting the target now would change neither the primary's pods nor its configuration.

        Both were defaulted by the same API server, so this holds across its upgrades and across ours, and for what Flagger made.

        Raises:
            Problem: A read failed.
        """
        target = await self.found(site.namespace, site.target)
        primary = await self._find(site.namespace, site.primary)
        if primary is None:
            return False
        template = self.template_of(target)
        configs = await self.configs(site)
        wanted = self._primary_template(site, template, configs, "")
        if revision_of(wanted) != revision_of(unmarked(primary["spec"]["template"])):
            return False
        return configs is None or await self._tracker.copied(site.namespace, template.get("spec") or {})

    async def promote(self, site: Site) -> None:
        """Copy the target, as it is now, to the primary: configuration first, then everything else in one patch.

        Raises:
            Problem: `updating deployment T-primary.NS template spec failed: …`.
        """
        try:
            target = await self.found(site.namespace, site.target)
            present = await self.found(site.namespace, site.primary)
            self.check(site, target)
            template = self.template_of(target)
            configs = await self._copy_configs(site, template)
            mark = flagger_id(revision_of(template), configs)
            wanted = self._promoted(site, target, present, self._primary_template(site, template, configs, mark))
            wanted["spec"].update(await self.primary_spec(site, target, present))
            await self._objects.patch(Reference.of(present), difference(present, wanted), manager=MANAGER)
        except ReconcileError as error:
            shown = f"{self.KIND.lower()} {site.primary}.{site.namespace}"
            raise Problem(f"updating {shown} template spec failed: {error}") from error

    def _promoted(self, site: Site, target: Object, present: Object, template: Object) -> Object:
        """The primary with what promotion enforces; the rest of it as it is."""
        wanted = deepcopy(present)
        meta, spec = wanted["metadata"], wanted["spec"]
        taken_over = included(target["metadata"].get("annotations"), self._settings.include_label_prefix)
        meta["labels"] = primary_labels(target, site)
        annotations = {**taken_over, **kept_by_controllers(meta.pop("annotations", None))}
        if annotations:
            meta["annotations"] = annotations
        for name in self.COPIED:
            spec.pop(name, None)
            if name in target["spec"]:
                spec[name] = target["spec"][name]
        spec["template"] = template
        return wanted

    def _primary_template(self, site: Site, template: Object, configs: Mapping[str, str] | None, mark: str) -> Object:
        return primary_template(template, site, frozenset(configs or ()), mark, spread=self.SPREAD)

    async def _copy_configs(self, site: Site, template: Object) -> dict[str, str] | None:
        if not self._settings.enable_config_tracking:
            return None
        return await self._tracker.copy(site, template.get("spec") or {})

    # --- readiness

    async def primary_ready(self, site: Site) -> Readiness:
        """Whether the primary can take traffic; raises Problem when it cannot be read."""
        found = await self.found(site.namespace, site.primary)
        return self._judged(site, found, site.spec.analysis.primary_ready_threshold, primary=True)

    async def canary_ready(self, site: Site) -> Readiness:
        """Whether the target can take traffic, which one without pods cannot; raises Problem when it cannot be read."""
        found = await self.found(site.namespace, site.target)
        if self.is_asleep(found):
            asleep = Readiness(False, f"{self.shown(found)} is scaled to zero")
            return Readiness(False, self.not_ready(site, asleep, primary=False), asleep=True)
        return self._judged(site, found, site.spec.analysis.canary_ready_threshold, primary=False)

    def _judged(self, site: Site, found: Object, percent: int | None, *, primary: bool) -> Readiness:
        judged = self.readiness(site, found, ALL if percent is None else percent)
        if judged.ready:
            return READY
        return Readiness(False, self.not_ready(site, judged, primary=primary), judged.retriable)

    def deadline(self, site: Site) -> int:
        """Seconds that a workload may take to become ready."""
        return deadline_of(site.spec)

    # --- reading and writing

    async def found(self, namespace: str, name: str) -> Object:
        """A workload of this kind; raises Problem with `deployment NAME.NS get query error: …`."""
        try:
            return await self._objects.get(Reference(API_VERSION, self.KIND, namespace, name))
        except ReconcileError as error:
            raise self._unread(namespace, name, error) from error

    async def _find(self, namespace: str, name: str) -> Object | None:
        try:
            return await self._objects.find(Reference(API_VERSION, self.KIND, namespace, name))
        except ReconcileError as error:
            raise self._unread(namespace, name, error) from error

    def _unread(self, namespace: str, name: str, error: ReconcileError) -> Problem:
        return Problem(f"{self.KIND.lower()} {name}.{namespace} get query error: {error}")

    async def change(self, found: Object, patch: Mapping[str, Any]) -> None:
        """Patch the spec of a workload; raises Problem with `updating deployment NAME.NS failed: …`."""
        try:
            await self._objects.patch(Reference.of(found), {"spec": dict(patch)}, manager=MANAGER)
        except ReconcileError as error:
            raise Problem(f"updating {self.shown(found)} failed: {error}") from error

    def shown(self, found: Object) -> str:
        """How messages name a workload: `deployment web.prod`."""
        return f"{self.KIND.lower()} {found['metadata']['name']}.{found['metadata']['namespace']}"
