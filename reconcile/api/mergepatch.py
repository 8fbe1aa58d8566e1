"""Merge patches (RFC 7386): the smallest one that makes one object of another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from reconcile.api.jsondata import encoded


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that makes `new` of `old`; empty when they are equal. Lists are replaced."""
    # Nearly always nothing has changed, and most often not even the order.
    return {} if encoded(old) == encoded(new) else _difference(old, new)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            inner = _difference(before, value)
            if inner:
                patch[name] = inner
        elif name not in old or _json(before) != _json(value):
            patch[name] = value
    return patch


def _json(value: object) -> bytes:
    """For comparing: in Python False is 0, in JSON it is not."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
