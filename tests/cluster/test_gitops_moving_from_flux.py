"""A cluster that Flux looked after: objects, inventories and finalizers are taken over without a write and without a prune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import WRITES
from tests.support.clusterlab import Replica, until
from tests.support.controlplane import ControlPlane
from tests.support.flux_schemas import flat, schema, version
from tests.support.gitopslab import KUSTOMIZE, SOURCE_V1, GitOpsLab, gitops_lab, manifests
from tests.support.kubeapi import MERGE_PATCH, Object, condition

pytestmark = pytest.mark.slow

FINALIZER = "finalizers.fluxcd.io"
APPLIED_BY = "kustomize-controller"
WRITTEN_BY = "gotk-kustomize-controller"
LONG_AGO = "2026-01-01T00:00:00Z"
EXTENSIONS = {".status.appliedInputs", ".status.appliedState"}
ROLES = "rbac.authorization.k8s.io/v1"


@pytest.fixture
def world(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[GitOpsLab]:
    with gitops_lab(own_control_plane, namespace, tmp_path) as made:
        yield made


def fleet(world: GitOpsLab) -> dict[str, Object]:
    """What is in Git, by path."""
    pod = {"containers": [{"name": "web", "image": "example.com/web:1", "env": [{"name": "A", "value": "1"}]}]}
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    return {
        "app/settings.yaml": {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red"},
        },
        "app/login.yaml": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"word": "open"}},
        "app/web.yaml": {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"team": "a"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        "app/service.yaml": {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        "app/reader.yaml": {"apiVersion": ROLES, "kind": "Role", "metadata": {"name": "reader"}, "rules": [rule]},
        "app/role.yaml": {"apiVersion": ROLES, "kind": "ClusterRole", "metadata": {"name": world.namespace}, "rules": [rule]},
    }  # fmt: skip


class Flux:
    """Leaves what Flux's controllers leave in a cluster."""

    def __init__(self, world: GitOpsLab) -> None:
        self.world, self.api, self.namespace = world, world.api, world.namespace

    def apply(self, body: Object) -> Object:
        """An object as kustomize-controller applies it."""
        meta = body["metadata"]
        owner = {f"kustomize.toolkit.fluxcd.io/{name}": value for name, value in (("name", "app"), ("namespace", self.namespace))}
        scope = {} if body["kind"] == "ClusterRole" else {"namespace": self.namespace}
        placed = {**body, "metadata": {**meta, **scope, "labels": {**(meta.get("labels") or {}), **owner}}}
        return self.api.apply(placed, manager=APPLIED_BY)

    def entry(self, body: Object) -> dict[str, str]:
        """Its entry in the inventory."""
        group, _, number = body["apiVersion"].rpartition("/")
        space = "" if body["kind"] == "ClusterRole" else self.namespace
        return {"id": "_".join((space, body["metadata"]["name"], group, body["kind"])), "v": number}

    def leave(self, kind: str, api: str, name: str, manager: str, status: Object) -> None:
        """The finalizer and the status of an object of Flux."""
        path = self.api.path(api, kind, self.namespace, name)
        finalizer = {"metadata": {"finalizers": [FINALIZER]}}
        self.api.request("PATCH", path, finalizer, content_type=MERGE_PATCH, fieldManager=manager)
        self.api.request("PATCH", f"{path}/status", {"status": status}, content_type=MERGE_PATCH, fieldManager=manager)


def ready(reason: str, message: str, kind: str = "Ready") -> Object:
    """A condition that is True."""
    return {
        "type": kind, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": LONG_AGO, "observedGeneration": 1,
    }  # fmt: skip


def left_by_flux(world: GitOpsLab) -> dict[str, Object]:
    """The fleet in the cluster, as Flux had applied it; the objects by their path in Git."""
    flux, declared = Flux(world), fleet(world)
    revision = world.commit({path: manifests(body) for path, body in declared.items()})
    world.source()
    world.kustomization()
    applied = {path: flux.apply(body) for path, body in declared.items()}
    digest = "sha256:" + "0" * 64
    address = f"gitrepository/{world.namespace}/fleet/{revision.rpartition(':')[2]}.tar.gz"
    artifact = {
        "path": address, "url": f"http://source-controller.flux-system.svc.cluster.local./{address}", "revision": revision,
        "digest": digest, "lastUpdateTime": LONG_AGO, "size": 1234,
    }  # fmt: skip
    stored = f"stored artifact for revision '{revision}'"
    source = {
        "artifact": artifact, "observedGeneration": 1,
        "conditions": [ready("Succeeded", stored), ready("Succeeded", stored, "ArtifactInStorage")],
    }  # fmt: skip
    flux.leave("GitRepository", SOURCE_V1, "fleet", "source-controller", source)
    snapshot = {
        "digest": digest, "firstReconciled": LONG_AGO, "lastReconciled": LONG_AGO, "lastReconciledDuration": "120ms",
        "lastReconciledStatus": "ReconciliationSucceeded", "totalReconciliations": 7, "metadata": {"revision": revision},
    }  # fmt: skip
    status = {
        "conditions": [ready("ReconciliationSucceeded", f"Applied revision: {revision}")],
        "history": [snapshot],
        "inventory": {"entries": [flux.entry(body) for body in declared.values()]},
        "lastAppliedRevision": revision, "lastAttemptedRevision": revision, "lastHandledReconcileAt": "before",
        "observedGeneration": 1,
    }  # fmt: skip
    flux.leave("Kustomization", KUSTOMIZE, "app", WRITTEN_BY, status)
    return applied


