"""Which files are left out of an artifact: all recorded rows, the recorded matcher, and laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.artifact.ignore import Ignore, bucket_ignore, parse_pattern, parse_patterns, tree_ignore

FACTS = Path(__file__).parents[2] / "facts" / "reconcile"
STORY = json.loads((FACTS / "ignoring.json").read_text(encoding="utf-8"))["stories"][0]
MATCHING = json.loads((FACTS / "ignore_matching.json").read_text(encoding="utf-8"))
ROWS = list(zip(STORY["story"]["rows"], STORY["seen"]["rows"], strict=True))

PIECES = st.sampled_from(["a", "b", "c", "*", "?", "**", "/", "[ab]", "[^a]", "\\*", "[", ".y", "!", " ", "#", "ä"])
LINES = st.lists(PIECES, min_size=1, max_size=6).map("".join)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "ab", "a.y", "ä"]), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(("row", "seen"), ROWS, ids=[str(number) for number in range(len(ROWS))])
def test_recorded_artifacts(row: dict[str, Any], seen: dict[str, Any]) -> None:
    ignore = tree_ignore(row["rules"], row["ignore"])
    kept = [path for path in {*row["files"], *row["rules"]} if not ignore.ignored(path)]
    assert sorted(kept) == sorted(seen["files"])


@pytest.mark.parametrize("case", MATCHING["cases"], ids=lambda case: " ".join(text for text, _ in case["patterns"]) or "-")
def test_recorded_matching(case: dict[str, Any]) -> None:
    ignore = Ignore([parse_pattern(text, scope) for text, scope in case["patterns"]])
    ours = "".join("1" if ignore.ignored(path, is_dir) else "0" for path, is_dir in MATCHING["paths"])
    assert ours == case["ignored"]


@pytest.mark.parametrize("text", [None, "", "\n\n", "# nothing\n", " \t\n\u3000\n", "#a\r\n\r\n"])
def test_without_a_pattern_all_defaults_apply(text: str | None) -> None:
    ignore = tree_ignore({".sourceignore": text or "", "dir/.sourceignore": "# nothing"}, text)
    assert ignore.ignored("x.jpg")
    assert ignore.ignored(".github/w.yml")
    assert ignore.ignored("deep/.sops.yaml")
    assert not ignore.ignored(".sourceignore")


@pytest.mark.parametrize("where", ["extra", "root", "dir"])
def test_one_pattern_anywhere_leaves_only_the_version_control_group(where: str) -> None:
    files = {"root": {".sourceignore": "zzz"}, "dir": {"dir/.sourceignore": "zzz"}, "extra": {}}[where]
    ignore = tree_ignore(files, "zzz" if where == "extra" else None)
    assert not ignore.ignored("x.jpg")
    assert not ignore.ignored(".github/w.yml")
    assert ignore.ignored(".git/config")
    assert ignore.ignored("sub/.gitignore")


def test_the_version_control_group_can_be_taken_back() -> None:
    assert not tree_ignore({}, "!.gitignore").ignored(".gitignore")


def test_pattern_files_apply_in_order_of_their_folders_and_the_extra_ones_last() -> None:
    rules = {"b/.sourceignore": "!x", ".sourceignore": "x", "b/c/.sourceignore": "x", "b-/.sourceignore": "!x"}
    ignore = tree_ignore(rules, None)
    decided = {path: ignore.ignored(path) for path in ("x", "a/x", "b/x", "b/c/x", "b/c/d/x", "b-/x")}
    assert decided == {"x": True, "a/x": True, "b/x": False, "b/c/x": True, "b/c/d/x": True, "b-/x": False}
    assert not tree_ignore(rules, "!x").ignored("b/c/x")


def test_pattern_files_below_git_do_not_count() -> None:
    assert tree_ignore({".git/.sourceignore": "a", "sub/.git/x/.sourceignore": "a"}, None).ignored("x.jpg")


def test_buckets_have_no_defaults() -> None:
    ignore = bucket_ignore(None, None)
    assert not ignore
    assert not any(ignore.ignored(path) for path in (".git/config", "x.jpg", ".sourceignore"))
    assert bucket_ignore("*.txt\n", "!b.txt").ignored("a.txt")
    assert not bucket_ignore("*.txt\n", "!b.txt").ignored("b.txt")


def test_the_root_is_never_left_out() -> None:
    ignore = tree_ignore({}, "*\n/*\n.")
    assert not ignore.ignored("", is_dir=True)
    assert not ignore.ignored(".", is_dir=True)


def test_names_that_are_no_text() -> None:
    ignore = tree_ignore({}, "?.bin\n*\udcff")
    assert ignore.ignored("\udcfe.bin")
    assert ignore.ignored("dir/a\udcff")
    assert not ignore.ignored("a\nb.yaml")
    assert tree_ignore({}, "a*b.yaml").ignored("a\nb.yaml")


@given(st.lists(LINES, max_size=4), PATHS, st.booleans())
def test_a_pattern_at_the_end_that_matches_decides(lines: list[str], path: str, is_dir: bool) -> None:
    before = parse_patterns("\n".join(lines))
    assert Ignore([*before, parse_pattern(f"/{path}")]).ignored(path, is_dir)
    assert not Ignore([*before, parse_pattern(f"!/{path}")]).ignored(path, is_dir)


@given(st.lists(LINES, min_size=1, max_size=4), PATHS, st.booleans())
def test_the_last_pattern_that_matches_alone_decides(lines: list[str], path: str, is_dir: bool) -> None:
    patterns = parse_patterns("\n".join(lines))
    decision = False
    for pattern in patterns:
        alone = Ignore([parse_pattern("/*"), pattern]) if pattern.negated else Ignore([pattern])
        if alone.ignored(path, is_dir) != pattern.negated:
            decision = not pattern.negated
    assert Ignore(patterns).ignored(path, is_dir) == decision


@given(LINES, PATHS)
def test_what_covers_a_folder_covers_all_below(line: str, path: str) -> None:
    ignore = Ignore([parse_pattern(line)])
    if ignore.ignored(path, is_dir=True):
        assert ignore.ignored(f"{path}/deep/file")


@given(LINES, PATHS, st.booleans())
def test_a_scope_is_a_prefix(line: str, path: str, is_dir: bool) -> None:
    inside = Ignore([parse_pattern(line, "s/t")])
    assert inside.ignored(f"s/t/{path}", is_dir) == Ignore([parse_pattern(line)]).ignored(path, is_dir)
    assert not inside.ignored(path, is_dir)
    assert not inside.ignored("s/t", is_dir=True)


@given(st.lists(LINES, max_size=4), st.lists(st.tuples(PATHS, st.booleans()), max_size=8))
def test_what_was_asked_before_changes_nothing(lines: list[str], asked: list[tuple[str, bool]]) -> None:
    patterns = parse_patterns("\n".join(lines))
    shared = Ignore(patterns)
    for path, is_dir in asked + asked[::-1]:
        assert shared.ignored(path, is_dir) == Ignore(patterns).ignored(path, is_dir)


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "**/" * 60 + "x", "/".join(["**", "a"] * 40), "[^b]*" * 40 + "c", "a*" * 2000]
)
@pytest.mark.timeout(60)
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    # A matcher that backtracks would not end within the lifetime of the machine.
    ignore = Ignore([parse_pattern(pattern), parse_pattern(f"**/{pattern}/x"), parse_pattern(f"{pattern}{pattern}")])
    assert not ignore.ignored("a" * 250 + "d")
    assert not ignore.ignored("/".join(["a" * 60 + "d"] * 40))


def test_a_path_of_very_many_folders() -> None:
    assert Ignore([parse_pattern("**/end")]).ignored("/".join(["d"] * 5000) + "/end")
