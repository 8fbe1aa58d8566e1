"""Deployments as targets: bootstrap, a lost primary, promotion, size."""

from __future__ import annotations

from typing import Any

import pytest

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload.base import Demand
from canary.workload.deployment import DeploymentWorkload
from canary.workload.revision import revision_of
from reconcile.errors import Conflict, ReconcileError
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_workloads import NOW, autoscaler, deployment, hpa_ref, pod_spec, site_of, spec_of
from tests.support.clock import VirtualClock
from tests.support.objects import MemoryObjects

TARGET = Reference("apps/v1", "Deployment", "prod", "web")
PRIMARY = Reference("apps/v1", "Deployment", "prod", "web-primary")
FLAGGER_HASH = "85d557f47b"


def setting(*found: Object, settings: CanarySettings | None = None) -> tuple[DeploymentWorkload, MemoryObjects]:
    objects = MemoryObjects(found)
    return DeploymentWorkload(objects, settings or CanarySettings(), VirtualClock(NOW)), objects


def now(objects: MemoryObjects, which: Reference) -> Object:
    found = objects.now(which)
    assert found is not None
    return found


def size(objects: MemoryObjects, which: Reference = TARGET) -> int:
    return int(now(objects, which)["spec"]["replicas"])


def image(objects: MemoryObjects, which: Reference) -> str:
    return str(now(objects, which)["spec"]["template"]["spec"]["containers"][0]["image"])


def release(objects: MemoryObjects, tag: str = "2") -> None:
    objects.change(TARGET, {"spec": {"template": {"spec": pod_spec(f"example.org/web:{tag}")}}})


def revision(objects: MemoryObjects) -> str:
    return revision_of(now(objects, TARGET)["spec"]["template"])


async def started(*found: Object, site: Site | None = None, replicas: int = 2) -> tuple[DeploymentWorkload, MemoryObjects]:
    workload, objects = setting(deployment(replicas=replicas), *found)
    await workload.initialize(site or site_of())
    await workload.scale_to_zero(site or site_of())
    objects.forget()
    return workload, objects


# --- the target


async def test_what_is_read_of_a_target() -> None:
    pod = pod_spec()
    pod["containers"][0]["ports"] = [{"name": "metrics", "containerPort": 9797}]
    workload, objects = setting(deployment(pod=pod, labels={"app.kubernetes.io/name": "front", "name": "web"}))
    site = site_of(spec_of(service={"portDiscovery": True}))
    target = await workload.target(site.canary)
    assert (target.label, target.value) == ("name", "web")
    assert target.ports == {"metrics": 9797}
    assert target.images == ("app=example.org/web:1",)
    assert (target.generation, target.revision) == (1, revision(objects))
    assert (await workload.target(site_of().canary)).ports == {}
    await workload.scale_to_zero(site)
    scaled = await workload.target(site.canary)
    assert (scaled.revision, scaled.generation) == (target.revision, 2)


async def test_a_target_needs_a_selector_label() -> None:
    workload, _ = setting(deployment(labels={"component": "web"}))
    with pytest.raises(Problem) as caught:
        await workload.target(site_of().canary)
    wanted = "spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name]"
    assert str(caught.value) == f"getSelectorLabel failed: deployment web.prod {wanted}"


@pytest.mark.parametrize(
    "call", ["target", "configs", "same_as_primary", "canary_ready", "scale_to_zero", "scale_from_zero", "give_back", "demand"]
)
async def test_a_missing_target(call: str) -> None:
    workload, _ = setting()
    argument: Any = site_of().canary if call == "target" else site_of()
    with pytest.raises(Problem) as caught:
        await getattr(workload, call)(argument)
    assert str(caught.value) == 'deployment web.prod get query error: deployments.apps "web" not found'


