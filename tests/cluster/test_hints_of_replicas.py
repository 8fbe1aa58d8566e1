"""Hints and several replicas: a plain Service may lead them to any, and they come to the one that leads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from imagebot.hints.doors import path_of
from reconcile.api.meta import Key
from tests.support.clusterlab import SHORT_LEASE, ClusterLab, Replica, cluster_lab, until
from tests.support.controlplane import Cluster
from tests.support.hints import TOKEN, signed
from tests.support.lab import secret

pytestmark = pytest.mark.slow

FLAGS = ("--watch-all-namespaces=false", "--hints-addr=127.0.0.1:0", *SHORT_LEASE)


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


def address(replica: Replica, message: str) -> str:
    """Where a replica says that it listens."""
    until(lambda: replica.says(message), f"{replica.name} to say {message}")
    return str([entry for entry in replica.log() if entry.get("msg") == message][-1]["address"])


def send(world: ClusterLab, to: str, tag: str) -> httpx.Response:
    """One hint, as a CI job sends it."""
    body = orjson.dumps({"image": world.image("web"), "tag": tag})
    path = path_of(TOKEN.encode(), Key(world.namespace, "web"))
    return httpx.post(to + path, content=body, headers=signed(body), timeout=30.0, trust_env=False)


def test_a_hint_for_one_that_stands_by_is_followed_by_the_one_that_leads(world: ClusterLab) -> None:
    bare = world.create_app()
    world.create(secret("hint", {"token": TOKEN}))
    world.patch("ImageRepository", "web", {"spec": {"hint": {"type": "generic-hmac", "secretRef": {"name": "hint"}}}})
    first = world.replica("first").start(*FLAGS)
    leading = address(first, "listening for hints")
    world.until_settled(bare, "1.0.0")
    second = world.replica("second").start(*FLAGS)
    waiting = address(second, "passing hints on to the leader")

    world.registry.push_image("web", "1.1.0")
    until(lambda: send(world, waiting, "1.1.0").status_code == 202, "the note of the leader")
    world.until_settled(bare, "1.1.0")
    assert not second.leads
    assert send(world, leading, "1.1.0").status_code == 202

    # The one that stood by leads, and takes them itself.
    assert first.stop() == 0
    own = address(second, "listening for hints")
    world.registry.push_image("web", "1.2.0")
    until(lambda: send(world, own, "1.2.0").status_code == 202, "the path to be open")
    world.until_settled(bare, "1.2.0")
    assert len(bare.log()) == 4
    secrets = (path_of(TOKEN.encode(), Key(world.namespace, "web")), TOKEN)
    assert [line for each in (first, second) for text in secrets for line in each.says(text)] == []
