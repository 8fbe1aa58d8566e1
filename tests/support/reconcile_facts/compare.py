"""Comparing what was seen in a story with its record, aspect by aspect: lines that are missing (`-`) or not asked for (`+`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]

EXTENSIONS = frozenset({"appliedInputs", "appliedState"})
"""Fields of ours that a status may have beside those of Flux."""
APART = frozenset({"managers", "history", "conditions"})


def _leaves(value: Any, path: str) -> Iterator[str]:
    if value and isinstance(value, dict | list):
        pairs = sorted(value.items()) if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _leaves(inner, f"{path}/{key}")
    else:
        yield f"{path}: {json.dumps(value, sort_keys=True)}"


def _each(record: Record) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for label, objects in sorted(record["observations"].items()):
        for name, seen in sorted(objects.items()):
            yield f"{label} {name}", seen


def _objects(record: Record) -> list[str]:
    """Everything about each object but what has an aspect of its own; objects that are not there have a line, too."""
    lines: list[str] = []
    for title, seen in _each(record):
        kept = None if seen is None else {key: each for key, each in seen.items() if key not in APART | EXTENSIONS}
        lines += _leaves(kept, title)
    return lines


def _field(name: str) -> Callable[[Record], list[str]]:
    def look(record: Record) -> list[str]:
        return [
            f"{title}: {json.dumps(each, sort_keys=True)}" for title, seen in _each(record) for each in (seen or {}).get(name, ())
        ]

    return look


def _order(record: Record) -> list[str]:
    pairs = ((title, [line.split("=")[0] for line in (seen or {}).get("conditions", ())]) for title, seen in _each(record))
    return [f"{title}: {' '.join(types)}" for title, types in pairs if types]


ASPECTS: Mapping[str, Callable[[Record], list[str]]] = {
    "objects": _objects,
    "conditions": _field("conditions"),
    "order": _order,
    "history": _field("history"),
    "managers": _field("managers"),
    "events": lambda record: [json.dumps(row) for row in record["events"]],
    "posted": lambda record: [json.dumps(row, sort_keys=True) for row in record["posted"]],
}
"""How to look at a record: each gives lines, whose order does not count.

`objects` has what was applied, inventories and the other fields of a status; `order` the order of conditions; `posted` what was
sent to the receiver of events.
"""


def differences(want: Record, got: Record) -> dict[str, list[str]]:
    """By aspect, the lines that differ, sorted; aspects that agree are left out."""
    found = {name: _difference(look(want), look(got)) for name, look in ASPECTS.items()}
    return {name: lines for name, lines in found.items() if lines}


class Expected:
    """A record with the differences that are accepted: what a story comes to here when all is well."""

    def __init__(self, record: Record, accepted: Mapping[str, list[str]]) -> None:
        self._record, self._accepted = record, accepted

    def told(self, found: Record) -> bool:
        """Whether all events have come; there may be more."""
        return all(self._lines(aspect, self._record) <= set(ASPECTS[aspect](found)) for aspect in ("events", "posted"))

    def seen(self, label: str, found: Mapping[str, Any]) -> bool:
        """Whether an observation is as expected, but for events."""
        want = {"observations": {label: self._record["observations"].get(label, {})}}
        got = {"observations": {label: found}}
        return all(
            self._lines(aspect, want, label) == set(look(got))
            for aspect, look in ASPECTS.items()
            if aspect not in ("events", "posted")
        )

    def _lines(self, aspect: str, record: Record, label: str = "") -> set[str]:
        accepted = [line for line in self._accepted.get(aspect, ()) if line[1:].startswith(f"{label} " if label else "")]
        gone = {line[1:] for line in accepted if line.startswith("-")}
        more = {line[1:] for line in accepted if line.startswith("+")}
        return (set(ASPECTS[aspect](record)) - gone) | more


def _difference(want: list[str], got: list[str]) -> list[str]:
    missing, more = sorted(set(want) - set(got)), sorted(set(got) - set(want))
    return [f"-{line}" for line in missing] + [f"+{line}" for line in more]
