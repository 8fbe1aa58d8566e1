"""New values in old quotes."""

from __future__ import annotations

import pytest

from imagebot.markers.changes import Change, FileChange, ObjectIdentity
from imagebot.markers.find import FileMarkers, Marker, Style, find_markers
from imagebot.markers.rewrite import is_string, rewrite

M = '# {"$imagepolicy": "n:w"}'


def written(text: str, value: str) -> str:
    data = text.encode()
    done = rewrite(data, find_markers(data), {"n:w": value})
    assert not done.skipped
    return done.data.decode()


NOT_STRINGS = [
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "null",
    "True",
    "FALSE",
    "Yes",
    "NO",
    "On",
    "OFF",
    "Y",
    "N",
    "NULL",
    "Null",
    "-",
    "~",
    "0",
    "7",
    "+7",
    "-7",
    "08",
    "0755",
    "00",
    "1_000",
    "1_",
    "12345678901234567890123",
    "0x1f",
    "0XAB",
    "-0x1",
    "0o17",
    "0b101",
    "1.10",
    "1.",
    ".5",
    "-.5",
    "+1.5",
    "1e5",
    "1E5",
    "1e+5",
    "12e45",
    "1.5e-3",
    "1_0.5",
    "1.5_0",
    "1e-400",
    ".inf",
    "-.inf",
    "+.Inf",
    ".INF",
    ".nan",
    ".NaN",
    ".NAN",
    "2024-01-05",
    "2024-1-5",
    "2024-02-29",
    "0000-01-01",
]
STRINGS = [
    "tRue",
    "yES",
    "oN",
    "nULL",
    "latest",
    "1.2.0",
    "v1",
    "1.10-rc1",
    "1e400",
    "12e4567",
    "_1",
    "0x",
    "0xg",
    "0b2",
    "0o8",
    "inf",
    "NaN",
    "nan",
    "Infinity",
    "0x1.8p3",
    "1e",
    "1e5x",
    "2024-13-05",
    "2023-02-29",
    "2024-00-05",
    "2024-1-32",
    "2024-01-05T10",
    "1-2-3",
    "1.2.3.4",
    "190:20:30",
    "a",
    "--",
    "-a",
    "+",
    ".",
    "..",
    "ghcr.io/a/b:1.2",
]


@pytest.mark.parametrize("text", ["", *NOT_STRINGS])
def test_what_is_not_a_string(text: str) -> None:
    assert not is_string(text)


@pytest.mark.parametrize("text", STRINGS)
def test_what_is_a_string(text: str) -> None:
    assert is_string(text)


@pytest.mark.parametrize(
    ("old", "new", "out"),
    [
        ("v", "1.2.0", "1.2.0"),
        ("v", "1.10", '"1.10"'),
        ("v", "", '""'),
        ("'v'", "", "''"),
        ('"v"', "", '""'),
        ("'v'", "1.10", "'1.10'"),
        ('"v"', "1.10", '"1.10"'),
        ("1.10", "1.11.0", "1.11.0"),
        ("5", "v6", "v6"),
        ("true", "latest", "latest"),
        ("~", "latest", "latest"),
        ("2024-01-05", "2024-01-06", '"2024-01-06"'),
        ("'v'", "it's", "'it''s'"),
        ('"v"', 'say "a\\b"', '"say \\"a\\\\b\\""'),
        ("v", "a: b", "'a: b'"),
        ("v", "a #b", "'a #b'"),
        ("v", "*a", "'*a'"),
        ("v", " a", "' a'"),
        ("v", "a:", "'a:'"),
        ("v", "日本", "'日本'"),
        ("v", "example.com:5000/a/b:1.2@sha256:ab", "example.com:5000/a/b:1.2@sha256:ab"),
        ("&x v", "new", "&x new"),
        ("&x !!str v", "1.10", '&x !!str "1.10"'),
        ("!mine 'v'", "new", "!mine 'new'"),
        ("some\n  text", "new", "new"),
        ('"some\n\n  text"', "new", '"new"'),
    ],
)
def test_one_value(old: str, new: str, out: str) -> None:
    assert written(f"# é\na:   {old}   {M}  \n\n\nb:  1", new) == f"# é\na:   {out}   {M}  \n\n\nb:  1"


@pytest.mark.parametrize(
    ("new", "out"), [("a:1", "'a:1'"), ("a", "a"), ("1.10", '"1.10"'), ("a,b", "'a,b'"), ("a]", "'a]'"), ("{a", "'{a'")]
)
def test_in_flow(new: str, out: str) -> None:
    assert written(f"a: [ v ,{M}\n b]\n", new) == f"a: [ {out} ,{M}\n b]\n"
    assert written(f"a: {{k:  v, {M}\n b: c}}\n", new) == f"a: {{k:  {out}, {M}\n b: c}}\n"


