"""Finding `# {"$imagepolicy": "ns:policy"}` markers and the values they mark. Pure: bytes in, places out.

A marker is the line comment of a scalar, or its head comment when it has no line comment; what belongs to what is decided as in
Flux. Markers that can never take effect come back as problems, with their line, so that somebody can be told.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from imagebot.markers.changes import ObjectIdentity
from imagebot.markers.comments import Comment, GapReader
from imagebot.markers.outline import BREAKS, Kind, Node, Piece, Role, Unusable, pieces

__all__ = ["TOKEN", "FileMarkers", "Marker", "Problem", "Style", "Unusable", "decode", "find_markers", "read_marker"]

TOKEN: Final = b'"$imagepolicy"'
"""Files without these bytes are not looked at."""

MAX_SIZE: Final = 8 * 1024 * 1024
"""Bytes of the largest file that is parsed; a larger one is unusable."""

_KEY: Final = "$imagepolicy"
_LONG_FORM: Final = "#/definitions/io.k8s.cli.setters."
_CANDIDATE: Final = re.compile(r"\$imagepolicy|io\.k8s\.cli\.setters\.", re.IGNORECASE)
_MENTION: Final = re.compile(
    r"[{\"'][ \t]*[\"']?(?:\$imagepolicy|\$ref[\"'][ \t]*:[ \t]*[\"']#/definitions/io\.k8s\.cli\.setters\.)", re.IGNORECASE
)
_NOT_JSON: Final = (
    "not a marker: the comment must be one JSON object with text values and nothing else, "
    'such as {"$imagepolicy": "namespace:policy"}'
)
_SETTER: Final = re.compile(r"\$imagepolicy[\"'][ \t]*:[ \t]*[\"']([^\"']*)", re.IGNORECASE)
_TYPED: Final = frozenset("tag:yaml.org,2002:" + name for name in ("bool", "float", "int", "null", "timestamp"))
_HEADER_LINE: Final = re.compile(rf"[^{BREAKS}]*")


class Style(Enum):
    """How a scalar is written."""

    PLAIN = ""
    SINGLE = "'"
    DOUBLE = '"'
    LITERAL = "|"
    FOLDED = ">"


@dataclass(frozen=True, slots=True)
class Marker:
    """A marked scalar.

    `value` is its decoded text, `start` and `end` are byte offsets of its source text in the file: with quotes, or from the
    header of a block scalar to the end of its last line; never with anchor or tag. `line` counts from 1. `indent` is the column
    of the block collection around it, which a block scalar's text is indented against.
    """

    setter: str
    value: str
    start: int
    end: int
    line: int
    style: Style
    identity: ObjectIdentity
    in_flow: bool
    indent: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A marker that cannot take effect: its line (from 1), its setter if it can be read, and what is wrong."""

    line: int
    setter: str | None
    text: str


