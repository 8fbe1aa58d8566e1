"""YAML as kustomize reads and prints it, as plain data. Pure.

`reconcile.yamlio.load_documents` judges what people wrote and refuses what is doubtful. What is read here is judged by kustomize,
so whatever kustomize bears is borne: of keys that are set twice the last one counts, unknown tags are passed over. What a text
may cost is bounded all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from reconcile.yamlio import (
    AliasEvent,
    CollectionEndEvent,
    DocumentEndEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    YamlError,
    parse_events,
    resolve,
    start_of,
)

MOST_NODES: Final = 5_000_000
"""Values in one text, counting what aliases stand for."""

MOST_DEPTH: Final = 200
"""Collections in one another."""

_UNSET: Final = object()
_MERGE: Final = object()
_STANDARD: Final = "tag:yaml.org,2002:"
_REMEMBERED: Final = 4096


@dataclass(slots=True)
class _Open:
    """A collection that is being filled."""

    value: Any
    anchor: str | None
    key: Any = _UNSET
    merges: list[Any] = field(default_factory=list)
    began: int = 0


class _Builder:
    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.stack: list[_Open] = []
        self.root: Any = None
        self.known: dict[str, Any] = {}

    def add(self, value: Any, event: Event) -> None:
        """Put a finished value into the collection that is open."""
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        if top.value.__class__ is list:
            top.value.append(value)
        elif top.key is _UNSET:
            if isinstance(value, (dict, list)):
                raise _error("a mapping key must be a scalar", event)
            top.key = value if value is _MERGE or value.__class__ is str else _text(value)
        else:
            if top.key is _MERGE:
                top.merges.extend(value if isinstance(value, list) else [value])
            else:
                top.value[top.key] = value
            top.key = _UNSET

    def spend(self, nodes: int, event: Event) -> None:
        self.count += nodes
        if self.count > self.most:
            raise _error(f"more than {self.most} values, counting what aliases stand for", event)

    def scalar(self, event: ScalarEvent) -> None:
        self.spend(1, event)
        text, tag = event.value, event.tag
        value: Any = text
        if tag is None and not event.style:
            value = self.plain(text)
        elif tag is not None and tag.startswith(_STANDARD) and tag != f"{_STANDARD}str":
            value = resolve(text)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self.add(value, event)

    def plain(self, text: str) -> Any:
        if text == "<<" and self.stack and self.stack[-1].value.__class__ is dict and self.stack[-1].key is _UNSET:
            return _MERGE
        value = self.known.get(text, _UNSET)
        if value is _UNSET:
            value = resolve(text)
            if len(self.known) < _REMEMBERED:
                self.known[text] = value
        return value

    def alias(self, event: AliasEvent) -> None:
        if event.anchor not in self.anchors:
            raise _error(f"alias *{event.anchor} refers to no finished value", event)
        value, weight = self.anchors[event.anchor]
        self.spend(weight, event)
        self.add(value, event)

    def open(self, value: Any, event: Any) -> None:
        self.spend(1, event)
        self.stack.append(_Open(value, event.anchor, began=self.count))

    def close(self, event: Event) -> None:
        done = self.stack.pop()
        for part in done.merges:
            if not isinstance(part, dict):
                raise _error("a merge key needs a mapping or a list of mappings", event)
            for key, value in part.items():
                done.value.setdefault(key, value)
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.value, self.count - done.began + 1)
        self.add(done.value, event)


def _error(problem: str, event: Event) -> YamlError:
    mark = start_of(event)
    return YamlError(problem, mark.line + 1, mark.column + 1)


def _text(value: Any) -> str:
    """A key as JSON has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def load_all(text: str, *, nodes: int = MOST_NODES, depth: int = MOST_DEPTH) -> list[Any]:
    """Every document of a text, empty ones as None. Scalars are known as Kubernetes knows them; dates stay text.

    Aliases share the value they stand for: treat the result as read-only.

    Raises:
        YamlError: no YAML, or more than `nodes` values or `depth` collections in one another.
    """
    documents: list[Any] = []
    builder = _Builder(nodes)
    for event in parse_events(text.removeprefix("\ufeff"), depth):
        kind = event.__class__
        if kind is ScalarEvent:
            builder.scalar(event)  # type: ignore[arg-type] # the class was just looked at; isinstance costs a fifth of the time
        elif kind is MappingStartEvent:
            builder.open({}, event)
        elif kind is SequenceStartEvent:
            builder.open([], event)
        elif kind is MappingEndEvent or isinstance(event, CollectionEndEvent):
            builder.close(event)
        elif isinstance(event, AliasEvent):
            builder.alias(event)
        elif isinstance(event, DocumentEndEvent):
            documents.append(builder.root)
            builder.root, builder.anchors = None, {}
    return documents
