"""The nodes of a YAML file with their places in the text: what `find` looks for markers between. Pure.

A file is read as Flux reads it: cut at lines that begin with `---`, each piece parsed by itself. That decides which files are
usable at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from imagebot.markers.changes import ObjectIdentity
from reconcile.errors import ReconcileError
from reconcile.yamlio import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    YamlError,
    end_of,
    parse_events,
    start_of,
)

BREAKS: Final = "\n\r\x85\u2028\u2029"  # what ends a line in YAML 1.1
_SEPARATOR = re.compile(r"\n---([^\n]*)\n")
_PROPERTIES = re.compile(rf"(?:[ \t{BREAKS}]+|&[0-9A-Za-z_-]+|!(?:<[^>\s]*>|[^\s,\[\]{{}}]*)|#[^{BREAKS}]*)*")
_DOUBLE_ESCAPED_SLASH = re.compile(r"(?<!\\)(?:\\\\)*\\/")
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_LISTS: Final = frozenset(("List", "ResourceList"))
_NULL_TAG: Final = "tag:yaml.org,2002:null"


class Unusable(ReconcileError):
    """A file that Flux's automation skips as a whole. `line` counts from 1 (0: no particular line), `reason` is for people."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


class Role(IntEnum):
    """What a node is in its parent."""

    KEY = 0  # or part of one
    VALUE = 1  # of a mapping
    ITEM = 2  # of a sequence


class Kind(IntEnum):
    """What a node is. Block collections have no text of their own and are not nodes here."""

    SCALAR = 0
    ALIAS = 1
    FLOW_START = 2
    FLOW_END = 3


class Document:
    """One document (or one item of a `List`): where changes in it are booked."""

    __slots__ = ("api_version", "kind", "name", "namespace", "outer")

    def __init__(self, outer: Document | None = None) -> None:
        self.api_version = self.kind = self.name = self.namespace = ""
        self.outer = outer

    def identity(self) -> ObjectIdentity:
        """The identity as it stands when the document is read to its end."""
        if self.outer is not None and self.outer.kind not in _LISTS:
            return self.outer.identity()
        return ObjectIdentity(self.api_version, self.kind, self.name, self.namespace)


@dataclass(slots=True, eq=False)
class Node:
    """A piece of text that takes comments: a scalar, an alias, a bracket. `start` and `end` count characters of the piece and
    leave out anchor and tag; `indent` is the column of the innermost block collection. Between the node before and this one may
    lie things without text: `empty` is where the last empty value is (-1: none), `closed` whether a block mapping ends. `twice`:
    an equal key came before. `tag` is the full name of an explicit tag."""

    kind: Kind
    role: Role
    start: int
    end: int
    line: int
    value: str
    style: str
    flow: bool
    indent: int
    empty: int
    closed: bool
    twice: bool
    document: Document
    tag: str = ""


@dataclass(slots=True, eq=False)
class Piece:
    """A piece of the file between separators: its text, where it begins, its nodes, and where reading stopped early."""

    text: str
    offset: int
    line: int  # of its first character, from 0
    nodes: list[Node]
    unread: int  # characters from here on are not read (text behind an end marker)


def pieces(text: str) -> Iterator[Piece]:
    """Cut a decoded file (no byte order mark) and outline each piece.

    Raises:
        Unusable: the file is one that Flux skips.
    """
    found = cut(text)
    line = counted = 0
    for start, end in found:
        line, counted = line + _lines(text, counted, start), start
        yield _outline(text[start:end], start, line, single=len(found) == 1)


def cut(text: str) -> list[tuple[int, int]]:
    """Start and end of each piece of a decoded file: what lies between lines that begin with `---`.

    Raises:
        Unusable: text other than a comment stands behind a separator.
    """
    found, start = [], 0
    if "\n---" in text:
        for separator in _SEPARATOR.finditer(text):
            behind = separator[1].strip()
            if behind and not behind.startswith("#"):
                line = _lines(text, 0, separator.start()) + 2
                raise Unusable(line, f"text behind a document separator: --- {behind[:60]}")
            found.append((start, separator.start() + 1))
            start = separator.end()
    found.append((start, len(text)))
    return found


def _lines(text: str, start: int, end: int) -> int:
    return len(_BREAK.findall(text, start, end)) if end > start else 0


_BREAK = re.compile(rf"\r\n|[{BREAKS}]")
_DIRECTIVE = re.compile(r"^%(?:YAML|TAG)\b", re.MULTILINE)


