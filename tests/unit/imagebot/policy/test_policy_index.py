from __future__ import annotations

import pytest

from imagebot.policy.base import Alphabetical, SemVer, TagFilter
from imagebot.policy.by_version import VersionView
from imagebot.policy.choose import build_policy
from imagebot.policy.extract import Values
from imagebot.policy.index import Delta, TagIndex


def test_tags_are_descending_and_distinct() -> None:
    index = TagIndex(["b", "a", "c", "a"])
    assert list(index.tags) == ["c", "b", "a"]
    assert (index.tags[0], index.tags[-1], index.tags[1:]) == ("c", "a", ["b", "a"])
    assert len(index) == len(index.tags) == 3
    assert "a" in index
    assert "d" not in index
    assert 1 not in index
    for outside in (3, -4):
        with pytest.raises(IndexError):
            index.tags[outside]


def test_replace_says_what_changed() -> None:
    index = TagIndex(["a", "b", "c"])
    assert index.replace(["c", "e", "a", "d", "e"]) == Delta(("d", "e"), ("b",))
    assert list(index.tags) == ["e", "d", "c", "a"]
    assert not index.replace(["a", "c", "d", "e"])
    assert index.replace([]) == Delta((), ("a", "c", "d", "e"))
    assert not index.tags


def test_strings_that_stay_are_not_exchanged() -> None:
    old = ["".join(["1.0.", str(i)]) for i in range(100)]
    index = TagIndex(old)
    index.replace(["".join(["1.0.", str(i)]) for i in range(101)])
    kept = {id(tag) for tag in old}
    assert sum(id(tag) in kept for tag in index.tags) == 100


class Counted:
    """Counts how often a tag is looked at."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tag: str) -> str:
        self.calls += 1
        return tag


def test_a_new_tag_is_parsed_alone() -> None:
    tags = [f"1.{i}.0" for i in range(1000)]
    index, counted = TagIndex(tags), Counted()
    for _ in range(20):
        index.view("versions", lambda: VersionView(Values(counted, rewrites=True)))
    assert counted.calls == 1000
    index.replace([*tags, "2.0.0"])
    index.view("versions", lambda: VersionView(Values(counted, rewrites=True)))
    assert counted.calls == 1001
    index.replace(tags[1:])
    assert counted.calls == 1003


def test_policies_with_one_filter_share_a_view() -> None:
    index = TagIndex([f"v{i}.0.0" for i in range(50)])
    for i in range(20):
        build_policy(SemVer(f">={i}.0.0"), TagFilter("^v(.*)", "$1")).choose(index)
    assert index.view_sizes == [50]


def test_views_are_bounded() -> None:
    index = TagIndex([str(i) for i in range(10)], max_views=3, max_entries=25)
    for i in range(1, 5):
        build_policy(Alphabetical(), TagFilter("", f"{i}$0")).choose(index)
    assert index.view_sizes == [10, 10]
    small = TagIndex([str(i) for i in range(10)], max_views=3)
    for i in range(5):
        build_policy(Alphabetical(), TagFilter("", f"{i}$0")).choose(small)
    assert len(small.view_sizes) == 3
    alone = TagIndex([str(i) for i in range(10)], max_entries=5)
    build_policy(Alphabetical()).choose(alone)
    assert alone.view_sizes == [10]


def test_many_changes_at_once_start_anew() -> None:
    index = TagIndex([f"1.{i}.0" for i in range(200)])
    policy = build_policy(SemVer("*"))
    policy.choose(index)
    index.replace([f"2.{i}.0" for i in range(200)])
    assert index.view_sizes == []
    assert policy.choose(index).tag == "2.199.0"
