"""What the routers share that put a second Ingress beside that of the application (nginx, skipper)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from canary.errors import Problem
from canary.routing.common import begun, listed, look
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference

API_VERSION = "networking.k8s.io/v1"
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which kubectl remembers what it applied: with a copy of it kubectl would take ours for its own."""


class IngressRouter(SingleObjectRouter):
    """A Router whose weights are in the annotations of a second Ingress, `<Ingress of the application>-canary`."""

    word = "ingress"
    """What messages call the Ingress of the application."""

    def which(self, site: Site) -> Reference:
        """The canary Ingress; raises Problem when the Canary names none to derive it from."""
        apex = _apex(site)
        return Reference(apex.api_version, apex.kind, apex.namespace, f"{apex.name}-canary")

    def shown(self, site: Site) -> str:
        """See `SingleObjectRouter.shown`."""
        return f"ingress {self.which(site).name}.{site.namespace}"

    async def apex(self, site: Site) -> Object:
        """The Ingress of the application; raises Problem."""
        which = _apex(site)
        return await look(self._objects, which, shown=f"{self.word} {which.name}.{which.namespace}")

    async def absent(self, site: Site) -> bool:
        """Whether there is no canary Ingress; raises Problem when that cannot be told."""
        try:
            return await self._objects.find(self.which(site)) is None
        except ReconcileError as error:
            raise Problem(f"{self.shown(site)} get query error: {error}") from error

    def copied(self, site: Site, apex: Object, annotations: Mapping[str, str], *, left_out: str = APPLIED) -> Object:
        """A canary Ingress without a spec: labels and annotations of the application's, and these annotations.

        Annotations that begin with `left_out` are not taken over, nor is kubectl's.
        """
        meta = apex["metadata"]
        taken = {
            name: value for name, value in (meta.get("annotations") or {}).items() if not name.startswith((left_out, APPLIED))
        }
        return begun(site, self.which(site), None, labels=meta.get("labels"), annotations={**taken, **annotations})


def _apex(site: Site) -> Reference:
    # In the version that clusters serve, whatever older one the reference names.
    if site.spec.ingress_ref is None or not site.spec.ingress_ref.name:
        raise Problem("ingress selector is empty")
    return Reference(API_VERSION, "Ingress", site.namespace, site.spec.ingress_ref.name)


def annotations_of(found: Object) -> dict[str, str]:
    """A copy of the annotations of an object."""
    return dict(found["metadata"].get("annotations") or {})


def rerouted(site: Site, apex: Object, *, to: str, also: str = "") -> Object:
    """The spec of the application's Ingress with all that leads to the apex service leading to the service `to`.

    Args:
        site: The Canary.
        apex: The Ingress of the application; not changed.
        to: The service instead of the apex service.
        also: A service that gets a copy of each such path, at the end of its rule. The default backend, of which there can be
            one only, then stays as it is.

    Raises:
        Problem: Nothing leads to the apex service.
    """
    spec: Object = deepcopy(apex.get("spec") or {})
    led = False
    for rule in listed(spec, "rules"):
        paths = (rule.get("http") or {}).get("paths") or []
        for path in [path for path in paths if _leads(path.get("backend"), site.apex)]:
            led = True
            path["backend"]["service"]["name"] = to
            if also:
                copy = deepcopy(path)
                copy["backend"]["service"]["name"] = also
                paths.append(copy)
    if not also and _leads(spec.get("defaultBackend"), site.apex):
        led = True
        spec["defaultBackend"]["service"]["name"] = to
    if not led:
        raise Problem(f"backend {site.apex} not found in ingress {apex['metadata']['name']}")
    return spec


def _leads(backend: Any, service: str) -> bool:
    named = (backend or {}).get("service") or {}
    return bool(named.get("name") == service)
