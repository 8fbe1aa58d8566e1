"""Core Services as targets: what is under release is where the Service points to, so its primary is a copy of it.

Follows Flagger: `T-canary` follows the target at each tick, `T-primary` only at promotions; neither has pods of its own to wait
for or to scale. Unlike Flagger's, copies leave out what an API server assigns (addresses, node ports), so that Services with an
address can be copied at all, and a promotion keeps labels and the owner of `T-primary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canary.ensure import ensure
from canary.errors import Problem
from canary.routing.common import listed, look
from canary.settings import CanarySettings
from canary.site import CanaryResource, Site
from canary.workload.base import READY, Readiness, Target
from canary.workload.revision import canonical, revision_of
from reconcile.api.mergepatch import difference
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

HEADLESS = "None"
"""The `clusterIP` of a Service that has no address by intention."""
EXTERNAL = "ExternalName"

ADDRESS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
ASSIGNED = (*ADDRESS, "healthCheckNodePort")
"""Fields that an API server fills in, with values that no other Service may have or that it may not change."""
DEFAULTS: Mapping[str, Any] = {
    "type": "ClusterIP",
    "sessionAffinity": "None",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
    "internalTrafficPolicy": "Cluster",
    "externalTrafficPolicy": "Cluster",
    "allocateLoadBalancerNodePorts": True,
    "publishNotReadyAddresses": False,
}
"""What fields of a Service mean when they are not there, by Kubernetes' API reference."""

_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", "toolkit.fluxcd.io")
"""Parts of names of labels and annotations by which kubectl and Flux would take a copy for the original."""


class ServiceWorkload:
    """`targetRef` of kind Service in the core group."""

    def __init__(self, objects: Objects, settings: CanarySettings) -> None:
        self._objects = objects
        self._settings = settings

    async def target(self, canary: CanaryResource) -> Target:
        """See `Workload.target`; the revision is the Service's spec without what an API server assigns and fills in."""
        found = await self._target(Site(canary, self._settings))
        generation = found["metadata"].get("generation", 0)
        return Target(label="", value="", revision=revision_of(meaning(found.get("spec") or {})), generation=generation)

    async def configs(self, site: Site) -> Mapping[str, str] | None:  # noqa: ARG002 - the port's signature
        """None: Services use no ConfigMaps and Secrets."""
        return None

    async def initialize(self, site: Site) -> None:
        """Bring `T-canary` to the target, and make `T-primary` if it does not exist."""
        target = await self._target(site)
        canary, primary = _copy(site, f"{site.target}-canary"), _copy(site, site.primary)
        await self._write(
            site, canary, lambda present: copied(site, target, canary, present), prefix="reconcileCanaryService failed: "
        )
        await self._write(
            site,
            primary,
            lambda present: copied(site, target, primary, None) if present is None else None,
            prefix="reconcilePrimaryService failed: ",
        )

    async def primary_ready(self, site: Site) -> Readiness:  # noqa: ARG002 - the port's signature
        """Always: a Service has nothing to wait for."""
        return READY

    async def canary_ready(self, site: Site) -> Readiness:  # noqa: ARG002 - the port's signature
        """Always: a Service has nothing to wait for."""
        return READY

    async def same_as_primary(self, site: Site) -> bool:
        """Whether promoting would leave the spec of `T-primary` as it is."""
        target = await self._target(site)
        primary = _copy(site, site.primary)
        present = await look(self._objects, primary, shown=_shown(primary))
        return not difference(present.get("spec") or {}, copied_spec(site, target, present))

    async def promote(self, site: Site) -> None:
        """Copy the target to `T-primary`."""
        target = await self._target(site)
        primary = _copy(site, site.primary)
        await self._write(site, primary, lambda present: copied(site, target, primary, present))

    async def scale_to_zero(self, site: Site) -> None:
        """Nothing: a Service has no pods."""

    async def scale_from_zero(self, site: Site) -> None:
        """Nothing: a Service has no pods."""

    async def give_back(self, site: Site) -> None:
        """Nothing: the target was never changed, and the copies go with the Canary."""

    async def _target(self, site: Site) -> Object:
        which = _copy(site, site.target)
        return await look(self._objects, which, shown=_shown(which))

    async def _write(
        self, site: Site, which: Reference, build: Callable[[Object | None], Object | None], *, prefix: str = ""
    ) -> None:
        shown = _shown(which)
        try:
            await ensure(self._objects, which, build, shown=shown)
        except Problem as error:
            # Flagger's words, which name the Canary where a Service cannot be made.
            text = str(error).replace(f"{shown} create error:", f"creating service {site.name}.{site.namespace} query error:", 1)
            text = text.replace(f"{shown} update error:", f"updating {shown} failed:", 1)
            raise Problem(prefix + text) from error


