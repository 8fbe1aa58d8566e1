"""The service killed during a run and started again, again and again: exactly one commit for each new tag.

`IMAGEBOT_KILL_RUNS` says how many runs; the tally is printed.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.clusterlab import ClusterLab, Replica, cluster_lab, is_settled, until
from tests.support.controlplane import Cluster
from tests.support.gitrepo import BareRepository

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("IMAGEBOT_KILL_RUNS", "10"))
FLAGS = (
    "--watch-all-namespaces=false",
    "--enable-leader-election",
    "--leader-election-lease-duration=2s",
    "--leader-election-renew-deadline=1600ms",
    "--leader-election-retry-period=100ms",
)
SEED = 7
SPAN = 1.2
"""Seconds after a request within which a random kill falls: a run takes about half a second."""


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


class Killer:
    """Kills the process at a request to Git, or a while after a call of `aim`."""

    def __init__(self, world: ClusterLab, replica: Replica) -> None:
        self._replica = replica
        self._left = -1
        self._at = ""
        self.done = threading.Event()
        world.git.intercept = self.intercept

    def aim(self, step: int | None, delay: float) -> None:
        """At the `step`-th request from now, or after `delay` seconds."""
        self.done.clear()
        self._at, self._left = "a moment", -1 if step is None else step
        if step is None:
            time.sleep(delay)
            self._kill()

    def where(self) -> str:
        """Where it struck, for the tally; after a wait for the run to come so far."""
        if not self.done.wait(20):
            self._left, self._at = -1, "no request"
            self._kill()
        return self._at

    def intercept(self, handler: BaseHTTPRequestHandler) -> bool:
        """Called by the Git server for each request."""
        if self._left < 0:
            return False
        self._left -= 1
        if self._left < 0:
            service = "push" if "receive-pack" in handler.path else "fetch"
            self._at = f"{handler.command} {service}"
            self._kill()
        return False

    def _kill(self) -> None:
        self._replica.kill()
        self.done.set()


def run(world: ClusterLab, bare: BareRepository, replica: Replica, killer: Killer, turn: int, chance: random.Random) -> str:
    """One run: a new tag, a kill on the way to its commit, a new start."""
    tag = f"1.{turn}.0"
    world.registry.push_image("web", tag)
    world.request("ImageRepository")
    # Every second one at a request to Git, each in turn; the others at any moment.
    killer.aim(turn // 2 % 6 if turn % 2 else None, chance.uniform(0, SPAN))
    place = killer.where()
    replica.start(*FLAGS, ready=False)
    if world.get("ImagePolicy")["status"]["latestRef"]["tag"] != tag:
        world.request("ImageRepository")  # whoever asked sees that it was not done

    def settled() -> bool:
        if replica.exit_code() is not None:
            # The lease is short: on a machine that stalls it may be lost, which ends the process. A kubelet starts it again.
            replica.start(*FLAGS, ready=False)
        return is_settled(world.find("ImageUpdateAutomation"), bare, tag)

    until(settled, f"the commit of {tag}, killed at {place}")
    return place


@pytest.mark.timeout(60 + RUNS * 30)
def test_killed_in_each_run_and_started_again(world: ClusterLab) -> None:
    bare = world.create_app()
    replica = world.replica("victim").start(*FLAGS)
    world.until_settled(bare, "1.0.0")
    killer, chance, tally = Killer(world, replica), random.Random(SEED), Counter[str]()
    for turn in itertools.islice(itertools.count(1), RUNS):
        tally[run(world, bare, replica, killer, turn, chance)] += 1
        log = bare.log()
        assert len(log) == turn + 2, f"run {turn}, killed at {tally}: {log[:4]}"
        assert f"web:1.{turn}.0 ".encode() in bare.file("deploy.yaml")
    bare.check()
    lost = len(replica.says("lost the lease"))
    print(f"{RUNS} runs, one commit each; killed at: {dict(tally.most_common())}; leases lost: {lost}")
    assert not list((replica.folder / "storage").rglob("*.lock"))
