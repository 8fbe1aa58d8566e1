"""Autoscalers: the copies for the primary, bounds, queries, and pausing."""

from __future__ import annotations

from typing import Any

import pytest

from canary.errors import Problem
from canary.site import Site
from canary.workload.autoscaler import PAUSED, least_replicas, make_scaler
from canary.workload.base import Scaler
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_workloads import autoscaler, hpa_ref, site_of, spec_of
from tests.support.objects import MemoryObjects

BOUNDS = {"primaryScalerReplicas": {"minReplicas": 4, "maxReplicas": 40}}
METRICS = [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]


def hpa(**more: Any) -> Site:
    return site_of(spec_of(autoscalerRef=hpa_ref(**more)))


def keda(**more: Any) -> Site:
    return site_of(spec_of(autoscalerRef=hpa_ref("ScaledObject", "keda.sh/v1alpha1", **more)))


def scaled(query: str = "", meta: Object | None = None, **spec: Any) -> Object:
    trigger: Object = {"type": "prometheus", "name": "rps", "metadata": {"threshold": "5", **({"query": query} if query else {})}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "web", "namespace": "prod", **(meta or {})},
        "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [trigger], **spec},
    }


def scaler_of(site: Site, objects: MemoryObjects) -> Scaler:
    scaler = make_scaler(site, objects)
    assert scaler is not None
    return scaler


def copy_of(objects: MemoryObjects, kind: str) -> Object:
    version = "keda.sh/v1alpha1" if kind == "ScaledObject" else "autoscaling/v2"
    found = objects.now(Reference(version, kind, "prod", "web-primary"))
    assert found is not None
    return found


async def made(site: Site, found: Object) -> Object:
    objects = MemoryObjects([found])
    await scaler_of(site, objects).initialize(site)
    return copy_of(objects, found["kind"])


def test_without_reference_there_is_none() -> None:
    assert make_scaler(site_of(), MemoryObjects()) is None


# --- HorizontalPodAutoscaler


@pytest.mark.parametrize("version", ["autoscaling/v2", "autoscaling/v2beta2", "autoscaling/v1"])
async def test_the_primary_has_an_autoscaler_like_the_targets(version: str) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    copy = await made(hpa(api_version=version), autoscaler(minReplicas=2, metrics=METRICS, behavior=behavior))
    assert copy["apiVersion"] == "autoscaling/v2"
    assert copy["metadata"]["labels"] == {"team": "blue"}
    assert copy["metadata"]["ownerReferences"] == [hpa().owner]
    assert copy["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-primary"},
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": METRICS,
        "behavior": behavior,
    }


async def test_bounds_of_the_primary() -> None:
    spec = (await made(hpa(**BOUNDS), autoscaler(minReplicas=2)))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (4, 40)
    spec = (await made(keda(**BOUNDS), scaled(minReplicaCount=2)))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (4, 40)
    spec = (await made(hpa(primaryScalerReplicas={"maxReplicas": 40}), autoscaler(minReplicas=2)))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 40)


async def test_only_a_promotion_changes_the_copy() -> None:
    objects = MemoryObjects([autoscaler(minReplicas=2, metrics=METRICS)])
    scaler = scaler_of(hpa(), objects)
    await scaler.initialize(hpa())
    objects.change(
        Reference("autoscaling/v2", "HorizontalPodAutoscaler", "prod", "web"), {"spec": {"maxReplicas": 20, "metrics": None}}
    )
    theirs = {"metadata": {"labels": {"mine": "1"}, "annotations": {"note": "1"}}}
    objects.change(Reference("autoscaling/v2", "HorizontalPodAutoscaler", "prod", "web-primary"), theirs)
    objects.forget()
    await scaler.initialize(hpa())
    assert objects.writes == []
    await scaler.promote(hpa())
    await scaler.promote(hpa())
    assert len(objects.writes) == 1
    copy = copy_of(objects, "HorizontalPodAutoscaler")
    assert copy["metadata"]["labels"] == {"team": "blue", "mine": "1"}
    assert copy["metadata"]["annotations"] == {"note": "1"}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-primary"}
    assert copy["spec"] == {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 20}


async def test_a_horizontal_pod_autoscaler_is_never_touched() -> None:
    objects = MemoryObjects([autoscaler()])
    scaler = scaler_of(hpa(), objects)
    await scaler.pause(hpa())
    await scaler.resume(hpa())
    assert objects.writes == []