@dataclass(frozen=True, slots=True)
class FileMarkers:
    """What one file holds, in the order of the file."""

    markers: tuple[Marker, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_markers(data: bytes) -> FileMarkers:
    """Find the markers in a file.

    Raises:
        Unusable: the file is one that is skipped as a whole, see `Unusable`.
    """
    if TOKEN not in data:
        return FileMarkers()
    if len(data) > MAX_SIZE:
        raise Unusable(0, f"larger than {MAX_SIZE} bytes")
    text, offset = decode(data)
    markers: list[Marker] = []
    problems: list[Problem] = []
    places = _Places(text, offset)
    for piece in pieces(text):
        for found in _search(piece):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                _take(piece, *found, places, markers, problems)
    problems.sort(key=lambda problem: problem.line)
    return FileMarkers(tuple(markers), tuple(problems))


def decode(data: bytes) -> tuple[str, int]:
    """The text without its byte order mark, and how many bytes the mark took.

    Raises:
        Unusable: not UTF-8.
    """
    offset = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[offset:].decode("utf-8"), offset
    except UnicodeDecodeError as error:
        raise Unusable(data.count(b"\n", 0, error.start + offset) + 1, "not UTF-8 text") from None


def read_marker(comment: str) -> str | None:
    """The setter that a comment names, or None when it is no marker.

    The comment without leading `#` must be one JSON object with string (or null) values. The long form
    `{"$ref": "#/definitions/io.k8s.cli.setters.ns:policy"}` is understood too.
    """
    text = comment.lstrip("#")
    if "$" not in text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if all(value is None or isinstance(value, str) for value in found.values()) and found.get(_KEY):
        return str(found[_KEY])
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith(_LONG_FORM):
        return reference.removeprefix(_LONG_FORM)
    return None


# --- from occurrences in the text to nodes


def _search(piece: Piece) -> Iterator[Problem | tuple[int, list[Comment], list[Comment]]]:
    """Problems, and for each node with a mention among its comments its index, its line comments and its head comments."""
    gaps, beyond = _gaps(piece)
    if beyond is not None:
        yield Problem(piece.line + _line(piece, beyond) + 1, None, "text behind an end marker (...) is not read")
    if not gaps:
        return
    reader = GapReader(piece)
    for gap in gaps:
        for near in (gap - 1, gap, gap + 1):
            reader.read(near)
    found = reader.found
    for index in sorted(found.line.keys() | found.head.keys()):
        lines, heads = found.line.get(index, []), found.head.get(index, [])
        if any(_CANDIDATE.search(comment.text) for comment in (*lines, *heads)):
            yield index, lines, heads
    for comment in found.loose:
        yield from _problems(piece, comment, comment.lost, own_line=True)


def _gaps(piece: Piece) -> tuple[list[int], int | None]:
    """Gaps in which a marker may be, and the first mention in text that is not read."""
    gaps: dict[int, None] = {}
    starts: list[int] | None = None
    for match in _CANDIDATE.finditer(piece.text):
        position = match.start()
        if position >= piece.unread:
            return list(gaps), position
        if starts is None:
            starts = [node.start for node in piece.nodes]
        index = bisect_right(starts, position) - 1
        if index >= 0 and position < piece.nodes[index].end and not _in_header(piece, piece.nodes[index], position):
            continue  # inside a value: text, not a comment
        gaps[index + 1] = None
    return list(gaps), None


def _in_header(piece: Piece, node: Node, position: int) -> bool:
    if node.style not in ("|", ">"):
        return False
    match = _HEADER_LINE.match(piece.text, node.start)
    return match is not None and position < match.end()


def _line(piece: Piece, position: int) -> int:
    return len(re.findall(rf"\r\n|[{BREAKS}]", piece.text[:position]))


def _problems(piece: Piece, comment: Comment, why: str, own_line: bool) -> Iterator[Problem]:
    """One problem for each line of a comment that mentions a marker; not for prose and lines that were commented out."""
    for number, text in enumerate(comment.text.split("\n")):
        if not _MENTION.search(text):
            continue
        setter = read_marker(text)
        if setter is None and own_line and not text.lstrip("# \t").startswith("{"):
            continue
        if setter is None and (match := _SETTER.search(text)):
            setter = match[1]
        yield Problem(piece.line + comment.line + number + 1, setter, why)


def _take(
    piece: Piece,
    index: int,
    lines: list[Comment],
    heads: list[Comment],
    places: _Places,
    markers: list[Marker],
    problems: list[Problem],
) -> None:
    """Make a marker of a node and its comments, or say why it is none."""
    node = piece.nodes[index]
    chosen = lines or heads
    setter = read_marker("\n".join(comment.text for comment in chosen))
    why = _refusal(node, setter, places.trusted(piece, node))
    for comment in lines:
        problems.extend(_problems(piece, comment, why, own_line=False) if why else ())
    for comment in heads:
        if lines and node.role is not Role.KEY:
            why_not = "hidden by the comment behind the value"
        elif why is _NOT_JSON and "\n" in comment.text.strip():
            why_not = "a marker above a value must be the only comment line there"
        else:
            why_not = why
        problems.extend(_problems(piece, comment, why_not, own_line=True) if why_not else ())
    if setter is None or why:
        return
    line = piece.line + node.line + 1
    if node.twice:
        problems.append(Problem(line, setter, "the key is set twice; readers take either value, both are updated"))
    if node.tag in _TYPED:
        short = node.tag.rpartition(":")[2]
        problems.append(Problem(line, setter, f"the tag !!{short} before the value says that it is no text; remove the tag"))
    start, end = places.at(piece.offset + node.start), places.at(piece.offset + node.end)
    identity = node.document.identity()
    markers.append(Marker(setter, node.value, start, end, line, Style(node.style), identity, node.flow, node.indent))


def _refusal(node: Node, setter: str | None, trusted: bool) -> str:
    if node.role is Role.KEY:
        return "it belongs to the key: put it on the line where the value ends"
    if node.kind is Kind.ALIAS:
        return "an alias cannot be set: mark the value that it refers to"
    if node.kind is not Kind.SCALAR:
        return "it belongs to the whole list or mapping: put the value on a line of its own"
    if setter is None:
        return _NOT_JSON
    return "" if trusted else "the place of the value is not certain"


class _Places:
    """Character positions of the text to byte offsets of the file."""

    def __init__(self, text: str, offset: int) -> None:
        self.text = text
        self.offset = offset
        self.ascii = text.isascii()
        self.last = (0, offset)

    def at(self, position: int) -> int:
        if self.ascii:
            return position + self.offset
        known, offset = self.last
        if position < known:
            known, offset = 0, self.offset
        self.last = (position, offset + len(self.text[known:position].encode("utf-8")))
        return self.last[1]

    @staticmethod
    def trusted(piece: Piece, node: Node) -> bool:
        """Whether the text at the node's place is the node: a second look at what the parser said."""
        source = piece.text[node.start : node.end]
        if not source or node.style:
            return bool(source) and source.startswith(node.style) and (node.style in "|>" or source.endswith(node.style))
        return source == node.value if not any(c in BREAKS for c in source) else source[0] == node.value[0]
