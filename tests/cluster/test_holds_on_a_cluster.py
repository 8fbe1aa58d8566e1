"""ImageHolds as custom resources, with the rights of the chart: those of people, and those that a revert leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconcile.yamlio import load_documents
from tests.support.clusterlab import ClusterLab, cluster_lab, until
from tests.support.controlplane import Cluster
from tests.support.kubeapi import Object
from tests.support.lab import obj

pytestmark = pytest.mark.slow
API = "imagebot.dev/v1alpha1"
RBAC = "rbac.authorization.k8s.io"
INSTALLATION = Path(__file__).parents[2] / "reconcile" / "cli" / "installation.yaml"


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


def start(world: ClusterLab) -> None:
    """The service with the rights that the installation gives it, and no others."""
    objects = [body for body, _ in load_documents(INSTALLATION.read_text(), INSTALLATION.name) if body]
    rules = next(
        o["rules"] for o in objects if o["kind"] == "ClusterRole" and o["metadata"]["name"] == "imagebot-imagebot-system"
    )
    meta = {"name": "chart", "namespace": world.namespace}
    world.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    world.api.create({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": rules})
    ref = {"apiGroup": RBAC, "kind": "Role", "name": "chart"}
    subjects = [{"kind": "ServiceAccount", **meta}]
    world.api.create({"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": ref})
    config = world.cluster.service_account_kubeconfig(world.namespace, "chart", world.root / "chart.kubeconfig")
    world.replica("chart", kubeconfig=config).start("--watch-all-namespaces=false", "--controllers=image")


def hold(world: ClusterLab, name: str, mode: str, **spec: object) -> Object:
    return obj(API, "ImageHold", name, {"imageRef": {"policy": "web"}, "mode": mode, **spec}, namespace=world.namespace)


def until_held(world: ClusterLab, tag: str, reason: str) -> Object:
    """The policy with this choice, held for this reason; empty: not held."""

    def settled(found: Object) -> bool:
        reasons = [each["reason"] for each in found["status"]["conditions"] if each["type"] == "Held"]
        return bool(found["status"].get("latestRef", {}).get("tag") == tag and reasons == ([reason] if reason else []))

    return world.until_object("ImagePolicy", "web", settled, f"{tag} held by {reason!r}")


def test_people_reject_and_pin(world: ClusterLab) -> None:
    world.registry.push_image("web", "1.1.0")
    bare = world.create_app()
    start(world)
    world.until_settled(bare, "1.1.0")
    world.api.create(hold(world, "leaks", "Reject", tags=["1.1.0"], reason="leaks memory"))
    until_held(world, "1.0.0", "Rejected")
    world.until_settled(bare, "1.0.0")
    world.api.create(hold(world, "freeze", "Pin"))
    until_held(world, "1.0.0", "Pinned")
    for name in ("leaks", "freeze"):
        world.cluster.kubectl("-n", world.namespace, "delete", "imagehold", name)
    until_held(world, "1.1.0", "")
    world.until_settled(bare, "1.1.0")


def test_a_revert_is_held_by_an_object_and_ends_with_it(world: ClusterLab) -> None:
    bare = world.create_app()
    start(world)
    world.until_settled(bare, "1.0.0")
    world.registry.push_image("web", "1.1.0")
    world.handled("ImageRepository", world.request("ImageRepository"))
    world.until_settled(bare, "1.1.0")
    commit = bare.commit({"deploy.yaml": bare.file("deploy.yaml").replace(b":1.1.0", b":1.0.0")}, message="back to 1.0.0")
    world.request("ImageUpdateAutomation")
    made = until(lambda: world.api.find(API, "ImageHold", "web-reverted", world.namespace), "the hold")
    assert made["spec"] == {
        "imageRef": {"policy": "web"},
        "mode": "Reject",
        "tags": ["1.1.0"],
        "fallback": "1.0.0",
        "reason": f"reverted by {commit[:7]} of Human on deploy.yaml: back to 1.0.0",
    }
    until_held(world, "1.0.0", "Rejected")
    until(lambda: [e for e in world.events("ImageUpdateAutomation") if e["reason"] == "Reverted"], "the event of the revert")
    assert bare.head() == commit
    shown = world.cluster.kubectl("-n", world.namespace, "get", "imageholds").stdout
    assert "web-reverted" in shown
    world.cluster.kubectl("-n", world.namespace, "delete", "imagehold", "web-reverted")
    world.until_settled(bare, "1.1.0")
    assert world.api.find(API, "ImageHold", "web-reverted", world.namespace) is None