def copied(site: Site, target: Object, which: Reference, present: Object | None) -> Object:
    """The copy of the target that `which` is to be: labels and annotations on top of those that are there. Pure.

    Args:
        site: The Canary, which owns a copy that is made.
        target: The Service under release.
        which: The copy.
        present: As it is now; addresses and node ports that it was given stay.
    """
    found = present or {
        "apiVersion": which.api_version,
        "kind": which.kind,
        "metadata": {"name": which.name, "namespace": which.namespace, "ownerReferences": [site.owner]},
    }
    meta = dict(found["metadata"])
    for name in ("labels", "annotations"):
        taken = (target["metadata"].get(name) or {}).items()
        ours = {key: value for key, value in taken if not any(part in key for part in _NOT_COPIED)}
        if ours:
            meta[name] = {**(meta.get(name) or {}), **ours}
    return {**found, "metadata": meta, "spec": copied_spec(site, target, present)}


def copied_spec(site: Site, target: Object, present: Object | None) -> Object:
    """The spec of a copy: the target's, with the addresses and node ports that the copy was given itself. Pure."""
    spec = without_assigned(target.get("spec") or {})
    service = site.spec.service
    if service is not None and service.traffic_distribution is not None:
        spec["trafficDistribution"] = service.traffic_distribution
    before = (present or {}).get("spec") or {}
    if spec.get("type") != EXTERNAL:
        given = {name: before[name] for name in ASSIGNED if name in before}
        # What the target says of address families on purpose wins; what the copy was given is kept.
        spec = {**given, **spec, **{name: given[name] for name in ("clusterIP", "clusterIPs") if name in given}}
    nodes = {_port(each): each["nodePort"] for each in listed(before, "ports") if "nodePort" in each}
    if nodes and "ports" in spec:
        spec["ports"] = [{**each, **({"nodePort": nodes[_port(each)]} if _port(each) in nodes else {})} for each in spec["ports"]]
    return spec


def without_assigned(spec: Mapping[str, Any]) -> Object:
    """A Service's spec without what is its own alone: addresses, node ports, and address families that nobody asked for. Pure."""
    kept = {name: value for name, value in spec.items() if name not in ASSIGNED}
    if spec.get("clusterIP") == HEADLESS:
        kept["clusterIP"] = HEADLESS
    if spec.get("ipFamilyPolicy") not in (None, "SingleStack"):
        kept |= {name: spec[name] for name in ("ipFamilyPolicy", "ipFamilies") if name in spec}
    if "ports" in spec:
        kept["ports"] = [{name: value for name, value in each.items() if name != "nodePort"} for each in listed(spec, "ports")]
    return kept


def meaning(spec: Mapping[str, Any]) -> Object:
    """A Service's spec without what says nothing: what was assigned, and fields that have their default. Pure."""
    kept = {name: value for name, value in without_assigned(spec).items() if DEFAULTS.get(name) != value}
    if "ports" in kept:
        kept["ports"] = [_meaning_of_port(each) for each in kept["ports"]]
    found: Object = canonical(kept)
    return found


def _meaning_of_port(port: Object) -> Object:
    defaults = {"protocol": "TCP", "targetPort": port.get("port")}
    return {name: value for name, value in port.items() if name == "port" or defaults.get(name) != value}


def _port(port: Mapping[str, Any]) -> tuple[Any, ...]:
    """By what a port of a Service is known: its name, or number and protocol if it is the only one and has none."""
    return (port["name"],) if port.get("name") else (port.get("port"), port.get("protocol", "TCP"))


def _copy(site: Site, name: str) -> Reference:
    return Reference("v1", "Service", site.namespace, name)


def _shown(which: Reference) -> str:
    return f"service {which.name}.{which.namespace}"
