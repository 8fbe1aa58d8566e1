"""Delay after failures: doubling from a least to a greatest delay, as upstream's rate limiter; jitter of intervals."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds to wait after the n-th failure in a row."""

    least: float = 0.75
    greatest: float = 900.0

    def delay(self, failures: int) -> float:
        """Delay after `failures` failures in a row (1 for the first)."""
        doublings = min(max(failures, 1) - 1, 32)
        return min(self.least * float(2**doublings), self.greatest)


def jittered(seconds: float, share: float) -> float:
    """`seconds`, longer or shorter by at most this share, evenly spread: what was made together does not stay together."""
    return seconds * (1.0 + random.uniform(-share, share))  # noqa: S311 - not a secret
