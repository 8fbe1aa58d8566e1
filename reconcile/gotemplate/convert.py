"""How Sprig reads arguments of any type as numbers, texts and lists."""

from __future__ import annotations

import math

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.fmt import to_string
from reconcile.gotemplate.strconv import NumberSyntaxError, parse_float, parse_int
from reconcile.gotemplate.values import Slice, Struct, dynamic_kind, wrap


def to_int(value: object) -> int:
    """An integer of 64 bits: numbers are cut, texts read in any base, anything else is 0."""
    if isinstance(value, int):
        return wrap(int(value))
    if isinstance(value, float):
        return _cut(value)
    if isinstance(value, str):
        try:
            return parse_int(_without_zero_decimals(value))
        except NumberSyntaxError:
            return 0
    return 0


def _cut(value: float) -> int:
    """Go's conversion on amd64: what does not fit becomes the smallest integer."""
    if math.isnan(value) or math.isinf(value) or not -(1 << 63) <= int(value) < 1 << 63:
        return -(1 << 63)
    return int(value)


def _without_zero_decimals(text: str) -> str:
    stripped = text.rstrip("0")
    return stripped[:-1] if stripped != text and stripped.endswith(".") else text


def to_float(value: object) -> float:
    """A float: numbers and texts, anything else is 0."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return parse_float(value)
        except NumberSyntaxError:
            return 0.0
    return 0.0


def to_text_value(value: object) -> str:
    """A value as text: what `%v` prints (Sprig's `toString`)."""
    return to_string(value)


def to_texts(value: object) -> list[str]:
    """A list's items as texts, nils left out; anything else is a list of one (Sprig's `toStrings`)."""
    if value is None:
        return []
    if isinstance(value, Slice):
        spend(len(value.items))
        return [to_text_value(item) for item in value.items if item is not None]
    return [to_text_value(value)]


def items_of(value: object, complaint: str) -> list[object]:
    """The items of a list; raises `CallError` with `complaint` and the kind of what is none, and panics as Go does for nil."""
    kind = dynamic_kind(value)
    if not isinstance(value, Slice):
        raise CallError(f"{complaint} {kind}")
    spend(len(value.items))
    return list(value.items)


def empty(value: object) -> bool:
    """Sprig's notion of unset: nil, zero, "", no items; a struct never is."""
    if value is None:
        return True
    if isinstance(value, Slice):
        return not value.items
    if isinstance(value, Struct):
        return False
    entries = getattr(value, "entries", None)
    return not (value if entries is None else entries)
