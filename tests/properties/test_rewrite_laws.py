"""Laws of rewriting, on files that hypothesis makes up.

Only marked characters change, a second pass changes nothing, and a reader sees the new values and nothing else new.
"""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebot.markers.find import Style, Unusable, find_markers
from imagebot.markers.rewrite import rewrite
from tests.support.marked_text import outside

SETTERS = ("n:web", "n:web:tag", "n:num:tag", "n:none:digest", "n:unknown")
VALUES: dict[str, str | None] = {
    "n:web": "registry.example.com:5000/team/web:1.2@sha256:ab",
    "n:web:tag": "1.2.0",
    "n:num:tag": "1.10",
    "n:none:digest": None,
}
SCALARS = [
    "old",
    "'old'",
    '"old"',
    "1.10",
    "5",
    "true",
    "~",
    "null",
    "2024-01-05",
    "''",
    '""',
    "it's",
    "'it''s'",
    '"a\\tb\\u2603"',
    "été",
    "日本😀",
    "&x§old",
    "!!str§1",
    "&y§!mine§'old'",
    "12:30",
    "a,b",
]
WIDE_SCALARS = ("two words", '"two words"', "some\n  folded\n\n  text", '"some\n  text"', "'some\n\n  text'", "tab\there")


@st.composite
def comments(draw: st.DrawFn, likely: bool = False) -> str:
    kind = draw(st.integers(0, 9))
    if kind < (6 if likely else 4):
        setter = draw(st.sampled_from(SETTERS))
        return (
            draw(st.sampled_from((" # ", "\t# ", "   ## ", " #")))
            + f'{{"$imagepolicy": "{setter}"}}'
            + draw(st.sampled_from(("", "  ")))
        )
    return draw(st.sampled_from(("", "", " # note", ' # {"$imagepolicy": "n:web"} more', " # é")))


@st.composite
def own_lines(draw: st.DrawFn, indent: int) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 1, 2)))):
        column = max(0, indent + draw(st.sampled_from((0, 0, 0, -2, 1, 2))))
        lines.append(draw(st.sampled_from(("", " " * column + draw(comments(likely=True)).strip()))))
    return lines


def scalars(flow: bool = False) -> st.SearchStrategy[str]:
    some = SCALARS if not flow else tuple(text for text in SCALARS if "," not in text)
    return st.sampled_from(some if flow else (*some, *WIDE_SCALARS)).map(lambda text: text.replace("§", " "))


@st.composite
def flows(draw: st.DrawFn, indent: int) -> str:
    mapping, pad = draw(st.booleans()), "\n" + " " * (indent + 2)
    text = "{" if mapping else "["
    for number in range(draw(st.integers(0, 3))):
        text += pad + (f"f{number}: " if mapping else "") + draw(scalars(flow=True)) + "," + draw(comments(likely=True))
    return text + pad + ("}" if mapping else "]")


@st.composite
def values(draw: st.DrawFn, indent: int, depth: int) -> list[str]:
    """The lines of a value; the first one goes behind the key or dash."""
    kind = draw(st.integers(0, 9 if depth else 6))
    if kind < 4:
        gap = draw(st.sampled_from((" ", "  ", "\t" if indent == 0 else " ")))
        return [gap + draw(scalars()).replace("\n  ", "\n" + " " * (indent + 2)) + draw(comments(likely=True))]
    if kind == 4:
        header = draw(st.sampled_from(("|", ">"))) + draw(st.sampled_from(("", "-", "+", "2")))
        body = draw(st.lists(st.sampled_from(("old", "  more", "# no", "", 'x: y # {"$imagepolicy": "n:web"}')), max_size=3))
        return [f" {header}{draw(comments(likely=True))}", *(" " * (indent + 2) + line if line else "" for line in body)]
    if kind == 5:
        return [" " + draw(flows(indent)) + draw(comments())]
    if kind == 6:
        own = draw(own_lines(indent + 2))
        return [draw(comments()), *own, " " * (indent + 2) + draw(scalars()).split("\n")[0] + draw(comments())]
    if kind < 9:
        return [draw(comments()), *draw(mappings(indent + 2, depth - 1))]
    return [draw(comments()), *draw(sequences(indent + 2, depth - 1))]


