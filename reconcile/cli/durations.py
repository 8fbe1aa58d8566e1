"""Durations on the command line."""

from __future__ import annotations

import re
from typing import Any

import click

from reconcile.api.duration import format_duration, parse_duration


class DurationType(click.ParamType[float]):
    """A Go duration such as `750ms`, `30s` or `15m`, or a number of seconds; gives seconds between the bounds."""

    name = "duration"

    def __init__(self, least: float = 0.0, most: float = 24 * 3600.0) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; a usage error when the text is no duration or out of bounds."""
        try:
            seconds = float(value) if re.fullmatch(r"[0-9.]+", str(value)) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value} is not between {format_duration(self._least)} and {format_duration(self._most)}", param, ctx)
        return seconds
