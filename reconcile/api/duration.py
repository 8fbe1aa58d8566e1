"""Go durations: `1h30m`, `10m0s`, `1.5h`, `750ms` (`image-automation.md` §1.2)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
PATTERN_WITHOUT_HOURS = r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds in a Go duration text such as `1h30m`; raises ValueError when it is none."""
    body = text[1:] if text[:1] in "+-" and len(text) > 1 else text
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            break
        total += float(part.group(1)) * _UNITS[part.group(2)]
        at = part.end()
    if at == 0 or at != len(body):
        raise ValueError(f'time: invalid duration "{text}": write it like 30s, 5m or 1h30m')
    return -total if text.startswith("-") else total


def format_duration(seconds: float) -> str:
    """The Go text of a duration in seconds, as `time.Duration.String` prints it: `1h0m0s`, `1.5s`, `750ms`."""
    nanos = round(seconds * 1e9)
    if nanos == 0:
        return "0s"
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if nanos >= size:
                return f"{sign}{_decimal(nanos, size)}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else f"{sign}{tail}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


class GoDuration(float):
    """A length of time in seconds that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Parse `text`; raises ValueError when it is no Go duration."""
        value = super().__new__(cls, parse_duration(text))
        value.text = text
        return value

    def __str__(self) -> str:
        return self.text

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


class _DurationSchema:
    """Tells pydantic how a duration is read and written; `pattern` is what the CRD says."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def build(text: str) -> GoDuration:
            return GoDuration(text)

        return core_schema.no_info_after_validator_function(
            build,
            core_schema.str_schema(pattern=self.pattern, max_length=64),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern}


Duration = Annotated[GoDuration, _DurationSchema(PATTERN)]
"""A Go duration with the pattern of intervals."""

ShortDuration = Annotated[GoDuration, _DurationSchema(PATTERN_WITHOUT_HOURS)]
"""A Go duration whose pattern leaves out hours, as upstream's timeouts do."""
