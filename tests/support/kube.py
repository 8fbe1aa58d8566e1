"""Cluster tests of our own Kubernetes adapter: minimal CRDs, a kind of the tests' own, and an open client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconcile.api.meta import CommonSpec, CommonStatus
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.kube.client import Client
from reconcile.kube.connect import Impersonation, KubeSettings, connect
from reconcile.kube.limiter import Limiter
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import SystemClock
from reconcile.runtime.metrics import Metrics


class ThingSpec(CommonSpec):
    """Spec of the tests' own kind."""

    size: int
    """Any number."""


class ThingStatus(CommonStatus):
    """Status of the tests' own kind."""

    note: str | None = None
    """Any text."""
    parts: dict[str, str] | None = None
    """Any texts."""


THING = KindInfo(
    group="kubetests.imagebot.dev",
    kind="Thing",
    plural="things",
    versions=("v1", "v1beta1"),
    spec=ThingSpec,
    status=ThingStatus,
    controller="thing-controller",
)


def thing_kind(name: str) -> KindInfo:
    """A kind like THING, for a test that needs one nobody else uses; `name` in CamelCase."""
    return replace(THING, kind=name, plural=f"{name.lower()}s")


def minimal_crd(info: KindInfo, served: tuple[str, ...] | None = None) -> dict[str, Any]:
    """A CustomResourceDefinition that accepts everything, with a status subresource and its usual default."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "default": {"observedGeneration": -1},
                "properties": {"observedGeneration": {"type": "integer", "format": "int64"}},
            },
        },
    }
    versions = served if served is not None else info.versions
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{info.group}"},
        "spec": {
            "group": info.group,
            "scope": "Namespaced",
            "names": {"kind": info.kind, "plural": info.plural, "singular": info.singular, "listKind": f"{info.kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
                for index, version in enumerate(versions)
            ],
        },
    }


def thing(name: str, namespace: str, size: int = 1, *, kind: KindInfo = THING, **metadata: Any) -> dict[str, Any]:
    """A manifest of the tests' own kind."""
    meta = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": {"size": size}}


def scheme_of(*kinds: KindInfo) -> Scheme:
    """A scheme with these kinds."""
    scheme = Scheme()
    for info in kinds:
        scheme.register(info)
    return scheme


@asynccontextmanager
async def open_client(
    kubeconfig: Path, *, impersonate: Impersonation | None = None, timeout: float = 30.0, metrics: KubeMetrics | None = None
) -> AsyncIterator[Client]:
    """A client of ours by a kubeconfig."""
    clock = SystemClock()
    settings = KubeSettings(kubeconfig=str(kubeconfig), impersonate=impersonate, timeout=timeout, qps=500, burst=1000)
    async with connect(settings, clock, {}) as connection:
        limiter = Limiter(clock, settings.qps, settings.burst)
        yield Client(connection, limiter, metrics or KubeMetrics.declare(Metrics()), timeout=timeout)
