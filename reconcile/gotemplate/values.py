"""Go values and their types, as far as templates can see them.

::

    Go                       here
    string                   str; bytes that are not UTF-8 are lone surrogates (`surrogateescape`)
    int, float64, bool       int, float, bool
    int64, int32, uint8 …    subclasses of int
    complex128               complex
    slices, maps, structs    Slice, Map, Struct
    nil interface            None
    no value at all          MISSING (Go's zero reflect.Value: what a missing map key gives)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeAlias

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.failures import CallError

Value: TypeAlias = object
"""An argument that a function takes as it is, even when it is `MISSING` (Go's `reflect.Value`)."""

_STRAY: Final = re.compile("[\udc80-\udcff]")

NIL_DEREFERENCE: Final = "runtime error: invalid memory address or nil pointer dereference"
ZERO_TYPE: Final = "reflect: call of reflect.Value.Type on zero Value"


@dataclass(frozen=True, eq=False)
class Type:
    """A Go type. Two types are the same when they are the same object."""

    name: str
    kind: str
    elem: Type | None = None
    key: Type | None = None
    fields: tuple[Field, ...] = ()
    methods: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    underlying: Type | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Field:
    """A field of a struct type; `json` is its name in JSON ("" hides it), embedded fields show their own fields too."""

    name: str
    type: Type
    json: str | None = None
    omitempty: bool = False
    embedded: bool = False


INVALID = Type("invalid", "invalid")
BOOL = Type("bool", "bool")
STRING = Type("string", "string")
INT = Type("int", "int")
INT32 = Type("int32", "int32")
INT64 = Type("int64", "int64")
UINT8 = Type("uint8", "uint8")
UINT32 = Type("uint32", "uint32")
UINT64 = Type("uint64", "uint64")
FLOAT64 = Type("float64", "float64")
COMPLEX128 = Type("complex128", "complex128")
ANY = Type("interface {}", "interface")
REFLECT = Type("reflect.Value", "struct")

INT_KINDS: Final = frozenset({"int", "int32", "int64"})
UINT_KINDS: Final = frozenset({"uint8", "uint32", "uint64"})
NILABLE: Final = frozenset({"interface", "map", "slice", "ptr"})


@cache
def slice_of(elem: Type) -> Type:
    """The type `[]elem`."""
    return Type(f"[]{elem}", "slice", elem=elem)


@cache
def map_of(key: Type, elem: Type) -> Type:
    """The type `map[key]elem`."""
    return Type(f"map[{key}]{elem}", "map", elem=elem, key=key)


LIST = slice_of(ANY)
STRINGS = slice_of(STRING)
INTS = slice_of(INT)
DICT = map_of(STRING, ANY)
STRING_MAP = map_of(STRING, STRING)


class Sized(int):
    """An integer of a type other than `int`."""

    __slots__ = ()
    go_type: Type = INT64


class Int64(Sized):
    """Go's int64; use `int64()` to make one that wraps."""

    __slots__ = ()


class Int32(Sized):
    """Go's int32, a rune."""

    __slots__ = ()
    go_type = INT32


class Uint8(Sized):
    """Go's uint8, a byte."""

    __slots__ = ()
    go_type = UINT8


class Uint32(Sized):
    """Go's uint32."""

    __slots__ = ()
    go_type = UINT32


class Uint64(Sized):
    """Go's uint64."""

    __slots__ = ()
    go_type = UINT64


class Missing:
    """The type of `MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(eq=False, slots=True)
class Slice:
    """A Go slice. Never changed once made; `nil` slices differ from empty ones in JSON and deepEqual only."""

    type: Type
    items: Sequence[object]
    nil: bool = False


@dataclass(eq=False, slots=True)
class Map:
    """A Go map; `set`, `unset` and `merge` change `entries` in place, as in Go."""

    type: Type
    entries: dict[object, object]
    nil: bool = False


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct, or a pointer to one when the type's kind is `ptr`. `values` are in the order of the type's fields."""

    type: Type
    values: tuple[object, ...]


def new_list(items: Iterable[object]) -> Slice:
    """An `[]interface {}`."""
    return Slice(LIST, tuple(items))


def new_strings(items: Iterable[str]) -> Slice:
    """A `[]string`."""
    return Slice(STRINGS, tuple(items))


def new_dict(entries: dict[str, object] | None = None) -> Map:
    """A `map[string]interface {}`."""
    return Map(DICT, dict(entries.items()) if entries else {})


def int64(number: int) -> Int64:
    """`number` as an int64, wrapped as Go wraps it."""
    return Int64(wrap(number))


def wrap(number: int) -> int:
    """`number` reduced to what 64 signed bits hold."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def from_python(value: object) -> object:
    """Plain Python data as Go values: a dict becomes a `map[string]interface {}`, a list or tuple an `[]interface {}`."""
    if isinstance(value, dict):
        return Map(DICT, {str(key): from_python(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return new_list(from_python(item) for item in value)
    return value


_SIMPLE: Final[Mapping[type, Type]] = {str: STRING, int: INT, bool: BOOL, float: FLOAT64, complex: COMPLEX128, type(None): ANY}


def type_of(value: object) -> Type:
    """The Go type of a value; `ANY` for a nil interface and `INVALID` for `MISSING`."""
    simple = _SIMPLE.get(type(value))
    if simple is not None:
        return simple
    if isinstance(value, Slice | Map | Struct):
        return value.type
    return value.go_type if isinstance(value, Sized) else INVALID


def kind_of(value: object) -> str:
    """The Go kind of a value: `string`, `slice`, …, `interface` for a nil interface, `invalid` for `MISSING`."""
    return type_of(value).kind


def dynamic_kind(value: object) -> str:
    """The kind of what an argument of type `interface {}` holds; raises `CallError` as Go panics when that is nothing."""
    if value is None:
        raise CallError(NIL_DEREFERENCE)
    return kind_of(value)


def is_nil(value: object) -> bool:
    """Whether Go would call the value nil."""
    return value is None or value is MISSING or (isinstance(value, Slice | Map) and value.nil)


def assignable(have: Type, want: Type) -> bool:
    """Whether a value of type `have` may be passed where `want` is asked for."""
    return want is have or want is ANY or have.underlying is want


def zero(wanted: Type) -> object:
    """The zero value of a type."""
    match wanted.kind:
        case "string":
            return ""
        case "bool":
            return False
        case "float64":
            return 0.0
        case "int":
            return 0
        case "int64":
            return Int64(0)
        case "slice":
            return Slice(wanted, (), nil=True)
        case "map":
            return Map(wanted, {}, nil=True)
        case "struct" if wanted is not REFLECT:
            return Struct(wanted, tuple(zero(each.type) for each in wanted.fields))
        case _:
            return None


def truth(value: object) -> bool:
    """Go templates' notion of true: not the zero number, not empty, not nil; structs are always true."""
    if isinstance(value, Slice):
        return len(value.items) > 0
    if isinstance(value, Map):
        return len(value.entries) > 0
    if value is None or value is MISSING:
        return False
    return isinstance(value, Struct) or bool(value)


def is_number(value: object) -> bool:
    """Whether the value is of an integer kind (in Python a bool is one too)."""
    return isinstance(value, int) and not isinstance(value, bool)


def find_field(value: Struct, name: str) -> tuple[bool, object]:
    """A struct's field, or one of a struct embedded in it."""
    level = [value]
    while level:
        deeper: list[Struct] = []
        for struct in level:
            for each, item in zip(struct.type.fields, struct.values, strict=True):
                if each.name == name:
                    return True, item
                if each.embedded and isinstance(item, Struct):
                    deeper.append(item)
        level = deeper
    return False, None


def to_bytes(text: str) -> bytes:
    """The bytes of a Go string."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """A Go string of these bytes."""
    return data.decode("utf-8", "surrogateescape")


def joined_halves(text: str) -> str:
    """`text` with bytes that make a character together, after two texts were joined, as that character."""
    if text.isascii() or not _STRAY.search(text):
        return text
    return to_text(to_bytes(text))


def without_strays(text: str) -> str:
    """`text` with bytes that belong to no character replaced, as Go does when it goes through a text rune by rune."""
    return text if text.isascii() else _STRAY.sub("�", text)


def sort_key(key: object) -> tuple[object, ...]:
    """Orders the keys of a map as Go prints and ranges over them: strings by bytes, structs field by field."""
    if isinstance(key, Struct):
        return tuple(part for item in key.values for part in sort_key(item))
    return (to_bytes(key) if isinstance(key, str) else key,)


def sorted_entries(value: Map) -> list[tuple[object, object]]:
    """The entries of a map in Go's order."""
    return sorted(value.entries.items(), key=lambda entry: sort_key(entry[0]))


def deep_equal(left: object, right: object) -> bool:
    """Go's `reflect.DeepEqual`: same types, same contents; nil and empty differ."""
    spend(1)
    if type_of(left) is not type_of(right):
        return False
    if isinstance(left, Slice) and isinstance(right, Slice):
        if left.nil != right.nil or len(left.items) != len(right.items):
            return False
        return left is right or all(deep_equal(a, b) for a, b in zip(left.items, right.items, strict=True))
    if isinstance(left, Map) and isinstance(right, Map):
        if left.nil != right.nil or left.entries.keys() != right.entries.keys():
            return False
        return left is right or all(deep_equal(item, right.entries[key]) for key, item in left.entries.items())
    if isinstance(left, Struct) and isinstance(right, Struct):
        return all(deep_equal(a, b) for a, b in zip(left.values, right.values, strict=True))
    return left == right
