"""What Kustomizations cost that have nothing to do, counted in the API server's audit log once everything is quiet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusterlab import Replica, until
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.gitopslab import GitOpsLab, config_map, gitops_lab

pytestmark = pytest.mark.slow

NAMES = [f"app-{index:02d}" for index in range(12)]
OBJECTS = 4
QUIET = 1.0
"""Seconds without a request after which nothing more is taken to come."""


@pytest.fixture
def world(own_control_plane: ControlPlane, control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[GitOpsLab]:
    with gitops_lab(control_plane, namespace, tmp_path) as made:
        yield made


def quiet(world: GitOpsLab, mark: int, replica: Replica) -> Counter[str]:
    """What was asked since a mark, by verb and resource, once nothing more comes; without events."""
    last, since = -1, time.monotonic()

    def settled() -> bool:
        nonlocal last, since
        count = len(world.requests(mark, replica))
        if count != last:
            last, since = count, time.monotonic()
        return time.monotonic() - since > QUIET

    until(settled, "no more requests")
    asked = [each for each in world.requests(mark, replica) if each.resource != "events"]
    return Counter(f"{each.verb} {each.resource}{' (dry run)' if 'dryRun' in each.uri else ''}" for each in asked)


def handled(world: GitOpsLab, tokens: dict[str, str]) -> None:
    for name, token in tokens.items():
        world.handled("Kustomization", token, name)


def notes(asked: Counter[str]) -> bool:
    """Whether each Kustomization has written its status: once, or a few times where a busy machine made passes show progress."""
    return len(NAMES) <= asked["patch kustomizations/status"] <= 3 * len(NAMES)


def test_what_has_not_changed_costs_one_note_and_no_build(world: GitOpsLab) -> None:
    assert world.cluster.audit is not None
    mark = world.cluster.audit.mark()
    files: dict[str, str | None] = {
        f"{name}/{index}.yaml": config_map(f"{name}-{index}") for name in NAMES for index in range(OBJECTS)
    }
    first = world.commit(files)
    world.source()
    for name in NAMES:
        world.kustomization(name, f"./{name}")
    replica = world.start()
    for name in NAMES:
        world.until_applied(name, first)
    quiet(world, mark, replica)

    mark = world.cluster.audit.mark()
    handled(world, {name: world.request("Kustomization", name) for name in NAMES})
    assert quiet(world, mark, replica) == {"patch kustomizations/status": len(NAMES)}

    # One object of one of them: it is looked at, tried and written; of all others only the revision is noted.
    mark = world.cluster.audit.mark()
    changed = NAMES[len(NAMES) // 2]
    world.publish({f"{changed}/0.yaml": config_map(f"{changed}-0", {"key": "new"})}, *NAMES)
    asked = quiet(world, mark, replica)
    assert notes(asked)
    about = {"get configmaps", "patch configmaps (dry run)", "patch configmaps"}
    assert set(asked) == about | {"patch kustomizations/status", "patch gitrepositories/status"}
    assert all(asked[what] <= 2 for what in about)
    assert asked["patch gitrepositories/status"] <= 4

    # A new process knows from the statuses that there is nothing to build, and from one list that nothing has moved.
    replica.stop()
    tokens = {name: world.request("Kustomization", name) for name in NAMES}
    mark = world.cluster.audit.mark()
    world.start()
    handled(world, tokens)
    asked = quiet(world, mark, replica)
    assert notes(asked)
    assert {what for what in asked if "configmaps" in what} == {"list configmaps", "watch configmaps"}
    assert len(replica.says('"objects changed"')) == len(NAMES) + 1
