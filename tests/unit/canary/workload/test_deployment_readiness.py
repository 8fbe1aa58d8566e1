"""When Deployments are ready, and what is said while they are not."""

from __future__ import annotations

import pytest

from canary.settings import CanarySettings
from canary.workload.base import READY, Readiness
from canary.workload.deployment import DeploymentWorkload, deployment_readiness
from reconcile.ports.cluster import Object, Reference
from tests.support.canary_workloads import NOW, deployment, site_of, spec_of
from tests.support.clock import VirtualClock
from tests.support.objects import MemoryObjects

TARGET = Reference("apps/v1", "Deployment", "prod", "web")
PRIMARY = Reference("apps/v1", "Deployment", "prod", "web-primary")

UPDATED = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
PROGRESSING = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
EXCEEDED = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
LATE, IN_TIME = "2026-01-01T11:50:00Z", "2026-01-01T11:50:01Z"
UNAVAILABLE = {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "lastUpdateTime": LATE}
WAITING = "waiting for rollout to finish: "
MISSING = WAITING + "1 of 2 (readyThreshold 100%) updated replicas are available"


@pytest.mark.parametrize(
    ("status", "percent", "wanted"),
    [
        (UPDATED, 100, READY),
        ({**UPDATED, "availableReplicas": 1}, 50, READY),
        ({**UPDATED, "availableReplicas": 0}, 49, READY),
        ({**UPDATED, "conditions": [PROGRESSING, UNAVAILABLE]}, 100, READY),
        ({}, 100, Readiness(False, WAITING + "observed deployment generation less than desired generation")),
        ({**UPDATED, "conditions": [EXCEEDED]}, 100, Readiness(False, 'deployment "web" exceeded its progress deadline', False)),
        ({**UPDATED, "updatedReplicas": 1}, 100, Readiness(False, WAITING + "1 out of 2 new replicas have been updated")),
        ({**UPDATED, "replicas": 5}, 100, Readiness(False, WAITING + "3 old replicas are pending termination")),
        ({**UPDATED, "availableReplicas": 1}, 100, Readiness(False, MISSING)),
        ({**UPDATED, "availableReplicas": 1, "conditions": [UNAVAILABLE]}, 100, Readiness(False, MISSING)),
        ({**UPDATED, "availableReplicas": 1, "conditions": [PROGRESSING, UNAVAILABLE]}, 100, Readiness(False, MISSING, False)),
        ({**UPDATED, "availableReplicas": 1, "conditions": [PROGRESSING, {**UNAVAILABLE, "lastUpdateTime": IN_TIME}]},
         100, Readiness(False, MISSING)),
        ({**UPDATED, "availableReplicas": 1, "conditions": [PROGRESSING, {**UNAVAILABLE, "lastUpdateTime": "soon"}]},
         100, Readiness(False, MISSING)),
        ({**UPDATED, "availableReplicas": 1, "conditions": [PROGRESSING, {**UNAVAILABLE, "status": "True"}]},
         100, Readiness(False, MISSING)),
    ],
)  # fmt: skip
def test_readiness_of_a_deployment(status: Object, percent: int, wanted: Readiness) -> None:
    found = deployment()
    found["metadata"]["generation"] = 1
    assert deployment_readiness({**found, "status": status}, percent, 599, NOW) == wanted


def test_a_deployment_at_zero_is_ready() -> None:
    found = deployment(replicas=0)
    assert deployment_readiness({**found, "status": {"observedGeneration": 1}}, 100, 600, NOW) == READY


def both_sides() -> tuple[DeploymentWorkload, MemoryObjects]:
    objects = MemoryObjects([deployment(), deployment("web-primary")])
    return DeploymentWorkload(objects, CanarySettings(), VirtualClock(NOW)), objects


async def test_readiness_of_both_sides_has_its_own_threshold_and_prefix() -> None:
    workload, objects = both_sides()
    for which in (TARGET, PRIMARY):
        objects.status(which, {**UPDATED, "observedGeneration": 9, "availableReplicas": 1})
    assert await workload.primary_ready(site_of()) == Readiness(False, f"web-primary.prod not ready: {MISSING}")
    assert await workload.canary_ready(site_of()) == Readiness(False, f"canary deployment web.prod not ready: {MISSING}")
    site = site_of(spec_of(analysis={"stepWeight": 10, "primaryReadyThreshold": 50, "canaryReadyThreshold": 0}))
    assert await workload.primary_ready(site) == READY
    assert await workload.canary_ready(site) == READY


async def test_the_deadline_is_the_one_of_the_canary() -> None:
    workload, objects = both_sides()
    late = {**UPDATED, "observedGeneration": 9, "availableReplicas": 1, "conditions": [PROGRESSING, UNAVAILABLE]}
    objects.status(PRIMARY, late)
    assert (await workload.primary_ready(site_of())).retriable
    assert not (await workload.primary_ready(site_of(spec_of(progressDeadlineSeconds=599)))).retriable