@st.composite
def mappings(draw: st.DrawFn, indent: int, depth: int) -> list[str]:
    lines: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        lines += draw(own_lines(indent))
        first, *rest = draw(values(indent, depth))
        lines += [" " * indent + draw(st.sampled_from((f"k{number}", f'"k{number}"', f"é{number}"))) + ":" + first, *rest]
    return lines


@st.composite
def sequences(draw: st.DrawFn, indent: int, depth: int) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        lines += draw(own_lines(indent))
        first, *rest = draw(values(indent, depth))
        lines += [" " * indent + "-" + first, *rest]
    return lines


@st.composite
def files(draw: st.DrawFn) -> bytes:
    text = "\n".join(draw(mappings(0, 3)))
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        text += "\n---" + draw(st.sampled_from(("", " # note"))) + "\n" + "\n".join(draw(mappings(0, 1)))
    text += draw(st.sampled_from(("\n", "\n", "", "\n...\n", "\n\n# end\n")))
    text = draw(st.sampled_from(("", "", "---\n"))) + text
    text = text.replace("\n", draw(st.sampled_from(("\n", "\n", "\r\n", "\r"))))
    return (draw(st.sampled_from(("", "", "\ufeff"))) + text).encode()


def read(data: bytes) -> list[str]:
    """Every scalar of the file as a reader sees it, as far as the file can be read."""
    texts: list[str] = []
    try:
        for event in yaml.parse(data.decode("utf-8-sig"), yaml.CBaseLoader):
            if isinstance(event, yaml.ScalarEvent):
                texts.append(event.value)
    except yaml.YAMLError:
        texts.append("?")
    return texts


@settings(max_examples=150, deadline=None)
@given(files())
def test_rewriting(data: bytes) -> None:
    try:
        found = find_markers(data)
    except Unusable:
        return
    done = rewrite(data, found, VALUES)
    due = [marker for marker in found.markers if VALUES.get(marker.setter) not in (None, marker.value)]
    assert [entry.change.setter for entry in done.changes] == [marker.setter for marker in due]
    if not due:
        assert done.data is data
        return

    again = find_markers(done.data)
    assert rewrite(done.data, again, VALUES).changes == ()
    assert [marker.setter for marker in again.markers] == [marker.setter for marker in found.markers]
    assert [marker.identity for marker in again.markers] == [marker.identity for marker in found.markers]
    for before, after in zip(found.markers, again.markers, strict=True):
        assert after.value == (VALUES.get(before.setter) or before.value)

    if not any(marker.style in (Style.LITERAL, Style.FOLDED) for marker in found.markers):
        assert outside(done.data) == outside(data, found)

    old, new = read(data), read(done.data)
    expected = iter([(marker.value, VALUES[marker.setter]) for marker in due])
    assert len(old) == len(new)
    assert all(pair == next(expected) for pair in zip(old, new, strict=True) if pair[0] != pair[1])
    assert next(expected, None) is None


@settings(max_examples=100, deadline=None)
@given(files(), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3)), max_size=4))
def test_damaged_files_are_refused_or_rewritten_safely(data: bytes, damage: list[tuple[int, bytes, int]]) -> None:
    for place, inserted, removed in damage:
        place %= len(data) + 1
        data = data[:place] + inserted + data[place + removed :]
    try:
        found = find_markers(data)
    except Unusable:
        return
    done = rewrite(data, found, VALUES)
    assert len(done.changes) + len(done.skipped) <= len(found.markers)
    assert (done.data == data) == (not done.changes)
    for marker in found.markers:
        assert 0 <= marker.start < marker.end <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(noise: bytes) -> None:
    data = noise + b'\na: v # {"$imagepolicy": "n:web"}\n'
    try:
        done = rewrite(data, find_markers(data), VALUES)
    except Unusable:
        return
    assert done.data.startswith(noise) or done.changes
