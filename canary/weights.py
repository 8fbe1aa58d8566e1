"""Which weight comes next: the ladder up to the promotion, and the way back to the primary. Pure.

Follows Flagger: a linear step wins over a list of steps; a live weight that is not on the list jumps to the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from canary.routing.base import TOTAL, Weights


def top(max_weight: int, step_weights: Sequence[int]) -> int:
    """The weight at which the canary is promoted, 1 to 100."""
    if step_weights:
        return min(TOTAL, step_weights[-1])
    return min(TOTAL, max_weight) if max_weight > 0 else TOTAL


def step(weight: int, step_weight: int, step_weights: Sequence[int]) -> int:
    """By how much the canary's weight is raised from `weight`; 0 when neither form of steps is given.

    The room that is left bounds steps of a list; a linear step may overshoot, which `advance` bounds.
    """
    if step_weight > 0 or not step_weights:
        return step_weight
    room = TOTAL - weight
    if room == 0:
        return 1
    if weight == 0:
        return min(room, step_weights[0])
    for here, following in pairwise(step_weights):
        if here == weight:
            return max(0, min(room, following - weight))
    return room


def advance(live: Weights, by: int) -> Weights:
    """The weights one step up; mirroring ends with the first share of real traffic."""
    canary = min(TOTAL, live.canary + by)
    return Weights.at(canary)


def shift_back(live: Weights, by: int) -> Weights:
    """The weights one step back to the primary."""
    return Weights.at(max(0, live.canary - by))