async def test_without_tracking_there_are_no_configs() -> None:
    pod = pod_spec()
    pod["containers"][0]["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    workload, objects = setting(deployment(pod=pod), settings=CanarySettings(enable_config_tracking=False))
    assert await workload.configs(site_of()) is None
    await workload.initialize(site_of())
    template = now(objects, PRIMARY)["spec"]["template"]
    assert template["spec"]["containers"][0]["envFrom"] == [{"configMapRef": {"name": "settings"}}]
    assert await workload.same_as_primary(site_of())
    assert {kind for _, kind, _ in objects.reads} == {"Deployment"}


# --- the primary


async def test_a_new_primary() -> None:
    target = deployment(replicas=3)
    target["metadata"]["annotations"] = {"note": "1", "kustomize.toolkit.fluxcd.io/prune": "disabled"}
    target["spec"] |= {
        "minReadySeconds": 5,
        "progressDeadlineSeconds": 60,
        "revisionHistoryLimit": 2,
        "strategy": {"type": "Recreate"},
    }
    target["spec"]["paused"] = False
    workload, objects = setting(target)
    await workload.initialize(site_of())
    found = now(objects, PRIMARY)
    assert found["metadata"]["annotations"] == {"note": "1"}
    assert found["metadata"]["ownerReferences"] == [site_of().owner]
    spec = found["spec"]
    assert spec.pop("template")["spec"] == pod_spec()
    assert spec == {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web-primary"}},
        "minReadySeconds": 5,
        "progressDeadlineSeconds": 60,
        "revisionHistoryLimit": 2,
        "strategy": {"type": "Recreate"},
    }


@pytest.mark.parametrize(("replicas", "spec", "wanted"), [
    (None, spec_of(), 1),
    (0, spec_of(), 1),
    (0, spec_of(autoscalerRef=hpa_ref()), 4),
    (7, spec_of(autoscalerRef=hpa_ref()), 7),
])  # fmt: skip
async def test_the_size_of_a_new_primary(replicas: int | None, spec: Object, wanted: int) -> None:
    workload, objects = setting(deployment(replicas=replicas), autoscaler(minReplicas=4))
    await workload.initialize(site_of(spec))
    assert size(objects, PRIMARY) == wanted


async def test_a_primary_is_made_once() -> None:
    workload, objects = await started()
    release(objects)
    await workload.initialize(site_of())
    assert objects.writes == []
    assert image(objects, PRIMARY) == "example.org/web:1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ReconcileError("quota exceeded"), "creating deployment web-primary.prod failed: quota exceeded"),
        (Conflict("exists"), "creating deployment web-primary.prod failed: exists"),
    ],
)
async def test_a_primary_that_cannot_be_made(error: ReconcileError, text: str) -> None:
    workload, objects = setting(deployment())
    objects.fail["create", "Deployment", "web-primary"] = error
    with pytest.raises(Problem) as caught:
        await workload.initialize(site_of())
    assert str(caught.value) == f"createPrimaryDeployment failed: {text}"


async def lost(phase: str, promoted: str, **more: Any) -> tuple[MemoryObjects, Problem | None]:
    """A primary that was deleted when the target had a new revision; `REVISION` stands for that one."""
    workload, objects = await started()
    release(objects)
    objects.remove(PRIMARY)
    values = {name: value.replace("REVISION", revision(objects)) for name, value in {"promoted": promoted, **more}.items()}
    annotations = {"imagebot.dev/recreate-primary": values["allowed"]} if "allowed" in values else {}
    site = site_of(
        phase=phase, lastPromotedSpec=values["promoted"], lastAppliedSpec=values.get("applied", "x"), annotations=annotations
    )
    try:
        await workload.initialize(site)
    except Problem as problem:
        return objects, problem
    return objects, None


@pytest.mark.parametrize(
    ("phase", "promoted", "more"),
    [
        ("Initializing", "REVISION", {}),
        ("Failed", "", {}),
        ("Succeeded", "REVISION", {}),
        ("Progressing", "REVISION", {}),
        ("Promoting", "456789bcdf45", {"applied": "REVISION"}),
        ("Finalising", "456789bcdf45", {"applied": "REVISION"}),
        ("Initialized", FLAGGER_HASH, {}),
        ("Failed", "456789bcdf45", {"allowed": "REVISION"}),
    ],
)
async def test_a_lost_primary_is_made_again_of_what_was_promoted(phase: str, promoted: str, more: Any) -> None:
    objects, problem = await lost(phase, promoted, **more)
    assert problem is None
    assert image(objects, PRIMARY) == "example.org/web:2"


