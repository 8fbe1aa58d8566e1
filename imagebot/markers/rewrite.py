"""Writing new values over marked scalars without touching another byte. Pure.

Only the characters of a scalar change: its quotes, indentation, line ends, anchor, tag and comment stay. The result is parsed
again; if anything but the marked values moved, the edit is given up and reported.
"""

from __future__ import annotations

import calendar
import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from imagebot.markers.changes import Change, FileChange
from imagebot.markers.find import FileMarkers, Marker, Problem, Style, Unusable, decode
from imagebot.markers.outline import cut
from reconcile.yamlio import AliasEvent, CollectionStartEvent, Event, ScalarEvent, YamlError, parse_events

_LOWER: Final = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
_WORDS: Final = frozenset(form for word in _LOWER for form in (word, word.upper(), word.capitalize())) | {"-", "~"}
_INTEGER: Final = re.compile(r"[-+]?(?:[0-9]+|0[xX][0-9a-fA-F]+|0[oO][-+]?[0-7]+|0[bB][-+]?[01]+)\Z")
_DECIMAL: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INNER_UNDERSCORE: Final = re.compile(r"(?<=[0-9])_(?=[0-9])")
_INFINITE: Final = frozenset(sign + word for sign in ("", "-", "+") for word in (".inf", ".Inf", ".INF"))
_SPECIAL: Final = _INFINITE | {".nan", ".NaN", ".NAN"}
_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})\Z")
_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9_./$(]|[-](?=[A-Za-z0-9_.]))[A-Za-z0-9_./@+$()-]*(?::[A-Za-z0-9_./@+$()-]+)*\Z")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE_BREAK: Final = rb"\r\n|\n|\r|\xc2\x85|\xe2\x80[\xa8\xa9]"
_BLOCK: Final = re.compile(rb"([|>])([-+0-9]*)((?:(?!" + _LINE_BREAK + rb").)*)(" + _LINE_BREAK + rb")?", re.DOTALL)
_LINE: Final = re.compile(rb"((?:(?!" + _LINE_BREAK + rb").)*)(" + _LINE_BREAK + rb"|\Z)", re.DOTALL)
_SUFFIXES: Final = ("tag", "name", "digest")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The new bytes (the very same object when nothing changed), what changed, and which markers were left alone and why."""

    data: bytes
    changes: tuple[FileChange, ...] = ()
    skipped: tuple[Problem, ...] = ()


def rewrite(
    data: bytes, found: FileMarkers, values: Mapping[str, str | None], known: Mapping[str, str] | None = None
) -> Rewritten:
    """Give every marked scalar of `data` the value of its setter.

    Args:
        data: the file.
        found: what `find_markers` found in these bytes.
        values: setter (`ns:policy`, `ns:policy:tag`, `:name`, `:digest`) → new text. None: the setter exists but has no value
            (a policy without digest); the old value stays. Setters that are not in it are unknown; their values stay.
        known: `ns:policy` → why that policy has no values at all (not selected, not ready), for better messages.

    Returns:
        Changes in the order of the file. A value that is already right is not a change.
    """
    edits: list[tuple[Marker, str, bytes]] = []
    skipped: list[Problem] = []
    for marker in found.markers:
        if marker.setter not in values:
            skipped.append(Problem(marker.line, marker.setter, _unknown(marker.setter, values, known or {})))
            continue
        new = values[marker.setter]
        if new is None:
            skipped.append(Problem(marker.line, marker.setter, "the policy has no value for this marker; the old value stays"))
        elif new != marker.value:
            if _UNPRINTABLE.search(new):
                skipped.append(Problem(marker.line, marker.setter, "the new value holds control characters; the old value stays"))
            else:
                edits.append((marker, new, _source(data, marker, new)))
    if not edits:
        return Rewritten(data, (), tuple(skipped))
    changed = _splice(data, edits)
    if (moved := _moved(data, changed, edits)) is not None:
        skipped += [Problem(marker.line, marker.setter, f"not written: {moved}") for marker, _, _ in edits]
        return Rewritten(data, (), tuple(sorted(skipped, key=lambda problem: problem.line)))
    changes = (FileChange(marker.identity, Change(marker.value, new, marker.setter), marker.line) for marker, new, _ in edits)
    return Rewritten(changed, tuple(changes), tuple(skipped))


def _splice(data: bytes, edits: list[tuple[Marker, str, bytes]]) -> bytes:
    parts: list[bytes] = []
    done = 0
    for marker, _, source in sorted(edits, key=lambda edit: edit[0].start):
        parts += (data[done : marker.start], source)
        done = marker.end
    parts.append(data[done:])
    return b"".join(parts)


# --- the text of a new value


def is_string(text: str) -> bool:
    """Whether a reader of YAML 1.1 takes the plain scalar `text` for a string (and not for a number, boolean, date or null)."""
    if not text or text in _WORDS or text in _SPECIAL:
        return False
    if text[0] not in "0123456789+-.":
        return True
    digits = _INNER_UNDERSCORE.sub("", text) if text[0] == "." else text.replace("_", "")
    if _INTEGER.match(digits):
        return False
    if _DECIMAL.match(digits):
        return math.isinf(float(digits))
    match = _DATE.match(text)
    if match is None:
        return True
    year, month, day = (int(part) for part in match.groups())
    return not (1 <= month <= 12 and 1 <= day <= (calendar.monthrange(year or 4, month)[1]))


def _source(data: bytes, marker: Marker, new: str) -> bytes:
    style = marker.style
    if style is Style.SINGLE:
        return _single(new).encode()
    if style is Style.DOUBLE:
        return _double(new).encode()
    if style is Style.PLAIN:
        return _plain(new, marker.in_flow).encode()
    return _block(data, marker, new)


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _double(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _plain(text: str, in_flow: bool) -> str:
    if not is_string(text):
        return _double(text)
    if (in_flow and ":" in text) or not _PLAIN.match(text):
        return _single(text)
    return text


def _block(data: bytes, marker: Marker, new: str) -> bytes:
    """A block scalar keeps its header line and indentation; its text becomes one line and `-` takes away the final newline."""
    source = data[marker.start : marker.end]
    header = _BLOCK.match(source)
    if header is None:  # cannot be: the finder has looked at the first character
        return source
    kind, indicators, rest, line_break = header.groups()
    body = source[header.end() :]
    end, indentation = _text_of_block(body)
    if not is_string(new) or new != new.strip():
        return _double(new).encode() + rest + (body[end:] if end else (line_break or b"") + body)
    digits = indicators.strip(b"+-")
    if digits:
        indentation = marker.indent + int(digits)
    elif indentation is None:
        indentation = marker.indent + 2
    start = kind + digits + b"-" + rest + (line_break or _newline(data))
    line = b" " * indentation + new.encode()
    return start + line + (body[end:] if end else (line_break or b"") + body)


def _text_of_block(body: bytes) -> tuple[int, int | None]:
    """The end of the last line with text (without its line break; 0: no text), and the indentation of the first."""
    end, indentation, position = 0, None, 0
    while position < len(body):
        match = _LINE.match(body, position)
        if match is None or match.end() == position:
            break
        if match[1].strip(b" "):
            end = match.end(1)
            if indentation is None:
                indentation = len(match[1]) - len(match[1].lstrip(b" "))
        position = match.end()
    return end, indentation


def _newline(data: bytes) -> bytes:
    match = re.search(_LINE_BREAK, data)
    return match[0] if match else b"\n"


# --- the second look


def _moved(before: bytes, after: bytes, edits: list[tuple[Marker, str, bytes]]) -> str | None:
    """What else changed between two versions of a file, or None when only the marked values did."""
    expected = iter([(marker.value, text) for marker, text, _ in edits])
    try:
        for one, other in zip_longest(_events(before), _events(after)):
            if _content(one) == _content(other):
                continue
            if not isinstance(one, ScalarEvent) or not isinstance(other, ScalarEvent):
                return "other parts of the file would change"
            if (one.anchor, one.tag) != (other.anchor, other.tag) or (one.value, other.value) != next(expected, None):
                return "other values of the file would change"
    except Unusable as error:
        return f"the file could not be read any more: {error}"
    return None if next(expected, None) is None else "a value did not come out as written"


def _events(data: bytes) -> Iterator[Event | str]:
    text, _ = decode(data)
    for start, end in cut(text):
        yield "---"
        try:
            yield from parse_events(text[start:end])
        except YamlError as error:
            yield error.problem


def _content(event: Event | str | None) -> object:
    """What an event says, without places. Two values that say the same may differ in nothing a reader sees."""
    if isinstance(event, ScalarEvent):
        return (event.anchor, event.tag, event.value, event.style)
    if isinstance(event, CollectionStartEvent):
        return (type(event), event.anchor, event.tag, event.flow_style)
    if isinstance(event, AliasEvent):
        return event.anchor
    return event if event is None or isinstance(event, str) else type(event)


# --- setters that are not there


def _unknown(setter: str, values: Mapping[str, str | None], known: Mapping[str, str]) -> str:
    """Why a setter is unknown, with the most likely one meant."""
    parts = setter.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        return f"{setter!r} is not of the form namespace:policy, optionally with :tag, :name or :digest"
    base = ":".join(parts[:2])
    if base in known:
        return known[base]
    if base in values:
        near = difflib.get_close_matches(parts[2], _SUFFIXES, 1)
        hint = f"did you mean {base}:{near[0]}?" if near else "there are :tag, :name and :digest"
        return f"unknown suffix :{parts[2]}; {hint}"
    policies = {":".join(name.split(":")[:2]) for name in (*values, *known)}
    namespaces = {name.split(":")[0] for name in policies}
    if namespaces and parts[0] not in namespaces:
        wanted = ", ".join(sorted(namespaces))
        near = [name for name in policies if name.split(":")[1] == parts[1]]
        hint = f"; did you mean {min(near)}?" if near else ""
        return f"policies of namespace {parts[0]} are out of reach here, only those of {wanted}{hint}"
    near = difflib.get_close_matches(base, sorted(policies), 1, 0.7)
    return f"no policy {base}" + (f"; did you mean {near[0]}?" if near else "")
