"""Copies of plain data, and patches between two states of it."""

from __future__ import annotations

import pytest

from reconcile.api.jsondata import duplicate, encoded
from reconcile.api.mergepatch import difference


def test_a_copy_shares_nothing() -> None:
    given = {"a": {"b": [1, {"c": None}]}, "d": "ä"}
    copy = duplicate(given)
    assert copy == given
    copy["a"]["b"].append(2)  # type: ignore[index]
    assert given["a"] == {"b": [1, {"c": None}]}


def test_false_is_not_zero() -> None:
    assert encoded({"a": False}) != encoded({"a": 0})


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"c": 2}, "a": 1}, {}),
        ({"a": 0}, {"a": False}, {"a": False}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [2, 1]}),
        ({"a": {"b": [{"x": 1, "y": 2}]}}, {"a": {"b": [{"y": 2, "x": 1}]}}, {}),
    ],
)
def test_a_patch_says_what_differs_and_nothing_else(old: dict, new: dict, patch: dict) -> None:  # type: ignore[type-arg]
    assert difference(old, new) == patch
