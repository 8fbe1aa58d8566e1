"""Markers and the values they mark, and the markers that mark nothing."""

from __future__ import annotations

import pytest

from imagebot.markers.changes import ObjectIdentity
from imagebot.markers.find import MAX_SIZE, TOKEN, Style, Unusable, find_markers, read_marker

M = '# {"$imagepolicy": "n:w"}'


def values(text: str) -> list[str]:
    return [marker.value for marker in find_markers(text.encode()).markers]


def problems(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.text) for problem in find_markers(text.encode()).problems]


@pytest.mark.parametrize(
    ("comment", "setter"),
    [
        ('# {"$imagepolicy": "n:w"}', "n:w"),
        ('##  {"$imagepolicy":"n:w:tag"}  ', "n:w:tag"),
        ('#{ "$imagepolicy" : "n: w" }', "n: w"),
        ('# {"$imagepolicy": "n:w", "other": null}', "n:w"),
        ('# {"$imagepolicy": "a", "$imagepolicy": "b"}', "b"),
        ('# {"$ref":"#/definitions/io.k8s.cli.setters.n:w"}', "n:w"),
        ('# {"$imagepolicy": "n:w", "other": 1}', None),
        ('# {"$imagepolicy": "n:w"} more', None),
        ('# see {"$imagepolicy": "n:w"}', None),
        ('# {"$imagepolicy": "n:w",}', None),
        ('# {"$imagepolicy": null}', None),
        ('# {"$imagepolicy": ["n:w"]}', None),
        ('# ["$imagepolicy"]', None),
        ("# {'$imagepolicy': 'n:w'}", None),
        ('# {"$ImagePolicy": "n:w"}', None),
        ('# {"$ref":"#/definitions/other"}', None),
        ("# {$" + "[" * 100_000, None),
        ('# {"$": ' + "[" * 100_000, None),
        ("", None),
        ("# note", None),
    ],
)
def test_grammar(comment: str, setter: str | None) -> None:
    assert read_marker(comment) == setter


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"a: v {M}\n", ["v"]),
        (f"a: 'v' {M}\nb: \"w\" {M}\n", ["v", "w"]),
        (f"l:\n- v {M}\n- name: w {M}\n", ["v", "w"]),
        (f"l:\n{M}\n- v\n- {M}\n  w\n-\n  {M}\n  x\n", ["v", "w", "x"]),
        (f"l:\n- a\n{M}\n- v\n", ["v"]),
        (f"l:\n- a\n\n{M}\n\n- v\n", ["v"]),
        (f"l:\n- a\n{M}\n\n- v\n", []),  # directly below a value with a blank line after it: a foot
        (f"l:\n- a\n# x\n{M}\n- v\n", []),
        (f"l:\n{M}\n- a: v\n", []),
        (f"{M}\na: v\n", []),
        (f"a: {M}\n  v\n", []),
        (f"a: # note\n  v {M}\n", ["v"]),
        (f"a:\n  {M}\n  v\n", ["v"]),
        (f"a: &x {M}\n  v\n", ["v"]),
        (f"a: &x !!str v {M}\nb: !mine &y w {M}\n", ["v", "w"]),
        (f"a: v\n  w {M}\n", ["v w"]),
        (f"a: | {M}\n  v\nb: >- {M}\n  w\n", ["v\n", "w"]),
        (f"a: |\n  x {M}\nb: 'y {M}'\n", []),
        (f"a: {{b: v}} {M}\nc: [w] {M}\n", []),
        (f"a: {{b: v, {M}\n  c: w {M}\n  }}\n", ["v", "w"]),
        (f"a: [v, {M}\n  w {M}\n  ]\n", ["v", "w"]),
        (f"a: {{b: {M}\n  v}}\n", ["v"]),
        (f"a: [\n  {M}\n  v]\n", ["v"]),
        (f"? v {M}\n: w\n", []),
        (f"? k\n: w {M}\n", ["w"]),
        (f"? k: v {M}\n", []),  # inside a key
        (f"a: &x 1\nb: *x {M}\n<<: *x {M}\n", []),
        (f"a: {M}\nb: ~ {M}\nc: null {M}\n", ["~", "null"]),
        (f"l:\n- # {M[2:]}\n- v\n", []),
        (f"l:\n- &x {M}\n- v\n", []),
        (f"a: v {M}\n---\nb: w {M}\n...\n---\nc: x {M}\n", ["v", "w", "x"]),
        (f"a: v {M}\rb: w {M}\r--- \rc: x {M}", ["v", "w", "x"]),
        (f"a: v # note\nl:\n{M}\n- w # note\n", []),
        ('a: v#{"$imagepolicy":"n:w"}\n', []),  # no space before it: part of the text
        (f'a: "v"{M}\n', ["v"]),
        (f"a: v {M}\n# {M}\n# b: w {M}\n", ["v"]),
        ("", []),
        (f"{M}\n", []),
        (f"---\n---\n{M}\n---\n~\n", []),
    ],
)
def test_which_values_are_marked(text: str, found: list[str]) -> None:
    assert values(text) == found


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"x: 1\na: {M}\n  v\n", 2, "belongs to the key"),
        (f"a: [v] {M}\n", 1, "whole list or mapping"),
        (f"a: &x 1\nb: *x {M}\n", 2, "an alias cannot be set"),
        (f"a: v {M} more\n", 1, "not a marker"),
        ('a: v # {"$ImagePolicy": "n:w"} # {"$imagepolicy"\n', 1, "not a marker"),
        (f"a: v {M}\na: w {M}\n", 2, "set twice"),
        (f"a: !!str v {M}\nb: &x !!float 1.2.0 {M}\n", 2, "the tag !!float"),  # as Flux leaves numbers behind
        (f"l:\n- v\n{M}\n", 3, "below a value"),
        (f"l:\n{M}\n- v # note\n", 2, "hidden"),
        (f"l:\n# x\n{M}\n- v\n", 3, "only comment line"),
        (f"l:\n- &x {M}\n- v\n", 2, "no value before it"),
        (f"l:\n- {M}\n- v\n", 2, "no value behind it"),
        (f"a: 1\n...\nb: v {M}\n", 3, "not read"),
        (f"l:\n{M}\n- - v\n", 2, "list below it"),
        (f"a: é\nb:\n- [v] {M}\n", 3, "whole list or mapping"),
        (f"a: 1\n---\nb: [v] {M}\n", 3, "whole list or mapping"),
    ],
)
def test_markers_without_effect_are_reported(text: str, line: int, words: str) -> None:
    (problem,) = [problem for problem in find_markers(text.encode()).problems if words in problem.text]
    assert problem.line == line


