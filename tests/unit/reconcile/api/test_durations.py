"""Durations are read and written as Go does."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from reconcile.api.duration import (
    Duration,
    GoDuration,
    ShortDuration,
    format_duration,
    parse_duration,
)

READ = {
    "0": 0,
    "0s": 0,
    "5s": 5,
    "30s": 30,
    "1478s": 1478,
    "5.0s": 5,
    "5.6s": 5.6,
    "5.s": 5,
    ".5s": 0.5,
    "1.004s": 1.004,
    "-5s": -5,
    "+5s": 5,
    "-0": 0,
    "+0": 0,
    "10ns": 1e-8,
    "11us": 11e-6,
    "12µs": 12e-6,
    "12μs": 12e-6,
    "13ms": 0.013,
    "14s": 14,
    "15m": 900,
    "16h": 57600,
    "3h30m": 12600,
    "10.5s4m": 250.5,
    "-2m3.4s": -123.4,
    "1h2m3s4ms5us6ns": 3723.004005006,
    "39h9m14.425s": 140954.425,
    "2562047h47m16.854775807s": 9223372036.854775807,
}

REFUSED = [
    "",
    "3",
    "-",
    "s",
    ".",
    "-.",
    ".s",
    "+.s",
    "1d",
    "1h 2m",
    " 1h",
    "1h ",
    "1H",
    "1,5h",
    "0x1s",
    "1e3s",
    "2562048h",
    "9" * 60 + "h",
]

WRITTEN = {
    0.0: "0s",
    1e-9: "1ns",
    1.1e-6: "1.1µs",
    2.2e-3: "2.2ms",
    3.3: "3.3s",
    245.0: "4m5s",
    245.001: "4m5.001s",
    18367.001: "5h6m7.001s",
    480.000000001: "8m0.000000001s",
    60.0: "1m0s",
    3600.0: "1h0m0s",
    0.75: "750ms",
    900.0: "15m0s",
    -1.5: "-1.5s",
    -3600.0: "-1h0m0s",
}


@pytest.mark.parametrize(("text", "seconds"), READ.items())
def test_the_forms_of_go_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("text", REFUSED)
def test_what_go_refuses_is_refused_and_the_message_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 30s, 5m or 1h30m") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("seconds", "text"), WRITTEN.items())
def test_a_duration_is_printed_as_go_prints_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 2**50))  # a float of seconds holds nanoseconds up to thirteen days
def test_what_is_printed_is_read_again(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert round(parse_duration(format_duration(seconds)) * 1e9) == nanoseconds


@given(st.integers(-(2**50), 2**50))
def test_printing_what_was_read_changes_nothing(nanoseconds: int) -> None:
    text = format_duration(nanoseconds / 1e9)
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["1h30m", "10m0s", "1.5h", "750ms", "0s", "1h1h"])
def test_a_field_takes_what_the_pattern_of_the_schema_takes(text: str) -> None:
    value = TypeAdapter(Duration).validate_python(text)
    assert isinstance(value, GoDuration)
    assert TypeAdapter(Duration).dump_python(value, mode="json") == text


@pytest.mark.parametrize("text", ["-1m", "+1m", "0", "1us", "5 minutes", ".5s", "1m\n", "", "1" * 65 + "s", "99999999h"])
def test_a_field_refuses_what_the_pattern_refuses(text: str) -> None:
    with pytest.raises(ValidationError, match="write it like 30s, 5m or 1h30m"):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize("value", [60, 1.5, True, None, ["1m"]])
def test_a_field_takes_text_only(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(value)


def test_a_timeout_has_no_hours() -> None:
    assert TypeAdapter(ShortDuration).validate_python("90m") == 5400
    with pytest.raises(ValidationError, match="hours are not accepted"):
        TypeAdapter(ShortDuration).validate_python("1h")


def test_the_json_schema_has_the_pattern() -> None:
    assert TypeAdapter(Duration).json_schema() == {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"}


def test_a_duration_keeps_its_text_through_a_copy() -> None:
    value = pickle.loads(pickle.dumps(GoDuration("60m")))
    assert (value, str(value)) == (3600.0, "60m")
