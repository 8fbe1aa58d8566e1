"""The three Services of a Canary of pods: S for clients, S-primary and S-canary for the two sides, as Flagger makes them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from canary.api import CanaryService, CustomMetadata
from canary.ensure import ensure
from canary.errors import Problem
from canary.site import FLUX_OFF, MANAGER, Site
from canary.workload.podtemplate import LAST_APPLIED
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects

SIDECARS = frozenset({"istio-proxy", "envoy"})
"""Containers whose ports are no ports of the application."""


async def ensure_backends(objects: Objects, site: Site) -> None:
    """Bring S-canary and S-primary to what they should be.

    Raises:
        Problem: `reconcileService failed: service …`.
    """
    service = exposed(site)
    await _ensure(objects, site, site.canary_service, site.value, service.canary)
    await _ensure(objects, site, site.primary_service, site.primary_value, service.primary)


async def ensure_apex(objects: Objects, site: Site) -> None:
    """Bring S to what it should be: all its traffic is the primary's. One that was there before keeps its owner and metadata.

    Raises:
        Problem: `reconcileService failed: service …`.
    """
    await _ensure(objects, site, site.apex, site.primary_value, exposed(site).apex)


async def give_back_apex(objects: Objects, site: Site) -> None:
    """Let an adopted S select the target's pods again; one that this Canary owns goes with it anyway.

    Raises:
        Problem: `service … get query error: …`, `service … update error: …`.
    """
    which = Reference("v1", "Service", site.namespace, site.apex)
    shown = f"service {site.apex}"
    try:
        present = await objects.find(which)
    except ReconcileError as error:
        raise Problem(f"{shown} get query error: {error}") from error
    if present is None or site.owns(present):
        return
    try:
        await objects.patch(present, given_back(present, site), manager=MANAGER)
    except ReconcileError as error:
        raise Problem(f"{shown} update error: {error}") from error


async def _ensure(objects: Objects, site: Site, name: str, value: str, given: CustomMetadata | None) -> None:
    def build(present: Object | None) -> Object | None:
        if present is None:
            return new_service(site, name, value, given)
        return updated_service(present, site, name, value, given)

    shown = f"service {name}"
    try:
        await ensure(objects, Reference("v1", "Service", site.namespace, name), build, shown=shown)
    except Problem as error:
        # Flagger names the namespace only where it creates.
        text = str(error).replace(f"{shown} create error", f"{shown}.{site.namespace} create error", 1)
        raise Problem(f"reconcileService failed: {text}") from error


def exposed(site: Site) -> CanaryService:
    """`spec.service`; raises Problem where pods have none."""
    if site.spec.service is None:
        raise Problem(f"canary {site.name}.{site.namespace} spec.service.port is required")
    return site.spec.service


def new_service(site: Site, name: str, value: str, given: CustomMetadata | None) -> Object:
    """The Service `name` in front of the pods whose selector label has `value`."""
    service = exposed(site)
    spec: Object = {"type": "ClusterIP", "selector": {site.label: value}, "ports": service_ports(site)}
    if service.headless:
        spec["clusterIP"] = "None"
    if service.traffic_distribution:
        spec["trafficDistribution"] = service.traffic_distribution
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": site.namespace,
            "labels": _labels(site, name, given),
            "annotations": _annotations(given),
            "ownerReferences": [site.owner],
        },
        "spec": spec,
    }


def updated_service(present: Object, site: Site, name: str, value: str, given: CustomMetadata | None) -> Object | None:
    """The Service as it should be now; None when it is so.

    Selector and ports are enforced; metadata only where this Canary owns the Service, apart from `unmanagedMetadata`. An adopted
    one gets the annotations that keep Flux from undoing this, together with the first change that is needed.
    """
    spec = present.setdefault("spec", {})
    meta = present["metadata"]
    selector, ports = {site.label: value}, _merged_ports(spec.get("ports") or [], service_ports(site))
    changed = spec.get("selector") != selector or spec.get("ports") != ports
    spec["selector"], spec["ports"] = selector, ports
    if site.owns(present):
        unmanaged = exposed(site).unmanaged_metadata
        left = unmanaged.labels if unmanaged else None, unmanaged.annotations if unmanaged else None
        labels = _enforced(meta.pop("labels", None), _labels(site, name, given), left[0] or ())
        annotations = _enforced(meta.pop("annotations", None), _annotations(given), left[1] or ())
        # An API server does not keep empty maps: to ask for one would be a write at every tick.
        meta |= {part: value for part, value in (("labels", labels), ("annotations", annotations)) if value}
        return present
    meta["annotations"] = {**(meta.get("annotations") or {}), **FLUX_OFF}
    return present if changed else None


def given_back(present: Object, site: Site) -> Object:
    """The merge patch that undoes our changes of an adopted Service: its own selector, and no annotation of ours.

    The selector is the one that kubectl applied; without it, that of the target. Without a target, the selector stays.
    """
    annotations = (present.get("metadata") or {}).get("annotations") or {}
    applied = _applied(annotations.get(LAST_APPLIED))
    theirs = (applied.get("metadata") or {}).get("annotations") or {}
    patch: Object = {}
    ours = {name: None for name, value in FLUX_OFF.items() if annotations.get(name) == value and name not in theirs}
    if ours:
        patch["metadata"] = {"annotations": ours}
    selector = (applied.get("spec") or {}).get("selector") or ({site.label: site.value} if site.label else None)
    before = (present.get("spec") or {}).get("selector") or {}
    if selector and selector != before:
        patch["spec"] = {"selector": {**dict.fromkeys(before), **selector}}
    return patch


def _applied(text: str | None) -> Object:
    try:
        applied = json.loads(text or "{}")
    except ValueError:
        return {}
    return applied if isinstance(applied, dict) else {}


def service_ports(site: Site) -> list[Object]:
    """The ports of each of the three Services: the main one, then the discovered ones."""
    service = exposed(site)
    main: Object = {
        "name": service.port_name or "http",
        "protocol": "TCP",
        "port": service.port,
        "targetPort": service.target_port or service.port,
    }
    if service.app_protocol:
        main["appProtocol"] = service.app_protocol
    found = [{"name": name, "protocol": "TCP", "port": port, "targetPort": port} for name, port in site.ports.items()]
    return [main, *found]


def discovered_ports(pod_spec: Mapping[str, Any], service: CanaryService) -> dict[str, int]:
    """Numbers of the target's other container ports by the name that their Service port gets, sorted by name.

    The main port is left out, and ports of service meshes' sidecars. A number that is there already is not added again, for a
    Service could not have it. An unnamed port is called `tcp-<container>-<index>`, and so is one whose name is taken.
    """
    main = service.port if service.target_port is None else service.target_port
    ports: dict[str, int] = {}
    for container in pod_spec.get("containers") or ():
        if container.get("name") in SIDECARS:
            continue
        for index, port in enumerate(container.get("ports") or ()):
            number, name = port["containerPort"], port.get("name") or ""
            if main in (number, name) or str(main) == str(number) or number in (service.port, *ports.values()):
                continue
            taken = {service.port_name or "http", *ports}
            ports[name if name and name not in taken else f"tcp-{container['name']}-{index}"] = number
    return dict(sorted(ports.items()))


def _merged_ports(present: list[Object], wanted: list[Object]) -> list[Object]:
    """The wanted ports with the present nodePorts, found by name, else by number; the present list if only its order differs."""
    names = {port["name"] for port in wanted}
    nodes = {port.get("name"): port["nodePort"] for port in present if port.get("nodePort")}
    renamed = {port["port"]: port["nodePort"] for port in present if port.get("nodePort") and port.get("name") not in names}
    ports = []
    for port in wanted:
        node = nodes.get(port["name"]) or renamed.get(port["port"])
        ports.append({**port, "nodePort": node} if node else port)
    return present if sorted(map(_sortable, present)) == sorted(map(_sortable, ports)) else ports


def _sortable(port: Object) -> str:
    return json.dumps(port, sort_keys=True)


def _labels(site: Site, name: str, given: CustomMetadata | None) -> dict[str, str]:
    return {**((given.labels if given else None) or {}), site.label: name}


def _annotations(given: CustomMetadata | None) -> dict[str, str]:
    return {**((given.annotations if given else None) or {}), **FLUX_OFF}


def _enforced(present: Mapping[str, str] | None, wanted: Mapping[str, str], unmanaged: Collection[str]) -> dict[str, str]:
    left = {name: value for name, value in (present or {}).items() if name in unmanaged}
    return {**{name: value for name, value in wanted.items() if name not in unmanaged}, **left}
