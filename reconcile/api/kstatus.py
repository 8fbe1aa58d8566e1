"""How an object of any kind is doing: the rules of kstatus, with Flux's for Jobs. Pure.

In this order: being deleted; not observed at its present generation; a Reconciling or Stalled condition; the rule of its kind,
for the kinds that Kubernetes brings; its Ready condition; and current when it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Object = Mapping[str, Any]

NO_DEADLINE = 2**31 - 1
"""The progressDeadlineSeconds of a Deployment that has none."""
SCHEDULING = 15.0
"""Seconds after its creation for which a Pod without a node counts as on its way."""


class Status(StrEnum):
    """The words of kstatus."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    NOT_FOUND = "NotFound"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Summary:
    """A status, and in words what is missing."""

    status: Status
    message: str = ""


def current(message: str = "") -> Summary:
    """Done and well."""
    return Summary(Status.CURRENT, message)


def in_progress(message: str) -> Summary:
    """On its way."""
    return Summary(Status.IN_PROGRESS, message)


def failed(message: str) -> Summary:
    """Will not become current by itself."""
    return Summary(Status.FAILED, message)


def summarize(found: Object, now: datetime) -> Summary:
    """How an object is doing; `now` (with a time zone) is for Pods that wait for a node."""
    return _generic(found) or _of_kind(found, now) or _by_ready(found) or current("Resource is current")


def with_pods(found: Object, said: Summary, pods: Iterable[Object], now: datetime) -> Summary:
    """The summary of a workload on its way, seen with its Pods: they tell why.

    A StatefulSet or ReplicaSet has failed when one of its Pods has, unless that Pod is being deleted or waits for a node. A
    Deployment is not judged by its Pods, as it replaces them; the first that cannot start is named.
    """
    if said.status is not Status.IN_PROGRESS:
        return said
    judged = found.get("kind") in {"StatefulSet", "ReplicaSet"}
    waiting = ""
    for pod in pods:
        name = _map(pod, "metadata").get("name")
        state = summarize(pod, now)
        if judged and state.status is Status.FAILED and not _unschedulable(pod):
            return failed(f"Pod {name}: {state.message}")
        why = state.message if state.status is Status.FAILED else _hindrance(pod)
        if not waiting and why and state.status in {Status.FAILED, Status.IN_PROGRESS}:
            waiting = f"Pod {name}: {why}"
    return in_progress(f"{said.message}; {waiting}") if waiting else said


# --- every kind


def _generic(found: Object) -> Summary | None:
    meta, status = _map(found, "metadata"), _map(found, "status")
    if meta.get("deletionTimestamp"):
        return Summary(Status.TERMINATING, "Resource scheduled for deletion")
    generation, observed = meta.get("generation"), status.get("observedGeneration")
    if observed is not None and generation is not None and observed != generation:
        return in_progress(f"generation {generation} is not observed yet, only {observed}")
    for entry in _conditions(found):
        if entry.get("status") == "True" and entry.get("type") == "Reconciling":
            return in_progress(_text(entry))
        if entry.get("status") == "True" and entry.get("type") == "Stalled":
            return failed(_text(entry))
    return None


def _by_ready(found: Object) -> Summary | None:
    ready = _condition(found, "Ready")
    if ready is None:
        return None
    return current("Resource is Ready") if ready.get("status") == "True" else in_progress(_text(ready))


def _of_kind(found: Object, now: datetime) -> Summary | None:
    group, kind = str(found.get("apiVersion") or "").rpartition("/")[0], str(found.get("kind") or "")
    if (group, kind) == ("", "Pod"):
        return _pod(found, now)
    rule = _RULES.get((group, kind))
    return rule(found) if rule else None


# --- workloads


