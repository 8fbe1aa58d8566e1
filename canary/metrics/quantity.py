"""Kubernetes quantities as numbers: `1500m`, `2k`, `1.5Gi`, `12e3` (apimachinery, "resource.Quantity"). Pure."""

from __future__ import annotations

import re
from typing import Final

_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?"
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = "KMGTPE"


def parse_quantity(text: str) -> float:
    """The number nearest to a quantity; raises ValueError when it is none."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a quantity")
    digits, unit, exponent = found.groups()
    if unit and unit.endswith("i"):
        return float(digits) * 1024.0 ** (_BINARY.index(unit[0]) + 1)
    return float(f"{digits}e{exponent or _DECIMAL.get(unit, 0)}")  # one rounding, not one for each step
