"""DaemonSets as targets."""

from __future__ import annotations

from typing import Any

import pytest

from canary.errors import Problem
from canary.settings import CanarySettings
from canary.site import Site
from canary.workload import make_workload
from canary.workload.base import READY, Demand, Readiness
from canary.workload.daemonset import NOWHERE, DaemonSetWorkload, daemonset_readiness
from canary.workload.deployment import DeploymentWorkload
from canary.workload.knative import KnativeWorkload
from canary.workload.revision import revision_of
from canary.workload.service import ServiceWorkload
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_workloads import NOW, daemonset, pod_spec, site_of, spec_of
from tests.support.clock import VirtualClock
from tests.support.objects import MemoryObjects

TARGET = Reference("apps/v1", "DaemonSet", "prod", "web")
PRIMARY = Reference("apps/v1", "DaemonSet", "prod", "web-primary")
WAITING = "waiting for rollout to finish: "
DEADLINE = Readiness(False, "exceeded its progressDeadlineSeconds: 600", False)


def site(**more: Any) -> Site:
    return site_of(spec_of("DaemonSet"), **more)


def setting(found: Object) -> tuple[DaemonSetWorkload, MemoryObjects]:
    objects = MemoryObjects([found])
    return DaemonSetWorkload(objects, CanarySettings(), VirtualClock(NOW)), objects


def now(objects: MemoryObjects, which: Reference) -> Object:
    found = objects.now(which)
    assert found is not None
    return found


def nodes(objects: MemoryObjects, which: Reference = TARGET) -> Any:
    return now(objects, which)["spec"]["template"]["spec"].get("nodeSelector")


@pytest.mark.parametrize("selector", [None, {"disk": "ssd"}])
async def test_it_is_scaled_by_a_node_selector_that_is_no_part_of_the_revision(selector: Object | None) -> None:
    workload, objects = setting(daemonset(pod=pod_spec(**({"nodeSelector": selector} if selector else {}))))
    before = await workload.target(site().canary)
    assert before.revision == revision_of(now(objects, TARGET)["spec"]["template"])
    await workload.scale_to_zero(site())
    await workload.scale_to_zero(site())
    assert nodes(objects) == {**(selector or {}), NOWHERE: "true"}
    assert (await workload.target(site().canary)).revision == before.revision
    await workload.scale_from_zero(site())
    await workload.give_back(site())
    assert nodes(objects) == (selector or {})
    assert (await workload.target(site().canary)).revision == before.revision
    assert len(objects.writes) == 2


async def test_primary_and_promotion() -> None:
    found = daemonset(pod=pod_spec(topologySpreadConstraints=[{"labelSelector": {"matchLabels": {"app": "web"}}}]))
    found["spec"] |= {"minReadySeconds": 3, "revisionHistoryLimit": 2}
    workload, objects = setting(found)
    await workload.scale_to_zero(site())
    await workload.initialize(site())
    made = now(objects, PRIMARY)
    assert made["metadata"]["ownerReferences"] == [site().owner]
    spec = {name: value for name, value in made["spec"].items() if name != "template"}
    assert spec == {
        "selector": {"matchLabels": {"app": "web-primary"}},
        "minReadySeconds": 3,
        "revisionHistoryLimit": 2,
        "updateStrategy": {"type": "RollingUpdate"},
    }
    assert made["spec"]["template"]["spec"] == found["spec"]["template"]["spec"]
    assert await workload.same_as_primary(site())
    change = {"minReadySeconds": None, "template": {"spec": {"containers": pod_spec("example.org/web:2")["containers"]}}}
    objects.change(TARGET, {"spec": change})
    assert not await workload.same_as_primary(site())
    await workload.promote(site())
    promoted = now(objects, PRIMARY)["spec"]
    assert promoted["template"]["spec"]["containers"] == pod_spec("example.org/web:2")["containers"]
    assert "minReadySeconds" not in promoted
    assert NOWHERE not in (nodes(objects, PRIMARY) or {})
    objects.forget()
    await workload.promote(site())
    assert objects.writes == []


async def test_only_rolling_updates() -> None:
    workload, objects = setting(daemonset(strategy="OnDelete"))
    with pytest.raises(Problem) as caught:
        await workload.initialize(site())
    text = "daemonset web.prod must have RollingUpdate strategy but have OnDelete"
    assert str(caught.value) == f"createPrimaryDaemonSet failed: {text}"
    objects.put({**daemonset(), "metadata": {"name": "web-primary", "namespace": "prod"}})
    with pytest.raises(Problem) as caught:
        await workload.promote(site())
    assert str(caught.value) == f"updating daemonset web-primary.prod template spec failed: {text}"


