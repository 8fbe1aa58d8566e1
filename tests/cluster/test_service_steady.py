"""What the service costs an API server: nothing while nothing changes, little on a cold start; counted in the audit log."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.audit import Request
from tests.support.clusterlab import ClusterLab, cluster_lab, until
from tests.support.controlplane import ControlPlane
from tests.support.kubeapi import condition
from tests.support.lab import image_repository

pytestmark = pytest.mark.slow

MANY = 500


@pytest.fixture
def world(own_control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(own_control_plane, namespace, tmp_path) as made:
        yield made


def test_unchanged_objects_are_never_written(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    bare = world.create_app(interval="1s")
    replica = world.start()
    world.until_settled(bare, "1.0.0")
    until(lambda: any("pushed commit" in e["message"] for e in world.events()), "the event of the push")
    audit = own_control_plane.audit

    def intervals(count: int) -> None:
        tags, lists = world.registry.requests["tags"], len(world.git.traffic.requests)
        until(lambda: world.registry.requests["tags"] >= tags + count, f"{count} scans")
        until(lambda: len(world.git.traffic.requests) >= lists + count, f"{count} looks at Git")

    intervals(2)
    mark = audit.mark()
    intervals(5)
    assert world.writes(mark, replica) == []
    # Nor is anything read: what the controllers look at is in memory.
    assert [r for r in world.requests(mark, replica) if r.verb != "watch"] == []

    mark = audit.mark()
    world.registry.push_image("web", "1.1.0")
    world.until_settled(bare, "1.1.0")
    until(lambda: sum("pushed commit" in e["message"] for e in world.events()) == 2, "the event of the second push")
    intervals(3)
    written = Counter(line.rsplit(" ", 1)[0] for line in world.writes(mark, replica))
    assert written["patch imagerepositories/status"] == 1
    assert 1 <= written["patch imagepolicies/status"] <= 2
    assert 1 <= written["patch imageupdateautomations/status"] <= 2
    assert set(written) <= {
        "patch imagerepositories/status",
        "patch imagepolicies/status",
        "patch imageupdateautomations/status",
        "create events",
        "patch events",
    }
    assert len(bare.log()) == 3


def test_a_request_costs_what_it_shows(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    bare = world.create_app()
    replica = world.start()
    world.until_settled(bare, "1.0.0")
    mark = own_control_plane.audit.mark()
    world.handled("ImageRepository", world.request("ImageRepository"))
    written = [line for line in world.writes(mark, replica) if "events" not in line]
    # In progress, scanning, done: what somebody who watches is to see, as upstream (which writes four times).
    assert written == ["patch imagerepositories/status web"] * 3


def test_started_again_there_is_nothing_to_write(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    """Tags and mirrors are read anew; what the objects say about them is as it was."""
    bare = world.create_app()
    replica = world.start()
    world.until_settled(bare, "1.0.0")
    assert replica.stop() == 0
    shutil.rmtree(replica.folder / "storage")
    mark, tags, looks = own_control_plane.audit.mark(), world.registry.requests["tags"], len(world.git.traffic.requests)
    replica.start("--watch-all-namespaces=false")
    until(lambda: world.registry.requests["tags"] > tags, "the scan")
    until(lambda: len(world.git.traffic.requests) > looks, "the look at Git")
    # An object made later is answered later: those before it are done.
    world.create(image_repository("late", world.image("web")))
    world.until_ready("ImageRepository", "late")
    assert [line for line in world.writes(mark, replica) if not line.endswith(" late") and "events" not in line] == []
    assert len(bare.log()) == 2


@pytest.mark.timeout(300)
def test_a_cold_start_of_many_objects_stays_within_the_budget(world: ClusterLab, own_control_plane: ControlPlane) -> None:
    world.registry.push_image("web", "1.0.0")
    world.create(*(image_repository(f"r{n:03}", world.image("web")) for n in range(MANY)))
    mark = own_control_plane.audit.mark()
    replica = world.start()

    def asked() -> list[Request]:
        return world.requests(mark, replica)

    def all_ready() -> bool:
        found = world.api.list("image.toolkit.fluxcd.io/v1", "ImageRepository", world.namespace)
        return all(condition(body, "Ready") == "True" for body in found)

    until(all_ready, "all to be Ready", seconds=150)
    until(lambda: sum(r.resource == "events" for r in asked()) >= MANY, "the events", seconds=60)
    tally = Counter(f"{r.verb} {r.resource}" for r in asked())
    assert tally["list imagerepositories"] == 1
    assert tally["patch imagerepositories"] == MANY
    # Under a backlog nobody is shown the steps of each object.
    assert MANY <= tally["patch imagerepositories/status"] <= 2 * MANY
    assert tally["create events"] <= MANY
    assert {r.code for r in asked()} <= {200, 201}
    assert sum(r.verb != "watch" for r in asked()) <= 4 * MANY + 20
