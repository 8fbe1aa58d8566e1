"""An object as the YAML text that Go programs write of it, and such a text read again, as `sigs.k8s.io/yaml` does both. Pure.

Substitution happens in that text, so what it looks like can be seen: which texts are quoted and how decides what a value put
into them means, keys are sorted, and lines of more than 80 columns are folded at blanks. `yaml.dump` and `reconcile.yamlio`
make other choices, and refuse what Go accepts.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Final

from reconcile.errors import ReconcileError
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

MAX_DEPTH: Final = 250
"""Collections in one another."""

TOO_DEEP: Final = f"more than {MAX_DEPTH} nested collections"

MOST_NODES: Final = 5_000_000
"""Values in a text, counting what aliases stand for."""

_WIDTH: Final = 80
_LONGEST_KEY: Final = 128


class GoYamlError(ReconcileError):
    """A text that is no YAML, or data that is none; in the words of Go's parser."""


class _Undecodable(GoYamlError):
    """YAML that cannot be had as JSON; broken grammar further down is told first."""


# --- numbers

_FROM: Final = -(2**63)
_TO: Final = 2**64


def number(value: float) -> int | float:
    """A number as it is after Go has written it as JSON and read it again: whole ones are integers, huge ones floats.

    Raises `GoYamlError` for what JSON has no number for.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if _FROM <= value < _TO:
            return value
        value = float(value) if abs(value) < 10**300 else math.inf
    if not math.isfinite(value):
        name = "NaN" if math.isnan(value) else f"{'-' if value < 0 else '+'}Inf"
        raise _Undecodable(f"json: unsupported value: {name}")
    if not value.is_integer() or abs(value) >= 1e21:
        return value
    # Its shortest digits count, not the exact value.
    whole = int(Decimal(repr(value)))
    return whole if _FROM <= whole < _TO else value


# --- writing

_SPECIAL = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
_BLOCK_INDICATOR = re.compile(r"---|\.\.\.|[#,\[\]{}&*!|>'\"%@`]|[?:-](?:[ \t]|\Z)")
_BLOCK_INNER = re.compile(r":(?:[ \t]|\Z)|(?<=[ \n])#")
_BASE60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}.*)?\Z")
_SIMPLE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*\Z")
_BREAK = re.compile("[\n\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES: Final = {
    "\0": "\\0", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r", "\x1b": "\\e",
    '"': '\\"', "\\": "\\\\", "\x85": "\\N", "\u2028": "\\L", "\u2029": "\\P",
}  # fmt: skip
_ESCAPED = re.compile('["\\\\\n]|' + _SPECIAL.pattern)


def dump(value: Any) -> str:
    """Plain data as YAML in blocks, with a newline at the end.

    Raises:
        GoYamlError: a number that JSON does not have, or more than `MAX_DEPTH` collections in one another.
    """
    writer = _Writer()
    writer.root(value)
    return "".join(writer.parts)


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.depth = 0

    def root(self, value: Any) -> None:
        if isinstance(value, (dict, list)) and value:
            self.collection(value, 0, fresh=False)
        else:
            self.parts.append(_finished(self.scalar(value, 0, 2)))

    def collection(self, value: dict[str, Any] | list[Any], indent: int, *, fresh: bool) -> None:
        """A collection that is not empty; `fresh`: it begins on a line of its own, else where the last part ended."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise GoYamlError(TOO_DEEP)
        margin = " " * indent
        first = "" if not fresh else margin
        if isinstance(value, dict):
            for key in _ordered(value):
                self.parts.append(first)
                self.entry(key, value[key], indent)
                first = margin
        else:
            for item in value:
                self.parts.append(first + "- ")
                self.inline(item, indent + 2)
                first = margin
        self.depth -= 1

    def entry(self, key: str, value: Any, indent: int) -> None:
        if len(key.encode("utf-8", "replace")) > _LONGEST_KEY or _BREAK.search(key):
            self.parts.append("? " + _finished(self.scalar(key, indent + 2, indent + 2)) + " " * indent + ": ")
            self.inline(value, indent + 2)
            return
        text = self.scalar(key, indent, -1)
        self.parts.append(text + ":")
        if isinstance(value, (dict, list)) and value:
            self.parts.append("\n")
            self.collection(value, indent + 2 if isinstance(value, dict) else indent, fresh=True)
        else:
            self.parts.append(" " + _finished(self.scalar(value, indent + len(text) + 2, indent + 2)))

    def inline(self, value: Any, indent: int) -> None:
        """A value right behind an indicator of two columns."""
        if isinstance(value, (dict, list)) and value:
            self.collection(value, indent, fresh=False)
        else:
            self.parts.append(_finished(self.scalar(value, indent, indent)))

    def scalar(self, value: Any, column: int, margin: int) -> str:
        """A scalar or an empty collection that begins in `column`; further lines are indented by `margin`, below 0: none."""
        if isinstance(value, str):
            return _text(value, column, margin)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return repr(number(value))
        return "{}" if isinstance(value, dict) else "[]"


