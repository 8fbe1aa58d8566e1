"""Where in a file each value of a document stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reconcile.yamlio import (
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
    parse_events,
    start_of,
)

Path = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, from 1, in characters."""


@dataclass(slots=True)
class Places:
    """The places of one document's keys and values; `line` is where its root begins."""

    line: int = 0
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)

    def key(self, path: Sequence[str | int]) -> Place:
        """Where the key of a value stands (of a list item: the item), or that of the nearest thing around it that is there."""
        wanted = tuple(path)
        while wanted:
            found = self.keys.get(wanted) or self.values.get(wanted)
            if found is not None:
                return found
            wanted = wanted[:-1]
        return self.values.get((), (self.line, 1))

    def value(self, path: Sequence[str | int]) -> Place:
        """Where a value stands, or the key of the nearest thing around it."""
        return self.values.get(tuple(path)) or self.key(path)


@dataclass(slots=True)
class _Open:
    """A collection that is being read; `name` is the key or number of what comes next, None when a key comes next."""

    path: Path
    mapping: bool
    is_key: bool
    name: str | int | None


class _Reader:
    def __init__(self) -> None:
        self.places = Places()
        self.stack: list[_Open] = []

    def node(self, event: NodeEvent) -> None:
        mark = start_of(event)
        place = (mark.line + 1, mark.column + 1)
        top = self.stack[-1] if self.stack else None
        if top is None:
            self.places.line = place[0]
        is_key = top is not None and top.name is None
        path: Path = ()
        if top is not None and top.name is None:
            # A key that is no plain text has no name that anybody could ask for.
            top.name = event.value if isinstance(event, ScalarEvent) else ""
            path = (*top.path, top.name)
            self.places.keys[path] = place
        else:
            path = () if top is None or top.name is None else (*top.path, top.name)
            self.places.values[path] = place
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            mapping = isinstance(event, MappingStartEvent)
            self.stack.append(_Open(path, mapping, is_key, None if mapping else 0))
        elif not is_key:
            self.done()

    def end(self) -> None:
        """A collection has come to its end."""
        if not self.stack.pop().is_key:
            self.done()

    def done(self) -> None:
        """A value has come to its end: the next key or item comes."""
        if self.stack:
            top = self.stack[-1]
            top.name = None if top.mapping else int(top.name or 0) + 1


def locate(text: str) -> dict[int, Places]:
    """The places of every document of a file, by the line (from 1) where its root begins, as `load_documents` counts it.

    Raises:
        YamlError: The text does not parse.
    """
    found: dict[int, Places] = {}
    reader = _Reader()
    for event in parse_events(text.removeprefix("\ufeff")):
        if isinstance(event, DocumentStartEvent):
            reader = _Reader()
        elif isinstance(event, CollectionEndEvent):
            reader.end()
        elif isinstance(event, NodeEvent):
            first = not reader.stack
            reader.node(event)
            if first:
                found[reader.places.line] = reader.places
    return found
