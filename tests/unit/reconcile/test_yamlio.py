"""Manifests in: values as Kubernetes reads them, and refusals that say where."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reconcile.errors import Invalid
from reconcile.yamlio import Limits, ScalarEvent, YamlError, load_documents, parse_events, resolve, start_of


def load(text: str, **limits: int) -> Any:
    documents = load_documents(text, "f.yaml", Limits(**limits))
    assert len(documents) == 1
    return documents[0][0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("TRUE", True),
        ("n", False),
        ("off", False),
        ("False", False),
        ("tRue", "tRue"),
        ("~", None),
        ("Null", None),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0755", 493),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("08", 8.0),
        ("1_000", 1000),
        ("_1", "_1"),
        (".1_", ".1_"),
        ("0b-1", -1),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", float(2**64)),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e400", "1e400"),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("1.2.3", "1.2.3"),
        ("12:30", "12:30"),
        ("2024-01-05", "2024-01-05"),
        ("2024-01-05T10:00:00Z", "2024-01-05T10:00:00Z"),
        ("5m", "5m"),
        ("-", "-"),
        ("9" * 1000, "9" * 1000),
        ("latest", "latest"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(resolve(".NaN"))  # type: ignore[arg-type]


def test_documents_with_their_lines() -> None:
    text = "# head\n\na: 1\n---\n# nothing\n---\n\n- x\n--- text\n---\n~\n...\n"
    assert load_documents(text, "f") == [({"a": 1}, 3), (["x"], 8), ("text", 9)]
    assert load_documents("", "f") == []
    assert load_documents("\ufeffa: é\r\nb: 'yes'\r\n", "f") == [({"a": "é", "b": "yes"}, 1)]


def test_keys_are_text() -> None:
    assert load("1: a\nyes: b\n~: c\n1.5: d\n'2': e\n? x\n: f\n") == {
        "1": "a",
        "true": "b",
        "null": "c",
        "1.5": "d",
        "2": "e",
        "x": "f",
    }


def test_tags() -> None:
    text = "[!!str 5, !!int '5', !!float 5, !!bool 'yes', !!null '', !mine 5, !!binary aGk=, ! 5, !!timestamp 2024-01-05]"
    assert load(text) == ["5", 5, 5.0, True, None, "5", "hi", "5", "2024-01-05"]


def test_aliases_and_merges() -> None:
    text = "a: &a {x: 1, z: 2}\nb: {<<: *a, z: 3}\nc: {<<: [{x: 9}, *a], w: 0}\nd: *a\n'<<': text\n"
    assert load(text) == {
        "a": {"x": 1, "z": 2},
        "b": {"z": 3, "x": 1},
        "c": {"w": 0, "x": 9, "z": 2},
        "d": {"x": 1, "z": 2},
        "<<": "text",
    }


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "key 'a' is set twice"),
        ("a: {1: x, '1': y}\n", 1, 11, "set twice"),
        ("a: 1\n  b: 2\n", 2, 4, "mapping values are not allowed"),
        ("a: [1\n", 2, 1, "expected ',' or ']'"),
        ("a: *x\n", 1, 4, "refers to no finished value"),
        ("a: &x [*x]\n", 1, 8, "refers to no finished value"),
        ("a: &x 1\n---\nb: *x\n", 3, 4, "refers to no finished value"),
        ("? [a]\n: b\n", 1, 3, "must be a scalar"),
        ("a:\n  <<: 5\n", 2, 7, "merge key"),
        ("a: !!int x\n", 1, 4, "is not a !!int"),
        ("a: !!bool 5\n", 1, 4, "is not a !!bool"),
        ("a: !!python/object:os.system x\n", 1, 4, "is not a !!python"),
        ("a: 1\nb: \x07\n", 2, 4, "control characters"),
        ("a: 1\nb: \ud800\n", 2, 0, "surrogate"),
        ("\ta: 1\n", 1, 1, "cannot start any token"),
    ],
)
def test_refusals_say_where(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(YamlError) as error:
        load_documents(text, "dir/f.yaml")
    assert words in error.value.problem
    assert (error.value.line, error.value.column) == (line, column)
    assert str(error.value).startswith(f"dir/f.yaml:{line}")
    assert isinstance(error.value, Invalid)


def test_alias_bombs_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(YamlError, match=r"f:6:.*more than 1000000 values"):
        load_documents("\n".join(lines), "f")
    merges = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(2_000)) + "}\n" + "".join(f"b{n}: {{<<: *a}}\n" for n in range(600))
    with pytest.raises(YamlError, match="more than 1000000 values"):
        load_documents(merges, "f")


def test_limits() -> None:
    with pytest.raises(YamlError, match="f: larger than 3 characters"):
        load_documents("a: 1", "f", Limits(size=3))
    with pytest.raises(YamlError, match="more than 2 nested"):
        load("[[[1]]]", depth=2)
    assert load("[[1]]", depth=2) == [[1]]
    with pytest.raises(YamlError, match="more than 3 values"):
        load("[1, 2, 3, 4]", nodes=3)
    with pytest.raises(YamlError, match="more than 1 aliases"):
        load("[&a 1, *a, *a]", aliases=1)
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000):
        with pytest.raises(YamlError, match="nested collections"):
            load_documents(text, "f")


def test_events_have_places_in_characters() -> None:
    events = [event for event in parse_events("é: 日本\r\n😀: x") if isinstance(event, ScalarEvent)]
    assert [(event.value, start_of(event).index, start_of(event).line) for event in events] == [
        ("é", 0, 0), ("日本", 3, 0), ("😀", 7, 1), ("x", 10, 1)
    ]  # fmt: skip
    with pytest.raises(YamlError, match="more than 2 nested"):
        list(parse_events("[[[1]]]", max_depth=2))
