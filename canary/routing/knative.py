"""Knative: the traffic block of people's own Service, between its latest revision (canary) and a named one (primary).

Follows Flagger in what is written: `spec.traffic` and the annotation that names the primary's revision, nothing else. Unlike
Flagger's, a reading tells the two sides apart also when they are the same revision, and entries that only give a revision an
address (a tag without a share of the traffic) stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from canary.ensure import ensure
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, TOTAL, Affinity, Weights
from canary.routing.common import listed, look
from canary.routing.single import must_be
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

API_VERSION = "serving.knative.dev/v1"
PRIMARY_REVISION = "flagger.app/primary-revision"
"""Annotation of the Service: name of the revision that is the primary."""


class KnativeRouter:
    """The Knative Service `T`. The object is people's: without it, or without its annotation, there is a Problem."""

    mirrors = False
    weighted = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def reconcile(self, site: Site) -> None:
        """Give the Service its two entries where they are missing; the primary gets all traffic then."""
        promoting = site.status.phase == "Promoting"

        def build(present: Object | None) -> Object | None:
            found, revision = _named(site, present)
            named = _primary_entry(_spec_traffic(found), revision)
            # Between a promotion and the shift that follows, the entry still names the old revision: that is how it gets traffic.
            if named is not None and "percent" in named and _latest(_spec_traffic(found)) is not None:
                if promoting or named.get("revisionName") == revision:
                    return None
                return with_traffic(found, parse(_spec_traffic(found), revision, shown(site)), revision)
            return with_traffic(found, ALL_PRIMARY, revision)

        await ensure(self._objects, service(site), build, shown=shown(site))

    async def weights(self, site: Site) -> Weights:
        """What Knative says to have made live, which may be a little behind what was asked for."""
        found, revision = _named(site, await look(self._objects, service(site), shown=shown(site)))
        return parse(listed(found, "status", "traffic"), revision, shown(site))

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:
        """See `Router.set_weights`; what is read back is the wanted traffic: Knative follows it in its own time."""

        def build(present: Object | None) -> Object:
            found, revision = _named(site, present)
            return with_traffic(found, weights, revision)

        found, revision = _named(site, await ensure(self._objects, service(site), build, shown=shown(site)))
        must_be(weights, parse(_spec_traffic(found), revision, shown(site)), shown(site))
        return None

    async def revert(self, site: Site) -> None:
        """Take the annotation away; if the newest revision is the primary, the traffic follows the newest revision again."""
        await ensure(self._objects, service(site), reverted, shown=shown(site))


def service(site: Site) -> Reference:
    """The Knative Service."""
    return Reference(API_VERSION, "Service", site.namespace, site.target)


def shown(site: Site) -> str:
    """How messages name it."""
    return f"Knative Service {site.target}.{site.namespace}"


def missing(site: Site) -> Problem:
    """There is no such Service, and making one is not for us."""
    return Problem(f'{shown(site)} get query error: services.serving.knative.dev "{site.target}" not found')


def with_traffic(found: Object, weights: Weights, revision: str) -> Object:
    """The Service with this traffic. Pure.

    Args:
        found: As it is.
        weights: Of the primary (the entry that names `revision`) and the canary (that of the latest revision).
        revision: Name of the primary's revision.
    """
    before = _spec_traffic(found)
    entries = [
        {**(_latest(before) or {}), "latestRevision": True, "percent": weights.canary},
        {**(_primary_entry(before, revision) or {}), "revisionName": revision, "percent": weights.primary},
    ]
    return {**found, "spec": {**(found.get("spec") or {}), "traffic": [*entries, *_addresses(before, revision)]}}


def with_primary(found: Object, revision: str) -> Object:
    """The Service with the annotation that names the primary's revision. Pure."""
    meta = found.get("metadata") or {}
    return {**found, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), PRIMARY_REVISION: revision}}}


def reverted(found: Object | None) -> Object | None:
    """The Service without our annotation, and with all traffic on the latest revision if that is the primary. Pure.

    None when there is nothing to give back.
    """
    revision = primary_revision(found)
    if found is None or not revision:
        return None
    meta = found["metadata"]
    annotations = {name: value for name, value in meta["annotations"].items() if name != PRIMARY_REVISION}
    left = {**found, "metadata": {name: value for name, value in meta.items() if name != "annotations"}}
    if annotations:
        left["metadata"]["annotations"] = annotations
    if latest_revision(found) == revision and "traffic" in (found.get("spec") or {}):
        before = _spec_traffic(found)
        whole = {**(_latest(before) or {}), "latestRevision": True, "percent": TOTAL}
        left["spec"] = {**found["spec"], "traffic": [whole, *_addresses(before, revision)]}
    return left


def parse(traffic: Sequence[Object], revision: str, where: str) -> Weights:
    """The weights of a traffic block, of spec or status; raises Problem when it lacks one side. Pure.

    The canary is the entry of the latest revision; the primary is the one that names the primary's revision, or, right after a
    promotion, the revision before it. If the only entry is of the latest revision and that is the primary, all is the primary's.
    """
    latest, named = _latest(traffic), _primary_entry(traffic, revision)
    if latest is not None and named is None and latest.get("revisionName") == revision:
        return ALL_PRIMARY
    if latest is None or named is None:
        lacking = "the latest revision" if latest is None else f"revision {revision}"
        raise Problem(f"{where} has no traffic entry for {lacking}")
    return Weights(_percent(named), _percent(latest))


def primary_revision(found: Object | None) -> str:
    """Name of the primary's revision; empty when the annotation is missing."""
    meta = (found or {}).get("metadata") or {}
    return str((meta.get("annotations") or {}).get(PRIMARY_REVISION) or "")


def latest_revision(found: Object) -> str:
    """Name of the newest revision; empty when Knative has made none."""
    return str((found.get("status") or {}).get("latestCreatedRevisionName") or "")


def _named(site: Site, found: Object | None) -> tuple[Object, str]:
    if found is None:
        raise missing(site)
    revision = primary_revision(found)
    if not revision:
        raise Problem(f"{shown(site)} has no annotation {PRIMARY_REVISION}")
    return found, revision


def _spec_traffic(found: Object) -> Sequence[Object]:
    return listed(found, "spec", "traffic")


def _latest(traffic: Sequence[Object]) -> Object | None:
    return next((each for each in traffic if each.get("latestRevision")), None)


def _primary_entry(traffic: Sequence[Object], revision: str) -> Object | None:
    """The entry of the primary: the one that names its revision, else the first named one that is no mere address."""
    named = [each for each in traffic if each.get("revisionName") and not each.get("latestRevision")]
    exact = [each for each in named if each["revisionName"] == revision]
    other = [each for each in named if not _is_address(each)]
    return next(iter([*sorted(exact, key=_is_address), *other]), None)


def _addresses(traffic: Sequence[Object], revision: str) -> Sequence[Object]:
    ours = (_latest(traffic), _primary_entry(traffic, revision))
    return [each for each in traffic if _is_address(each) and not any(each is one for one in ours)]


def _is_address(entry: Object) -> bool:
    """Whether an entry only gives a revision a name of its own."""
    return bool(entry.get("tag")) and not _percent(entry)


def _percent(entry: Object) -> int:
    share = entry.get("percent")
    return share if isinstance(share, int) else 0
