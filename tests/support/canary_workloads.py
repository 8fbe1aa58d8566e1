"""Targets of Canaries for tests of workloads, and recorded runs of Flagger to play again: what it made of Deployments and what is
around them, version by version.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from canary.api import API_VERSION, CanarySpec, CanaryStatus
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload.deployment import DeploymentWorkload
from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import Resource
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_sites import history
from tests.support.clock import VirtualClock
from tests.support.objects import MemoryObjects

RECORDED = Path(__file__).parent.parent / "facts" / "canary_workloads.json"
"""By story and `Kind/name`: the first version in full, then each change by JSON pointer; `configs`: each `trackedConfigs`."""

API_VERSIONS = {
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "ScaledObject": "keda.sh/v1alpha1",
}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

_FILLED_IN = ("clusterIP", "clusterIPs", "sessionAffinity", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def recorded(story: str) -> dict[str, list[Any]]:
    """What was recorded of a story."""
    found: dict[str, list[Any]] = json.loads(RECORDED.read_text())[story]
    return found


def deployment(name: str = "web", *, replicas: int | None = 2, pod: Object | None = None, labels: Object | None = None) -> Object:
    """A Deployment as a person writes it."""
    labels = labels or {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "prod", "labels": dict(labels)},
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": dict(labels)},
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod or pod_spec()},
        },
    }


def daemonset(name: str = "web", *, pod: Object | None = None, strategy: str = "RollingUpdate") -> Object:
    """A DaemonSet as a person writes it."""
    found = {**deployment(name, pod=pod), "kind": "DaemonSet"}
    del found["spec"]["replicas"]
    found["spec"]["updateStrategy"] = {"type": strategy}
    return found


def pod_spec(image: str = "example.org/web:1", **more: Any) -> Object:
    """One container, and the rest of a pod."""
    return {"containers": [{"name": "app", "image": image}], **more}


def autoscaler(**spec: Any) -> Object:
    """A HorizontalPodAutoscaler of `web`."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "prod", "labels": {"team": "blue", "kustomize.toolkit.fluxcd.io/name": "apps"}},
        "spec": {"scaleTargetRef": target, "maxReplicas": 10, **spec},
    }


def hpa_ref(kind: str = "HorizontalPodAutoscaler", api_version: str = "autoscaling/v2", **more: Any) -> Object:
    """`spec.autoscalerRef`."""
    return {"apiVersion": api_version, "kind": kind, "name": "web", **more}


def spec_of(
    kind: str = "Deployment", *, service: Mapping[str, Any] | None = None, analysis: Object | None = None, **more: Any
) -> Object:
    """Spec of a Canary of `web`."""
    return {
        "provider": "istio",
        "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": "web"},
        "service": {"port": 80, "targetPort": 9898, **(service or {})},
        "analysis": {"interval": "10s", "threshold": 3, **(analysis or {"stepWeight": 10})},
        **more,
    }


def site_of(
    spec: Object | None = None,
    *,
    namespace: str = "prod",
    name: str = "web",
    annotations: Mapping[str, str] | None = None,
    settings: CanarySettings | None = None,
    label: str = "app",
    value: str = "web",
    **status: Any,
) -> Site:
    """A Canary with this spec and status (camelCase)."""
    meta = ObjectMeta(name=name, namespace=namespace, uid=f"uid-of-{name}", annotations=dict(annotations or {}))
    canary = Resource(
        API_VERSION, "Canary", meta, CanarySpec.model_validate(spec or spec_of()), CanaryStatus.model_validate(status)
    )
    return Site(canary, settings or CanarySettings(), label, value)


class Stage:
    """A recorded story played again: the objects that were given, our workload on them, and every version that objects had."""

    def __init__(self, story: str, spec: Object, *given: str) -> None:
        self.namespace = f"st-{story}"
        self.facts = recorded(story)
        self.objects = MemoryObjects()
        self._versions: dict[str, list[Object]] = {}
        for key in given:
            self.give(key)
        self.clock = VirtualClock(NOW)
        self.workload = DeploymentWorkload(self.objects, CanarySettings(), self.clock)
        self.site = site_of(spec, namespace=self.namespace)
        self.look()

    def give(self, key: str) -> None:
        """Have an object as it was recorded first."""
        first = self.facts[key][0]
        kind, _, name = key.partition("/")
        meta = {part: first[part] for part in ("labels", "annotations") if part in first}
        rest = {part: value for part, value in first.items() if part not in meta and part != "ownerReferences"}
        if kind == "Secret":
            rest["data"] = {part: base64.b64encode(value.encode()).decode() for part, value in rest["data"].items()}
        if kind == "Service":
            rest["spec"] = {part: value for part, value in rest["spec"].items() if part not in _FILLED_IN}
        body = {"apiVersion": API_VERSIONS.get(kind, "v1"), "kind": kind, **deepcopy(rest)}
        self.objects.put({**body, "metadata": {"name": name, "namespace": self.namespace, "generation": 1, **meta}})

    async def read_target(self) -> None:
        """What the beginning of a tick does."""
        target = await self.workload.target(self.site.canary)
        self.site = replace(self.site, label=target.label, value=target.value, ports=target.ports)

    def change(self, kind: str, name: str, patch: Object) -> None:
        """Somebody changes an object."""
        which = Reference(API_VERSIONS.get(kind, "v1"), kind, self.namespace, name)
        self.objects.change(which, patch)
        self.look()

    def release(self, tag: str) -> None:
        """Somebody sets another image."""
        which = Reference("apps/v1", "Deployment", self.namespace, "web")
        found = self.objects.now(which)
        assert found is not None
        containers = found["spec"]["template"]["spec"]["containers"]
        containers[0]["image"] = f"example.org/web:{tag}"
        self.change("Deployment", "web", {"spec": {"template": {"spec": {"containers": containers}}}})

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at what a step has made."""
        yield
        self.look()

    def look(self) -> None:
        """Note what has changed since the last look."""
        for found in self.objects.all():
            versions = self._versions.setdefault(f"{found['kind']}/{found['metadata']['name']}", [])
            shown = _shown(found)
            if not versions or versions[-1] != shown:
                versions.append(shown)

    def seen(self, key: str) -> list[Object]:
        """The versions of an object as records have them."""
        return json.loads(_UUID.sub("<uuid>", json.dumps(history(self._versions[key]))))  # type: ignore[no-any-return]

    def expected(self, key: str) -> list[Object]:
        """What was recorded, without what only an API server fills in."""
        versions = deepcopy(self.facts[key])
        if key.startswith("Service/"):
            for name in _FILLED_IN:
                versions[0]["spec"].pop(name, None)
        return versions


def _shown(found: Object) -> Object:
    meta = found["metadata"]
    owners = [{name: value for name, value in ref.items() if name != "uid"} for ref in meta.get("ownerReferences") or ()]
    shown = {"labels": meta.get("labels"), "annotations": meta.get("annotations"), "ownerReferences": owners}
    rest = {name: value for name, value in found.items() if name not in {"apiVersion", "kind", "metadata", "status"}}
    if found["kind"] == "Secret":
        rest["data"] = {name: base64.b64decode(value).decode() for name, value in rest["data"].items()}
    return deepcopy({**{name: value for name, value in shown.items() if value}, **rest})
