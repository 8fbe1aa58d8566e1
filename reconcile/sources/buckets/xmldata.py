"""XML answers of object stores as flat records. Pure.

No document type, hence no entity, is taken: services send none, and everything hostile in XML begins with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from reconcile.sources.buckets.client import BadAnswer

MAX_DEPTH = 32

Record = Mapping[str, str]
"""Texts of elements without children, by name without namespace; an attribute of one is `name@attribute`."""


@dataclass(frozen=True, slots=True)
class Document:
    """An answer.

    Attributes:
        root: name of the outermost element.
        head: the texts outside rows; of several with one name the first.
        rows: the texts of each row.
    """

    root: str
    head: Record
    rows: Sequence[Record]


def parse(data: bytes, row: str = "") -> Document:
    """Read `data`; each element named `row` becomes a record of its own. Raises BadAnswer when it is not XML or has a DTD."""
    reader = _Reader(row)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BadAnswer(f"the answer is not XML: {expat.ErrorString(error.code)}, line {error.lineno}") from None
    return Document(reader.root, reader.head, reader.rows)


def _refuse_doctype(*_: Any) -> None:
    raise BadAnswer("the answer is XML with a document type, which no service sends")


@dataclass
class _Reader:
    row: str
    root: str = ""
    head: dict[str, str] = field(default_factory=dict)
    rows: list[Record] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)
    _record: dict[str, str] | None = None
    _leaf: bool = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        self.root = self.root or name
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise BadAnswer(f"the answer is XML nested deeper than {MAX_DEPTH} elements")
        if name == self.row and self._record is None:
            self._record = {}
        for attribute, value in attributes.items():
            self._put(f"{name}@{attribute.rpartition(' ')[2]}", value)
        self._pieces, self._leaf = [], True

    def end(self, _: str) -> None:
        name = self._path.pop()
        if self._leaf and name != self.row:
            self._put(name, "".join(self._pieces))
        self._leaf = False
        if name == self.row and self._record is not None:
            self.rows.append(self._record)
            self._record = None

    def text(self, data: str) -> None:
        if self._leaf:
            self._pieces.append(data)

    def _put(self, name: str, value: str) -> None:
        (self.head if self._record is None else self._record).setdefault(name, value)
