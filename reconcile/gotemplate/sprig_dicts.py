"""Sprig's dictionaries."""

from __future__ import annotations

from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.convert import empty, to_text_value
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import DICT, ZERO_TYPE, Map, Slice, new_dict, new_list, new_strings, sorted_entries, type_of

DICTS: Final = Family()


@DICTS.add("dict")
def _dict(*values: object) -> Map:
    made = new_dict()
    for place in range(0, len(values), 2):
        made.entries[to_text_value(values[place])] = values[place + 1] if place + 1 < len(values) else ""
    return made


@DICTS.add("get")
def _get(value: Map, key: str) -> object:
    return value.entries.get(key, "")


@DICTS.add("set")
def _set(value: Map, key: str, item: object) -> Map:
    if value.nil:
        raise CallError("assignment to entry in nil map")
    if _reaches(item, value):
        raise CallError("a dictionary cannot hold itself")
    value.entries[key] = item
    return value


def _reaches(item: object, target: Map) -> bool:
    """Whether `target` is `item` or somewhere in it; Go lets that happen and then overflows its stack when printing."""
    spend(1)
    if isinstance(item, Map):
        return item is target or any(_reaches(each, target) for each in item.entries.values())
    return isinstance(item, Slice) and any(_reaches(each, target) for each in item.items)


@DICTS.add("unset")
def _unset(value: Map, key: str) -> Map:
    value.entries.pop(key, None)
    return value


@DICTS.add("hasKey")
def _has_key(value: Map, key: str) -> bool:
    return key in value.entries


@DICTS.add("pluck")
def _pluck(key: str, *values: Map) -> Slice:
    return new_list(value.entries[key] for value in values if key in value.entries)


@DICTS.add("keys")
def _keys(*values: Map) -> Slice:
    return new_strings(str(key) for value in values for key, _ in sorted_entries(value))


@DICTS.add("values")
def _values(value: Map) -> Slice:
    return new_list(item for _, item in sorted_entries(value))


@DICTS.add("pick")
def _pick(value: Map, *keys: str) -> Map:
    return new_dict({key: value.entries[key] for key in keys if key in value.entries})


@DICTS.add("omit")
def _omit(value: Map, *keys: str) -> Map:
    return Map(DICT, {key: item for key, item in value.entries.items() if key not in keys})


def _merge_into(target: Map, source: Map, *, overwrite: bool) -> None:
    """Dictionaries in both are merged in place; otherwise what is empty gives way, or everything when overwriting."""
    for key, item in source.entries.items():
        spend(1)
        known = target.entries.get(key)
        if isinstance(known, Map) and isinstance(item, Map) and known.type is item.type:
            if known is not item:
                _merge_into(known, item, overwrite=overwrite)
        elif overwrite or empty(known):
            if _reaches(item, target):
                raise CallError("a dictionary cannot hold itself")
            target.entries[key] = item


@DICTS.add("merge", "mustMerge")
def _merge(target: Map, *sources: Map) -> object:
    for source in sources:
        _merge_into(target, source, overwrite=False)
    return target


@DICTS.add("mergeOverwrite", "mustMergeOverwrite")
def _merge_overwrite(target: Map, *sources: Map) -> object:
    for source in sources:
        _merge_into(target, source, overwrite=True)
    return target


@DICTS.add("dig")
def _dig(*params: object) -> object:
    if len(params) < 3:
        raise CallError("dig needs at least three arguments")
    value = _as_dict(params[-1])
    names = [_as_text(name) for name in params[:-2]]
    for place, name in enumerate(names):
        if name not in value.entries:
            return params[-2]
        step = value.entries[name]
        if place == len(names) - 1:
            return step
        value = _as_dict(step)
    return params[-2]


def _as_dict(value: object) -> Map:
    if isinstance(value, Map) and value.type is DICT:
        return value
    raise _conversion(value, DICT.name)


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise _conversion(value, "string")


def _conversion(value: object, wanted: str) -> CallError:
    have = "nil" if value is None else type_of(value).name
    return CallError(f"interface conversion: interface {{}} is {have}, not {wanted}")


@DICTS.add("deepCopy", "mustDeepCopy")
def _deep_copy(value: object) -> object:
    if value is None:
        raise CallError(ZERO_TYPE)
    return _copied(value)


def _copied(value: object) -> object:
    spend(1)
    if isinstance(value, Map):
        return Map(value.type, {key: _copied(item) for key, item in value.entries.items()}, value.nil)
    if isinstance(value, Slice):
        return Slice(value.type, tuple(map(_copied, value.items)), value.nil)
    return value
