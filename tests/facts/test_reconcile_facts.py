"""Recorded stories of Flux's source-controller and kustomize-controller, played on the running service in a real cluster.

Stories are played side by side, each in a namespace of its own. What is compared: every object that was applied, inventories and
the rest of each status, conditions with their messages and order, history, field managers, events as stored and as sent. Where we
differ on purpose the very lines that differ stand in reconcile_accept.json, with the row of docs/differences.md that says why; a
line more or less is a failure. The tables among the facts (substitution, ignore patterns) need no cluster: they are unit tests.

Most runs play some stories of each set; IMAGEBOT_TEST_FACTS=all plays all of them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.clusterlab import ROOT
from tests.support.controlplane import Cluster
from tests.support.reconcile_facts.compare import ASPECTS, differences
from tests.support.reconcile_facts.world import facts_world, playing
from tests.support.service_facts import FACTS, facts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.needs("gpg")]

SETS: dict[str, dict[str, Any]] = {
    path.stem: recorded
    for path in sorted((FACTS / "reconcile").glob("*.json"))
    if isinstance(recorded := json.loads(path.read_text("utf-8")), dict) and "stories" in recorded
}
STORIES: dict[str, Any] = {
    entry["story"]["name"]: entry
    for recorded in SETS.values()
    for entry in recorded["stories"]
    if "steps" in entry["story"]
}  # fmt: skip
FLAGS: dict[str, str] = {
    entry["story"]["name"]: " ".join(recorded["flags"].values()) for recorded in SETS.values() for entry in recorded["stories"]
}
ACCEPTED: dict[str, Any] = facts("reconcile_accept.json")
USUAL = {
    "delete-prune": "deletion with prune: what opts out stays",
    "drift-field": "a field changed by hand is put back",
    "event-annotations": "annotations that reach events",
    "field-removed": "a field leaves the manifest",
    "partial-failure-then-removal": "what a failed run applied goes again",
    "prune-disabled-label": "an object that opts out of pruning",
    "apply-error-validation": "one of three objects is refused, then mended",
    "components": "components beside the path",
    "missing-path": "a path that is not there",
    "plain-folder": "a folder without kustomization.yaml",
    "target-namespace": "namespaces set by the Kustomization",
    "sops-key-missing": "an encrypted Secret without a key",
    "sops-secret": "an encrypted Secret",
    "depends-missing": "a dependency that comes later",
    "wait-deployment": "health of a Deployment",
    "wait-job-failed": "a Job that fails",
    "verify-then-break": "a signed commit, then one without signature",
    "verify-tag-and-head": "signatures of tag and commit",
    "include": "one repository in another",
    "ref-semver-moves": "a new tag in the range",
    "sparse-missing": "sparse checkout of what is not there",
    "strict-cross-namespace": "a source of another namespace is refused",
    "from-order": "variables from several objects",
    "from-watched": "a change of variables wakes",
    "impersonation-account-deleted": "deletion when the ServiceAccount is gone",
    "source-never-ready": "a source without an artifact",
}
"""What is played by default, and why: something of each set."""
WANTED = sorted(STORIES if os.environ.get("IMAGEBOT_TEST_FACTS") == "all" else USUAL)


def length(name: str) -> int:
    """About how long a story takes: the longest begin first."""
    steps = STORIES[name]["story"]["steps"]
    return len(steps) + (20 if '"timeout"' in json.dumps(steps) else 0)


def accepted(name: str) -> dict[str, list[str]]:
    """The lines of a story that are to differ, by aspect."""
    return {aspect: entry["lines"] for aspect, entry in ACCEPTED["stories"].get(name, {}).items()}


@pytest.fixture(scope="module")
def records(
    control_plane: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Any]]]:
    """What the stories come to. They are left in pytest's folder, too."""
    if not control_plane.runs_workloads:
        pytest.skip("nothing runs on a bare API server")
    selected = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    wanted = sorted((name for name in WANTED if name in selected), key=length, reverse=True)
    namespace = f"reconcile-facts-{secrets.token_hex(3)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    root = tmp_path_factory.mktemp("reconcile-facts")
    (root / "records").mkdir()
    try:
        with facts_world(control_plane, namespace, root) as world:
            entries = {name: STORIES[name] for name in wanted}
            with playing(world, entries, FLAGS, {name: accepted(name) for name in wanted}) as begun:
                yield begun
            for name, record in begun.items():
                if record.done() and not record.exception():
                    (root / "records" / f"{name}.json").write_text(json.dumps(record.result(), indent=1))
            assert world.sink.faults == []
    finally:
        control_plane.api.delete("v1", "Namespace", namespace, missing_ok=True)


@pytest.mark.parametrize("name", WANTED)
def test_the_service_lives_the_recorded_story(name: str, records: Mapping[str, Future[Any]]) -> None:
    assert differences(STORIES[name]["seen"], records[name].result(timeout=600)) == accepted(name)


def test_tally(records: Mapping[str, Future[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """How much agrees to the letter."""
    found = {name: differences(STORIES[name]["seen"], record.result(timeout=600)) for name, record in records.items()}
    whole, agreeing = sum(not lines for lines in found.values()), len(ASPECTS) * len(found) - sum(map(len, found.values()))
    with capsys.disabled():
        print(f"\n{whole} of {len(found)} stories agree with Flux in full; {agreeing} of {len(ASPECTS) * len(found)} aspects")
    assert {name: set(lines) for name, lines in found.items() if lines} == {
        name: set(accepted(name)) for name in found if accepted(name)
    }


def test_each_set_has_a_story_that_is_always_played() -> None:
    played = set(USUAL)
    for title, recorded in SETS.items():
        names = {entry["story"]["name"] for entry in recorded["stories"] if "steps" in entry["story"]}
        assert not names or names & played, title
    assert played <= set(STORIES)
    assert all("error" not in entry["seen"] for entry in STORIES.values())


def test_every_accepted_difference_is_in_the_manual() -> None:
    lines = (ROOT / "docs" / "differences.md").read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| ").strip() for line in lines if line.startswith("|")}
    assert {entry["row"] for entry in ACCEPTED["reasons"].values()} <= rows
    used = {reason for story in ACCEPTED["stories"].values() for aspect in story.values() for reason in aspect["because"]}
    assert used == set(ACCEPTED["reasons"])
    assert all(len(entry["why"]) > 20 for entry in ACCEPTED["reasons"].values())
    assert set(ACCEPTED["stories"]) <= set(STORIES)
    assert all(aspect["because"] and aspect["lines"] for story in ACCEPTED["stories"].values() for aspect in story.values())