def settled(world: GitOpsLab, revision: str) -> Object:
    """The Kustomization when a pass of ours has ended well on this revision."""

    def holds(found: Object) -> bool:
        status = found.get("status") or {}
        current = (status.get("lastAppliedRevision"), condition(found, "Ready")) == (revision, "True")
        return current and bool(status.get("appliedInputs")) and "Reconciling" not in {c["type"] for c in status["conditions"]}

    return world.until_object("Kustomization", "app", holds, f"taken over at {revision}")


def again(api: Any, body: Object) -> Object | None:
    """The object as it is now."""
    meta = body["metadata"]
    found: Object | None = api.find(body["apiVersion"], body["kind"], meta["name"], meta.get("namespace"))
    return found


def steady(world: GitOpsLab) -> None:
    """Wait until the controllers of the cluster have done with what was applied, so that versions move no more by themselves."""
    until(lambda: condition(world.find("Deployment", "web"), "Available") == "True", "the Deployment to be available")
    versions: list[str] = []

    def calm() -> bool:
        versions.append(world.find("Deployment", "web")["metadata"]["resourceVersion"])  # type: ignore[index]
        return versions[-10:] == versions[-1:] * 10

    until(calm, "the Deployment to rest")


def written(world: GitOpsLab, mark: int, replica: Replica) -> set[str]:
    """Resources that were written, but for events and for dry runs."""
    made = [r for r in world.requests(mark, replica) if r.verb in WRITES and "dryRun=" not in r.uri and r.resource != "events"]
    return {f"{r.verb} {r.resource}" for r in made}


def unknown_to_flux(found: Object, name: str) -> set[str]:
    """Paths of an object's status that Flux's definition does not have."""
    known = set(flat(schema(version(name, "v1"))))
    paths: set[str] = set()

    def walk(value: Any, path: str) -> None:
        if f"{path}{{}}" in known:
            return  # a map with keys of anybody's choice
        paths.add(path)
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, f"{path}[]")

    walk(found["status"], ".status")
    return paths - known


def test_a_cluster_of_flux_is_taken_over_and_given_back(world: GitOpsLab, workloads: ControlPlane) -> None:
    applied = left_by_flux(world)
    steady(world)
    before = {path: again(world.api, body) for path, body in applied.items()}
    inventory = {entry["id"] for entry in world.get("Kustomization", "app")["status"]["inventory"]["entries"]}
    first = f"main@sha1:{world.fleet.head()}"
    audit = world.cluster.audit
    assert audit is not None
    mark = audit.mark()
    replica = world.start()

    # Taken over: the status is ours, and nothing else has moved.
    found = settled(world, first)
    assert {path: again(world.api, body) for path, body in applied.items()} == before
    assert written(world, mark, replica) == {"patch gitrepositories/status", "patch kustomizations/status"}
    assert {entry["id"] for entry in found["status"]["inventory"]["entries"]} == inventory
    assert found["metadata"]["finalizers"] == [FINALIZER]
    assert {e["reason"] for e in world.events("Kustomization", "app") if e["type"] != "Normal"} == set()

    # What leaves Git is pruned, and nothing else moves.
    second = world.publish({"app/settings.yaml": None, "app/reader.yaml": None})
    gone = {"app/settings.yaml", "app/reader.yaml"}
    assert {path for path, body in applied.items() if again(world.api, body) is None} == gone
    assert {path: again(world.api, body) for path, body in applied.items() if path not in gone} == {
        path: body for path, body in before.items() if path not in gone
    }

    # The way back: what Flux finds is what it would have left, and two fields that it does not know.
    found = settled(world, second)
    assert unknown_to_flux(found, "kustomizations.kustomize.toolkit.fluxcd.io") == EXTENSIONS
    source = world.get("GitRepository", "fleet")
    assert unknown_to_flux(source, "gitrepositories.source.toolkit.fluxcd.io") == set()
    assert {entry["id"] for entry in found["status"]["inventory"]["entries"]} == {
        name for name in inventory if "_settings_" not in name and "_reader_" not in name
    }
    assert {entry["manager"] for entry in found["metadata"]["managedFields"] if entry.get("subresource")} == {WRITTEN_BY}
    assert [entry["manager"] for entry in source["metadata"]["managedFields"] if entry.get("subresource")] == [
        "source-controller"
    ]

    # The finalizer is the same: the Kustomization takes its objects with it.
    world.api.delete(KUSTOMIZE, "Kustomization", "app", world.namespace)
    world.until_gone("Kustomization", "app")
    until(lambda: all(again(world.api, body) is None for body in applied.values()), "all objects to go")