async def test_texts_about_targets() -> None:
    workload, objects = setting(daemonset())
    with pytest.raises(Problem, match=r'^daemonset web-primary\.prod get query error: daemonsets\.apps "web-primary" not found$'):
        await workload.primary_ready(site())
    objects.put({**daemonset(), "spec": {**daemonset()["spec"], "selector": {"matchLabels": {"tier": "1"}}}})
    with pytest.raises(Problem, match=r"must contain one of \[app name app\.kubernetes\.io/name\]'$"):
        await workload.target(site().canary)


COUNTS = {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}
SINCE = "2026-01-01T11:50:00Z"
FEW = Readiness(False, WAITING + "2 of 3 (readyThreshold 100%) updated pods are available")


@pytest.mark.parametrize(
    ("status", "percent", "since", "wanted"),
    [
        (COUNTS, 100, None, READY),
        ({**COUNTS, "numberAvailable": 2}, 67, None, READY),
        ({"observedGeneration": 1}, 100, SINCE, READY),
        ({}, 100, SINCE, Readiness(False, WAITING + "observed daemonset generation less than desired generation")),
        ({**COUNTS, "updatedNumberScheduled": 1}, 100, None, Readiness(False, WAITING + "1 out of 3 new pods have been updated")),
        ({**COUNTS, "numberAvailable": 2}, 100, None, FEW),
        ({**COUNTS, "numberAvailable": 2}, 100, SINCE, FEW),
        ({**COUNTS, "numberAvailable": 2}, 100, "2026-01-01T11:49:59Z", DEADLINE),
        ({**COUNTS, "updatedNumberScheduled": 2}, 100, "2026-01-01T11:00:00Z", DEADLINE),
        ({**COUNTS, "numberAvailable": 2}, 100, "before noon", FEW),
    ],
)
def test_readiness_of_a_daemonset(status: Object, percent: int, since: str | None, wanted: Readiness) -> None:
    found = daemonset()
    found["metadata"]["generation"] = 1
    assert daemonset_readiness({**found, "status": status}, percent, 600, since, NOW) == wanted


async def test_readiness_of_both_sides() -> None:
    workload, objects = setting(daemonset())
    await workload.initialize(site())
    for which in (TARGET, PRIMARY):
        objects.status(which, {**COUNTS, "numberAvailable": 2})
    begun = site(phase="Progressing", lastTransitionTime=SINCE)
    late = site(phase="Progressing", lastTransitionTime="2026-01-01T11:00:00Z")
    assert await workload.primary_ready(begun) == Readiness(False, f"primary daemonset web-primary.prod not ready: {FEW.text}")
    canary = "canary damonset web.prod not ready with retryable"
    assert await workload.canary_ready(begun) == Readiness(False, f"{canary} true: {FEW.text}")
    assert await workload.canary_ready(late) == Readiness(False, f"{canary} false: {DEADLINE.text}", False)


@pytest.mark.parametrize("phase", ["Initialized", "Succeeded", "Failed"])
async def test_a_node_that_joins_long_after_the_last_run_is_no_failure(phase: str) -> None:
    workload, objects = setting(daemonset())
    await workload.initialize(site())
    objects.status(PRIMARY, {**COUNTS, "numberAvailable": 2})
    assert (await workload.primary_ready(site(phase=phase, lastTransitionTime="2025-01-01T00:00:00Z"))).retriable


async def test_the_demand_is_a_pod_for_each_node() -> None:
    workload, objects = setting(daemonset())
    objects.status(TARGET, {"numberReady": 2, "desiredNumberScheduled": 3})
    assert await workload.demand(site()) == Demand(0, 2, 3)
    await workload.initialize(site())
    objects.status(PRIMARY, {"numberReady": 1, "desiredNumberScheduled": 4})
    assert await workload.demand(site()) == Demand(1, 2, 4)


@pytest.mark.parametrize(
    ("kind", "api_version", "made"),
    [
        ("Deployment", "apps/v1", DeploymentWorkload),
        ("DaemonSet", "apps/v1", DaemonSetWorkload),
        ("Service", "v1", ServiceWorkload),
        ("Service", "serving.knative.dev/v1", KnativeWorkload),
    ],
)
def test_each_kind_has_its_workload(kind: str, api_version: str, made: type) -> None:
    assert type(make_workload(kind, api_version, MemoryObjects(), CanarySettings())) is made


def test_other_kinds_have_none() -> None:
    with pytest.raises(Problem, match="must be Deployment, DaemonSet or Service, not StatefulSet"):
        make_workload("StatefulSet", "apps/v1", MemoryObjects(), CanarySettings())
