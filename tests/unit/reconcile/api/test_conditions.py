"""Conditions follow the rules of kstatus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.api import conditions as cond
from reconcile.api.conditions import MAX_MESSAGE, Conditions, drop, get, is_ready, is_true, keep_times, put

OLD, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def ready(
    message: str = "m", *, status: str = "True", reason: str = "Succeeded", generation: int = 1, now: str = OLD
) -> Conditions:
    return put((), cond.READY, status, reason, message, generation=generation, now=now)  # type: ignore[arg-type]


def test_the_transition_time_stays_while_nothing_changes() -> None:
    again = put(ready(), "Ready", "True", "Succeeded", "m", generation=2, now=NOW)
    assert again[0].last_transition_time == OLD
    assert again[0].observed_generation == 2


@pytest.mark.parametrize(
    ("status", "reason", "message"), [("False", "Succeeded", "m"), ("True", "Other", "m"), ("True", "Succeeded", "n")]
)
def test_the_transition_time_moves_with_status_reason_or_message(status: str, reason: str, message: str) -> None:
    changed = put(ready(), "Ready", status, reason, message, generation=1, now=NOW)  # type: ignore[arg-type]
    assert changed[0].last_transition_time == NOW


def test_stalled_reconciling_and_ready_come_first_then_the_others_by_name() -> None:
    found: Conditions = ()
    for kind in ("Zed", "Ready", "Alpha", "Reconciling"):
        found = put(found, kind, "True", "R", "m", generation=1, now=OLD)
    assert [c.type for c in found] == ["Reconciling", "Ready", "Alpha", "Zed"]
    assert [c.type for c in put(found, "Stalled", "True", "R", "m", generation=1, now=OLD)] == [
        "Stalled",
        "Ready",
        "Alpha",
        "Zed",
    ]


def test_reconciling_and_stalled_exclude_each_other() -> None:
    stalled = put(ready(), "Stalled", "True", "R", "m", generation=1, now=OLD)
    moving = put(stalled, "Reconciling", "True", "R", "m", generation=1, now=OLD)
    assert (is_true(moving, "Stalled"), is_true(moving, "Reconciling")) == (False, True)
    again = put(moving, "Stalled", "True", "R", "m", generation=1, now=OLD)
    assert (is_true(again, "Stalled"), is_true(again, "Reconciling")) == (True, False)


def test_ready_means_ready_and_neither_stalled_nor_reconciling() -> None:
    assert is_ready(ready())
    assert not is_ready(ready(status="False"))
    assert not is_ready(put(ready(), "Reconciling", "True", "R", "m", generation=1, now=OLD))
    assert not is_ready(None)
    assert drop(ready(), "Ready") == ()
    assert get(ready(), "Stalled") is None


@pytest.mark.parametrize("letter", ["a", "ä", "€", "😀"])
def test_a_long_message_is_cut_at_32768_bytes_and_ends_in_dots(letter: str) -> None:
    message = ready(letter * 40_000)[0].message
    assert len(message.encode()) <= MAX_MESSAGE
    assert len(message.encode()) > MAX_MESSAGE - 4
    assert message.endswith(f"{letter}...")


@given(st.text(st.characters(), max_size=50).map(lambda t: t * 1500))
def test_no_message_is_too_long_and_cutting_twice_is_cutting_once(text: str) -> None:
    message = ready(text)[0].message
    assert len(message.encode()) <= MAX_MESSAGE
    assert ready(message)[0].message == message


def test_a_message_of_exactly_32768_bytes_is_whole() -> None:
    assert ready("a" * MAX_MESSAGE)[0].message == "a" * MAX_MESSAGE


def test_a_lone_surrogate_does_no_harm() -> None:
    assert ready("a\ud800b")[0].message == "a?b"


def test_what_ends_as_before_keeps_its_time() -> None:
    before = put(ready(), "Zed", "True", "R", "m", generation=1, now=OLD)
    after = put(ready(now=NOW, generation=2), "Zed", "True", "R", "other", generation=2, now=NOW)
    assert [(c.type, c.last_transition_time, c.observed_generation) for c in keep_times(after, before)] == [
        ("Ready", OLD, 2),
        ("Zed", NOW, 2),
    ]
    assert keep_times(after, None) == after
