"""Knative Services as targets: Knative keeps the revisions, so there is no primary to make, only one to name.

Follows Flagger: the annotation `flagger.app/primary-revision` names the revision that serves live traffic; the newest revision is
the canary; promoting gives its name to the annotation. Knative scales the pods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from canary.ensure import ensure
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY
from canary.routing.common import listed, look
from canary.routing.knative import (
    API_VERSION,
    PRIMARY_REVISION,
    latest_revision,
    missing,
    primary_revision,
    service,
    shown,
    with_primary,
    with_traffic,
)
from canary.settings import CanarySettings
from canary.site import CanaryResource, Site
from canary.workload.base import READY, Readiness, Target
from canary.workload.revision import revision_of
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

DEFAULT_CONTAINER = "user-container"
"""What Knative calls a container without a name."""
MAX_REASON = 300
"""Characters kept of what a revision says of itself."""


class KnativeWorkload:
    """`targetRef` of kind Service in `serving.knative.dev`. The object is people's: one annotation and the traffic are ours."""

    def __init__(self, objects: Objects, settings: CanarySettings) -> None:
        self._objects = objects
        self._settings = settings

    async def target(self, canary: CanaryResource) -> Target:
        """See `Workload.target`; a revision is what Knative calls one. Raises Problem when it has made none."""
        site = Site(canary, self._settings)
        found = await self._service(site)
        return Target(
            label="",
            value="",
            revision=revision_of(_latest(site, found)),
            generation=found["metadata"].get("generation", 0),
            images=tuple(
                f"{container.get('name') or DEFAULT_CONTAINER}={container.get('image', '')}"
                for container in listed(found, "spec", "template", "spec", "containers")
            ),
        )

    async def configs(self, site: Site) -> Mapping[str, str] | None:  # noqa: ARG002 - the port's signature
        """None: ConfigMaps and Secrets of Knative Services are not tracked."""
        return None

    async def initialize(self, site: Site) -> None:
        """While the Canary is initializing, the newest revision is the primary and gets all traffic."""
        if site.status.phase in (None, "", "Initializing"):
            await self._change(site, initialized)

    async def primary_ready(self, site: Site) -> Readiness:
        """Whether the revision that the annotation names is ready; never beyond hope."""
        revision = primary_revision(await self._service(site))
        if not revision:
            return Readiness(False, f"{shown(site)} has no annotation {PRIMARY_REVISION}")
        return await self._ready(site, revision)

    async def canary_ready(self, site: Site) -> Readiness:
        """Whether the newest revision is ready; never beyond hope."""
        return await self._ready(site, _latest(site, await self._service(site)))

    async def same_as_primary(self, site: Site) -> bool:
        """Whether the newest revision is the primary."""
        found = await self._service(site)
        return primary_revision(found) == _latest(site, found)

    async def promote(self, site: Site) -> None:
        """The newest revision becomes the primary; the traffic follows when weights are set."""
        await self._change(site, with_primary)

    async def scale_to_zero(self, site: Site) -> None:
        """Nothing: Knative scales."""

    async def scale_from_zero(self, site: Site) -> None:
        """Nothing: Knative scales."""

    async def give_back(self, site: Site) -> None:
        """Nothing: Knative scales, and the traffic is the router's to give back."""

    async def _service(self, site: Site) -> Object:
        return await look(self._objects, service(site), shown=shown(site))

    async def _change(self, site: Site, change: Callable[[Object, str], Object]) -> None:
        """Write what `change` makes of the Service and the name of its newest revision."""

        def build(present: Object | None) -> Object:
            if present is None:
                raise missing(site)
            return change(present, _latest(site, present))

        await ensure(self._objects, service(site), build, shown=shown(site))

    async def _ready(self, site: Site, name: str) -> Readiness:
        subject = f"revision {name} of {shown(site)}"
        try:
            found = await self._objects.get(Reference(API_VERSION, "Revision", site.namespace, name))
        except NotFound as error:
            return Readiness(False, f"{subject} not ready: {error}")
        except ReconcileError as error:
            raise Problem(f"{subject} get query error: {error}") from error
        why = hindrance(found)
        return Readiness(False, f"{subject} not ready: {why}") if why else READY


def initialized(found: Object, revision: str) -> Object:
    """The Service with this revision as the primary, and all traffic on it. Pure."""
    return with_traffic(with_primary(found, revision), ALL_PRIMARY, revision)


def hindrance(revision: Object) -> str:
    """Why a revision of Knative is not ready, by its condition Ready; empty when it is. Pure."""
    generation, status = revision["metadata"].get("generation", 0), revision.get("status") or {}
    if status.get("observedGeneration", generation) < generation:
        return "its newest generation has not been looked at yet"
    conditions = (each for each in listed(revision, "status", "conditions") if each.get("type") == "Ready")
    ready = next(conditions, None)
    if ready is None:
        return "it has no condition Ready yet"
    if ready.get("status") == "True":
        return ""
    said = ": ".join(str(ready[name]) for name in ("reason", "message") if ready.get(name))
    return said[:MAX_REASON] or f"condition Ready is {ready.get('status')}"


def _latest(site: Site, found: Object) -> str:
    revision = latest_revision(found)
    if not revision:
        raise Problem(f"{shown(site)} has no revision yet: status.latestCreatedRevisionName is empty")
    return revision
