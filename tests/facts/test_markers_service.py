"""Every recorded update of marked files, made by the whole service in one pass: commits, conditions and events.

`test_markers.py` runs the same cases through the pure rewriter.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from imagebot.api import ImageRef
from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.app import DATABASE_NAME, load_packages, local_service
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.clock import SystemClock
from tests.support.gitrepo import BareRepository, Blob
from tests.support.lab import IMAGE, Lab, git_repository, image_policy, lab, obj
from tests.support.service_facts import Levels, compare_marker, content, event_texts, facts, masked, told

RECORD = facts("markers.json")
CASES = {case["id"]: case for case in RECORD["cases"]}
ACCEPTED: dict[str, dict[str, Any]] = facts("markers_service_accept.json")
AUTOMATION = "ImageUpdateAutomation"


def automation(case: dict[str, Any]) -> dict[str, Any]:
    """The automation as the recorder made it."""
    commit: dict[str, Any] = {"author": {"email": "bot@example.com", "name": "bot"}}
    if "template" in case:
        commit["messageTemplate"] = case["template"]
    if case.get("values"):
        commit["messageTemplateValues"] = case["values"]
    spec: dict[str, Any] = {
        "sourceRef": {"kind": "GitRepository", "name": "repo"},
        "interval": "24h",
        "git": {"commit": commit, "push": {"branch": "main"}},
    }
    if "selector" in case:
        spec["policySelector"] = case["selector"]
    if case.get("path"):
        spec["update"] = {"strategy": "Setters", "path": case["path"]}
    return obj(IMAGE, AUTOMATION, "auto", spec, case["id"])


def declare(world: Lab, case: dict[str, Any]) -> BareRepository:
    """A namespace for a case: its repository and its objects, in one file."""
    name = case["id"]
    bare = BareRepository.create(world.root / "git" / f"{name}.git")
    bare.commit({path: Blob(content(entry), entry.get("mode", "100644")) for path, entry in case["files"].items()})
    objects = [
        *(image_policy(policy, "*", labels={"app": policy}, suspend=True) for policy in RECORD["policies"]),
        git_repository("repo", world.url(f"{name}.git"), interval="24h"),
        automation(case),
    ]
    for body in objects:
        body["metadata"]["namespace"] = name
    (world.folder / f"{name}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return bare


async def preset(world: Lab) -> None:
    """Give every policy the choice that the recorder gave it."""
    scheme = load_packages().scheme
    database = Database(world.state / DATABASE_NAME)
    async with LocalStore(Folder(world.folder, scheme), database, scheme, SystemClock()) as store:
        assert store.problems == ()
        for policy in await store.list("ImagePolicy"):
            image, tag, digest = RECORD["policies"][policy.key.name]
            ref = ImageRef(name=image, tag=tag, digest=digest) if digest else ImageRef(name=image, tag=tag)
            await store.write_status(policy, policy.status.model_copy(update={"latest_ref": ref}))


async def replay(world: Lab) -> dict[str, Any]:
    """Outcome by case."""
    repositories = {name: declare(world, case) for name, case in CASES.items()}
    await preset(world)
    settings = replace(world.settings, concurrent=4)
    async with local_service(
        world.folder, registry=load_packages(), settings=settings, state=world.state, retry=False
    ) as service:
        await service.manager.drained()
        found = {name: await service.store.get(AUTOMATION, Key(name, "auto")) for name in CASES}
    rows = [row for row in told(world.state) if row.kind == AUTOMATION]
    outcomes = {}
    for name, bare in repositories.items():
        ready = cond.get(found[name].status.conditions, cond.READY)
        assert ready is not None
        stalled = cond.get(found[name].status.conditions, cond.STALLED) is not None
        outcome = {
            "files": {path: bare.raw("cat-file", "blob", oid) for path, (_, oid) in bare.tree().items()},
            "modes": {path: mode for path, (mode, _) in bare.tree().items()},
            "commits": len(bare.log()) - 1,
            "ready": [ready.status, ready.reason, masked(world, ready.message), stalled],
            "events": event_texts(world, [row for row in rows if row.key.namespace == name]),
        }
        if outcome["commits"]:
            outcome["message"] = bare.raw("cat-file", "commit", "main").decode().split("\n\n", 1)[1]
            outcome["author"] = bare.git("log", "-1", "--format=%an <%ae>|%cn <%ce>", "main")
        outcomes[name] = outcome
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with lab(tmp_path_factory.mktemp("markers")) as world:
            return await replay(world)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def levels(outcomes: dict[str, Any]) -> dict[str, Levels]:
    return {name: compare_marker(case, outcomes[name]) for name, case in CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_service_does_what_was_recorded(name: str, levels: dict[str, Levels]) -> None:
    """But for the layout of rewritten files, which is kept here and normalised there."""
    differing = sorted(level for level, same in levels[name].items() if not same and level != "bytes")
    assert differing == ACCEPTED.get(name, {}).get("levels", [])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_modes_of_files_survive(name: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[name]["modes"] == {path: entry.get("mode", "100644") for path, entry in CASES[name]["files"].items()}


@pytest.mark.slow
def test_tally(levels: dict[str, Levels]) -> None:
    """How many cases agree at each level; a number that moves is worth a look."""
    tally = Counter(level for found in levels.values() for level, same in found.items() if same)
    assert tally == {"files": 93, "data": 90, "bytes": 69, "commit": 92, "reason": 93, "message": 93, "events": 92}


def test_every_accepted_difference_has_a_reason() -> None:
    assert set(ACCEPTED) <= set(CASES)
    assert all(entry["levels"] == sorted(entry["levels"]) and len(entry["why"]) > 20 for entry in ACCEPTED.values())
