"""Several replicas of the service: one works, the others stand by, and no fault makes two of them write or push."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.audit import WRITES
from tests.support.clusterlab import SHORT_LEASE, ClusterLab, Replica, cluster_lab, until
from tests.support.controlplane import ControlPlane
from tests.support.kube import proxied

pytestmark = pytest.mark.slow

LEASE = "imagebot-leader-election"
FLAGS = ("--watch-all-namespaces=false", *SHORT_LEASE)


@pytest.fixture
def world(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(own_control_plane, namespace, tmp_path) as made:
        yield made


def holder(world: ClusterLab) -> str:
    found = world.api.find("coordination.k8s.io/v1", "Lease", LEASE, world.namespace)
    return str(((found or {}).get("spec") or {}).get("holderIdentity") or "")


def pair(world: ClusterLab) -> tuple[Replica, Replica]:
    """A leader and one that stands by."""
    first = world.replica("first").start(*FLAGS)
    until(lambda: first.leads, "the first to lead")
    return first, world.replica("second").start(*FLAGS)


def assert_one_after_the_other(world: ClusterLab, mark: int, first: Replica, second: Replica) -> None:
    """What the first wrote ended before the second had the lease; leases themselves do not count."""
    audit = world.cluster.audit
    assert audit is not None
    requests = [r for r in audit.select(mark, verb=WRITES) if r.user in {first.user, second.user} and r.code < 300]
    took = next(n for n, r in enumerate(requests) if r.user == second.user and r.resource == "leases")
    late = [f"{r.verb} {r.resource} {r.name}" for r in requests[took:] if r.user == first.user]
    early = [f"{r.verb} {r.resource} {r.name}" for r in requests[:took] if r.user == second.user]
    assert (late, early) == ([], [])


def test_one_works_and_hands_over_at_once_when_it_is_asked_to_end(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    mark = own_control_plane.audit.mark()
    bare = world.create_app()
    first, second = pair(world)
    world.until_settled(bare, "1.0.0")
    assert (first.probe(), second.probe()) == (200, 200)
    assert not second.leads
    assert world.writes(mark, second) == []
    before = holder(world)

    assert first.stop() == 0
    assert first.says("gave the lease back")
    until(lambda: second.leads, "the second to lead")
    assert holder(world) not in {"", before}
    world.registry.push_image("web", "1.1.0")
    world.request("ImageRepository")
    world.until_settled(bare, "1.1.0")
    assert len(bare.log()) == 3
    assert_one_after_the_other(world, mark, first, second)


def test_the_other_takes_over_when_the_leader_is_killed(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    mark = own_control_plane.audit.mark()
    bare = world.create_app()
    first, second = pair(world)
    world.until_settled(bare, "1.0.0")
    assert first.kill() == -signal.SIGKILL
    world.registry.push_image("web", "1.1.0")
    world.request("ImageRepository")
    world.until_settled(bare, "1.1.0")
    assert second.leads
    assert len(bare.log()) == 3
    assert_one_after_the_other(world, mark, first, second)


@pytest.mark.parametrize("arrives", ["late", "first"])
def test_a_leader_frozen_during_a_push_makes_no_second_commit(
    world: ClusterLab, own_control_plane: ControlPlane, arrives: str
) -> None:
    """Its push reaches the repository after the other's, or before; either way there is one commit."""
    mark = own_control_plane.audit.mark()
    bare = world.create_app()
    first, second = world.replica("first"), world.replica("second")
    frozen, go_on = threading.Event(), threading.Event()

    def intercept(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "POST" and handler.path.endswith("git-receive-pack") and not frozen.is_set():
            frozen.set()
            first.signal(signal.SIGSTOP)
            if arrives == "late":
                go_on.wait(60)
        return False

    world.git.intercept = intercept
    try:
        first.start(*FLAGS, ready=False)
        until(frozen.is_set, "the push of the first")
        second.start(*FLAGS)
        until(lambda: second.leads, "the second to lead")
        world.until_settled(bare, "1.0.0")
        assert len(bare.log()) == 2
    finally:
        go_on.set()
        first.signal(signal.SIGCONT)
    assert first.ended() != 0
    assert first.says("lost the lease")
    assert len(bare.log()) == 2
    bare.check()
    assert_one_after_the_other(world, mark, first, second)

    # The one that is left works on, and the other may come back and stand by.
    world.registry.push_image("web", "1.1.0")
    world.request("ImageRepository")
    world.until_settled(bare, "1.1.0")
    assert len(bare.log()) == 3


async def test_a_leader_cut_off_from_the_api_server_during_a_push_stops_before_the_other_begins(
    world: ClusterLab, own_control_plane: ControlPlane
) -> None:
    mark = own_control_plane.audit.mark()
    bare = await asyncio.to_thread(world.create_app)
    pushing, go_on = threading.Event(), threading.Event()

    def intercept(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "POST" and handler.path.endswith("git-receive-pack") and not pushing.is_set():
            pushing.set()
            go_on.wait(60)
        return False

    world.git.intercept = intercept
    flags = (*FLAGS, "--leader-election-lease-duration=10s")
    config, user = world.kubeconfig("first")
    async with proxied(config, world.root) as (proxy, through):
        first, second = world.replica("first", kubeconfig=through, user=user), world.replica("second")
        try:
            await asyncio.to_thread(first.start, *flags, ready=False)
            await asyncio.to_thread(until, pushing.is_set, "the push of the first")
            await asyncio.to_thread(second.start, *flags)
            proxy.refusing = True
            await proxy.cut()
            await asyncio.to_thread(until, lambda: second.leads, "the second to lead")
            # It did not wait for the push to end: that was not its own any more.
            assert first.exit_code() not in {None, 0}
            assert first.says("lost the lease")
            await asyncio.to_thread(world.until_settled, bare, "1.0.0")
        finally:
            go_on.set()
    await asyncio.to_thread(world.handled, "ImageRepository", await asyncio.to_thread(world.request, "ImageRepository"))
    assert len(bare.log()) == 2
    bare.check()
    assert_one_after_the_other(world, mark, first, second)


@pytest.mark.parametrize("arrives", ["late", "first"])
def test_asked_to_end_during_a_push(world: ClusterLab, arrives: str) -> None:
    """A deployment is rolled out while a push is under way: the push has a while, the next process finds what came of it."""
    bare = world.create_app()
    replica = world.replica("first")
    pushing, go_on = threading.Event(), threading.Event()

    def intercept(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "POST" and handler.path.endswith("git-receive-pack") and not pushing.is_set():
            pushing.set()
            if arrives == "late":
                go_on.wait(60)
        return False

    world.git.intercept = intercept
    try:
        replica.start(*FLAGS, ready=False)
        until(pushing.is_set, "the push")
        assert replica.stop() == 0
        assert replica.says("gave the lease back")
        replica.start(*FLAGS)
        world.until_settled(bare, "1.0.0")
    finally:
        go_on.set()
    assert len(bare.log()) == 2
    bare.check()


def test_shards_have_leases_of_their_own(world: ClusterLab) -> None:
    key = "sharding.fluxcd.io/key"
    bares = {name: world.create_app(name, labels={key: name}) for name in ("east", "west")}
    world.replica("east").start(*FLAGS, "--watch-label-selector", f"{key}=east")
    world.until_settled(bares["east"], "1.0.0", "east")
    assert world.get("ImageRepository", "west")["status"] == {"observedGeneration": -1}
    world.replica("west").start(*FLAGS, "--watch-label-selector", f"{key}=west")
    world.until_settled(bares["west"], "1.0.0", "west")
    found = world.api.list("coordination.k8s.io/v1", "Lease", world.namespace)
    assert len({lease["metadata"]["name"] for lease in found}) == 2
    assert all(len(bare.log()) == 2 for bare in bares.values())
