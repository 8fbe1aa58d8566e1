"""Stories of an update as custom resources on a real API server, told by the service as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconcile.api.meta import FINALIZER
from tests.support.clusterlab import OURS, ClusterLab, cluster_lab, ready_of, until
from tests.support.controlplane import Cluster
from tests.support.kubeapi import Object, condition
from tests.support.lab import IMAGE, automation, git_repository, image_policy, image_repository, marked

pytestmark = pytest.mark.slow


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


def test_a_new_tag_becomes_a_status_and_one_commit(world: ClusterLab) -> None:
    bare = world.create_app()
    before = bare.file("deploy.yaml")
    world.start()
    world.until_settled(bare, "1.0.0")
    assert len(bare.log()) == 2

    world.registry.push_image("web", "1.1.0")
    token = world.request("ImageRepository")
    scanned = world.handled("ImageRepository", token)
    assert scanned["status"]["lastScanResult"]["tagCount"] == 2
    assert scanned["status"]["canonicalImageName"] == world.image("web")
    world.until_settled(bare, "1.1.0")
    assert bare.file("deploy.yaml") == before.replace(b":0.9.0", b":1.1.0")
    assert len(bare.log()) == 3

    policy, update = world.get("ImagePolicy"), world.get("ImageUpdateAutomation")
    latest = {"name": world.image("web"), "tag": "1.1.0"}
    assert policy["status"]["latestRef"] == latest
    assert policy["status"]["observedPreviousRef"] == {"name": world.image("web"), "tag": "1.0.0"}
    assert update["status"]["observedPolicies"] == {"web": latest}
    assert update["status"]["lastPushCommit"] == bare.head()
    assert update["status"]["observedSourceRevision"] == f"main@sha1:{bare.head()}"
    assert ready_of(scanned)[:2] == ("True", "Succeeded")
    assert ready_of(policy)[:2] == ("True", "Succeeded")
    assert ready_of(update) == ("True", "Succeeded", "repository up-to-date")
    for kind in OURS:
        found = world.get(kind)
        assert found["metadata"]["finalizers"] == [FINALIZER]
        assert found["status"]["observedGeneration"] == 1
        assert [c["type"] for c in found["status"]["conditions"]] == ["Ready"]
    pushed = f"pushed commit '{str(bare.head())[:7]}' to branch 'main'"
    until(lambda: any(pushed in e["message"] for e in world.events("ImageUpdateAutomation")), "the event of the push")
    sources = {(e["involvedObject"]["kind"], e["source"]["component"]) for e in world.events()}
    assert sources == {
        ("ImageRepository", "image-reflector-controller"),
        ("ImagePolicy", "image-reflector-controller"),
        ("ImageUpdateAutomation", "image-automation-controller"),
    }


def test_kubectl_shows_and_waits_as_for_upstream(world: ClusterLab) -> None:
    bare = world.create_app()
    world.start()

    def kubectl(*words: str) -> str:
        return world.cluster.kubectl("-n", world.namespace, *words).stdout

    for kind in ("imagerepository", "imagepolicy", "imageupdateautomation"):
        assert "condition met" in kubectl("wait", "--for=condition=Ready", f"{kind}/web", "--timeout=40s")
    world.until_settled(bare, "1.0.0")
    table = kubectl("get", "imagepolicies").splitlines()
    assert table[0].split() == ["NAME", "IMAGE", "TAG", "READY", "STATUS", "AGE"]
    assert table[1].split()[:4] == ["web", world.image("web"), "1.0.0", "True"]
    shown = kubectl("describe", "imageupdateautomation", "web")
    until(lambda: "pushed commit" in kubectl("describe", "imageupdateautomation", "web"), "the event in the description")
    assert "Last Push Commit:" in shown
    assert "Observed Source Revision:" in shown
    assert f"main@sha1:{bare.head()}" in shown


def test_suspended_objects_rest_and_resumed_ones_catch_up(world: ClusterLab) -> None:
    bare = world.create_app()
    world.start()
    world.until_settled(bare, "1.0.0")
    world.patch("ImageUpdateAutomation", "web", {"spec": {"suspend": True}})
    world.patch("ImageRepository", "web", {"spec": {"suspend": True}})
    world.registry.push_image("web", "1.1.0")
    asked = world.registry.requests["tags"]
    for kind in ("ImageRepository", "ImageUpdateAutomation"):
        world.request(kind)
    # The request of something that works says that those before it were looked at.
    token = world.request("ImagePolicy")
    world.handled("ImagePolicy", token)
    assert world.registry.requests["tags"] == asked
    world.patch("ImageRepository", "web", {"spec": {"suspend": False}})
    world.request("ImageRepository")  # as `flux resume` does; the interval is not over
    world.until_object("ImagePolicy", "web", lambda p: p["status"]["latestRef"]["tag"] == "1.1.0", "the new tag")
    assert len(bare.log()) == 2
    world.patch("ImageUpdateAutomation", "web", {"spec": {"suspend": False}})
    world.until_settled(bare, "1.1.0")
    assert len(bare.log()) == 3


def test_deleted_objects_go_also_suspended_ones(world: ClusterLab) -> None:
    bare = world.create_app()
    world.start()
    world.until_settled(bare, "1.0.0")
    world.patch("ImageRepository", "web", {"spec": {"suspend": True}})
    for kind in OURS:
        world.api.delete(IMAGE, kind, "web", world.namespace)
    for kind in OURS:
        until(lambda kind=kind: world.find(kind) is None, f"{kind} to go")  # type: ignore[misc]
    assert len(bare.log()) == 2


def test_a_policy_of_another_namespace_is_let_in_by_the_labels_of_its_namespace(world: ClusterLab) -> None:
    owner, friend, stranger = world.namespace, world.add_namespace({"team": "web"}), world.add_namespace({"team": "other"})
    world.registry.push_image("web", "1.0.0")
    access = {"namespaceSelectors": [{"matchLabels": {"team": "web"}}]}
    world.create(image_repository("web", world.image("web"), accessFrom=access))
    policy = image_policy("web")
    policy["spec"]["imageRepositoryRef"]["namespace"] = owner
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0", friend)})
    world.create(policy, git_repository("web", world.git.url("app.git")), automation("web", "web"), namespace=friend)
    world.create(policy, namespace=stranger)
    world.start(everywhere=True)
    world.until_ready("ImagePolicy", namespace=friend)
    world.until_ready("ImageUpdateAutomation", namespace=friend)
    assert b"web:1.0.0" in bare.file("deploy.yaml")

    def refused(found: Object) -> bool:
        return condition(found, "Ready") == "False"

    denied = world.until_object("ImagePolicy", "web", refused, "refused", stranger)
    assert ready_of(denied)[1] == "AccessDenied"
    # Labels are real: once they are right, the policy may.
    world.api.merge_patch("v1", "Namespace", stranger, {"metadata": {"labels": {"team": "web"}}})

    def let_in() -> bool:
        world.request("ImagePolicy", namespace=stranger)
        return condition(world.find("ImagePolicy", namespace=stranger), "Ready") == "True"

    until(let_in, "the stranger to be let in")


def test_without_references_across_namespaces(world: ClusterLab) -> None:
    friend = world.add_namespace({"team": "web"})
    world.registry.push_image("web", "1.0.0")
    access: Object = {"namespaceSelectors": [{"matchLabels": {}}]}
    world.create(image_repository("web", world.image("web"), accessFrom=access), image_policy("web"))
    policy = image_policy("web")
    policy["spec"]["imageRepositoryRef"]["namespace"] = world.namespace
    world.create(policy, namespace=friend)
    world.start("--no-cross-namespace-refs=true", everywhere=True)
    world.until_ready("ImagePolicy")
    denied = world.until_object("ImagePolicy", "web", lambda p: condition(p, "Ready") == "False", "refused", friend)
    assert ready_of(denied)[1] == "AccessDenied"
    assert "cross-namespace" in ready_of(denied)[2]