class _Frame:
    """An open collection while its events go by."""

    __slots__ = ("block", "column", "document", "flow", "in_key", "key", "keys", "mapping", "part", "twice", "within_key")

    def __init__(self, mapping: bool, block: bool, column: int, document: Document, part: str, in_key: bool, twice: bool) -> None:
        self.mapping = mapping
        self.block = block
        self.column = column
        self.document = document
        self.part = part  # "root", "metadata", "items" or "": which identity fields its values are
        self.in_key = in_key
        self.within_key = in_key
        self.twice = twice
        self.key: str | None = None  # text of the key whose value comes next
        self.keys: set[str] | None = set() if mapping else None


class _Outliner:
    """Turns the events of one piece into nodes."""

    def __init__(self, piece: Piece, single: bool) -> None:
        self.piece = piece
        self.single = single
        self.stack: list[_Frame] = []
        self.anchors: set[str] = set()
        self.document = Document()
        self.empty = -1
        self.closed = False
        self.again = False  # the key just read was there before

    def fail(self, event: Event, reason: str) -> Unusable:
        return Unusable(self.piece.line + start_of(event).line + 1, reason)

    def place(self) -> tuple[Role, bool, str]:
        """Role of the node that begins, whether it is under a repeated key, and which part of the identity it is."""
        if not self.stack:
            return Role.ITEM, False, "root"
        top = self.stack[-1]
        if not top.mapping:
            return Role.ITEM, top.twice, "item" if top.part == "items" else ""
        if top.key is None:
            return Role.KEY, top.twice, ""
        part = top.key if top.part in ("root", "metadata", "item") else ""
        twice = top.twice or self.again
        return Role.VALUE, twice, "" if twice else part

    def done(self, role: Role, text: str, scalar: bool = False) -> None:
        """A node of `role` has ended; a key's text is kept for its value."""
        if not self.stack or not self.stack[-1].mapping:
            return
        top = self.stack[-1]
        if role is Role.KEY:
            assert top.keys is not None  # noqa: S101 - narrows the type
            top.key = text
            self.again = scalar and text in top.keys
            if scalar:
                top.keys.add(text)
        else:
            top.key = None
            self.again = False

    def node(self, kind: Kind, role: Role, start: int, end: int, line: int, value: str, style: str, twice: bool) -> None:
        stack = self.stack
        if stack:
            top = stack[-1]
            column, flow, document = top.column, not top.block, top.document
            if top.within_key:
                role = Role.KEY
        else:
            column, flow, document = 0, False, self.document
        empty, closed = self.empty, self.closed
        self.piece.nodes.append(Node(kind, role, start, end, line, value, style, flow, column, empty, closed, twice, document))
        self.empty, self.closed = -1, False

    def scalar(self, event: ScalarEvent) -> None:
        role, twice, part = self.place()
        value, style = event.value, event.style or ""
        mark = start_of(event)
        start, end = mark.index, end_of(event).index
        if event.anchor is not None or event.tag is not None:
            if event.anchor is not None:
                self.anchors.add(event.anchor)
            start, end = self.skip_properties(start, end, value, style)
        if not self.stack and not (style == "" and (value in _NULLS if event.tag is None else event.tag == _NULL_TAG)):
            raise self.fail(event, "the document is a single value, not a mapping")
        if style == '"' and "/" in value and _DOUBLE_ESCAPED_SLASH.search(self.piece.text, start, end):
            raise self.fail(event, "the escape \\/ is unknown to YAML 1.1")
        if part:
            self.identify(part, value, style, event)
        if start == end:
            self.empty = end
        else:
            line = mark.line + _lines(self.piece.text, mark.index, start)
            self.node(Kind.SCALAR, role, start, end, line, value, style, twice)
            if event.tag is not None:
                self.piece.nodes[-1].tag = event.tag
        self.done(role, value, scalar=True)

    def skip_properties(self, start: int, end: int, value: str, style: str) -> tuple[int, int]:
        if value == "" and style == "":
            return end, end
        match = _PROPERTIES.match(self.piece.text, start, end)
        return (match.end() if match else start), end

    def identify(self, part: str, value: str, style: str, event: Event) -> None:
        """Note a field of the identity: `part` is the key at the root or inside metadata."""
        top = self.stack[-1] if self.stack else None
        if top is None:
            return
        document = top.document
        if style == "" and value in _NULLS:
            return
        if top.part == "metadata":
            if part == "name":
                document.name = value
            elif part == "namespace":
                document.namespace = value
        elif part == "apiVersion":
            document.api_version = value
        elif part == "kind":
            document.kind = value
        elif part == "metadata" and top.part == "root":
            raise self.fail(event, "metadata is not a mapping")

    def alias(self, event: AliasEvent) -> None:
        role, twice, part = self.place()
        if event.anchor not in self.anchors:
            raise self.fail(event, f"alias *{event.anchor} refers to nothing")
        if part == "metadata" and self.stack[-1].part == "root":
            raise self.fail(event, "metadata is not a mapping")
        self.node(Kind.ALIAS, role, start_of(event).index, end_of(event).index, start_of(event).line, "", "", twice)
        self.done(role, event.anchor)

    def begin(self, event: CollectionStartEvent) -> None:
        role, twice, part = self.place()
        mapping = isinstance(event, MappingStartEvent)
        if event.anchor is not None:
            self.anchors.add(event.anchor)
        if not self.stack and not mapping:
            raise self.fail(event, "the document is a list, not a mapping")
        outer = self.stack[-1].part if self.stack else ""
        if part == "metadata" and outer == "root" and not mapping:
            raise self.fail(event, "metadata is not a mapping")
        block = not event.flow_style
        document = self.stack[-1].document if self.stack else self.document
        own = ""
        if role is Role.ITEM and part == "root":
            own = "root"
        elif part == "metadata" and outer in ("root", "item") and mapping:
            own = "metadata"
        elif part == "items" and outer == "root" and not mapping and self.single:
            own = "items"
        elif part == "item" and mapping:
            own, document = "item", Document(document)
        end = end_of(event).index
        if not block and end > start_of(event).index and self.opens(end):
            self.node(Kind.FLOW_START, role, end - 1, end, end_of(event).line, "", "", twice)
        column = self.stack[-1].column if self.stack else 0
        if block and not (isinstance(event, SequenceStartEvent) and self.indentless(end)):
            column = end_of(event).column
        frame = _Frame(mapping, block, column, document, own, role is Role.KEY, twice)
        frame.within_key = frame.in_key or bool(self.stack and self.stack[-1].within_key)
        self.stack.append(frame)

    def opens(self, end: int) -> bool:
        """Whether a flow collection has a bracket: the mapping of a pair in a flow sequence has none."""
        return self.piece.text[end - 1 : end] in ("[", "{")

    def indentless(self, end: int) -> bool:
        """Whether a block sequence stands at the column of its key: the parser's mark is then behind the first dash."""
        text = self.piece.text
        return not (text[end : end + 1] == "-" and text[end + 1 : end + 2] in ("", " ", "\t", *BREAKS))

    def end(self, event: CollectionEndEvent) -> None:
        frame = self.stack.pop()
        mark = start_of(event)
        start, end = mark.index, end_of(event).index
        role = Role.ITEM
        if self.stack and self.stack[-1].mapping:
            role = Role.KEY if frame.in_key else Role.VALUE
        if frame.block:
            self.closed = self.closed or isinstance(event, MappingEndEvent)
        elif end > start and self.piece.text[end - 1] in "]}":
            self.node(Kind.FLOW_END, role, start, end, start_of(event).line, "", "", frame.twice)
        self.done(role, "")


def _outline(text: str, offset: int, line: int, single: bool) -> Piece:
    piece = Piece(text, offset, line, [], len(text))
    outliner = _Outliner(piece, single)
    ended = 0
    try:
        for event in parse_events(text):
            if isinstance(event, ScalarEvent):
                outliner.scalar(event)
            elif isinstance(event, CollectionStartEvent):
                outliner.begin(event)
            elif isinstance(event, CollectionEndEvent):
                outliner.end(event)
            elif isinstance(event, AliasEvent):
                outliner.alias(event)
            elif isinstance(event, DocumentEndEvent):
                ended = end_of(event).index
                outliner.document = Document()
            elif isinstance(event, DocumentStartEvent) and ended:
                outliner.single = False
    except YamlError as error:
        if not ended:
            directive = _DIRECTIVE.search(text)
            if directive is not None:
                raise Unusable(
                    line + _lines(text, 0, directive.start()) + 1, f"a {directive[0]} directive is not supported"
                ) from None
            raise Unusable(line + error.line if error.line else 0, error.problem) from None
        piece.unread = ended
        piece.nodes = [node for node in piece.nodes if node.end <= ended]
    return piece