def test_talk_about_markers_is_no_problem() -> None:
    assert problems(f'# the {M[2:]} below marks it\n# image: v {M}\n# write "$imagepolicy"\na: v {M}\n') == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"- v {M}\n", 1, "a list"),
        (f"a: v {M}\n---\n- w\n", 3, "a list"),
        (f"a: v {M}\n--- \ntext\n", 3, "single value"),
        (f"a: v {M}\n--- text\n", 2, "separator"),
        (f"%YAML 1.1\n---\na: v {M}\n", 1, "%YAML"),
        (f"# c\n%TAG ! x\n---\na: v {M}\n", 2, "%TAG"),
        (f"a: v {M}\nb: *x\n", 2, "alias"),
        (f"metadata: text\na: v {M}\n", 1, "metadata"),
        (f"metadata: [a]\na: v {M}\n", 1, "metadata"),
        (f"x: &m {{}}\nmetadata: *m\na: v {M}\n", 2, "metadata"),
        (f'a: v {M}\nb: "\\/"\n', 2, "escape"),
        (f"a: v {M}\n\tb: w\n", 2, "token"),
        (f"a: v {M}\nb: \x00\n", 2, "control characters"),
        (f"a: v {M}\nb: {{{{ .Values.x }}}}{{{{\n", 2, "expected key"),
        (f"a: v {M}\nb: " + "[" * 100_000, 2, "nested"),
        (f"a: v {M}\nb:\n" + "".join(f"{' ' * depth}- \n" for depth in range(1, 600)), 0, "nested"),
    ],
)
def test_unusable_files(text: str, line: int, words: str) -> None:
    with pytest.raises(Unusable) as error:
        find_markers(text.encode())
    assert words in error.value.reason
    assert error.value.line == line or not line


