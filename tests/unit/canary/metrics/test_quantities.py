"""Kubernetes quantities as numbers."""

from __future__ import annotations

import pytest

from canary.metrics.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0.0), ("12", 12.0), ("-3", -3.0), ("+3", 3.0), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1500m", 1.5), ("1u", 1e-6),
        ("7n", 7e-9), ("2k", 2000.0), ("1.5M", 1.5e6), ("1G", 1e9), ("1T", 1e12), ("1P", 1e15), ("1E", 1e18), ("1Ki", 1024.0),
        ("1.5Mi", 1.5 * 1024**2), ("1Ei", 1024.0**6), ("12e3", 12000.0), ("12E-3", 0.012), ("1e3", 1000.0), ("100m", 0.1),
    ],
)  # fmt: skip
def test_quantities(text: str, number: float) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "m", "1 m", "1K", "1mi", "1ki", "NaN", "Inf", "0x1", "1e", "1e3k", "--1", "1_0", "1.2.3", "None", "9" * 41, "1e9999"],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