@pytest.mark.parametrize(
    ("old", "new", "out"),
    [
        (f"| {M}\n  v\n  w\n", "x", f"|- {M}\n  x\n"),
        (f"|+ {M}\n  v\n\n\n", "x", f"|- {M}\n  x\n\n\n"),
        (f">2- {M}\n    v\n", "x", f">2- {M}\n  x\n"),
        (f"|+4   {M}\n        v\n", "x", f"|4-   {M}\n    x\n"),
        (f"| {M}\n\n\n   v\n", "x", f"|- {M}\n   x\n"),
        (f"| {M}\n", "x", f"|- {M}\n  x\n"),
        (f"| {M}\n\n", "x", f"|- {M}\n  x\n\n"),
        (f"| {M}\n  v\n", "1.10", f'"1.10" {M}\n'),
        (f"| {M}\n", "1.10", f'"1.10" {M}\n'),
        (f"|+ {M}\n\n", "1.10", f'"1.10" {M}\n\n'),
        (f"| {M}\r\n  v\r\n", "x", f"|- {M}\r\n  x\r\n"),
        (f"| {M}\r  v\r", "x", f"|- {M}\r  x\r"),
    ],
)
def test_block_scalars(old: str, new: str, out: str) -> None:
    assert written(f"a: {old}b: 1\n", new) == f"a: {out}b: 1\n"
    assert written(f"a: {old}# foot\n", new) == f"a: {out}# foot\n"


def test_block_scalars_at_the_end_of_the_file() -> None:
    assert written(f"a: | {M}\n  v", "x") == f"a: |- {M}\n  x"
    assert written(f"a: | {M}\n  v", "1.10") == f'a: "1.10" {M}'
    assert written(f"a: | {M}", "x") == f"a: |- {M}\n  x"
    assert written(f"l:\r\n- a:\r\n  - | {M}", "x") == f"l:\r\n- a:\r\n  - |- {M}\r\n    x"


def test_a_final_newline_is_a_difference() -> None:
    assert written(f"a: | {M}\n  x\n", "x") == f"a: |- {M}\n  x\n"


def test_nothing_to_change_gives_the_very_same_bytes() -> None:
    data = f"a:   x {M}\r\nb: 1".encode()
    done = rewrite(data, find_markers(data), {"n:w": "x"})
    assert done.data is data
    assert done.changes == done.skipped == ()


def test_a_value_without_a_change_is_not_touched_beside_one_with() -> None:
    assert written(f"a: 1.10 {M}\nb: v {M}\n", "1.10") == f'a: 1.10 {M}\nb: "1.10" {M}\n'


def test_changes() -> None:
    data = f"kind: A\nmetadata: {{name: x}}\nimage: old {M}\nother: new {M}\n---\nimage: 'old' {M}\n".encode()
    done = rewrite(data, find_markers(data), {"n:w": "new"})
    change = Change("old", "new", "n:w")
    assert done.changes == (FileChange(ObjectIdentity(kind="A", name="x"), change, 3), FileChange(ObjectIdentity(), change, 6))


KNOWN = {"apps:web": "1", "apps:web:tag": "2", "apps:web:digest": None, "apps:api": "3"}


@pytest.mark.parametrize(
    ("setter", "words"),
    [
        ("apps:wbe", "did you mean apps:web?"),
        ("apps:Web", "did you mean apps:web?"),
        ("apps:web:tags", "did you mean apps:web:tag?"),
        ("apps:web:x", "there are :tag, :name and :digest"),
        ("apps:zzz", "no policy apps:zzz"),
        ("other:web", "policies of namespace other are out of reach here, only those of apps; did you mean apps:web?"),
        ("web", "not of the form"),
        ("apps:", "not of the form"),
        ("a:b:c:d", "not of the form"),
        ("apps:web:digest", "no value"),
        ("apps:late:tag", "not ready"),
    ],
)
def test_markers_left_alone_say_why(setter: str, words: str) -> None:
    data = f'x: 1\na: v # {{"$imagepolicy": "{setter}"}}\n'.encode()
    done = rewrite(data, find_markers(data), KNOWN, {"apps:late": "policy apps:late is not ready"})
    assert done.data is data
    assert done.changes == ()
    (problem,) = done.skipped
    assert (problem.line, problem.setter) == (2, setter)
    assert words in problem.text


def test_a_value_with_a_line_break_is_refused() -> None:
    data = f"a: v {M}\n".encode()
    done = rewrite(data, find_markers(data), {"n:w": "a\nb: c"})
    assert done.data is data
    assert "control characters" in done.skipped[0].text


def test_an_edit_that_would_move_something_else_is_given_up() -> None:
    data = f"a: v {M}\nb: other\n".encode()
    wrong = Marker("n:w", "v", 3, len(data) - 3, 1, Style.PLAIN, ObjectIdentity(), False, 0)
    done = rewrite(data, FileMarkers((wrong,)), {"n:w": "x"})
    assert done.data is data
    assert done.changes == ()
    assert "not written" in done.skipped[0].text
    elsewhere = Marker("n:w", "v", data.index(b"other"), data.index(b"other") + 5, 1, Style.PLAIN, ObjectIdentity(), False, 0)
    assert rewrite(data, FileMarkers((elsewhere,)), {"n:w": "x"}).changes == ()


def test_text_behind_an_end_marker_stays() -> None:
    assert written(f"a: v {M}\n...\nb: [ {M}\n", "x") == f"a: x {M}\n...\nb: [ {M}\n"
