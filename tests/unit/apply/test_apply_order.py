"""Stages and orders of apply and deletion."""

from __future__ import annotations

import random

import pytest

from reconcile.apply import order
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object, Reference

GROUPS = {
    "CustomResourceDefinition": "apiextensions.k8s.io/v1", "ClusterRole": "rbac.authorization.k8s.io/v1", "Namespace": "v1",
    "StorageClass": "storage.k8s.io/v1", "GatewayClass": "gateway.networking.k8s.io/v1", "Deployment": "apps/v1",
    "CronJob": "batch/v1", "Job": "batch/v1", "Ingress": "networking.k8s.io/v1", "Widget": "example.com/v1",
    "Gadget": "example.com/v1", "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1",
}  # fmt: skip


def thing(kind: str, name: str = "x", namespace: str = "ns") -> Object:
    return {"apiVersion": GROUPS.get(kind, "v1"), "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def names(objects: list[Object] | tuple[Object, ...]) -> list[str]:
    return [each["kind"] for each in objects]


IN_ORDER = [
    "CustomResourceDefinition", "Namespace", "ClusterRole", "StorageClass", "GatewayClass", "ServiceAccount", "ConfigMap",
    "Secret", "Service", "Deployment", "StatefulSet", "CronJob", "Pod", "DaemonSet", "Job", "Gadget", "Widget", "Ingress",
    "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
]  # fmt: skip


def test_order_is_by_kind_then_group_namespace_and_name() -> None:
    objects = [thing(kind) for kind in IN_ORDER]
    random.Random(1).shuffle(objects)
    assert names(order.apply_order(objects)) == IN_ORDER
    same = [thing("ConfigMap", "b", "a"), thing("ConfigMap", "a", "b"), thing("ConfigMap", "a", "a")]
    assert [Reference.of(each).name + Reference.of(each).namespace for each in order.apply_order(same)] == ["aa", "ba", "ab"]


def test_deletion_is_exactly_the_reverse() -> None:
    objects = [thing(kind, name) for kind in IN_ORDER for name in ("a", "b")]
    applied = [Reference.of(each) for each in order.apply_order(objects)]
    assert order.delete_order(random.Random(2).sample(applied, len(applied))) == applied[::-1]


def test_stages() -> None:
    objects = [thing(kind) for kind in reversed(IN_ORDER)]
    found = order.stages(objects, [("example.com", "Widget")])
    assert [(names(stage.objects)[0], len(stage.objects), stage.awaited) for stage in found] == [
        ("CustomResourceDefinition", 3, True),
        ("StorageClass", 2, True),
        ("Widget", 1, False),
        ("ServiceAccount", 14, False),
    ]
    assert [len(stage.objects) for stage in order.stages([thing("ConfigMap")])] == [1]
    assert order.stages([]) == []


def test_kinds_of_the_flag() -> None:
    assert order.parse_kinds("example.com/Widget, /ConfigMap,") == (("example.com", "Widget"), ("", "ConfigMap"))
    assert order.parse_kinds("") == ()
    with pytest.raises(Invalid, match="'Widget' is not a kind with its group"):
        order.parse_kinds("Widget")
