"""Recorded life stories of objects when things go wrong and are mended, played on the running service.

What is compared: conditions, their messages, fields of the status, branches and commits, events. The sequence of states between
two moments of rest is counted only: it holds states that are not shown here, since an unchanged pass writes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagebot.demo.gitserver import GitServer
from tests.support.lab import Lab
from tests.support.registry import TestRegistry
from tests.support.service_facts import compare_story, facts
from tests.support.storyteller import Storyteller

CASES = {case["id"]: case for case in facts("stories.json")["cases"]}
ACCEPTED: dict[str, dict[str, Any]] = facts("stories_accept.json")


@pytest.mark.parametrize("name", CASES)
async def test_the_service_lives_the_recorded_story(name: str, tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    async with TestRegistry() as registry:
        with GitServer(tmp_path / "git") as git:
            got = await Storyteller(Lab(tmp_path, registry, git), registry, git, CASES[name]).play()
    levels = compare_story(CASES[name], got)
    differing = sorted(level for level, same in levels.items() if not same and level != "sequence")
    assert differing == ACCEPTED.get(name, {}).get("levels", [])


def test_every_accepted_difference_has_a_reason() -> None:
    assert set(ACCEPTED) <= set(CASES)
    assert all(entry["levels"] == sorted(entry["levels"]) and len(entry["why"]) > 20 for entry in ACCEPTED.values())
