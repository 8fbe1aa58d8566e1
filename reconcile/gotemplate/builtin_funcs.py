"""The functions that every template has: comparison, indexing, escaping, printing."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_plus

from reconcile.gotemplate import fmt
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import (
    INT_KINDS,
    MISSING,
    STRING,
    UINT_KINDS,
    ZERO_TYPE,
    Map,
    Slice,
    Struct,
    Uint8,
    Value,
    assignable,
    is_nil,
    is_number,
    kind_of,
    to_bytes,
    truth,
    type_of,
    zero,
)

BUILTINS: Final = Family()

_BAD_TYPE: Final = "invalid type for comparison"
_HTML: Final = str.maketrans({"\0": "�", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS: Final = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


@BUILTINS.add("and", "or")
def _short_circuit(first: Value, *rest: Value) -> object:  # noqa: ARG001  # the evaluator decides these two itself
    raise CallError("unreachable")


@BUILTINS.add("not")
def _not(value: Value) -> bool:
    return not truth(value)


@BUILTINS.add("call")
def _call(name: str, function: Value, *args: Value) -> object:  # noqa: ARG001
    if function is MISSING or function is None:
        raise CallError("call of nil")
    raise CallError(f"non-function {name} of type {type_of(function)}")


@BUILTINS.add("len")
def _length(value: Value) -> int:
    if value is None:
        raise CallError("len of nil pointer")
    if value is MISSING:
        raise CallError(ZERO_TYPE)
    if isinstance(value, str):
        return len(to_bytes(value))
    if isinstance(value, Slice):
        return len(value.items)
    if isinstance(value, Map):
        return len(value.entries)
    raise CallError(f"len of type {type_of(value)}")


@BUILTINS.add("index")
def _index(item: Value, *indexes: Value) -> object:
    if item is MISSING or item is None:
        raise CallError("index of untyped nil")
    for index in indexes:
        if item is None:
            raise CallError("index of nil pointer")
        if isinstance(item, str):
            data = to_bytes(item)
            place = _place(index, len(data))
            if place == len(data):
                raise CallError("reflect: string index out of range")
            item = Uint8(data[place])
        elif isinstance(item, Slice):
            place = _place(index, len(item.items))
            if place == len(item.items):
                raise CallError("reflect: slice index out of range")
            item = item.items[place]
        elif isinstance(item, Map):
            item = _lookup(item, index)
        else:
            raise CallError(f"can't index item of type {type_of(item)}")
    return item


def _place(index: object, length: int) -> int:
    if index is None or index is MISSING:
        raise CallError("cannot index slice/array with nil")
    if not isinstance(index, int) or not is_number(index):
        raise CallError(f"cannot index slice/array with type {type_of(index)}")
    if not 0 <= index <= length:
        raise CallError(f"index out of range: {int(index)}")
    return int(index)


def _lookup(item: Map, index: object) -> object:
    key, elem = item.type.key or STRING, item.type.elem or STRING
    if index is None or index is MISSING:
        raise CallError(f"value is nil; should be of type {key}")
    if not assignable(type_of(index), key):
        raise CallError(f"value has type {type_of(index)}; should be {key}")
    return item.entries[index] if index in item.entries else zero(elem)


def _basic(value: object) -> str:
    kind = kind_of(value)
    if kind in INT_KINDS:
        return "int"
    if kind in UINT_KINDS:
        return "uint"
    return kind if kind in {"bool", "float64", "complex128", "string"} else "invalid"


def _equal(left: object, right: object) -> bool:
    first, second = _basic(left), _basic(right)
    if first != second:
        if {first, second} == {"int", "uint"}:
            return left == right
        if left is not MISSING and right is not MISSING:
            raise CallError(f"incompatible types for comparison: {type_of(left)} and {type_of(right)}")
        return False
    if first != "invalid":
        return left == right
    if left is not MISSING and right is not MISSING and kind_of(left) != kind_of(right):
        raise CallError(
            f"non-comparable types {fmt.to_string_verb(left)}: {type_of(left)}, {type_of(right)}: {fmt.to_string(right)}"
        )
    if is_nil(left) or is_nil(right):
        return is_nil(left) and is_nil(right)
    if not _comparable(right):
        raise CallError(f"non-comparable type {fmt.to_string_verb(right)}: {type_of(right)}")
    return left == right


def _comparable(value: object) -> bool:
    if isinstance(value, Struct):
        return all(map(_comparable, value.values))
    return not isinstance(value, Slice | Map)


def _plain(value: object) -> object:
    return MISSING if value is None else value


@BUILTINS.add("eq")
def equal(first: Value, *others: Value) -> bool:
    """Whether the first operand equals any of the others."""
    if not others:
        raise CallError("missing argument for comparison")
    return any(_equal(_plain(first), _plain(other)) for other in others)


@BUILTINS.add("ne")
def _differ(left: Value, right: Value) -> bool:
    return not equal(left, right)


@BUILTINS.add("lt")
def less(left: Value, right: Value) -> bool:
    """Whether `left` comes before `right`."""
    left, right = _plain(left), _plain(right)
    first, second = _basic(left), _basic(right)
    if "invalid" in {first, second}:
        raise CallError(_BAD_TYPE)
    if first != second and {first, second} != {"int", "uint"}:
        raise CallError(f"incompatible types for comparison: {type_of(left)} and {type_of(right)}")
    if isinstance(left, str) and isinstance(right, str):
        return to_bytes(left) < to_bytes(right)
    if isinstance(left, bool) or isinstance(right, bool):
        raise CallError(_BAD_TYPE)
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left < right
    raise CallError(_BAD_TYPE)


@BUILTINS.add("le")
def _at_most(left: Value, right: Value) -> bool:
    return less(left, right) or equal(left, right)


@BUILTINS.add("gt")
def _greater(left: Value, right: Value) -> bool:
    return not _at_most(left, right)


@BUILTINS.add("ge")
def _at_least(left: Value, right: Value) -> bool:
    return not less(left, right)


@BUILTINS.add("print")
def _print(*values: object) -> str:
    return fmt.sprint(values)


@BUILTINS.add("printf")
def _printf(pattern: str, *values: object) -> str:
    return fmt.sprintf(pattern, values)


@BUILTINS.add("println")
def _println(*values: object) -> str:
    return fmt.sprintln(values)


def _joined(values: tuple[object, ...]) -> str:
    return fmt.sprint(["<no value>" if value is None else value for value in values])


@BUILTINS.add("html")
def _html(*values: object) -> str:
    return _joined(values).translate(_HTML)


@BUILTINS.add("js")
def _js(*values: object) -> str:
    return "".join(map(_js_char, _joined(values)))


def _js_char(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if char < " ":
        return f"\\u00{ord(char):02X}"
    return char if ord(char) < 0x80 or char.isprintable() else f"\\u{ord(char):04X}"


@BUILTINS.add("urlquery")
def _urlquery(*values: object) -> str:
    return quote_plus(to_bytes(_joined(values)))
