"""When changes that wait are committed: never too early, never too late, the same after a restart, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from imagebot.bot.quiet import LONGEST, Wait, message, most_of, restored, shown, together, waited
from reconcile.ports.clock import parse_timestamp

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECONDS = st.floats(0, 100_000, allow_nan=False).map(lambda seconds: round(seconds, 3))
GAPS = st.lists(st.tuples(SECONDS, st.booleans()), max_size=12)
JUMPS = st.lists(st.tuples(st.floats(-1e9, 1e9, allow_nan=False), st.booleans()), min_size=1, max_size=12)
TOLERANCE = timedelta(milliseconds=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_one_change_waits_for_the_quiet_period() -> None:
    wait = waited(None, START, fresh=True, quiet=60, most=600)
    assert (wait.since, wait.until) == (START, at(60))


def test_a_further_change_prolongs_and_a_look_does_not() -> None:
    wait = waited(None, START, fresh=True, quiet=60, most=600)
    wait = waited(wait, at(50), fresh=True, quiet=60, most=600)
    assert wait.until == at(110)
    assert waited(wait, at(100), fresh=False, quiet=60, most=600).until == at(110)


def test_changes_that_do_not_stop_are_committed_after_the_longest_wait() -> None:
    wait = waited(None, START, fresh=True, quiet=60, most=most_of(60, None))
    for second in range(30, 600, 30):
        wait = waited(wait, at(second), fresh=True, quiet=60, most=600)
    assert wait.until == at(600)


def test_all_wait_for_the_last_and_none_for_longer_than_it_may() -> None:
    web = Wait(START, START, 60, 600)
    api = Wait(at(40), at(50), 30, 300)
    assert together([web, api]) == at(80)
    assert together([web, api, Wait(at(70), at(79), 120, 3000)]) == at(199)
    assert together([web, api, Wait(at(70), at(79), 120, 9)]) == at(79)


@given(gaps=GAPS, quiet=SECONDS, most=SECONDS)
def test_never_before_the_quiet_period_nor_after_the_longest_wait(
    gaps: list[tuple[float, bool]], quiet: float, most: float
) -> None:
    now = first = last = START
    wait = waited(None, now, fresh=True, quiet=quiet, most=most)
    for gap, fresh in gaps:
        now += timedelta(seconds=gap)
        last = now if fresh else last
        wait = waited(wait, now, fresh=fresh, quiet=quiet, most=most)
    earliest = min(last + timedelta(seconds=quiet), first + timedelta(seconds=most))
    assert wait.until == earliest


@given(gaps=GAPS, quiet=SECONDS, most=SECONDS, later=SECONDS)
def test_a_restart_changes_nothing(gaps: list[tuple[float, bool]], quiet: float, most: float, later: float) -> None:
    """What the status has is enough, to the second, and the wait goes on as without the restart."""
    now = START
    wait = waited(None, now, fresh=True, quiet=quiet, most=most)
    for gap, fresh in gaps:
        now += timedelta(seconds=gap)
        wait = waited(wait, now, fresh=fresh, quiet=quiet, most=most)
    now += timedelta(seconds=later)
    again = restored(wait.since, wait.until, now, quiet=quiet, most=most)
    assert abs(again.until - wait.until) <= TOLERANCE or wait.until <= again.until <= now
    assert again.since == wait.since
    stored = restored(wait.since, parse_timestamp(shown(wait.until)), now, quiet=quiet, most=most)
    assert stored.until >= wait.until - TOLERANCE
    assert stored.until <= max(wait.until + timedelta(seconds=1), now) + TOLERANCE


@given(jumps=JUMPS, quiet=SECONDS, most=SECONDS)
def test_a_clock_that_jumps_holds_nothing_for_longer_than_it_may_from_now(
    jumps: list[tuple[float, bool]], quiet: float, most: float
) -> None:
    now, wait = START, None
    for jump, fresh in jumps:
        now = START + timedelta(seconds=jump)
        wait = waited(wait, now, fresh=fresh, quiet=quiet, most=most)
        assert wait.until <= now + timedelta(seconds=most)
        assert wait.until <= now + timedelta(seconds=quiet)
        assert wait.since <= now


@given(jump=st.floats(-1e9, 1e9, allow_nan=False), quiet=SECONDS, most=SECONDS)
def test_a_restart_with_another_clock_holds_nothing_for_longer_either(jump: float, quiet: float, most: float) -> None:
    wait = waited(None, START, fresh=True, quiet=quiet, most=most)
    now = START + timedelta(seconds=jump)
    again = restored(wait.since, wait.until, now, quiet=quiet, most=most)
    assert again.until <= now + timedelta(seconds=min(quiet, most))


def test_durations_beyond_all_measure() -> None:
    wait = waited(None, START, fresh=True, quiet=9e9, most=9e10)
    assert wait.until == START + timedelta(seconds=LONGEST)
    assert restored(START, START, START, quiet=9e9, most=9e10).quiet == LONGEST


def test_words_for_people() -> None:
    assert message(3, at(5), START) == "3 changes wait until 12:00:05Z for more"
    assert message(1, at(5.2), START) == "1 change waits until 12:00:06Z for more"
    assert message(2, at(86400), START) == "2 changes wait until 2026-01-02T12:00:00Z for more"
