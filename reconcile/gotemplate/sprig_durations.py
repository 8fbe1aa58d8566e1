"""Sprig's durations."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from typing import Final

from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import Int64, type_of, wrap

DURATIONS: Final = Family()

_SECOND: Final = 1_000_000_000
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_STEPS: Final = (("y", 365 * 86400), ("mo", 30 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a Go duration such as `1h15m30.5s`; None when it is none."""
    body = text[1:] if text[:1] in {"+", "-"} else text
    if body == "0":
        return 0
    total, at = 0, 0
    while at < len(body):
        found = _PART.match(body, at)
        if found is None or not (found[1] or found[2]):
            return None
        total += int(Fraction(f"{found[1] or 0}.{found[2] or 0}") * _UNITS[found[3]])
        at = found.end()
    if not body or total >= 1 << 63:
        return None
    return -total if text[0] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """A duration as Go prints it, for whole seconds."""
    seconds = abs(nanoseconds) // _SECOND
    sign = "-" if nanoseconds < 0 else ""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds % 60}s"
    return f"{sign}{minutes}m{seconds % 60}s" if minutes else f"{sign}{seconds}s"


@DURATIONS.add("duration")
def _duration(value: object) -> str:
    seconds = int(value) if isinstance(value, Int64) else 0
    if isinstance(value, str):
        number = re.fullmatch(r"[+-]?[0-9]{1,30}", value)
        seconds = max(-(1 << 63), min((1 << 63) - 1, int(number[0]))) if number else 0
    return format_duration(wrap(seconds * _SECOND))


@DURATIONS.add("durationRound")
def _duration_round(value: object) -> str:
    nanoseconds = int(value) if isinstance(value, Int64) else 0
    if isinstance(value, str):
        nanoseconds = parse_duration(value) or 0
    for name, seconds in _STEPS:
        if abs(nanoseconds) > seconds * _SECOND:
            return f"{abs(nanoseconds) // (seconds * _SECOND)}{name}"
    return "0s"


@DURATIONS.add("ago")
def _ago(value: object) -> str:
    """The time since a Unix time in seconds; anything else counts as now."""
    if not isinstance(value, int) or type_of(value).name not in {"int", "int64"}:
        return "0s"
    return format_duration(round(time.time() - value) * _SECOND)
