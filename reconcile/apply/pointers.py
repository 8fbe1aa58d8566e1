"""JSON pointers (RFC 6901) into plain data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconcile.errors import Invalid

Path = tuple[str, ...]


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()
"""What is where nothing is."""


def parse(pointer: str) -> Path:
    """The steps of a pointer; raises Invalid when it begins with no slash."""
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        raise Invalid(f"{pointer!r} is not a JSON pointer: it begins with a slash, or is empty for the whole object")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def text_of(path: Sequence[str]) -> str:
    """The pointer of some steps."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def value_at(data: Any, path: Sequence[str]) -> Any:
    """What is there; ABSENT when nothing is."""
    for part in path:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and (index := _index(part, len(data))) is not None:
            data = data[index]
        else:
            return ABSENT
    return data


def without(data: Any, path: Sequence[str]) -> Any:
    """A copy without what is there; the data itself when nothing is."""
    if value_at(data, path) is ABSENT or not path:
        return data
    head, rest = path[0], path[1:]
    if isinstance(data, dict):
        if not rest:
            return {name: value for name, value in data.items() if name != head}
        return {**data, head: without(data[head], rest)}
    index = int(head)
    return [*data[:index], *([without(data[index], rest)] if rest else []), *data[index + 1 :]]


def replaced(data: Any, path: Sequence[str], value: Any) -> Any:
    """A copy with another value there; the data itself when nothing is there."""
    if value_at(data, path) is ABSENT:
        return data
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, dict):
        return {**data, head: replaced(data[head], rest, value)}
    index = int(head)
    return [*data[:index], replaced(data[index], rest, value), *data[index + 1 :]]


def differences(one: Any, other: Any, path: Path = ()) -> list[Path]:
    """Where two values differ: the deepest places that say so; lists of different lengths differ as a whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: list[Path] = []
        for name in sorted(one.keys() | other.keys()):
            found += differences(one.get(name, ABSENT), other.get(name, ABSENT), (*path, name))
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for index, (a, b) in pairs for each in differences(a, b, (*path, str(index)))]
    return [] if one == other and isinstance(one, bool) == isinstance(other, bool) else [path]


def _index(part: str, size: int) -> int | None:
    if part.isascii() and part.isdigit() and (part == "0" or not part.startswith("0")) and int(part[:9]) < size:
        return int(part)
    return None
