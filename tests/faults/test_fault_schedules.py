"""A hundred random schedules; `make faults N=1000` runs as many as you like."""

from __future__ import annotations

import pytest

from tests.faults.runner import carry_out
from tests.faults.schedule import Start, draw
from tests.faults.tally import Tally, told

SEED, RUNS = 20, 100


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_hundred_random_schedules() -> None:
    tally = Tally()
    for result in carry_out([draw(SEED, index) for index in range(RUNS)]):
        tally.add(result)
    assert not tally.failed, "\n".join(map(told, tally.failed))
    assert tally.schedules == RUNS
    assert tally.due > RUNS
    assert tally.kills > RUNS // 5
    assert len(tally.faults) > 12


def test_a_schedule_can_be_drawn_again() -> None:
    assert draw(3, 4) == draw(3, 4)
    assert draw(3, 4) != draw(3, 5)


def test_schedules_disturb_something() -> None:
    starts = [step for index in range(300) for step in draw(1, index).steps if isinstance(step, Start)]
    for name in Start.__slots__:
        assert any(getattr(step, name) != getattr(Start(), name) for step in starts), name
    assert all(2 <= len(draw(1, index).steps) <= 7 for index in range(300))
