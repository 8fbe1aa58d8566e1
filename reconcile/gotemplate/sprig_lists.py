"""Sprig's lists. Each function has a `must` twin, which differs in nothing that a template can see."""

from __future__ import annotations

from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.convert import empty, items_of, to_int, to_text_value, to_texts
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import (
    LIST,
    Slice,
    deep_equal,
    dynamic_kind,
    new_list,
    new_strings,
    slice_of,
    to_bytes,
)

LISTS: Final = Family()

_NIL_LIST: Final = Slice(LIST, (), nil=True)


@LISTS.add("list", "tuple")
def _list(*values: object) -> Slice:
    return new_list(values)


@LISTS.add("append", "push", "mustAppend", "mustPush")
def _push(value: object, item: object) -> Slice:
    return new_list([*items_of(value, "Cannot push on type"), item])


@LISTS.add("prepend", "mustPrepend")
def _prepend(value: object, item: object) -> Slice:
    return new_list([item, *items_of(value, "Cannot prepend on type")])


@LISTS.add("chunk", "mustChunk")
def _chunk(size: int, value: object) -> Slice:
    items = items_of(value, "Cannot chunk type")
    if size < 1:
        raise CallError("runtime error: makeslice: len out of range")
    chunks = [new_list(items[at : at + size]) for at in range(0, len(items), size)]
    return Slice(slice_of(LIST), tuple(chunks))


@LISTS.add("first", "mustFirst")
def _first(value: object) -> object:
    items = items_of(value, "Cannot find first on type")
    return items[0] if items else None


@LISTS.add("last", "mustLast")
def _last(value: object) -> object:
    items = items_of(value, "Cannot find last on type")
    return items[-1] if items else None


@LISTS.add("rest", "mustRest")
def _rest(value: object) -> Slice:
    items = items_of(value, "Cannot find rest on type")
    return new_list(items[1:]) if items else _NIL_LIST


@LISTS.add("initial", "mustInitial")
def _initial(value: object) -> Slice:
    items = items_of(value, "Cannot find initial on type")
    return new_list(items[:-1]) if items else _NIL_LIST


@LISTS.add("sortAlpha")
def _sort_alpha(value: object) -> Slice:
    if isinstance(value, Slice):
        return new_strings(sorted(to_texts(value), key=to_bytes))
    return new_strings([to_text_value(value)])


@LISTS.add("reverse", "mustReverse")
def _reverse(value: object) -> Slice:
    return new_list(reversed(items_of(value, "Cannot find reverse on type")))


@LISTS.add("compact", "mustCompact")
def _compact(value: object) -> Slice:
    return new_list(item for item in items_of(value, "Cannot compact on type") if not empty(item))


@LISTS.add("uniq", "mustUniq")
def _uniq(value: object) -> Slice:
    found: list[object] = []
    for item in items_of(value, "Cannot find uniq on type"):
        if not _holds(found, item):
            found.append(item)
    return new_list(found)


def _holds(items: list[object], wanted: object) -> bool:
    return any(deep_equal(wanted, item) for item in items)


@LISTS.add("without", "mustWithout")
def _without(value: object, *omitted: object) -> Slice:
    unwanted = list(omitted)
    return new_list(item for item in items_of(value, "Cannot find without on type") if not _holds(unwanted, item))


@LISTS.add("has", "mustHas")
def _has(wanted: object, value: object) -> bool:
    return value is not None and _holds(items_of(value, "Cannot find has on type"), wanted)


@LISTS.add("slice", "mustSlice")
def _slice(value: object, *bounds: object) -> object:
    items = items_of(value, "list should be type of slice or array but")
    if not items or not isinstance(value, Slice):
        return None
    start = to_int(bounds[0]) if bounds else 0
    end = to_int(bounds[1]) if len(bounds) > 1 else len(items)
    if not 0 <= start <= end <= len(items):
        raise CallError("reflect.Value.Slice: slice index out of bounds")
    return Slice(value.type, tuple(items[start:end]))


@LISTS.add("concat")
def _concat(*values: object) -> Slice:
    joined: list[object] = []
    for value in values:
        kind = dynamic_kind(value)
        if not isinstance(value, Slice):
            raise CallError(f"Cannot concat type {kind} as list")
        spend(len(value.items))
        joined += value.items
    return new_list(joined) if joined else _NIL_LIST