def _finished(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _text(text: str, column: int, margin: int) -> str:
    if _SIMPLE.match(text) and len(text) + column <= _WIDTH and isinstance(resolve(text), str):
        return text
    if _SURROGATE.search(text):
        text = _SURROGATE.sub("\ufffd", text)
    special = _SPECIAL.search(text) is not None or " \n" in text
    if "\n" in text:
        literal = margin >= 0 and not special and not text.endswith(" ")
        return _literal(text, margin) if literal else _double(text, column, margin)
    if special or not isinstance(resolve(text), str) or _BASE60.match(text) or _TIMESTAMP.match(text):
        return _double(text, column, margin)
    if text[0] == " " or text[-1] == " " or _BLOCK_INDICATOR.match(text) or _BLOCK_INNER.search(text, 1):
        return _folded("'", text.replace("'", "''"), "'", column, margin)
    return _folded("", text, "", column, margin)


def _literal(text: str, margin: int) -> str:
    hint = "2" if text[0] in " \n" else ""
    if not text.endswith("\n"):
        hint += "-"
    elif text == "\n" or text.endswith("\n\n"):
        hint += "+"
    indented = "\n".join(" " * margin + line if line else "" for line in text.split("\n"))
    return f"|{hint}\n{indented}"


def _double(text: str, column: int, margin: int) -> str:
    return _folded('"', _ESCAPED.sub(_escape, text), '"', column, margin)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    known = _ESCAPES.get(character)
    if known is not None:
        return known
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def _folded(begin: str, text: str, end: str, column: int, margin: int) -> str:
    """`text` between quotes, broken at single blanks behind column 80; between double quotes also before several."""
    if margin < 0 or column + len(begin) + len(text) <= _WIDTH:
        return begin + text + end
    words = text.split(" ")
    done = [begin + words[0]]
    column += len(done[0])
    last = len(words) - 1
    for at in range(1, last + 1):
        word = words[at]
        inside = (at > 1 or words[0] != "") and (at < last or word != "" or not begin)
        alone = words[at - 1] != "" or at == 1
        several = word == "" and at < last
        if column > _WIDTH and inside and alone and (begin == '"' or not several):
            start = "\\" if several else ""
            done.append("\n" + " " * margin + start + word)
            column = margin + len(start) + len(word)
        else:
            done.append(" " + word)
            column += 1 + len(word)
    return "".join(done) + end


def _ordered(mapping: dict[str, Any]) -> list[str]:
    keys = list(mapping)
    if all(key.isascii() and key.isalpha() for key in keys):
        return sorted(keys)
    return sorted(keys, key=cmp_to_key(_compare))


def _compare(left: str, right: str) -> int:
    """Order of keys as in Go's yaml: digits as numbers, letters behind everything else."""
    for at in range(min(len(left), len(right))):
        one, other = left[at], right[at]
        if one == other:
            continue
        if one.isalpha() and other.isalpha():
            return -1 if one < other else 1
        if one.isalpha() or other.isalpha():
            return 1 if one.isalpha() else -1
        return _compare_digits(left, right, at)
    return len(left) - len(right)


def _compare_digits(left: str, right: str, at: int) -> int:
    one, one_size = _digits(left, at)
    other, other_size = _digits(right, at)
    if "0" in (left[at], right[at]):
        before = at - 1
        while before >= 0 and left[before].isdecimal():
            if left[before] != "0":
                # Both go on with a number that has begun: one more digit makes it larger.
                one += 10**one_size
                other += 10**other_size
                break
            before -= 1
    for a, b in ((one, other), (one_size, other_size), (ord(left[at]), ord(right[at]))):
        if a != b:
            return -1 if a < b else 1
    return 0


def _digits(text: str, at: int) -> tuple[int, int]:
    end = at
    while end < len(text) and end - at < 1000 and "0" <= text[end] <= "9":
        end += 1
    return (int(text[at:end]) if end > at else 0), end - at


# --- reading

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
    failure: _Undecodable | None = None
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


def _taken(builder: _Builder, event: Event) -> _Undecodable | None:
    try:
        if isinstance(event, CollectionEndEvent):
            builder.close()
        elif isinstance(event, NodeEvent):
            builder.node(event)
    except _Undecodable as error:
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
            raise _Undecodable("yaml: document contains excessive aliasing")
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
            raise _Undecodable(f"yaml: anchor '{event.anchor}' value contains itself")
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
        raise _Undecodable("unsupported map key of type: %!s(<nil>), key: <nil>")
    if isinstance(value, (dict, list)):
        raise _Undecodable(f"yaml: invalid map key: a {'mapping' if isinstance(value, dict) else 'sequence'}")
    return str(value)


def _merged(value: Any) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise _Undecodable("yaml: map merge requires map or sequence of maps as the value")
    return parts


def _tagged(name: str, text: str) -> Any:
    if name == "binary":
        try:
            return base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise _Undecodable("yaml: !!binary value contains invalid base64 data") from None
    wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(name)
    if wanted is None:
        return text
    value = resolve(text)
    if type(value) is wanted or (wanted is float and type(value) is int):
        return _resolved(text)
    kind = {int: "int", float: "float", bool: "bool", type(None): "null"}.get(type(value), "str")
    raise _Undecodable(f"yaml: cannot decode !!{kind} as a !!{name}")
