"""What goes wrong around the service in a cluster: it says so, does what can be done, and goes on when it is over."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from reconcile.app import load_packages
from tests.support.clusterlab import ClusterLab, chart_definitions, cluster_lab, install_definitions, until
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import proxied
from tests.support.kubeapi import ApiError, Object
from tests.support.lab import IMAGE, image_policy, image_repository

pytestmark = pytest.mark.slow

CRD = "apiextensions.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


@pytest.fixture
def bare_world(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    """A world whose API server does not know our kinds; they are put back at the end, for others."""
    api = own_control_plane.api
    names = [body["metadata"]["name"] for body in chart_definitions()]
    for name in names:
        api.delete(CRD, "CustomResourceDefinition", name, missing_ok=True)
    for name in names:
        until(lambda name=name: api.find(CRD, "CustomResourceDefinition", name) is None, f"{name} to go", seconds=120)  # type: ignore[misc]
    try:
        with cluster_lab(own_control_plane, namespace, tmp_path, definitions=False) as made:
            yield made
    finally:
        install_definitions(api)


def test_the_api_server_is_started_again(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    bare = world.create_app()
    replica = world.start()
    world.until_settled(bare, "1.0.0")
    own_control_plane.stop("kube-apiserver")
    until(lambda: replica.says("cannot follow a kind"), "the log to say it")
    # Alive and ready: a restart of the pod would mend nothing.
    assert (replica.probe("/healthz"), replica.probe("/readyz")) == (200, 200)
    own_control_plane.start("kube-apiserver")
    until(lambda: len(replica.says("following a kind again")) >= 4, "all kinds to be followed again", seconds=60)
    world.registry.push_image("web", "1.1.0")
    world.request("ImageRepository")
    world.until_settled(bare, "1.1.0")
    assert len(bare.log()) == 3
    assert replica.exit_code() is None
    # Once for each kind and way of failing: not reached, then (while it starts) its rules and its storage not there yet.
    assert len(replica.says("cannot follow a kind")) <= 3 * len(load_packages().followed(("image", "canary")))


def test_a_leader_survives_a_short_stop_of_the_api_server_and_not_a_long_one(
    world: ClusterLab, own_control_plane: ControlPlane
) -> None:
    bare = world.create_app()
    replica = world.replica("leader").start(
        "--watch-all-namespaces=false",
        "--enable-leader-election",
        "--leader-election-lease-duration=5s",
        "--leader-election-renew-deadline=4s",
        "--leader-election-retry-period=500ms",
    )
    world.until_settled(bare, "1.0.0")
    own_control_plane.send("kube-apiserver", signal.SIGSTOP)
    try:
        time.sleep(1.0)  # less than the deadline: a pause that nobody should notice
    finally:
        own_control_plane.send("kube-apiserver", signal.SIGCONT)
    world.handled("ImageRepository", world.request("ImageRepository"))
    assert replica.exit_code() is None

    own_control_plane.stop("kube-apiserver")
    try:
        assert replica.ended() != 0
    finally:
        own_control_plane.start("kube-apiserver")
    assert replica.says("lost the lease")


def test_missing_definitions_are_waited_for(bare_world: ClusterLab) -> None:
    world = bare_world
    replica = world.start()
    until(lambda: len(replica.says("cannot follow a kind", "ImageRepository")) == 1, "the log to say it")
    install_definitions(world.api)
    kinds = len(load_packages().followed(("image", "canary")))
    until(lambda: len(replica.says("following a kind again")) == kinds, "the kinds to be followed", seconds=120)
    bare = world.create_app()
    world.until_settled(bare, "1.0.0")
    assert len(bare.log()) == 2
    said = replica.says("cannot follow a kind")
    assert len(said) == kinds
    assert len({line.partition('"kind"')[2][:24] for line in said}) == kinds


def test_without_the_definition_of_holds_nothing_is_held(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Helm upgrades no definitions: a service newer than them goes on with what there is."""
    api, name = own_control_plane.api, "imageholds.imagebot.dev"
    install_definitions(api)
    api.delete(CRD, "CustomResourceDefinition", name, missing_ok=True)
    until(lambda: api.find(CRD, "CustomResourceDefinition", name) is None, f"{name} to go", seconds=120)
    try:
        with cluster_lab(own_control_plane, namespace, tmp_path, definitions=False) as world:
            replica = world.start()
            bare = world.create_app()
            world.until_settled(bare, "1.0.0")
            assert replica.says("cannot follow a kind", "ImageHold")
    finally:
        install_definitions(api)


