"""Recorded stories of Flagger's Canaries, played on the running service in a real cluster.

All stories that are asked for are played side by side by one service. What is compared: states, conditions, events, every object
with its changes, calls of webhooks, chats, queries, exported metrics. Where we differ on purpose the very lines that differ stand
in canary_accept.json, with the row of docs/differences-canary.md that says why; a line more or less is a failure.

Most runs play some stories; IMAGEBOT_TEST_FACTS=all plays all of them, which takes four minutes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary_facts import STORIES
from tests.support.canary_facts.compare import ASPECTS, differences
from tests.support.canary_facts.recorder import canary_world, playing
from tests.support.clusterlab import ROOT
from tests.support.controlplane import Cluster
from tests.support.service_facts import FACTS, facts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RECORDED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((FACTS / "canary").glob("*.json"))
}
ACCEPTED: dict[str, Any] = facts("canary_accept.json")
USUAL = {
    "ab-istio": "A/B testing by cookies and headers, promoted, with Istio",
    "alerts-failure": "a gate, alerts of all severities, a secret, and a rollback",
    "apisix": "a route that people made, extended in place",
    "bluegreen-mirror": "Blue/Green with mirrored requests",
    "config-change-mid-run": "tracked configuration, and a run that starts again",
    "contour-ab": "HTTPProxy, A/B",
    "delete-mid-run-revert": "the Canary goes in the middle of a run and gives everything back",
    "gatewayapi-full-service": "HTTPRoute with everything that spec.service can say",
    "gloo": "RouteTable and Upstreams",
    "hook-rollback": "a webhook that demands a rollback",
    "knative": "a Knative Service: weights by revision, no Services of ours",
    "kuma": "a route without a namespace",
    "metric-template": "metrics of people's own, with a secret and headers",
    "nginx-rollback": "a second Ingress, and a rollback for want of values",
    "progressive-kubernetes": "no router at all",
    "scaled-object": "an autoscaler of KEDA",
    "skipper": "predicates and weights in annotations of an Ingress",
}
"""What is played by default, and why: each router, each strategy, gates, alerts, rollback, deletion, configuration, scaling."""
WANTED = sorted(STORIES if os.environ.get("IMAGEBOT_TEST_FACTS") == "all" else USUAL)


def length(name: str) -> float:
    """How long a story took when it was recorded: the longest begin first."""
    return max(float(entry["at"]) for entry in RECORDED[name]["status"])


@pytest.fixture(scope="module")
def records(
    control_plane: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Any]]]:
    """What the stories come to. They are left in pytest's folder, too."""
    if not control_plane.runs_workloads:
        pytest.skip("nothing runs on a bare API server")
    selected = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    wanted = [name for name in WANTED if name in selected]
    namespace = f"canary-facts-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    root = tmp_path_factory.mktemp("canary-facts")
    (root / "records").mkdir()
    try:
        with canary_world(control_plane, namespace, root, wanted) as world:
            with playing(world, {name: STORIES[name] for name in sorted(wanted, key=length, reverse=True)}) as begun:
                yield begun
            for name, record in begun.items():
                if record.done() and not record.exception():
                    (root / "records" / f"{name}.json").write_text(json.dumps(record.result(), indent=1))
            assert world.prometheus.problems == []
            assert world.history.failures == []
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


@pytest.mark.parametrize("name", WANTED)
def test_the_service_lives_the_recorded_story(name: str, records: Mapping[str, Future[Any]]) -> None:
    got = records[name].result(timeout=1000)
    assert got["error"] is None, got["error"]
    accepted = {aspect: entry["lines"] for aspect, entry in ACCEPTED["stories"].get(name, {}).items()}
    assert differences(RECORDED[name], got) == accepted


def test_tally(records: Mapping[str, Future[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """How much agrees to the letter."""
    found = {name: differences(RECORDED[name], record.result(timeout=1000)) for name, record in records.items()}
    aspects = sum(len(ASPECTS) - len(RECORDED[name]["unstable"]) for name in found)
    whole, agreeing = sum(not lines for lines in found.values()), aspects - sum(map(len, found.values()))
    with capsys.disabled():
        print(f"\n{whole} of {len(found)} stories agree with Flagger in full; {agreeing} of {aspects} aspects")
    accepted = {name: set(aspects) for name, aspects in ACCEPTED["stories"].items() if name in found}
    assert {name: set(lines) for name, lines in found.items() if lines} == accepted


def test_the_stories_are_those_that_were_recorded() -> None:
    assert set(STORIES) == set(RECORDED)
    assert set(USUAL) <= set(STORIES)
    assert all(record["error"] is None for record in RECORDED.values())


def test_every_accepted_difference_is_in_the_manual() -> None:
    rows = [line.split("|")[1].strip() for line in manual().read_text().splitlines() if line.startswith("|")]
    named = {entry["row"] for entry in ACCEPTED["reasons"].values()}
    assert named <= set(rows)
    used = {reason for story in ACCEPTED["stories"].values() for aspect in story.values() for reason in aspect["because"]}
    assert used == set(ACCEPTED["reasons"])
    assert all(len(entry["why"]) > 20 for entry in ACCEPTED["reasons"].values())
    assert set(ACCEPTED["stories"]) <= set(STORIES)
    assert all(aspect["because"] and aspect["lines"] for story in ACCEPTED["stories"].values() for aspect in story.values())


def manual() -> Path:
    return ROOT / "docs" / "differences-canary.md"
