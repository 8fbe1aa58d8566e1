"""The service with the chart's own arguments and under its own rights: it does its work, and nothing is ever refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconcile.cluster import lease_name
from tests.support.audit import Request
from tests.support.chart import Helm, container, grant, of_kind, revoke, value_set
from tests.support.clusterlab import OURS, ClusterLab, Replica, cluster_lab, until
from tests.support.controlplane import ControlPlane
from tests.support.kubeapi import Object
from tests.support.lab import IMAGE

pytestmark = pytest.mark.slow

ELSEWHERE = ("--metrics-addr", "--health-addr", "--storage-path")
"""Arguments for a pod: a test has ports and folders of its own."""
SHARD = "sharding.fluxcd.io/key"
REFUSED = frozenset({401, 403})


@pytest.fixture
def world(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(own_control_plane, namespace, tmp_path) as made:
        yield made


@pytest.fixture
def made(own_control_plane: ControlPlane) -> Iterator[list[Object]]:
    found: list[Object] = []
    yield found
    revoke(own_control_plane, found)


def login(world: ClusterLab) -> Object:
    auth = base64.b64encode(b"user:password").decode()
    config = json.dumps({"auths": {world.registry.host: {"auth": auth}}})
    meta = {"name": "login", "namespace": world.namespace}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config},
    }


def replica_of(world: ClusterLab, deployment: Object, tmp_path: Path) -> Replica:
    """A process as this Deployment's pods run it."""
    name = deployment["metadata"]["name"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    config = world.cluster.service_account_kubeconfig(world.namespace, account, tmp_path / f"{name}.kubeconfig")
    return world.replica(name, kubeconfig=config, user=f"system:serviceaccount:{world.namespace}:{account}")


def arguments(deployment: Object) -> list[str]:
    command, *rest = container(deployment)["args"]
    assert command == "run"
    return [argument for argument in rest if argument.partition("=")[0] not in ELSEWHERE]


@pytest.mark.parametrize("values", [(), ("--set", "rbac.strict=true"), value_set("minimal"), value_set("shards")],
                         ids=["default", "strict", "minimal", "shards"])  # fmt: skip
def test_work_from_scan_to_commit_and_removal_under_the_charts_rights(
    world: ClusterLab, helm: Helm, made: list[Object], tmp_path: Path, values: tuple[str, ...]
) -> None:
    mark = world.cluster.audit.mark()  # type: ignore[union-attr]
    made += grant(world.cluster, helm, world.namespace, *values)
    deployments = of_kind(helm.objects(*values, namespace=world.namespace), "Deployment")
    # Of shards, the one that is called a.
    deployment = next(d for d in deployments if len(deployments) == 1 or d["metadata"]["name"].endswith("-a"))
    selector = f"{SHARD}=a" if len(deployments) > 1 else ""
    bare = world.create_app(labels={SHARD: "a"} if selector else None)
    world.create(login(world))
    world.patch("ImageRepository", "web", {"spec": {"secretRef": {"name": "login"}}})
    replica = replica_of(world, deployment, tmp_path).start(*arguments(deployment))

    world.until_settled(bare, "1.0.0")
    world.registry.push_image("web", "1.1.0")
    world.handled("ImageRepository", world.request("ImageRepository"))
    world.until_settled(bare, "1.1.0")
    assert len(bare.log()) == 3
    until(lambda: any("pushed commit" in e["message"] for e in world.events("ImageUpdateAutomation")), "the event of the push")
    for kind in OURS:
        world.api.delete(IMAGE, kind, "web", world.namespace)
    for kind in OURS:
        until(lambda kind=kind: world.find(kind) is None, f"{kind} to go")  # type: ignore[misc]
    assert replica.stop() == 0

    asked: list[Request] = world.cluster.audit.select(mark, user=replica.user)  # type: ignore[union-attr]
    assert [request for request in asked if request.code in REFUSED] == []
    used = {f"{request.verb} {request.resource}" for request in asked}
    assert {"get secrets", "patch imagepolicies/status", "create events", "list gitrepositories", "watch gitrepositories"} <= used
    leases = {request.name for request in asked if request.resource == "leases" and request.name}
    assert leases == (set() if "--enable-leader-election" not in arguments(deployment) else {lease_name(selector)})


def test_a_right_that_is_missing_would_be_seen(world: ClusterLab, helm: Helm, made: list[Object], tmp_path: Path) -> None:
    mark = world.cluster.audit.mark()  # type: ignore[union-attr]
    made += grant(world.cluster, helm, world.namespace, "--set", "rbac.strict=true")
    (deployment,) = of_kind(helm.objects(namespace=world.namespace), "Deployment")
    # Strict rights, but arguments for all namespaces.
    replica = replica_of(world, deployment, tmp_path).start(*arguments(deployment), ready=False)

    def refused() -> set[str]:
        asked: list[Request] = world.cluster.audit.select(mark, user=replica.user)  # type: ignore[union-attr]
        return {f"{request.verb} {request.resource}" for request in asked if request.code in REFUSED}

    until(lambda: "list imagepolicies" in refused(), "the list of all policies to be refused")
    assert replica.probe("/readyz") != 200