def test_a_kind_that_may_not_be_read_is_named_and_the_others_go_on(world: ClusterLab) -> None:
    kinds = ("imagerepositories", "imagepolicies", "imageupdateautomations")
    group = "image.toolkit.fluxcd.io"
    everything = ["get", "list", "watch", "patch", "update"]
    role: Object = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "part", "namespace": world.namespace},
        "rules": [
            {"apiGroups": [group], "resources": [*kinds[:2], *(f"{kind}/status" for kind in kinds[:2])], "verbs": everything},
            {"apiGroups": ["imagebot.dev"], "resources": ["imageholds"], "verbs": everything[:3]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ],
    }
    meta = {"name": "part", "namespace": world.namespace}
    world.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    world.api.create(role)
    subjects = [{"kind": "ServiceAccount", **meta}]
    ref = {"apiGroup": RBAC, "kind": "Role", "name": "part"}
    world.api.create({"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": ref})
    config = world.cluster.service_account_kubeconfig(world.namespace, "part", world.root / "part.kubeconfig")
    world.registry.push_image("web", "1.0.0")
    world.create(image_repository("web", world.image("web")), image_policy("web"))
    replica = world.replica("part", kubeconfig=config).start("--watch-all-namespaces=false", ready=False)
    world.until_ready("ImagePolicy")
    until(lambda: replica.says("cannot follow a kind", "ImageUpdateAutomation"), "the log to say it")
    (line,) = replica.says("cannot follow a kind", "ImageUpdateAutomation")
    assert 'cannot list resource \\"imageupdateautomations\\"' in line
    assert "missing RBAC rule" in line
    assert '[\\"imageupdateautomations\\"], verbs: [\\"list\\"]' in line
    # A service that cannot see its objects is alive, but not ready.
    assert (replica.probe("/healthz"), replica.probe("/readyz")) == (200, 503)


def test_an_automation_deleted_during_its_run(world: ClusterLab) -> None:
    deleted = threading.Event()

    def intercept(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "POST" and handler.path.endswith("git-receive-pack") and not deleted.is_set():
            world.api.delete(IMAGE, "ImageUpdateAutomation", "web", world.namespace)
            deleted.set()
        return False

    world.git.intercept = intercept
    bare = world.create_app()
    replica = world.start()
    until(deleted.is_set, "the push")
    until(lambda: world.find("ImageUpdateAutomation") is None, "the automation to go")
    assert len(bare.log()) <= 2
    assert not replica.says("unexpected")
    assert not replica.says("Traceback")
    world.handled("ImageRepository", world.request("ImageRepository"))


def test_an_object_deleted_by_force_during_its_scan(world: ClusterLab) -> None:
    """Finalizers taken away by hand: the object is gone while its pass still runs."""
    bare = world.create_app()
    replica = world.start()
    world.until_settled(bare, "1.0.0")
    for _ in range(5):
        world.request("ImageRepository")
        world.api.delete(IMAGE, "ImageRepository", "web", world.namespace)
        with suppress(ApiError):  # the service may have been quicker
            world.api.merge_patch(IMAGE, "ImageRepository", "web", {"metadata": {"finalizers": None}}, world.namespace)
        until(lambda: world.find("ImageRepository") is None, "the object to go")
        world.create(image_repository("web", world.image("web")))
    world.until_ready("ImageRepository")
    assert not replica.says("unexpected")


async def test_connections_to_the_api_server_that_are_cut(world: ClusterLab) -> None:
    bare = await asyncio.to_thread(world.create_app)
    config, _ = world.kubeconfig("cut")
    async with proxied(config, world.root) as (proxy, through):
        replica = world.replica("cut", kubeconfig=through)
        await asyncio.to_thread(replica.start, "--watch-all-namespaces=false")
        await asyncio.to_thread(world.until_settled, bare, "1.0.0")
        for turn in range(3):
            await proxy.cut()
            world.registry.push_image("web", f"1.1.{turn}")
            await asyncio.to_thread(world.request, "ImageRepository")
            await asyncio.to_thread(world.until_settled, bare, f"1.1.{turn}")
        assert len(bare.log()) == 5
        assert replica.exit_code() is None
        assert not replica.says("unexpected")
        await asyncio.to_thread(replica.stop)


def test_two_shards_share_the_objects(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    key = "sharding.fluxcd.io/key"
    mark = own_control_plane.audit.mark()
    bares = {name: world.create_app(name, labels={key: name}) for name in ("east", "west")}
    bares["none"] = world.create_app("none")
    flags = "--watch-all-namespaces=false"
    shards = {name: world.replica(name).start(flags, f"--watch-label-selector={key}={name}") for name in ("east", "west")}
    shards["none"] = world.replica("none").start(flags, f"--watch-label-selector=!{key}")
    for name, bare in bares.items():
        world.until_settled(bare, "1.0.0", name)
        assert len(bare.log()) == 2
    for name, replica in shards.items():
        written = [line.split() for line in world.writes(mark, replica)]
        assert {line[2] for line in written if line[1].startswith("image")} == {name}


def test_a_shard_gives_up_what_loses_its_label(world: ClusterLab) -> None:
    key = "sharding.fluxcd.io/key"
    bare = world.create_app("east", labels={key: "east"})
    world.replica("east").start("--watch-all-namespaces=false", f"--watch-label-selector={key}=east")
    world.until_settled(bare, "1.0.0", "east")
    world.patch("ImageUpdateAutomation", "east", {"metadata": {"labels": {key: "west"}}})
    world.registry.push_image("east", "1.1.0")
    world.request("ImageRepository", "east")
    world.until_object("ImagePolicy", "east", lambda p: p["status"]["latestRef"]["tag"] == "1.1.0", "the new tag")
    world.handled("ImageRepository", world.request("ImageRepository", "east"), "east")
    assert len(bare.log()) == 2
    world.replica("west").start("--watch-all-namespaces=false", f"--watch-label-selector={key} in (east,west)")
    world.until_settled(bare, "1.1.0", "east")
    assert len(bare.log()) == 3