def _deployment(found: Object) -> Summary:
    spec, status = _map(found, "spec"), _map(found, "status")
    progressing, available = _condition(found, "Progressing"), _condition(found, "Available")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return failed("Progress deadline exceeded")
    wanted = _number(spec, "replicas", 1)
    replicas, updated = _number(status, "replicas"), _number(status, "updatedReplicas")
    short = _short(("Replicas", replicas, wanted), ("Updated", updated, wanted))
    if short or replicas > wanted:
        return in_progress(short or f"Pending termination: {replicas - wanted}")
    short = _short(
        ("Available", _number(status, "availableReplicas"), updated), ("Ready", _number(status, "readyReplicas"), wanted)
    )
    if short:
        return in_progress(short)
    if _number(spec, "progressDeadlineSeconds", NO_DEADLINE) != NO_DEADLINE and not (
        _true(progressing) and progressing is not None and progressing.get("reason") == "NewReplicaSetAvailable"
    ):
        return in_progress("ReplicaSet not Available")
    if not _true(available):
        return in_progress("Deployment not Available")
    return current(f"Deployment is available. Replicas: {replicas}")


def _stateful_set(found: Object) -> Summary:
    spec, status = _map(found, "spec"), _map(found, "status")
    strategy = _map(spec, "updateStrategy")
    if strategy.get("type") == "OnDelete":
        return current("StatefulSet is using the ondelete update strategy")
    wanted, replicas = _number(spec, "replicas", 1), _number(status, "replicas")
    short = _short(("Replicas", replicas, wanted), ("Ready", _number(status, "readyReplicas"), wanted))
    if short or replicas > wanted:
        return in_progress(short or f"Pending termination: {replicas - wanted}")
    partition = _map(strategy, "rollingUpdate").get("partition")
    if isinstance(partition, int):
        short = _short(("updated", _number(status, "updatedReplicas"), wanted - partition))
        return in_progress(short) if short else current(f"Partition rollout complete. updated: {wanted - partition}")
    short = _short(("current", _number(status, "currentReplicas"), wanted))
    if short:
        return in_progress(short)
    if status.get("currentRevision") != status.get("updateRevision"):
        return in_progress("Waiting for updated revision to match current")
    return current(f"All replicas scheduled as expected. Replicas: {replicas}")


def _daemon_set(found: Object) -> Summary:
    status = _map(found, "status")
    if _map(found, "metadata").get("generation") is None or status.get("observedGeneration") is None:
        return in_progress("the controller has not observed it yet")
    wanted = _number(status, "desiredNumberScheduled", -1)
    if wanted < 0:
        return in_progress("Missing .status.desiredNumberScheduled")
    short = _short(
        ("Current", _number(status, "currentNumberScheduled"), wanted),
        ("Updated", _number(status, "updatedNumberScheduled"), wanted),
        ("Available", _number(status, "numberAvailable"), wanted),
        ("Ready", _number(status, "numberReady"), wanted),
    )
    return in_progress(short) if short else current(f"All replicas scheduled as expected. Replicas: {wanted}")


def _replica_set(found: Object) -> Summary:
    status, wanted = _map(found, "status"), _number(_map(found, "spec"), "replicas", 1)
    failure = _condition(found, "ReplicaFailure")
    if failure is not None and failure.get("status") == "True":
        return in_progress(f"Replica Failure condition: {_text(failure)}")
    replicas = _number(status, "replicas")
    short = _short(
        ("Labelled", _number(status, "fullyLabeledReplicas"), wanted),
        ("Available", _number(status, "availableReplicas"), wanted),
        ("Ready", _number(status, "readyReplicas"), wanted),
    )
    if short or replicas > wanted:
        return in_progress(short or f"Pending termination: {replicas - wanted}")
    return current(f"ReplicaSet is available. Replicas: {replicas}")


def _job(found: Object) -> Summary:
    failure = _condition(found, "Failed")
    if failure is not None and failure.get("status") == "True":
        return failed(f"Job Failed: {_text(failure)}")
    if _true(_condition(found, "Complete")):
        return current("Job Completed")
    if _map(found, "spec").get("suspend") is True:
        return current("Job is suspended")
    return in_progress("Job in progress")


# --- pods


