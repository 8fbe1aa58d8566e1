"""YAML as kustomize reads and prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.kustomize.documents import load_all
from reconcile.yamlio import YamlError, dump

texts = st.text(
    st.characters(exclude_categories=["Cs"], min_codepoint=32, exclude_characters="\x7f\x85\u2028\u2029\ufeff\ufffe\uffff"),
    max_size=20,
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_dumped_is_loaded(value: Any) -> None:
    assert load_all(dump(value)) == [value]


@given(values)
def test_json_is_loaded(value: Any) -> None:
    try:
        found = load_all(json.dumps({"a": value}))
    except YamlError:  # JSON writes characters beyond U+FFFF as two escapes, which YAML does not have
        assert any(ord(character) > 0xFFFF for character in json.dumps(value, ensure_ascii=False))
    else:
        assert found == [{"a": value}]


DOCUMENTS = [
    ("", []),
    ("---\n", [None]),
    ("a: 1\n---\nb: 2\n...\n", [{"a": 1}, {"b": 2}]),
    ("a: 1\na: 2\n", [{"a": 2}]),
    ("a: &x [1]\nb: *x\n", [{"a": [1], "b": [1]}]),
    ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n", [{"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}]),
    ("b: {<<: [{k: 1}, {k: 2, l: 2}]}\n", [{"b": {"k": 1, "l": 2}}]),
    ("1: a\ntrue: b\nnull: c\n", [{"1": "a", "true": "b", "null": "c"}]),
    ("a: !!str 1\nb: !own 1\nc: !!int '1'\n", [{"a": "1", "b": "1", "c": 1}]),
    ("d: 2024-01-01\ns: 12:30\nq: 'yes'\n", [{"d": "2024-01-01", "s": "12:30", "q": "yes"}]),
    ("\ufeffa: 1\n", [{"a": 1}]),
]


@pytest.mark.parametrize(("text", "documents"), DOCUMENTS)
def test_documents(text: str, documents: list[Any]) -> None:
    assert load_all(text) == documents


REFUSED = [
    ("{[a]: b}", 1, "a mapping key must be a scalar"),
    ("a: 1\nb: *x\n", 2, "alias *x refers to no finished value"),
    ("a: &x [*x]\n", 1, "alias *x refers to no finished value"),
    ("a: {<<: 1}\n", 1, "a merge key needs a mapping or a list of mappings"),
    ("a: b: c\n", 1, "mapping values are not allowed in this context"),
]


@pytest.mark.parametrize(("text", "line", "problem"), REFUSED)
def test_what_is_refused_has_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(YamlError) as caught:
        load_all(text)
    assert (caught.value.line, caught.value.problem) == (line, problem)


def test_what_aliases_stand_for_is_counted() -> None:
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"
    assert load_all(text, nodes=16) == [{"a": [1, 2, 3], "b": [[1, 2, 3], [1, 2, 3]]}]
    with pytest.raises(YamlError, match="more than 15 values, counting what aliases stand for"):
        load_all(text, nodes=15)


def test_depth_is_bounded() -> None:
    assert load_all("[" * 20 + "]" * 20, depth=20)
    with pytest.raises(YamlError, match="more than 20 nested collections"):
        load_all("[" * 21 + "]" * 21, depth=20)
