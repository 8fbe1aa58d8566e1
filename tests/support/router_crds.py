"""Definitions of the kinds that canaries' routers and autoscalers write: the published ones, else ones that accept anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.kubeapi import KubeApi

FOLDER = Path(__file__).parents[1] / "facts" / "schemas" / "routers"

Object = dict[str, Any]

OPEN: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("split.smi-spec.io", "TrafficSplit", "trafficsplits", ("v1alpha3", "v1alpha2", "v1alpha1")),
    ("gateway.solo.io", "RouteTable", "routetables", ("v1",)),
    ("gloo.solo.io", "Upstream", "upstreams", ("v1",)),
    ("kuma.io", "TrafficRoute", "trafficroutes", ("v1alpha1",)),
    ("appmesh.k8s.aws", "VirtualNode", "virtualnodes", ("v1beta2", "v1beta1")),
    ("appmesh.k8s.aws", "VirtualRouter", "virtualrouters", ("v1beta2",)),
    ("appmesh.k8s.aws", "VirtualService", "virtualservices", ("v1beta2", "v1beta1")),
    ("serving.knative.dev", "Service", "services", ("v1",)),
    ("serving.knative.dev", "Revision", "revisions", ("v1",)),
)
"""Group, kind, plural and versions of kinds without a published schema here."""
CLUSTER_SCOPED = frozenset({"TrafficRoute"})
WITHOUT_STATUS = frozenset({"TrafficSplit"})


def published() -> list[Object]:
    """The definitions as projects publish them."""
    return [dict(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.yaml"))]


def open_definition(group: str, kind: str, plural: str, versions: tuple[str, ...]) -> Object:
    """A definition that accepts anything, the first version being the stored one."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {**anything, "properties": {"spec": anything, "status": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster" if kind in CLUSTER_SCOPED else "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == versions[0],
                    "schema": {"openAPIV3Schema": schema},
                    **({} if kind in WITHOUT_STATUS else {"subresources": {"status": {}}}),
                }
                for version in versions
            ],
        },
    }


def definitions() -> list[Object]:
    """All of them."""
    return [*published(), *(open_definition(*each) for each in OPEN)]


def install(api: KubeApi) -> None:
    """Have a cluster serve all of them; those that are there are brought to what they should be."""
    for manifest in definitions():
        api.install_crd(manifest)
