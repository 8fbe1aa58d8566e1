"""YAML text as Go programs read it with `sigs.k8s.io/yaml`, into what JSON has, with the errors of Go's parser. Pure.

Scalars are those of YAML 1.1 as Kubernetes knows them; of keys that are set twice the last one counts; only the first document is
read. What a text may cost is bounded.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, Final

from reconcile.kustomize.goyaml import MAX_DEPTH, GoYamlError, Undecodable, number
from reconcile.yamlio import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    YamlError,
    parse_events,
    resolve,
)

MOST_NODES: Final = 5_000_000
"""Values in a text, counting what aliases stand for."""

_CONTEXT = re.compile(r"while [a-z ]+, ")
_STANDARD: Final = "tag:yaml.org,2002:"
_READER: Final = frozenset(("control characters are not allowed",))
_UNSET: Final = object()
_MERGE: Final = object()


def load(text: str) -> Any:
    """The first document of `text` as JSON has it. Of keys that are set twice the last one counts.

    Args:
        text: May hold bytes that are no UTF-8, as `surrogateescape` keeps them.

    Raises:
        GoYamlError: `yaml: …`; line numbers are those of Go where its parser has one.
    """
    _check_encoding(text)
    builder = _Builder()
    failure: Undecodable | None = None
    try:
        for event in parse_events(text, MAX_DEPTH):
            if isinstance(event, DocumentEndEvent):
                break
            if failure is None:
                failure = _taken(builder, event)
    except YamlError as error:
        raise GoYamlError(f"yaml: {_place(error)}") from None
    if failure is not None:
        raise failure
    return builder.root


def _taken(builder: _Builder, event: Event) -> Undecodable | None:
    try:
        if isinstance(event, CollectionEndEvent):
            builder.close()
        elif isinstance(event, NodeEvent):
            builder.node(event)
    except Undecodable as error:
        return error
    return None


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        data = text[error.start : error.start + 4].encode("utf-8", "surrogateescape")
        raise GoYamlError(f"yaml: {_octets(data)}") from None


def _octets(data: bytes) -> str:
    """What is wrong with bytes that are no UTF-8."""
    first = data[0]
    width = 2 if first & 0xE0 == 0xC0 else 3 if first & 0xF0 == 0xE0 else 4 if first & 0xF8 == 0xF0 else 0
    if not width:
        return "invalid leading UTF-8 octet"
    if len(data) < width:
        return "incomplete UTF-8 octet sequence"
    if any(byte & 0xC0 != 0x80 for byte in data[1:width]):
        return "invalid trailing UTF-8 octet"
    lowest = {0xC0: 0x80, 0xC1: 0x80, 0xE0: 0xA0, 0xF0: 0x90}.get(first, 0)
    return "invalid length of a UTF-8 sequence" if data[1] < lowest or first < 0xC2 else "invalid Unicode character"


def _place(error: YamlError) -> str:
    """Problem and line as Go's parser has them: it counts from 0 except where the scanner found the problem."""
    context = _CONTEXT.match(error.problem)
    problem = error.problem[context.end() :] if context else error.problem
    if problem in _READER or error.line <= 1:
        return problem
    parsing = context is not None and context[0].startswith("while parsing")
    line = error.line - 1 if parsing else error.line
    return f"line {line}: {problem}"


@dataclass(slots=True)
class _Open:
    """A collection that is being filled."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    key: Any = _UNSET
    merges: list[dict[str, Any]] = field(default_factory=list)
    weight: int = 1


class _Builder:
    """Builds a document from events with a stack of its own."""

    def __init__(self) -> None:
        self.root: Any = None
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int] | None] = {}

    def node(self, event: NodeEvent) -> None:
        if isinstance(event, AliasEvent):
            self.alias(event)
        elif isinstance(event, ScalarEvent):
            value = self.scalar(event)
            if event.anchor is not None:
                self.anchors[event.anchor] = (value, 1)
            self.add(value, 1)
        elif isinstance(event, CollectionStartEvent):
            if event.anchor is not None:
                self.anchors[event.anchor] = None
            self.stack.append(_Open({} if isinstance(event, MappingStartEvent) else [], event.anchor))

    def add(self, value: Any, weight: int) -> None:
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        top.weight += weight
        if top.weight > MOST_NODES:
            raise Undecodable("yaml: document contains excessive aliasing")
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is _UNSET:
            top.key = value if value is _MERGE else _key(value)
        else:
            if top.key is _MERGE:
                top.merges.extend(_merged(value))
            else:
                top.value[top.key] = value
            top.key = _UNSET

    def close(self) -> None:
        done = self.stack.pop()
        if isinstance(done.value, dict):
            for part in done.merges:
                for key, value in part.items():
                    done.value.setdefault(key, value)
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.value, done.weight)
        self.add(done.value, done.weight)

    def alias(self, event: AliasEvent) -> None:
        if event.anchor not in self.anchors:
            raise GoYamlError(f"yaml: unknown anchor '{event.anchor}' referenced")
        found = self.anchors[event.anchor]
        if found is None:
            raise Undecodable(f"yaml: anchor '{event.anchor}' value contains itself")
        self.add(*found)

    def scalar(self, event: ScalarEvent) -> Any:
        text, tag = event.value, event.tag
        if tag is None:
            if event.style:
                return text
            top = self.stack[-1] if self.stack else None
            if text == "<<" and top is not None and isinstance(top.value, dict) and top.key is _UNSET:
                return _MERGE
            return _resolved(text)
        return _tagged(tag.removeprefix(_STANDARD), text) if tag.startswith(_STANDARD) else text


def _resolved(text: str) -> Any:
    value = resolve(text)
    return number(value) if isinstance(value, (int, float)) else value


def _key(value: Any) -> str:
    """A key as JSON has it. Messages do not quote it: it may hold a secret value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise Undecodable("unsupported map key of type: %!s(<nil>), key: <nil>")
    if isinstance(value, (dict, list)):
        raise Undecodable(f"yaml: invalid map key: a {'mapping' if isinstance(value, dict) else 'sequence'}")
    return str(value)


def _merged(value: Any) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise Undecodable("yaml: map merge requires map or sequence of maps as the value")
    return parts


def _tagged(name: str, text: str) -> Any:
    if name == "binary":
        try:
            return base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise Undecodable("yaml: !!binary value contains invalid base64 data") from None
    wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(name)
    if wanted is None:
        return text
    value = resolve(text)
    if type(value) is wanted or (wanted is float and type(value) is int):
        return _resolved(text)
    kind = {int: "int", float: "float", bool: "bool", type(None): "null"}.get(type(value), "str")
    raise Undecodable(f"yaml: cannot decode !!{kind} as a !!{name}")