def test_not_utf8() -> None:
    with pytest.raises(Unusable, match="line 2: not UTF-8"):
        find_markers(f"a: v {M}\nb: ".encode() + b"\xff\xfe\n")
    with pytest.raises(Unusable, match="not UTF-8"):
        find_markers(f"a: v {M}\nb: ".encode() + b"\xed\xa0\x80\n")


def test_files_without_the_token_are_not_parsed() -> None:
    assert find_markers(b"\xff { not yaml $imagepolicy").markers == ()
    assert find_markers(f"a: v {M}".encode("utf-16")).markers == ()


def test_too_large() -> None:
    with pytest.raises(Unusable, match="larger than"):
        find_markers(b"a: v # " + TOKEN + b"x" * MAX_SIZE)


def test_metadata_may_be_null_or_escaped_slashes_may_be_backslashes() -> None:
    assert values(f'metadata:\na: v {M}\nb: "\\\\/"\n') == ["v"]
    assert values(f"metadata: ~\na: v {M}\n") == ["v"]


def test_an_alias_bomb_is_as_large_as_its_text() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 60)]
    assert values("\n".join([*lines, f"image: v {M}", ""])) == ["v"]


def test_large_files() -> None:
    text = "".join(f"k{n}: 'é' # note\n" for n in range(50_000)) + f"image: v {M}\n"
    (marker,) = find_markers(text.encode()).markers
    assert text.encode()[marker.start : marker.end] == b"v"
    assert marker.line == 50_001
    comments = f"a: v {M}\n" + f"{M}\n" * 20_000
    assert len(find_markers(comments.encode()).problems) == 20_000
    empty = "l:\n" + f"{M}\n-\n" * 5_000
    assert find_markers(empty.encode()).markers == ()


def test_places_are_bytes_of_the_scalar_alone() -> None:
    text = f'\ufeff"é😀": &ü-1 !!str   "日本" {M}\r\nb: | {M}\r\n  é\r\nc: [ö, {M}\r\n ä]'.replace("ü", "u")
    data = text.encode()
    found = find_markers(data).markers
    assert [data[marker.start : marker.end].decode() for marker in found] == ['"日本"', f"| {M}\r\n  é\r\n", "ö"]
    assert [(marker.line, marker.style, marker.in_flow) for marker in found] == [
        (1, Style.DOUBLE, False),
        (2, Style.LITERAL, False),
        (4, Style.PLAIN, True),
    ]


def identities(text: str) -> list[ObjectIdentity]:
    return [marker.identity for marker in find_markers(text.encode()).markers]


def test_identity_is_that_of_the_document() -> None:
    one = (
        f"image: v {M}\nkind: Deployment\nmetadata:\n  namespace: prod\n  name: web\n  labels: {{name: x}}\napiVersion: apps/v1\n"
    )
    two = f"spec: {{kind: no, metadata: {{name: no}}, x: v {M}\n }}\nmetadata: {{name: 5}}\nkind:\n"
    assert identities(f"{one}---\n{two}") == [ObjectIdentity("apps/v1", "Deployment", "web", "prod"), ObjectIdentity(name="5")]


@pytest.mark.parametrize("kind", ["List", "ResourceList"])
def test_items_of_a_list_are_objects_of_their_own(kind: str) -> None:
    items = f"items:\n- kind: A\n  metadata: {{name: one}}\n  x: v {M}\n- kind: B\n  x: v {M}\n"
    assert identities(f"kind: {kind}\n{items}y: v {M}\n") == [
        ObjectIdentity(kind="A", name="one"),
        ObjectIdentity(kind="B"),
        ObjectIdentity(kind=kind),
    ]
    assert identities(f"{items}kind: {kind}\n") == [ObjectIdentity(kind="A", name="one"), ObjectIdentity(kind="B")]
    assert identities(f"kind: PodList\n{items}") == [ObjectIdentity(kind="PodList")] * 2
    assert identities(f"kind: {kind}\n{items}---\na: 1\n") == [ObjectIdentity(kind=kind)] * 2


def test_of_equal_keys_the_first_names_the_object() -> None:
    assert identities(f"kind: A\nkind: B\nx: v {M}\n") == [ObjectIdentity(kind="A")]
