"""How objects are doing, by kind: the rules of kstatus."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconcile.api.kstatus import NO_DEADLINE, Status, Summary, in_progress, summarize, with_pods
from reconcile.ports.clock import timestamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def thing(api_version: str, kind: str, spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec or {}, "status": status or {}}


def said(found: dict[str, Any]) -> tuple[str, str]:
    summary = summarize(found, NOW)
    return summary.status.value, summary.message


DONE = condition("Progressing", reason="NewReplicaSetAvailable")
AVAILABLE = condition("Available")
FULL = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}


@pytest.mark.parametrize("api_version", ["apps/v1", "extensions/v1beta1"])
@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, {"conditions": [DONE, AVAILABLE]}, ("Current", "Deployment is available. Replicas: 3")),
        ({}, {"conditions": [AVAILABLE]}, ("InProgress", "ReplicaSet not Available")),
        (
            {},
            {"conditions": [condition("Progressing", reason="ReplicaSetUpdated"), AVAILABLE]},
            ("InProgress", "ReplicaSet not Available"),
        ),
        ({}, {"conditions": [DONE]}, ("InProgress", "Deployment not Available")),
        ({}, {"conditions": [DONE, condition("Available", "False")]}, ("InProgress", "Deployment not Available")),
        (
            {"progressDeadlineSeconds": NO_DEADLINE},
            {"conditions": [AVAILABLE]},
            ("Current", "Deployment is available. Replicas: 3"),
        ),
        ({"progressDeadlineSeconds": None}, {"conditions": [AVAILABLE]}, ("Current", "Deployment is available. Replicas: 3")),
        (
            {},
            {"conditions": [condition("Progressing", "False", "ProgressDeadlineExceeded")], "replicas": 1},
            ("Failed", "Progress deadline exceeded"),
        ),
        ({}, {"replicas": 2}, ("InProgress", "Replicas: 2/3")),
        ({}, {"updatedReplicas": 1}, ("InProgress", "Updated: 1/3")),
        ({}, {"replicas": 5}, ("InProgress", "Pending termination: 2")),
        ({}, {"availableReplicas": 0}, ("InProgress", "Available: 0/3")),
        ({}, {"readyReplicas": 2}, ("InProgress", "Ready: 2/3")),
        ({"replicas": None}, {"replicas": 0}, ("InProgress", "Replicas: 0/1")),
    ],
)
def test_deployment(api_version: str, spec: Any, status: Any, expected: tuple[str, str]) -> None:
    found = thing(api_version, "Deployment", {"replicas": 3, "progressDeadlineSeconds": 600, **spec}, {**FULL, **status})
    assert said(found) == expected


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"updateStrategy": {"type": "OnDelete"}}, {"replicas": 0}, "Current"),
        ({}, {}, "Current"),
        ({}, {"replicas": 2}, ("InProgress", "Replicas: 2/3")),
        ({}, {"readyReplicas": 2}, ("InProgress", "Ready: 2/3")),
        ({}, {"replicas": 4}, ("InProgress", "Pending termination: 1")),
        ({}, {"currentReplicas": 1}, ("InProgress", "current: 1/3")),
        ({}, {"updateRevision": "b"}, ("InProgress", "Waiting for updated revision to match current")),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": 1}}},
            {"updatedReplicas": 2, "updateRevision": "b"},
            ("Current", "Partition rollout complete. updated: 2"),
        ),
        ({"updateStrategy": {"rollingUpdate": {"partition": 0}}}, {"updatedReplicas": 2}, ("InProgress", "updated: 2/3")),
    ],
)
def test_stateful_set(spec: Any, status: Any, expected: Any) -> None:
    full = {"replicas": 3, "readyReplicas": 3, "currentReplicas": 3, "currentRevision": "a", "updateRevision": "a"}
    found = said(thing("apps/v1", "StatefulSet", {"replicas": 3, **spec}, {**full, **status}))
    assert found == expected or found[0] == expected


SCHEDULED = {
    "observedGeneration": 1,
    "desiredNumberScheduled": 2,
    "currentNumberScheduled": 2,
    "updatedNumberScheduled": 2,
    "numberAvailable": 2,
    "numberReady": 2,
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Current", "All replicas scheduled as expected. Replicas: 2")),
        ({"observedGeneration": None}, ("InProgress", "the controller has not observed it yet")),
        ({"desiredNumberScheduled": None}, ("InProgress", "Missing .status.desiredNumberScheduled")),
        ({"currentNumberScheduled": 1}, ("InProgress", "Current: 1/2")),
        ({"updatedNumberScheduled": 1}, ("InProgress", "Updated: 1/2")),
        ({"numberAvailable": 1}, ("InProgress", "Available: 1/2")),
        ({"numberReady": 1}, ("InProgress", "Ready: 1/2")),
    ],
)
def test_daemon_set(status: Any, expected: tuple[str, str]) -> None:
    assert said(thing("apps/v1", "DaemonSet", status={**SCHEDULED, **status}, generation=1)) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Current", "ReplicaSet is available. Replicas: 2")),
        ({"fullyLabeledReplicas": 1}, ("InProgress", "Labelled: 1/2")),
        ({"availableReplicas": 1}, ("InProgress", "Available: 1/2")),
        ({"readyReplicas": 1}, ("InProgress", "Ready: 1/2")),
        ({"replicas": 3}, ("InProgress", "Pending termination: 1")),
        (
            {"conditions": [condition("ReplicaFailure", message="exceeded quota")]},
            ("InProgress", "Replica Failure condition: exceeded quota"),
        ),
    ],
)
def test_replica_set(status: Any, expected: tuple[str, str]) -> None:
    full = {"replicas": 2, "fullyLabeledReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
    assert said(thing("apps/v1", "ReplicaSet", {"replicas": 2}, {**full, **status})) == expected


def waiting(reason: str, message: str = "", field: str = "containerStatuses") -> dict[str, Any]:
    return {field: [{"name": "app", "state": {"waiting": {"reason": reason, "message": message}}}]}


HOMELESS = {"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable")]}


def pod(status: Any, name: str = "p", *, age: float = 60, **metadata: Any) -> dict[str, Any]:
    return thing("v1", "Pod", status=status, name=name, creationTimestamp=timestamp(NOW - timedelta(seconds=age)), **metadata)


@pytest.mark.parametrize(
    ("status", "age", "expected"),
    [
        ({"phase": "Succeeded"}, 60, ("Current", "Pod has completed: Succeeded")),
        ({"phase": "Failed"}, 60, ("Current", "Pod has completed: Failed")),
        ({"phase": "Running", "conditions": [condition("Ready")]}, 60, ("Current", "Pod is Ready")),
        (
            {"phase": "Running", "conditions": [condition("Ready", "False")]},
            60,
            ("InProgress", "Pod is running but is not Ready"),
        ),
        ({"phase": "Running", **waiting("CrashLoopBackOff")}, 60, ("Failed", "Containers in CrashLoop state: app")),
        (
            {"phase": "Pending", **waiting("CrashLoopBackOff", field="initContainerStatuses")},
            60,
            ("Failed", "Containers in CrashLoop state: app"),
        ),
        ({"phase": "Pending", **waiting("ImagePullBackOff")}, 60, ("InProgress", "Pod is in the Pending phase")),
        (HOMELESS, 15, ("InProgress", "Pod is in the Pending phase")),
        (HOMELESS, 16, ("Failed", "Pod could not be scheduled")),
        ({}, 0, ("InProgress", "Pod phase not available")),
    ],
)
def test_pod(status: Any, age: float, expected: tuple[str, str]) -> None:
    assert said(pod(status, age=age)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (thing("v1", "PersistentVolumeClaim", status={"phase": "Bound"}), "Current"),
        (thing("v1", "PersistentVolumeClaim", status={"phase": "Pending"}), ("InProgress", "PVC is not Bound. phase: Pending")),
        (thing("v1", "Service", {"type": "ClusterIP"}), "Current"),
        (thing("v1", "Service", {"type": "LoadBalancer"}), "InProgress"),
        (thing("v1", "Service", {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}), "Current"),
        (thing("batch/v1", "Job"), ("InProgress", "Job in progress")),
        (thing("batch/v1", "Job", status={"active": 1}), "InProgress"),
        (thing("batch/v1", "Job", {"suspend": True}), "Current"),
        (thing("batch/v1", "Job", status={"conditions": [condition("Complete")]}), ("Current", "Job Completed")),
        (
            thing("batch/v1", "Job", {"suspend": True}, {"conditions": [condition("Failed", message="backoff limit")]}),
            ("Failed", "Job Failed: backoff limit"),
        ),
        (thing("batch/v1", "CronJob", status={"conditions": [condition("Ready", "False")]}), "Current"),
        (thing("v1", "ConfigMap"), "Current"),
        (thing("v1", "Secret"), "Current"),
        (thing("policy/v1", "PodDisruptionBudget"), "Current"),
    ],
)
def test_small_kinds(found: dict[str, Any], expected: Any) -> None:
    assert said(found) == expected or said(found)[0] == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], "InProgress"),
        ([condition("Established")], "Current"),
        ([condition("Established", "False", "Installing")], "InProgress"),
        ([condition("Established", "False", "NotAccepted", "no")], "Failed"),
        ([condition("NamesAccepted", "False", "KindConflict", "taken"), condition("Established")], "Failed"),
    ],
)
def test_definition(conditions: Any, expected: str) -> None:
    found = thing("apiextensions.k8s.io/v1", "CustomResourceDefinition", status={"conditions": conditions})
    assert said(found)[0] == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (thing("x.test/v1", "Thing"), ("Current", "Resource is current")),
        (thing("x.test/v1", "Thing", status={"conditions": [condition("Ready")]}), ("Current", "Resource is Ready")),
        (thing("x.test/v1", "Thing", status={"conditions": [condition("Ready", "False", message="no")]}), ("InProgress", "no")),
        (thing("x.test/v1", "Thing", status={"conditions": [condition("Ready", "Unknown", "Why")]}), ("InProgress", "Why")),
        (thing("x.test/v1", "Thing", status={"conditions": [condition("Ready", "Unknown")]}), ("InProgress", "Ready is Unknown")),
        # Another group's kind of the same name has no rule of its own.
        (thing("serving.test/v1", "Service", {"type": "LoadBalancer"}), ("Current", "Resource is current")),
        (thing("v1", "ConfigMap", deletionTimestamp="2026-01-01T00:00:00Z"), ("Terminating", "Resource scheduled for deletion")),
        (
            thing("x.test/v1", "Thing", status={"observedGeneration": 1, "conditions": [condition("Ready")]}, generation=2),
            ("InProgress", "generation 2 is not observed yet, only 1"),
        ),
        (
            thing("x.test/v1", "Thing", status={"observedGeneration": 2, "conditions": [condition("Ready")]}, generation=2),
            ("Current", "Resource is Ready"),
        ),
        (
            thing("x.test/v1", "Thing", status={"conditions": [condition("Reconciling", message="wip"), condition("Ready")]}),
            ("InProgress", "wip"),
        ),
        (thing("apps/v1", "Deployment", status={"conditions": [condition("Stalled", message="stuck")]}), ("Failed", "stuck")),
        (
            thing("x.test/v1", "Thing", status={"conditions": [condition("Stalled", message="s"), condition("Reconciling")]}),
            ("Failed", "s"),
        ),
        (
            thing("x.test/v1", "Thing", status={"conditions": [condition("Reconciling", "False")]}),
            ("Current", "Resource is current"),
        ),
        # Data of any shape is no reason to fall over.
        ({"status": "fine", "metadata": None}, ("Current", "Resource is current")),
        ({"status": {"conditions": ["x", None]}}, ("Current", "Resource is current")),
        ({"status": {"conditions": {"type": "Ready"}}}, ("Current", "Resource is current")),
    ],
)
def test_any_kind(found: dict[str, Any], expected: tuple[str, str]) -> None:
    assert said(found) == expected


CRASHING = {"phase": "Running", **waiting("CrashLoopBackOff")}
PULLING = {"phase": "Pending", **waiting("ImagePullBackOff", "no such image")}
STARTING = {"phase": "Pending", **waiting("ContainerCreating")}


@pytest.mark.parametrize(
    ("kind", "pods", "expected"),
    [
        (
            "StatefulSet",
            [pod(STARTING, "a"), pod(CRASHING, "b")],
            Summary(Status.FAILED, "Pod b: Containers in CrashLoop state: app"),
        ),
        ("ReplicaSet", [pod(CRASHING)], Summary(Status.FAILED, "Pod p: Containers in CrashLoop state: app")),
        ("StatefulSet", [pod(CRASHING, deletionTimestamp="x")], in_progress("Ready: 0/1")),
        ("StatefulSet", [pod(HOMELESS)], in_progress("Ready: 0/1; Pod p: Pod could not be scheduled")),
        ("Deployment", [pod(CRASHING)], in_progress("Ready: 0/1; Pod p: Containers in CrashLoop state: app")),
        (
            "Deployment",
            [pod(STARTING, "a"), pod(PULLING, "b"), pod(PULLING, "c")],
            in_progress("Ready: 0/1; Pod b: container app: ImagePullBackOff: no such image"),
        ),
        ("Deployment", [pod(STARTING)], in_progress("Ready: 0/1")),
        ("Deployment", [], in_progress("Ready: 0/1")),
    ],
)
def test_pods_tell_why(kind: str, pods: Any, expected: Summary) -> None:
    assert with_pods(thing("apps/v1", kind), in_progress("Ready: 0/1"), pods, NOW) == expected


def test_pods_change_nothing_of_what_is_decided() -> None:
    done = Summary(Status.CURRENT, "done")
    assert with_pods(thing("apps/v1", "StatefulSet"), done, [pod(CRASHING)], NOW) == done
