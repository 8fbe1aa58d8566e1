"""Go durations: `1h30m`, `10m0s`, `1.5h`, `750ms`, read as `time.ParseDuration` of Go reads them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
PATTERN_WITHOUT_HOURS = r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,  # Go takes the Greek letter as well as the micro sign
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")

MAX_LENGTH = 64
MAX_NANOSECONDS = 2**63 - 1
"""Go's durations are 64-bit numbers of nanoseconds: about 292 years."""


def parse_duration(text: str) -> float:
    """Seconds in a Go duration text such as `1h30m`; raises ValueError when it is none."""
    body = text[1:] if text[:1] in "+-" and len(text) > 1 else text
    if body == "0":
        return 0.0
    total, at = 0, 0
    while at < len(body) <= MAX_LENGTH:
        part = _PART.match(body, at)
        if part is None or not (part[1] or part[2]):
            break
        size, fraction = _UNITS[part[3]], part[2] or ""
        total += int(part[1] or 0) * size + int(fraction or 0) * size // 10 ** len(fraction)
        at = part.end()
    if at == 0 or at != len(body) or total > MAX_NANOSECONDS:
        raise ValueError(f'time: invalid duration "{text[:MAX_LENGTH]}": write it like 30s, 5m or 1h30m')
    return (-total if text.startswith("-") else total) / 1e9


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

    def __init__(self, pattern: str, example: str) -> None:
        self.pattern = pattern
        self._compiled = re.compile(pattern)
        self._example = example

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def build(text: str) -> GoDuration:
            # The pattern is checked here, and not by pydantic, so that the message says what to write.
            if len(text) > MAX_LENGTH or not self._compiled.fullmatch(text):
                raise ValueError(f'"{text[:MAX_LENGTH]}" is not a duration: write it like {self._example}')
            return GoDuration(text)

        return core_schema.no_info_after_validator_function(
            build,
            core_schema.str_schema(strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern}


Duration = Annotated[GoDuration, _DurationSchema(PATTERN, "30s, 5m or 1h30m")]
"""A Go duration with the pattern of intervals."""

ShortDuration = Annotated[GoDuration, _DurationSchema(PATTERN_WITHOUT_HOURS, "30s or 5m (hours are not accepted here)")]
"""A Go duration whose pattern leaves out hours, as upstream's timeouts do."""