def _pod(found: Object, now: datetime) -> Summary:
    phase = _map(found, "status").get("phase")
    if phase in {"Succeeded", "Failed"}:
        return current(f"Pod has completed: {phase}")
    if phase == "Running" and _true(_condition(found, "Ready")):
        return current("Pod is Ready")
    crashing = [name for name, reason, _ in _waiting(found) if reason == "CrashLoopBackOff"]
    if crashing:
        return failed(f"Containers in CrashLoop state: {','.join(crashing)}")
    if _unschedulable(found) and _age(found, now) > SCHEDULING:
        return failed("Pod could not be scheduled")
    if phase == "Running":
        return in_progress("Pod is running but is not Ready")
    return in_progress(f"Pod is in the {phase} phase" if phase else "Pod phase not available")


def _hindrance(pod: Object) -> str:
    """What keeps a Pod's containers from running; empty when it is only not there yet."""
    for name, reason, message in _waiting(pod):
        if reason not in {"", "ContainerCreating", "PodInitializing"}:
            return f"container {name}: {reason}" + (f": {message}" if message else "")
    return ""


def _waiting(pod: Object) -> Iterator[tuple[str, str, str]]:
    """Name, reason and message of each container that waits."""
    status = _map(pod, "status")
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in _maps(status.get(field)):
            waiting = _map(_map(container, "state"), "waiting")
            if waiting:
                yield str(container.get("name") or ""), str(waiting.get("reason") or ""), str(waiting.get("message") or "")


def _unschedulable(pod: Object) -> bool:
    scheduled = _condition(pod, "PodScheduled")
    return scheduled is not None and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def _age(found: Object, now: datetime) -> float:
    """Seconds since its creation; endless when it does not say."""
    try:
        created = datetime.fromisoformat(str(_map(found, "metadata").get("creationTimestamp")))
    except ValueError:
        return float("inf")
    return (now - (created if created.tzinfo else created.replace(tzinfo=UTC))).total_seconds()


# --- the others


def _claim(found: Object) -> Summary:
    phase = _map(found, "status").get("phase")
    return current("PVC is Bound") if phase == "Bound" else in_progress(f"PVC is not Bound. phase: {phase or 'unknown'}")


def _service(found: Object) -> Summary:
    spec = _map(found, "spec")
    if spec.get("type") == "LoadBalancer" and not spec.get("clusterIP"):
        return in_progress("ClusterIP is not set. Service type: LoadBalancer")
    return current("Service is ready")


def _definition(found: Object) -> Summary:
    names, established = _condition(found, "NamesAccepted"), _condition(found, "Established")
    if names is not None and names.get("status") == "False":
        return failed(_text(names))
    if _true(established):
        return current("CRD is established")
    if established is not None and established.get("status") == "False" and established.get("reason") != "Installing":
        return failed(_text(established))
    return in_progress("Install in progress")


def _always(_found: Object) -> Summary:
    return current("Resource is always ready")


_RULES: dict[tuple[str, str], Callable[[Object], Summary]] = {
    **{(group, "Deployment"): _deployment for group in ("apps", "extensions")},
    **{(group, "DaemonSet"): _daemon_set for group in ("apps", "extensions")},
    **{(group, "ReplicaSet"): _replica_set for group in ("apps", "extensions")},
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Service"): _service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("", "ConfigMap"): _always,
    ("", "Secret"): _always,
    ("batch", "CronJob"): _always,
    ("policy", "PodDisruptionBudget"): _always,
}


# --- reading data of which nothing is known


def _map(found: Object, name: str) -> Object:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> Iterator[Object]:
    return (entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list) else iter(())


def _number(found: Object, name: str, default: int = 0) -> int:
    value = found.get(name)
    return value if isinstance(value, int) else default


def _conditions(found: Object) -> Iterator[Object]:
    return _maps(_map(found, "status").get("conditions"))


def _condition(found: Object, kind: str) -> Object | None:
    return next((entry for entry in _conditions(found) if entry.get("type") == kind), None)


def _true(entry: Object | None) -> bool:
    return entry is not None and entry.get("status") == "True"


def _text(entry: Object) -> str:
    return str(entry.get("message") or entry.get("reason") or f"{entry.get('type')} is {entry.get('status')}")


def _short(*counts: tuple[str, int, int]) -> str:
    """The first count (name, have, want) that is too low, in words; empty when none is."""
    return next((f"{name}: {have}/{want}" for name, have, want in counts if have < want), "")