@pytest.mark.parametrize(
    ("phase", "promoted", "more"),
    [
        ("Failed", "456789bcdf45", {}),
        ("Failed", "456789bcdf45", {"allowed": "456789bcdf45"}),
        ("Progressing", "456789bcdf45", {"applied": "REVISION"}),
        ("Promoting", "456789bcdf45", {}),
        ("Succeeded", "456789bcdf45", {}),
        ("Failed", FLAGGER_HASH, {}),
    ],
)
async def test_a_lost_primary_is_not_made_of_what_was_not(phase: str, promoted: str, more: Any) -> None:
    objects, problem = await lost(phase, promoted, **more)
    found = revision(objects)
    assert str(problem) == (
        "createPrimaryDeployment failed: deployment web-primary.prod is missing (deleted, or spec.targetRef was changed) and "
        f"web.prod holds revision {found}, which was not promoted (promoted: {promoted}); go back to the promoted revision, or "
        f"annotate the Canary with imagebot.dev/recreate-primary={found} to make the primary of what is there"
    )
    assert objects.now(PRIMARY) is None


# --- promotion


async def test_promotion_is_one_write_that_leaves_the_rest_alone() -> None:
    workload, objects = await started()
    release(objects)
    objects.change(TARGET, {"metadata": {"labels": {"tier": "1"}}, "spec": {"replicas": 5, "minReadySeconds": 3}})
    theirs = {"deployment.kubernetes.io/revision": "4", "note": "theirs"}
    objects.change(PRIMARY, {"metadata": {"annotations": theirs}, "spec": {"paused": True, "revisionHistoryLimit": 9}})
    before = now(objects, PRIMARY)
    await workload.promote(site_of())
    assert objects.writes == [("patch", "Deployment", "web-primary")]
    found = now(objects, PRIMARY)
    assert found["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "4"}
    assert found["metadata"]["labels"] == {"app": "web-primary"}
    assert found["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    spec = {name: value for name, value in found["spec"].items() if name != "template"}
    selector = {"matchLabels": {"app": "web-primary"}}
    assert spec == {"replicas": 5, "selector": selector, "minReadySeconds": 3, "paused": True}
    assert image(objects, PRIMARY) == "example.org/web:2"
    assert await workload.same_as_primary(site_of())


async def test_a_promotion_that_is_repeated_writes_nothing() -> None:
    workload, objects = await started()
    release(objects)
    await workload.scale_from_zero(site_of())
    await workload.promote(site_of())
    # An API server does not keep the empty map.
    objects.change(PRIMARY, {"metadata": {"annotations": None}})
    objects.forget()
    await workload.promote(site_of())
    assert objects.patches == []


async def test_a_promotion_is_not_put_off_by_a_moving_status() -> None:
    workload, objects = await started()
    release(objects)
    objects.before["Deployment", "web-primary"] = lambda: objects.status(PRIMARY, {"readyReplicas": 1})
    await workload.promote(site_of())
    assert image(objects, PRIMARY) == "example.org/web:2"
    assert now(objects, PRIMARY)["status"] == {"readyReplicas": 1}


@pytest.mark.parametrize(("spec", "replicas", "wanted"), [
    (spec_of(), 5, 5), (spec_of(), 0, 2), (spec_of(autoscalerRef=hpa_ref()), 5, 2),
])  # fmt: skip
async def test_the_size_after_a_promotion(spec: Object, replicas: int, wanted: int) -> None:
    workload, objects = await started(autoscaler())
    release(objects)
    objects.change(TARGET, {"spec": {"replicas": replicas}})
    await workload.promote(site_of(spec))
    assert size(objects, PRIMARY) == wanted


async def test_a_promotion_without_primary() -> None:
    workload, _ = setting(deployment())
    with pytest.raises(Problem) as caught:
        await workload.promote(site_of())
    missing = 'deployment web-primary.prod get query error: deployments.apps "web-primary" not found'
    assert str(caught.value) == f"updating deployment web-primary.prod template spec failed: {missing}"


async def test_a_change_of_configuration_alone_rolls_the_pods() -> None:
    pod = pod_spec()
    pod["containers"][0]["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "prod"}, "data": {"a": "1"}}
    workload, objects = setting(deployment(pod=pod), config)
    await workload.initialize(site_of())
    before = now(objects, PRIMARY)["spec"]["template"]
    objects.change(Reference("v1", "ConfigMap", "prod", "settings"), {"data": {"a": "2"}})
    assert not await workload.same_as_primary(site_of())
    await workload.promote(site_of())
    after = now(objects, PRIMARY)["spec"]["template"]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] != before["metadata"]["annotations"]
    assert await workload.same_as_primary(site_of())


async def test_whether_a_primary_is_the_same() -> None:
    workload, objects = await started()
    assert await workload.same_as_primary(site_of())
    objects.change(PRIMARY, {"spec": {"template": {"metadata": {"annotations": {"flagger-id": "of-flagger"}}}}})
    assert await workload.same_as_primary(site_of())
    objects.change(PRIMARY, {"spec": {"template": {"spec": {"priority": 1}}}})
    assert not await workload.same_as_primary(site_of())
    objects.remove(PRIMARY)
    assert not await workload.same_as_primary(site_of())


# --- size


async def test_scaling_writes_only_what_differs() -> None:
    workload, objects = setting(deployment(replicas=3))
    await workload.scale_from_zero(site_of())
    assert objects.writes == []
    await workload.scale_to_zero(site_of())
    await workload.scale_to_zero(site_of())
    assert objects.patches == [("Deployment", "web", {"spec": {"replicas": 0}})]


BLUE_GREEN: Object = {"iterations": 3}


@pytest.mark.parametrize(
    ("spec", "least", "wanted"),
    [
        (spec_of(), None, 6),
        (spec_of(autoscalerRef=hpa_ref()), None, 1),
        (spec_of(autoscalerRef=hpa_ref()), 0, 1),
        (spec_of(autoscalerRef=hpa_ref()), 3, 3),
        (spec_of(autoscalerRef=hpa_ref(), analysis=BLUE_GREEN), 3, 6),
        (spec_of(autoscalerRef=hpa_ref(), analysis=BLUE_GREEN), 8, 8),
        (spec_of(autoscalerRef=hpa_ref(), analysis={**BLUE_GREEN, "match": [{"headers": {"a": {"exact": "b"}}}]}), 3, 3),
        ({**spec_of(autoscalerRef=hpa_ref(), analysis=BLUE_GREEN), "provider": "kubernetes"}, 3, 3),
    ],
)
async def test_the_size_of_a_target_that_starts(spec: Object, least: int | None, wanted: int) -> None:
    workload, objects = await started(autoscaler(**({} if least is None else {"minReplicas": least})), replicas=6)
    await workload.scale_from_zero(site_of(spec))
    assert size(objects) == wanted


@pytest.mark.parametrize(("primary", "wanted"), [(4, 4), (0, 1), (None, 1)])
async def test_a_target_starts_with_one_pod_at_least(primary: int | None, wanted: int) -> None:
    workload, objects = await started()
    if primary is None:
        objects.remove(PRIMARY)
    else:
        objects.change(PRIMARY, {"spec": {"replicas": primary}})
    await workload.scale_from_zero(site_of())
    assert size(objects) == wanted


@pytest.mark.parametrize(
    ("spec", "target", "primary", "wanted"),
    [
        (spec_of(), 0, 4, 4),
        (spec_of(), 2, 4, 4),
        (spec_of(), 5, 4, 5),
        (spec_of(), 0, 0, 1),
        (spec_of(), 0, None, 1),
        (spec_of(autoscalerRef=hpa_ref()), 0, 4, 4),
        (spec_of(autoscalerRef=hpa_ref()), 0, 0, 3),
        (spec_of(autoscalerRef=hpa_ref()), 0, None, 3),
    ],
)
async def test_what_is_given_back_covers_the_demand(spec: Object, target: int, primary: int | None, wanted: int) -> None:
    workload, objects = await started(autoscaler(minReplicas=3))
    objects.change(TARGET, {"spec": {"replicas": target}})
    if primary is None:
        objects.remove(PRIMARY)
    else:
        objects.change(PRIMARY, {"spec": {"replicas": primary}})
    await workload.give_back(site_of(spec))
    assert size(objects) == wanted


async def test_scaling_that_fails() -> None:
    workload, objects = setting(deployment(replicas=3))
    objects.fail["patch", "Deployment", "web"] = ReconcileError("away")
    with pytest.raises(Problem, match=r"^updating deployment web\.prod failed: away$"):
        await workload.scale_to_zero(site_of())


async def test_the_demand() -> None:
    workload, objects = await started()
    objects.status(PRIMARY, {"readyReplicas": 1})
    objects.status(TARGET, {"readyReplicas": 3})
    assert await workload.demand(site_of()) == Demand(1, 3, 2)
    objects.change(TARGET, {"spec": {"replicas": 4}})
    objects.remove(PRIMARY)
    assert await workload.demand(site_of()) == Demand(0, 3, 4)
