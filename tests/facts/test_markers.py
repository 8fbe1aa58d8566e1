"""Every recorded update, as far as files are concerned: which change, what a reader of them sees, and which bytes may differ."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml

from imagebot.markers.find import Style, Unusable, find_markers
from tests.support.marked_text import outside
from tests.support.marker_facts import FACTS, cases, content, run

ACCEPTED: dict[str, str] = json.loads((FACTS / "markers_accept.json").read_text(encoding="utf-8"))
CASES = {case["id"]: case for case in cases()}
# A broken template, selector or path ends a run before anything is written: such a record says nothing about files.
WRITTEN = [name for name, case in CASES.items() if case["outcome"]["ready"][1] == "Succeeded" and name not in ACCEPTED]


def seen(raw: bytes) -> Any:
    """Parsed documents without empty ones, or the raw bytes where that fails: what a reader of the file sees."""
    try:
        return [document for document in yaml.load_all(raw.decode("utf-8-sig"), yaml.CBaseLoader) if document not in (None, "")]
    except (yaml.YAMLError, UnicodeDecodeError):
        return raw


def recorded_files(case: dict[str, Any]) -> dict[str, Any]:
    """What the files say after the recorded update."""
    files = {path: content(entry) for path, entry in case["files"].items()}
    files |= {path: content(entry) for path, entry in case["outcome"]["changed"].items()}
    return {path: seen(data) for path, data in files.items() if path not in case["outcome"]["deleted"]}


def our_files(case: dict[str, Any]) -> dict[str, Any]:
    return {path: seen(data) for path, data in run(case).files.items()}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_files_say_what_the_record_says(name: str) -> None:
    assert our_files(CASES[name]) == recorded_files(CASES[name])


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_files_change(name: str) -> None:
    case = CASES[name]
    ours = {path for path, data in run(case).files.items() if data != content(case["files"][path])}
    assert ours == set(case["outcome"]["changed"])


@pytest.mark.parametrize("name", CASES)
def test_only_marked_scalars_change(name: str) -> None:
    case = CASES[name]
    for path, now in run(case).files.items():
        before = content(case["files"][path])
        if now == before:
            continue
        found = find_markers(before)
        if not any(marker.style in (Style.LITERAL, Style.FOLDED) for marker in found.markers):
            assert outside(now) == outside(before, found)
        assert now.count(b"\n") <= before.count(b"\n")
        assert now.count(b"#") == before.count(b"#")


@pytest.mark.parametrize("name", CASES)
def test_a_second_update_changes_nothing(name: str) -> None:
    case = CASES[name]
    again = {**case, "files": {path: {"b64": _encoded(data)} for path, data in run(case).files.items()}}
    assert not run(again).changed


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_differences_are_real() -> None:
    """A case that agrees again does not belong on the list of differences."""
    assert [name for name in ACCEPTED if our_files(CASES[name]) == recorded_files(CASES[name])] == []


@pytest.mark.parametrize("name", ["m018", "m054", "m057", "m073"])
def test_files_that_flux_skips_without_a_word_are_reported(name: str) -> None:
    case = CASES[name]
    reported = run(case).unusable
    assert reported
    for path in reported:
        with pytest.raises(Unusable):
            find_markers(content(case["files"][path]))
