"""What routers share: what the Canary says, metadata and lists of what they write, weights, and reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from canary.api import AnalysisMatch, CanaryService
from canary.errors import Problem
from canary.routing.base import TOTAL, Weights
from canary.site import FLUX_OFF, Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

# --- what the Canary says


def service_of(site: Site) -> CanaryService:
    """`spec.service`; raises Problem when the Canary has none."""
    if site.spec.service is None:
        raise Problem(f"canary {site.name}.{site.namespace} has no spec.service, which provider {site.provider} needs")
    return site.spec.service


def matches_of(site: Site) -> Sequence[AnalysisMatch]:
    """`analysis.match`: who gets the canary; empty when everybody may."""
    return site.spec.analysis.match or ()


def apex_labels(site: Site) -> dict[str, str]:
    """Labels of the object that routes: those of `service.apex` and the selector label, or none without `service.apex`."""
    apex = service_of(site).apex
    if apex is None:
        return {}
    return {**(apex.labels or {}), **({site.label: site.apex} if site.label else {})}


def apex_annotations(site: Site) -> dict[str, str]:
    """Annotations of the object that routes: those of `service.apex`, and those that keep Flux away."""
    apex = service_of(site).apex
    return {**((apex.annotations if apex is not None else None) or {}), **FLUX_OFF}


# --- building


def named(which: Reference) -> str:
    """How messages name an object: `HTTPProxy web.prod`."""
    return f"{which.kind} {which.name}.{which.namespace}"


def begun(
    site: Site,
    which: Reference,
    present: Object | None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """The present object, or a new one that this Canary owns, with these labels and annotations; others on it stay.

    An object that somebody else made gets no owner: it outlives the Canary.
    """
    found = present
    if found is None:
        meta: Object = {"name": which.name, "namespace": which.namespace, "ownerReferences": [site.owner]}
        found = {"apiVersion": which.api_version, "kind": which.kind, "metadata": meta}
    for name, wanted in (("labels", labels), ("annotations", annotations)):
        if wanted:
            found["metadata"][name] = {**(found["metadata"].get(name) or {}), **wanted}
    return found


def own(found: Object, **fields: Any) -> Object:
    """`found` with these fields; None takes a field away. Fields that are not named stay as they are."""
    for name, value in fields.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found


def inside(found: Object, *path: str) -> Object:
    """The object at a path in `found`, made on the way if need be."""
    for name in path:
        inner = found.get(name)
        if not isinstance(inner, dict):
            inner = found[name] = {}
        found = inner
    return found


def listed(found: Mapping[str, Any], *path: str) -> list[Object]:
    """The objects in the list at a path in `found`; empty when there is no such list."""
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def placed(
    routes: Sequence[Object],
    wanted: Sequence[Object],
    *,
    ours: Callable[[Object], bool],
    same: Callable[[Object, Object], bool],
) -> list[Object]:
    """`wanted` in the place of the routes that are ours, first if none was; other people's routes stay around them.

    A route of other people that takes the same requests as one of ours (`same`) goes: the two would be in each other's way.
    """
    first = next((index for index, route in enumerate(routes) if ours(route)), 0)

    def others(some: Sequence[Object]) -> list[Object]:
        return [route for route in some if not ours(route) and not any(same(route, each) for each in wanted)]

    return [*others(routes[:first]), *wanted, *others(routes[first:])]


# --- weights


def share(primary: Any, canary: Any) -> Weights | None:
    """The percentages that two relative weights stand for, an absent one being 0; None when they stand for nothing."""
    primary, canary = (0 if weight is None else weight for weight in (primary, canary))
    if not all(isinstance(weight, int) and weight >= 0 for weight in (primary, canary)) or primary + canary == 0:
        return None
    return Weights.at(round(TOTAL * canary / (primary + canary)))


def no_routes(site: Site, which: Reference) -> Problem:
    """What to raise when an object does not say how traffic is split."""
    return Problem(f"{named(which)} does not contain routes for {site.primary_service} and {site.canary_service}")


# --- reading


async def look(objects: Objects, which: Reference, *, shown: str = "") -> Object:
    """Read an object; raises Problem (`<shown> get query error: …`) when it is absent or its kind is not served."""
    try:
        return await objects.get(which)
    except ReconcileError as error:
        raise Problem(f"{shown or named(which)} get query error: {error}") from error
