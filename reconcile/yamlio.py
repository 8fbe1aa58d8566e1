"""YAML in: documents as plain data, and parser events with positions. The only module that imports the YAML parser. Pure.

Two ways in:

- `load_documents` reads manifests that somebody wrote for us. It knows every scalar as Kubernetes does (YAML 1.1 booleans and
  integers as `sigs.k8s.io/yaml` reads them; timestamps stay text), refuses duplicate keys and is bounded: size, depth, nodes, and
  what aliases expand to. Every error names file, line and column.
- `parse_events` yields the parser's own events with character positions, for code that edits text in place. Nothing is resolved
  and no alias is followed, so a YAML bomb is only as large as its text.

We never write somebody's file with a library: see `imagebot.markers` for how a value is changed without touching the rest of it.
`dump` is for data of our own.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import yaml
import yaml.cyaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from reconcile.errors import Invalid

__all__ = [
    "AliasEvent",
    "CollectionEndEvent",
    "CollectionStartEvent",
    "DocumentEndEvent",
    "DocumentStartEvent",
    "Event",
    "Limits",
    "MappingEndEvent",
    "MappingStartEvent",
    "Mark",
    "NodeEvent",
    "ScalarEvent",
    "SequenceEndEvent",
    "SequenceStartEvent",
    "YamlError",
    "end_of",
    "load_documents",
    "parse_events",
    "resolve",
    "start_of",
]

_Parser: Final[Any] = vars(yaml.cyaml)["CParser"]  # libyaml; what the type stubs do not export

MAX_DEPTH: Final = 500
"""Nested collections that `parse_events` follows. The parser's time grows with the square of the depth of flow collections."""


class Mark(Protocol):
    """A place in a text: all parts count from 0, `index` and `column` in characters."""

    index: int
    line: int
    column: int


def start_of(event: Event) -> Mark:
    """Where an event's text begins (with its anchor and tag)."""
    return cast(Mark, event.start_mark)


def end_of(event: Event) -> Mark:
    """Where an event's text ends."""
    return cast(Mark, event.end_mark)


class YamlError(Invalid):
    """Text that is not the YAML we accept. `line` and `column` count from 1 and are 0 where the parser gives none."""

    def __init__(self, problem: str, line: int = 0, column: int = 0, source: str = "") -> None:
        place = ":".join(str(part) for part in (source, line, column) if part)
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem = problem
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Limits:
    """What `load_documents` accepts. `size` in characters, `depth` in nested collections, `nodes` with every alias expanded."""

    size: int = 8 * 1024 * 1024
    depth: int = 100
    nodes: int = 1_000_000
    aliases: int = 10_000


DEFAULT_LIMITS: Final = Limits()


def parse_events(text: str, max_depth: int = MAX_DEPTH) -> Iterator[Event]:
    """Yield the parser's events. Marks count characters of `text` (an initial byte order mark must be cut off before).

    Raises:
        YamlError: the text does not parse or nests deeper than `max_depth`.
    """
    depth = 0
    try:
        next_event = _Parser(text).get_event
        while (event := next_event()) is not None:
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if depth > max_depth:
                    mark = start_of(event)
                    raise YamlError(f"more than {max_depth} nested collections", mark.line + 1, mark.column + 1)
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
            yield event
    except yaml.YAMLError as error:
        raise _readable(error, text) from None
    except UnicodeEncodeError as error:
        raise YamlError("a lone surrogate is not a character", text.count("\n", 0, error.start) + 1) from None


def _readable(error: yaml.YAMLError, text: str) -> YamlError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        if mark is None:
            return YamlError(problem)
        # The parser numbers the end of a text without final newline as a line of its own.
        return YamlError(problem, min(mark.line, text.count("\n") + text.count("\r")) + 1, mark.column + 1)
    position = getattr(error, "position", 0)  # a byte position: good enough to name the line
    before = text.encode("utf-8", "replace")[: max(position, 0)]
    line = before.count(b"\n") + 1
    return YamlError(getattr(error, "reason", None) or "not YAML", line, len(before) - (before.rfind(b"\n") + 1) + 1)


# --- scalars, as Kubernetes reads them

_YES: Final = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_NO: Final = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL: Final = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([-+]?[01]+)|([1-9][0-9]*|0))\Z")
_INNER_UNDERSCORE: Final = re.compile(r"(?<=[0-9])_(?=[0-9])")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_STANDARD: Final = "tag:yaml.org,2002:"
_LONGEST_NUMBER: Final = 400

Scalar = str | int | float | bool | None


def resolve(text: str) -> Scalar:
    """What Kubernetes takes a plain scalar for: null, a YAML 1.1 boolean, an integer, a float, else the text itself."""
    if text in _NULL:
        return None
    if text in _YES:
        return True
    if text in _NO:
        return False
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text[0] not in "0123456789+-." or len(text) > _LONGEST_NUMBER:
        return text
    digits = _INNER_UNDERSCORE.sub("", text) if text[0] == "." else text.replace("_", "")
    if match := _INTEGER.match(digits):
        sign, hexadecimal, octal, binary, decimal = match.groups()
        parts = ((hexadecimal, 16), (octal, 8), (binary, 2), (decimal, 10))
        value = next(int(part, base) for part, base in parts if part is not None)
        value = -value if sign == "-" else value
        return value if -(2**63) <= value < 2**64 else float(value)
    if _FLOAT.match(digits):
        value_float = float(digits)
        return value_float if math.isfinite(value_float) else text
    return text


# --- documents