async def test_a_copy_that_is_gone_is_made_by_a_promotion() -> None:
    objects = MemoryObjects([autoscaler()])
    await scaler_of(hpa(), objects).promote(hpa())
    assert copy_of(objects, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 10


# --- ScaledObject


@pytest.mark.parametrize(
    ("query", "queries", "wanted"),
    [
        ('rate(x{a="web", b="web-canary", c="web-primary"}[1m])', None,
         'rate(x{a="web-primary", b="web-primary", c="web-primary"}[1m])'),
        ("pod=~'web-.*'", None, "pod=~'web-primary-.*'"),
        ("none", None, "none"),
        ("a web", {"rps": "another"}, "another"),
        ("a web", {"cpu": "another"}, "a web"),
    ],
)  # fmt: skip
async def test_queries_ask_about_the_primary(query: str, queries: dict[str, str] | None, wanted: str) -> None:
    site = keda(primaryScalerQueries=queries) if queries else keda()
    copy = await made(site, scaled(query))
    assert copy["spec"]["triggers"][0]["metadata"] == {"threshold": "5", "query": wanted}


async def test_a_scaled_object_is_copied_whole() -> None:
    advanced = {"restoreToOriginalReplicaCount": True, "horizontalPodAutoscalerConfig": {"name": "web-hpa", "behavior": {"a": 1}}}
    rest = {"fallback": {"replicas": 2}, "idleReplicaCount": 0, "initialCooldownPeriod": 30, "maxReplicaCount": 9}
    found = scaled(
        advanced=advanced, **rest, scaleTargetRef={"name": "web", "kind": "Deployment", "envSourceContainerName": "app"}
    )
    spec = (await made(keda(), found))["spec"]
    assert spec["scaleTargetRef"] == {"name": "web-primary", "kind": "Deployment", "envSourceContainerName": "app"}
    assert spec["advanced"] == {**advanced, "horizontalPodAutoscalerConfig": {"name": "web-hpa-primary", "behavior": {"a": 1}}}
    assert {name: spec[name] for name in rest} == rest
    assert "query" not in spec["triggers"][0]["metadata"]


async def test_a_copy_made_while_the_original_is_paused_is_not() -> None:
    annotations = {PAUSED: "0", "scaledobject.keda.sh/transfer-hpa-ownership": "true", "kustomize.toolkit.fluxcd.io/x": "y"}
    copy = await made(keda(), scaled(meta={"annotations": annotations, "labels": {"a": "1", "x.toolkit.fluxcd.io": "y"}}))
    assert copy["metadata"]["annotations"] == {"scaledobject.keda.sh/transfer-hpa-ownership": "true"}
    assert copy["metadata"]["labels"] == {"a": "1"}


async def test_a_promotion_keeps_labels_and_annotations_of_the_copy() -> None:
    objects = MemoryObjects([scaled(meta={"annotations": {"note": "1"}, "labels": {"a": "1"}})])
    scaler = scaler_of(keda(), objects)
    await scaler.initialize(keda())
    which = Reference("keda.sh/v1alpha1", "ScaledObject", "prod", "web")
    objects.change(which, {"spec": {"maxReplicaCount": 7}})
    await scaler.promote(keda())
    copy = copy_of(objects, "ScaledObject")
    assert copy["spec"]["maxReplicaCount"] == 7
    assert copy["metadata"]["annotations"] == {"note": "1"}
    assert copy["metadata"]["labels"] == {"a": "1"}
    objects.change(which, {"spec": {"maxReplicaCount": None}})
    await scaler.promote(keda())
    assert "maxReplicaCount" not in copy_of(objects, "ScaledObject")["spec"]


async def test_pausing_writes_once() -> None:
    objects = MemoryObjects([scaled(meta={"annotations": {"note": "1"}})])
    scaler = scaler_of(keda(), objects)
    which = Reference("keda.sh/v1alpha1", "ScaledObject", "prod", "web")
    for call, wanted in ((scaler.pause, {"note": "1", PAUSED: "0"}), (scaler.resume, {"note": "1"})):
        await call(keda())
        await call(keda())
        found = objects.now(which)
        assert found is not None
        assert found["metadata"]["annotations"] == wanted
    assert len(objects.writes) == 2


# --- failures


@pytest.mark.parametrize("call", ["initialize", "promote"])
@pytest.mark.parametrize(("site", "text"), [
    (hpa(), 'HorizontalPodAutoscaler web.prod get query error: horizontalpodautoscalers.autoscaling "web" not found'),
    (keda(), 'Keda ScaledObject web.prod get query error: scaledobjects.keda.sh "web" not found'),
])  # fmt: skip
async def test_a_missing_autoscaler(site: Site, text: str, call: str) -> None:
    with pytest.raises(Problem) as caught:
        await getattr(scaler_of(site, MemoryObjects()), call)(site)
    assert str(caught.value) == text


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_a_missing_scaled_object_cannot_be_paused(call: str) -> None:
    with pytest.raises(Problem, match=r"^Keda ScaledObject web\.prod get query error: "):
        await getattr(scaler_of(keda(), MemoryObjects()), call)(keda())


@pytest.mark.parametrize(
    ("site", "found", "verb", "name", "call", "text"),
    [
        (
            hpa(),
            autoscaler(),
            "create",
            "web-primary",
            "initialize",
            "creating HorizontalPodAutoscaler v2 web-primary.prod failed: no",
        ),
        (keda(), scaled(), "create", "web-primary", "initialize", "creating Keda ScaledObject web-primary.prod failed: no"),
        (keda(), scaled(), "patch", "web", "pause", "updating Keda ScaledObject web.prod failed: no"),
    ],
)
async def test_refused_writes(site: Site, found: Object, verb: str, name: str, call: str, text: str) -> None:
    objects = MemoryObjects([found])
    objects.fail[verb, found["kind"], name] = ReconcileError("no")
    with pytest.raises(Problem) as caught:
        await getattr(scaler_of(site, objects), call)(site)
    assert str(caught.value) == text


async def test_an_absent_definition_is_named() -> None:
    objects = MemoryObjects()
    objects.missing_kinds.add(("keda.sh/v1alpha1", "ScaledObject"))
    with pytest.raises(Problem, match=r"^Keda ScaledObject web\.prod get query error: the server could not find"):
        await scaler_of(keda(), objects).initialize(keda())


@pytest.mark.parametrize(
    ("site", "found", "wanted"),
    [
        (site_of(), None, 1),
        (hpa(), None, 1),
        (hpa(), autoscaler(), 1),
        (hpa(), autoscaler(minReplicas=0), 1),
        (hpa(), autoscaler(minReplicas=3), 3),
        (keda(), scaled(minReplicaCount=3), 3),
        (keda(), scaled(), 1),
    ],
)
async def test_the_least_replicas(site: Site, found: Object | None, wanted: int) -> None:
    assert await least_replicas(site, MemoryObjects([found] if found else [])) == wanted
