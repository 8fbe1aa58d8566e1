"""Printer columns: the simple JSONPaths of CustomResourceDefinitions on plain data. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from reconcile.api.scheme import PrinterColumn
from reconcile.ports.clock import parse_timestamp

Step = Callable[[Any], list[Any]]

_STEP = re.compile(
    r"""\.(?P<field>[A-Za-z_][\w-]*)
    |\[\s*'(?P<quoted>[^']*)'\s*\]
    |\[\s*(?P<index>-?\d{1,6}|\*)\s*\]
    |\[\?\(\s*@\.(?P<name>[\w-]+)\s*==\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)')\s*\)\]""",
    re.VERBOSE,
)


def find(path: str, found: Any) -> list[Any]:
    """The values at a JSONPath, none where there is nothing; raises ValueError for a path that is not a simple one."""
    values = [found]
    for step in _steps(path):
        values = [inside for value in values for inside in step(value)]
    return values


def cell(column: PrinterColumn, found: Any, now: datetime) -> str:
    """The text of a column for an object, as kubectl shows it: a date as an age, nothing as an empty text."""
    values = [value for value in find(column.json_path, found) if value is not None]
    if column.type == "date":
        return age(str(values[0]), now) if values else "<unknown>"
    return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


def age(moment: str, now: datetime) -> str:
    """How long ago, as kubectl prints it: `12s`, `5m`, `3h`, `9d`; empty for an empty text, `<invalid>` for no time."""
    if not moment:
        return ""
    try:
        seconds = max(int((now - parse_timestamp(moment)).total_seconds()), 0)
    except ValueError:
        return "<invalid>"
    for unit, size, limit in (("s", 1, 120), ("m", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def present() -> datetime:
    """The moment that ages are counted from."""
    return datetime.now(UTC)


@lru_cache(maxsize=256)
def _steps(path: str) -> Sequence[Step]:
    steps: list[Step] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"not a simple JSONPath: {path}")
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["name"] is not None:
        name, wanted = match["name"], match["double"] if match["double"] is not None else match["single"]
        return lambda value: [item for item in _items(value) if isinstance(item, dict) and item.get(name) == wanted]
    if match["index"] == "*":
        return _items
    if match["index"] is not None:
        index = int(match["index"])
        return lambda value: _items(value)[index:][:1]
    field = match["field"] if match["field"] is not None else match["quoted"]
    return lambda value: [value[field]] if isinstance(value, dict) and field in value else []


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