@dataclass(slots=True)
class _Open:
    """A collection that is being filled."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    event: Event
    weight: int = 1  # nodes in it, aliases expanded
    key: str | None = None
    merges: list[dict[str, Any]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


_MERGE: Final = object()


class _Loader:
    """Builds documents from events with a stack of its own: no recursion, and every node is counted."""

    def __init__(self, source: str, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.stack: list[_Open] = []
        self.root: Any = None
        self.aliases = 0

    def fail(self, problem: str, event: Event) -> YamlError:
        mark = start_of(event)
        return YamlError(problem, mark.line + 1, mark.column + 1, self.source)

    def add(self, value: Any, weight: int, event: Event) -> None:
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        top.weight += weight
        if top.weight > self.limits.nodes:
            raise self.fail(f"more than {self.limits.nodes} values, counting what aliases stand for", event)
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            self.add_key(top, value, event)
        else:
            self.add_value(top, value, event)

    def add_key(self, top: _Open, value: Any, event: Event) -> None:
        if value is _MERGE:
            top.key = "<<"
            top.seen.add("\0merge")
            return
        if isinstance(value, (dict, list)):
            raise self.fail("a mapping key must be a scalar", event)
        key = _key_text(value)
        if key in top.seen:
            raise self.fail(f"key {key!r} is set twice in one mapping", event)
        top.seen.add(key)
        top.key = key

    def add_value(self, top: _Open, value: Any, event: Event) -> None:
        assert isinstance(top.value, dict)  # noqa: S101 - narrows the type
        key, top.key = top.key, None
        assert key is not None  # noqa: S101 - narrows the type
        if key == "<<" and "<<" not in top.seen:
            top.merges.extend(self.merged(value, event))
        else:
            top.value[key] = value

    def merged(self, value: Any, event: Event) -> list[dict[str, Any]]:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise self.fail("a merge key needs a mapping or a list of mappings", event)
        return parts

    def open(self, event: CollectionStartEvent) -> None:
        if len(self.stack) >= self.limits.depth:
            raise self.fail(f"more than {self.limits.depth} nested collections", event)
        value: dict[str, Any] | list[Any] = {} if isinstance(event, MappingStartEvent) else []
        self.stack.append(_Open(value, event.anchor, event))

    def close(self) -> None:
        done = self.stack.pop()
        if isinstance(done.value, dict):
            for part in done.merges:  # the mapping's own keys win, then the first of several merged mappings
                for key, value in part.items():
                    done.value.setdefault(key, value)
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.value, done.weight)
        self.add(done.value, done.weight, done.event)

    def alias(self, event: AliasEvent) -> None:
        self.aliases += 1
        if self.aliases > self.limits.aliases:
            raise self.fail(f"more than {self.limits.aliases} aliases", event)
        if event.anchor not in self.anchors:
            raise self.fail(f"alias *{event.anchor} refers to no finished value", event)
        value, weight = self.anchors[event.anchor]
        self.add(value, weight, event)

    def scalar(self, event: ScalarEvent) -> None:
        value = self.scalar_value(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self.add(value, 1, event)

    def scalar_value(self, event: ScalarEvent) -> Any:
        text, tag = event.value, event.tag
        if tag is None or tag == "!":
            if event.style or tag == "!":
                return text
            in_key = bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None
            return _MERGE if text == "<<" and in_key else resolve(text)
        if not tag.startswith(_STANDARD):
            return text
        return self.tagged(tag.removeprefix(_STANDARD), text, event)

    def tagged(self, name: str, text: str, event: ScalarEvent) -> Scalar:
        if name in ("str", "timestamp"):
            return text
        if name == "binary":
            try:
                return base64.b64decode(text, validate=False).decode("utf-8", "replace")
            except (binascii.Error, ValueError):
                raise self.fail("!!binary holds no base64", event) from None
        value = resolve(text)
        if name == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(name)
        if wanted is None or type(value) is not wanted:
            raise self.fail(f"{text!r} is not a !!{name}", event)
        return value


def _key_text(value: Scalar) -> str:
    """A key as JSON has it: text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def load_documents(text: str, source: str, limits: Limits = DEFAULT_LIMITS) -> list[tuple[Any, int]]:
    """Load every document that is not empty, each with the line (from 1) where its root begins.

    `source` is a file name or the like, for messages. Aliases share the object they stand for: treat the result as read-only.

    Raises:
        YamlError: not YAML, a duplicate key, a tag that does not fit its value, or a limit exceeded; with line and column.
    """
    if len(text) > limits.size:
        raise YamlError(f"larger than {limits.size} characters", source=source)
    documents: list[tuple[Any, int]] = []
    loader = _Loader(source, limits)
    line = 0
    try:
        for event in parse_events(text.removeprefix("\ufeff"), max(limits.depth + 1, MAX_DEPTH)):
            if isinstance(event, DocumentStartEvent):
                loader, line = _Loader(source, limits), 0
            elif isinstance(event, DocumentEndEvent):
                if loader.root is not None:
                    documents.append((loader.root, line))
            elif isinstance(event, CollectionEndEvent):
                loader.close()
            elif isinstance(event, NodeEvent):
                line = line or start_of(event).line + 1
                _feed(loader, event)
    except YamlError as error:
        if str(error).startswith(f"{source}:"):
            raise
        raise YamlError(error.problem, error.line, error.column, source) from None
    return documents


def _feed(loader: _Loader, event: NodeEvent) -> None:
    if isinstance(event, ScalarEvent):
        loader.scalar(event)
    elif isinstance(event, AliasEvent):
        loader.alias(event)
    elif isinstance(event, CollectionStartEvent):
        loader.open(event)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that this or any other reader would take for something else."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = isinstance(resolve(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _string)


def dump(data: Any) -> str:
    """Plain data of our own as YAML, for people to read and for `load_documents` to read back; never used on anybody's file."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text
