"""Canaries for tests of routers, and the recorded runs of Flagger: what it made of each Canary, and how that changed."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.routing.base import Router, Weights
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import Resource
from reconcile.ports.cluster import Object, Reference
from tests.support.objects import MemoryObjects

RECORDED = Path(__file__).parent.parent / "facts" / "canary_routers.json"
SETTINGS = CanarySettings()
INGRESS_REF = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"}

INSIDER = {"headers": {"x-canary": {"exact": "insider"}}}


def site(
    provider: str,
    *,
    service: Mapping[str, Any] | None = None,
    analysis: Mapping[str, Any] | None = None,
    namespace: str = "prod",
    settings: CanarySettings = SETTINGS,
    **spec: Any,
) -> Site:
    """The site of a Canary `web` of a Deployment `web` with the selector label `app: web`."""
    given = {
        "provider": provider,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "service": {"port": 80, **(service or {})},
        "analysis": {"interval": "10s", "threshold": 3, **(analysis or {"stepWeight": 20})},
        **spec,
    }
    return site_of(given, namespace, settings)


def site_of(
    spec: Mapping[str, Any], namespace: str, settings: CanarySettings = SETTINGS, *, uid: str = "uid-of-the-canary"
) -> Site:
    """The same of a whole spec."""
    meta = ObjectMeta(name="web", namespace=namespace, uid=uid)
    canary = Resource(API_VERSION, "Canary", meta, CanarySpec.model_validate(spec), CanaryStatus())
    return Site(canary, settings, label="app", value="web")


def ab(*matches: Mapping[str, Any]) -> dict[str, Any]:
    """An analysis that is an A/B test."""
    return {"iterations": 2, "match": list(matches or (INSIDER,))}


def ingress(namespace: str = "prod", **spec: Any) -> Object:
    """The Ingress of the application: one path, leading to `web`."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "namespace": namespace, "labels": {"app": "web"}, "annotations": {"example.org/keep": "yes"}},
        "spec": {"ingressClassName": "web", "rules": [rule(path("web"))], **spec},
    }


def rule(*paths: Object, host: str = "web.example.org") -> Object:
    """A rule of an Ingress."""
    return {"host": host, "http": {"paths": list(paths)}}


def path(service: str, where: str = "/", kind: str = "Prefix") -> Object:
    """A path of a rule."""
    return {"path": where, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}


@dataclass(slots=True)
class Case:
    """A recorded run: the Canary and the objects that were there, what Flagger made, and the warnings it gave.

    Attributes:
        made: What Flagger made: the first version of each object in full, then {path: new value} of each change.
    """

    site: Site
    objects: MemoryObjects
    made: Mapping[str, list[dict[str, Any]]]
    warnings: list[str]
    seen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _last: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def run(self, router: Router, *canary_weights: int) -> None:
        """Reconcile, then set each weight with a reconcile after it, and note what became of the objects."""
        await router.reconcile(self.site)
        self.note()
        for weight in canary_weights:
            await router.set_weights(self.site, Weights.at(weight))
            self.note()
            await router.reconcile(self.site)
            self.note()

    def note(self) -> None:
        """Compare all generated objects with what they were."""
        for found in self.objects.all():
            name = f"{found['kind']}.{found['apiVersion']}/{found['metadata']['name']}"
            shown = _shown(found)
            before = self._last.get(name)
            self._last[name] = shown
            if not any(ref["kind"] == "Canary" for ref in shown.get("ownerReferences", ())):
                continue
            if before is None:
                self.seen.setdefault(name, []).append(shown)
            elif before != shown:
                self.seen[name].append(_changes(before, shown))


def recorded(name: str) -> Case:
    """A recorded run by the name of its story."""
    found = _recorded()[name]
    return Case(site_of(found["canary"], found["namespace"]), MemoryObjects(found["given"]), found["objects"], found["warnings"])


class StubbornObjects(MemoryObjects):
    """Patches are accepted and change nothing, as when an admission hook puts back what was there."""

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        """See the port."""
        return await self.get(which if isinstance(which, Reference) else Reference.of(which))


@functools.cache
def _recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def _shown(found: Object) -> dict[str, Any]:
    meta = found["metadata"]
    references = [{name: value for name, value in ref.items() if name != "uid"} for ref in meta.get("ownerReferences", ())]
    shown = {"labels": meta.get("labels"), "annotations": meta.get("annotations"), "ownerReferences": references}
    rest = {name: value for name, value in found.items() if name not in {"apiVersion", "kind", "metadata", "status"}}
    return {name: value for name, value in shown.items() if value} | rest


def _changes(old: Any, new: Any, where: str = "") -> dict[str, Any]:
    """{path: new value} of what differs, None being removed, as the runs are recorded."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [
            _changes(old.get(name), new.get(name), f"{where}/{name}")
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [_changes(a, b, f"{where}/{i}") for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    else:
        return {where or "/": new}
    return {name: value for part in parts for name, value in part.items()}
