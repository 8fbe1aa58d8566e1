"""An object as the YAML text that Go programs write of it with `sigs.k8s.io/yaml`. Pure; `goyaml_load` reads such a text.

Substitution happens in that text, so what it looks like can be seen: which texts are quoted and how decides what a value put
into them means, keys are sorted, and lines of more than 80 columns are folded at blanks. `yaml.dump` and `reconcile.yamlio`
make other choices, and refuse what Go accepts.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Final

from reconcile.errors import ReconcileError
from reconcile.yamlio import resolve

MAX_DEPTH: Final = 250
"""Collections in one another."""

TOO_DEEP: Final = f"more than {MAX_DEPTH} nested collections"

_WIDTH: Final = 80
_LONGEST_KEY: Final = 128


class GoYamlError(ReconcileError):
    """A text that is no YAML, or data that is none; in the words of Go's parser."""


class Undecodable(GoYamlError):
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
        raise Undecodable(f"json: unsupported value: {name}")
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
