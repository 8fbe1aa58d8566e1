"""Sprig's JSON, written the way Go's `encoding/json` writes it."""

from __future__ import annotations

import json
import math
from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.convert import empty
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.strconv import format_float
from reconcile.gotemplate.values import STRING, Map, Slice, Struct, new_dict, new_list, sorted_entries, to_bytes, type_of

JSON: Final = Family()

_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class _Writer:
    def __init__(self, *, html: bool) -> None:
        self.html = html

    def write(self, value: object) -> str:
        spend(1)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, int):
            return str(int(value))
        if isinstance(value, float):
            return _number(value)
        if isinstance(value, Slice):
            return "null" if value.nil else f"[{','.join(map(self.write, value.items))}]"
        if isinstance(value, Map):
            return self._map(value)
        if isinstance(value, Struct):
            return f"{{{','.join(self._members(value))}}}"
        raise CallError(f"json: unsupported type: {type_of(value)}")

    def _map(self, value: Map) -> str:
        if value.type.key is not STRING:
            raise CallError(f"json: unsupported type: {value.type}")
        if value.nil:
            return "null"
        return f"{{{','.join(f'{self._string(str(key))}:{self.write(item)}' for key, item in sorted_entries(value))}}}"

    def _members(self, value: Struct) -> list[str]:
        members: list[str] = []
        for each, item in zip(value.type.fields, value.values, strict=True):
            if each.embedded and isinstance(item, Struct) and not each.json:
                members += self._members(item)
            elif not (each.omitempty and empty(item)) and each.json != "":
                members.append(f"{self._string(each.json or each.name)}:{self.write(item)}")
        return members

    def _string(self, text: str) -> str:
        spend(len(text))
        return '"' + "".join(map(self._char, text)) + '"'

    def _char(self, char: str) -> str:
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char < " " or char in "\u2028\u2029" or (self.html and char in "<>&"):
            return f"\\u{ord(char):04x}"
        return "\\ufffd" if 0xD800 <= ord(char) < 0xE000 else char


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise CallError(f"json: unsupported value: {format_float(value)}")
    if value != 0 and (abs(value) < 1e-6 or abs(value) >= 1e21):
        text = format_float(value, "e")
        return text[:-2] + text[-1] if text[-4:-1] == "e-0" else text
    return format_float(value, "f")


def _pretty(text: str) -> str:
    """Compact JSON with line breaks and two blanks per level; empty objects and lists stay together."""
    out: list[str] = []
    depth = at = 0
    while at < len(text):
        char = text[at]
        if char == '"':
            end = at + 1
            while text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append(text[at : end + 1])
            at = end + 1
            continue
        at += 1
        if char in "{[" and text[at] not in "}]":
            depth += 1
            out.append(char + _line(depth))
        elif char in "}]" and text[at - 2] not in "{[":
            depth -= 1
            out.append(_line(depth) + char)
        elif char == ",":
            out.append(char + _line(depth))
        else:
            out.append(": " if char == ":" else char)
    return "".join(out)


def _line(depth: int) -> str:
    spend(2 * depth + 1)
    return "\n" + "  " * depth


@JSON.add("mustToJson")
def _must_to_json(value: object) -> str:
    return _Writer(html=True).write(value)


@JSON.add("mustToPrettyJson")
def _must_to_pretty_json(value: object) -> str:
    return _pretty(_must_to_json(value))


@JSON.add("toRawJson", "mustToRawJson")
def _to_raw_json(value: object) -> str:
    return _Writer(html=False).write(value)


@JSON.add("toJson")
def _to_json(value: object) -> str:
    return _must_to_json(value) if _writable(value) else ""


@JSON.add("toPrettyJson")
def _to_pretty_json(value: object) -> str:
    return _must_to_pretty_json(value) if _writable(value) else ""


def _writable(value: object) -> bool:
    """Whether `value` has a JSON form: the functions without `must` give an empty text when it has not."""
    spend(1)
    if isinstance(value, Map):
        return value.type.key is STRING and all(map(_writable, value.entries.values()))
    if isinstance(value, Slice):
        return all(map(_writable, value.items))
    if isinstance(value, Struct):
        return all(map(_writable, value.values))
    return not isinstance(value, complex) and not (isinstance(value, float) and not math.isfinite(value))


@JSON.add("mustFromJson")
def _must_from_json(text: str) -> object:
    data = to_bytes(text)
    try:
        decoded = json.loads(data.decode("utf-8", "replace"), parse_constant=_no_constant, parse_int=float)
    except json.JSONDecodeError as error:
        raise CallError(_complaint(text, error)) from None
    except ValueError as error:
        raise CallError(str(error)) from None
    return _from_json(decoded)


def _no_constant(name: str) -> object:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _complaint(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].lstrip(" \t\r\n")
    if not rest or "Unterminated" in error.msg:
        return "unexpected end of JSON input"
    if error.msg == "Extra data":
        return f"invalid character '{rest[0]}' after top-level value"
    if error.msg.startswith("Expecting property name"):
        return f"invalid character '{rest[0]}' looking for beginning of object key string"
    if error.msg.startswith("Expecting ':'"):
        return f"invalid character '{rest[0]}' after object key"
    if error.msg.startswith("Expecting ','"):
        opening = "array element" if text[: error.pos].count("[") > text[: error.pos].count("]") else "object key:value pair"
        return f"invalid character '{rest[0]}' after {opening}"
    return f"invalid character '{rest[0]}' looking for beginning of value"


def _from_json(value: object) -> object:
    spend(1)
    if isinstance(value, dict):
        return new_dict({_whole(key): _from_json(item) for key, item in value.items()})
    if isinstance(value, list):
        return new_list(map(_from_json, value))
    return _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    """Half surrogate pairs become the replacement character, as in Go."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@JSON.add("fromJson")
def _from_json_silently(text: str) -> object:
    try:
        return _must_from_json(text)
    except CallError as error:
        if type(error) is not CallError:
            raise
        return None
