"""Delay after failures: doubling from a least to a greatest delay, as upstream's rate limiter; jitter of intervals."""

from __future__ import annotations

import random
from collections.abc import Callable
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


Chance = Callable[[float, float], float]
"""A number between two, each as likely as any other."""


def jittered(seconds: float, share: float, chance: Chance = random.uniform) -> float:
    """`seconds` more or less, evenly spread over `share` of it in both directions: what was made together does not stay so."""
    return seconds + chance(-seconds * share, seconds * share) if share else seconds
