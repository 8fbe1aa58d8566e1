"""Plain JSON data: copies and comparisons at the speed of the encoder, which is many times that of the interpreter."""

from __future__ import annotations

from typing import TypeVar

import orjson

T = TypeVar("T")


def duplicate(data: T) -> T:
    """A copy of JSON data that shares nothing with it."""
    copy: T = orjson.loads(orjson.dumps(data))
    return copy


def encoded(data: object) -> bytes:
    """Equal for data that is the same in the same order; in Python False is 0, in JSON it is not."""
    return orjson.dumps(data)
