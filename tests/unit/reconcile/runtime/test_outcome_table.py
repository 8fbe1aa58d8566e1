"""The state machine of one pass, as a table: conditions before, what happened, conditions after."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api import conditions as cond
from reconcile.api.conditions import MAX_MESSAGE, Conditions
from reconcile.errors import Conflict, Failed, NotFound, Stalled, Waiting
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.outcome import Pending, Success, begin, conclude, progress, reason_and_message

OLD, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
NEW_1 = "processing object: new generation -1 -> 1"
NEW_2 = "processing object: new generation 1 -> 2"
BUSY = "reconciliation in progress"

Shown = list[tuple[str, str, str, str]]


def made(*entries: tuple[str, str, str, str]) -> Conditions:
    found: Conditions = ()
    for kind, status, reason, message in entries:
        found = cond.put(found, kind, status, reason, message, generation=1, now=OLD)  # type: ignore[arg-type]
    return found


def shown(conditions: Conditions) -> Shown:
    return [(c.type, c.status, c.reason, c.message) for c in conditions]


GOOD = ("Ready", "True", "Succeeded", "all is well")
BAD = ("Ready", "False", "Broken", "it broke")
UNKNOWN = ("Ready", "Unknown", "Progressing", NEW_1)
STUCK = ("Stalled", "True", "Broken", "it broke")
RETRYING = ("Reconciling", "True", "ProgressingWithRetry", NEW_1)

START = [
    ("a new object", [], 1, None, [("Reconciling", "True", "Progressing", NEW_1), UNKNOWN]),
    ("a new object with the default status", [], 1, -1, [("Reconciling", "True", "Progressing", NEW_1), UNKNOWN]),
    ("a new generation of a ready one", [GOOD], 2, 1, [("Reconciling", "True", "Progressing", NEW_2), GOOD]),
    ("a new generation of a failed one", [BAD], 2, 1, [("Reconciling", "True", "Progressing", NEW_2), BAD]),
    ("the same generation", [GOOD], 1, 1, [("Reconciling", "True", "Progressing", BUSY), GOOD]),
    ("the same generation after a failure", [RETRYING, BAD], 1, 1, [("Reconciling", "True", "Progressing", BUSY), BAD]),
    ("a retry of a new object", [RETRYING, BAD], 1, -1, [("Reconciling", "True", "Progressing", NEW_1), BAD]),
    ("a stalled one", [STUCK, BAD], 1, 1, [("Reconciling", "True", "Progressing", BUSY), BAD]),
    (
        "an unknown one",
        [("Ready", "Unknown", "Progressing", "x")],
        1,
        1,
        [("Reconciling", "True", "Progressing", BUSY), ("Ready", "Unknown", "Progressing", BUSY)],
    ),
    (
        "one with a condition of somebody else",
        [GOOD, ("Zed", "True", "R", "m")],
        1,
        1,
        [("Reconciling", "True", "Progressing", BUSY), GOOD, ("Zed", "True", "R", "m")],
    ),
]


@pytest.mark.parametrize(("before", "generation", "observed", "after"), [row[1:] for row in START], ids=[row[0] for row in START])
def test_start(before: Shown, generation: int, observed: int | None, after: Shown) -> None:
    found = begin(made(*before), generation=generation, observed=observed, now=NOW)
    assert shown(found) == after
    assert cond.get(found, "Reconciling").observed_generation == generation  # type: ignore[union-attr]


RUNNING = [("Reconciling", "True", "Progressing", NEW_1), UNKNOWN]
SCANNING = [("Reconciling", "True", "Progressing", "scanning: first scan"), GOOD]

END: list[tuple[str, Shown, Any, Shown, dict[str, Any]]] = [
    (
        "success",
        RUNNING,
        Success("fine"),
        [("Ready", "True", "Succeeded", "fine")],
        {"observed": True, "after": None, "result": "success"},
    ),
    (
        "success with an interval",
        RUNNING,
        Success("fine", after=60.0),
        [("Ready", "True", "Succeeded", "fine")],
        {"observed": True, "after": 60.0, "result": "requeue_after"},
    ),
    ("success of a stalled one", [STUCK, BAD], Success("fine"), [("Ready", "True", "Succeeded", "fine")], {"observed": True}),
    (
        "a classified failure",
        RUNNING,
        Failed("Broken", "it broke"),
        [RETRYING, BAD],
        {"observed": False, "back_off": True, "after": None, "result": "error", "warning": ("Broken", "it broke")},
    ),
    (
        "a failure in the middle keeps the message of the middle",
        SCANNING,
        Failed("Broken", "it broke"),
        [("Reconciling", "True", "ProgressingWithRetry", "scanning: first scan"), BAD],
        {"observed": False, "back_off": True},
    ),
    (
        "a failure of one that shows nothing",
        [GOOD],
        Failed("Broken", "it broke"),
        [("Reconciling", "True", "ProgressingWithRetry", BUSY), BAD],
        {"observed": False, "back_off": True},
    ),
    (
        "an error of ours that nobody classified",
        RUNNING,
        NotFound("no such thing"),
        [RETRYING, ("Ready", "False", "Failed", "no such thing")],
        {"observed": False, "back_off": True, "warning": ("Failed", "no such thing")},
    ),
    (
        "an error that nobody expected",
        RUNNING,
        KeyError("x"),
        [RETRYING, ("Ready", "False", "Failed", "internal error: KeyError: 'x'")],
        {"observed": False, "back_off": True, "result": "error"},
    ),
    (
        "waiting",
        RUNNING,
        Waiting("DependencyNotReady", "not yet", 30.0),
        [RETRYING, ("Ready", "False", "DependencyNotReady", "not yet")],
        {
            "observed": False,
            "back_off": False,
            "after": 30.0,
            "result": "requeue_after",
            "warning": ("DependencyNotReady", "not yet"),
        },
    ),
    (
        "stalled",
        RUNNING,
        Stalled("Broken", "it broke"),
        [STUCK, BAD],
        {"observed": True, "back_off": False, "after": None, "result": "success", "warning": ("Broken", "it broke")},
    ),
    (
        "a failure with a delay of its own",
        RUNNING,
        Failed("Broken", "it broke", after=60.0, told="", event="not heard"),
        [RETRYING, BAD],
        {"observed": False, "back_off": False, "after": 60.0, "result": "error", "told": "", "event": "not heard"},
    ),
    (
        "waiting with an event of its own",
        RUNNING,
        Waiting("DependencyNotReady", "not yet", 30.0, event="come back later", told="Normal"),
        [RETRYING, ("Ready", "False", "DependencyNotReady", "not yet")],
        {"after": 30.0, "told": "Normal", "event": "come back later"},
    ),
    (
        "stalled before the spec was taken in",
        RUNNING,
        Stalled("AccessDenied", "it broke", observed=False),
        [("Stalled", "True", "AccessDenied", "it broke"), ("Ready", "False", "AccessDenied", "it broke")],
        {"observed": False, "told": "Warning", "event": "it broke"},
    ),
    (
        "success with a reason of its own",
        RUNNING,
        Success("fine", reason="ReconciliationSucceeded"),
        [("Ready", "True", "ReconciliationSucceeded", "fine")],
        {"observed": True},
    ),
    (
        "stalled again",
        [STUCK, BAD],
        Stalled("Other", "else"),
        [("Stalled", "True", "Other", "else"), ("Ready", "False", "Other", "else")],
        {"observed": True},
    ),
    (
        "pending on a new object",
        RUNNING,
        Pending("waiting for the first scan"),
        RUNNING,
        {"observed": False, "back_off": False, "after": None, "warning": None, "result": "success"},
    ),
    (
        "pending on a ready object keeps its verdict",
        [GOOD],
        Pending("waiting", after=5.0),
        [GOOD],
        {"observed": False, "after": 5.0, "warning": None, "result": "requeue_after"},
    ),
]


@pytest.mark.parametrize(("before", "outcome", "after", "expected"), [row[1:] for row in END], ids=[row[0] for row in END])
def test_end(before: Shown, outcome: Any, after: Shown, expected: dict[str, Any]) -> None:
    verdict = conclude(made(*before), outcome, generation=1, now=NOW)
    assert shown(verdict.conditions) == after
    assert {name: getattr(verdict, name) for name in expected} == expected


def test_an_equal_verdict_moves_no_time() -> None:
    first = conclude(begin((), generation=1, observed=-1, now=OLD), Success("fine"), generation=1, now=OLD)
    again = conclude(begin(first.conditions, generation=1, observed=1, now=NOW), Success("fine"), generation=1, now=NOW)
    assert again.conditions == first.conditions


def test_progress_touches_ready_only_while_it_is_unknown() -> None:
    assert shown(progress(made(GOOD), "half", generation=1, now=NOW))[1] == GOOD
    assert shown(progress((), "half", generation=1, now=NOW))[1] == ("Ready", "Unknown", "Progressing", "half")


def test_long_messages_are_cut() -> None:
    verdict = conclude((), Failed("Broken", "ä" * MAX_MESSAGE), generation=1, now=NOW)
    message = cond.get(verdict.conditions, "Ready").message  # type: ignore[union-attr]
    assert len(message.encode()) <= MAX_MESSAGE
    assert message.endswith("...")


@pytest.mark.parametrize(
    "error",
    [
        Failed("R", "https://u:hunter2@host is down"),
        Stalled("R", "https://u:hunter2@host is down"),
        Waiting("R", "https://u:hunter2@host is down", 1.0),
        Conflict("https://u:hunter2@host is down"),
        RuntimeError("https://u:hunter2@host is down"),
    ],
)
def test_no_credentials_get_into_a_status(error: Exception) -> None:
    assert "hunter2" not in reason_and_message(error)[1]
    assert "https://host is down" in reason_and_message(error)[1]


def test_back_off_doubles_from_750_ms_to_15_minutes() -> None:
    delays = [BackOff().delay(n) for n in range(1, 14)]
    assert delays == [0.75, 1.5, 3, 6, 12, 24, 48, 96, 192, 384, 768, 900, 900]
    assert BackOff().delay(10**9) == 900
    assert BackOff().delay(0) == 0.75


@pytest.mark.parametrize(
    "outcome", [Failed("Broken", "it broke"), Waiting("Broken", "it broke", 30.0)], ids=["failed", "waiting"]
)
def test_where_no_start_is_announced_a_failure_shows_reconciling_only_if_it_was_there(outcome: Exception) -> None:
    quiet = conclude(made(GOOD), outcome, generation=1, now=NOW, announced=False)
    assert shown(quiet.conditions) == [BAD]
    begun = conclude(made(*RUNNING), outcome, generation=1, now=NOW, announced=False)
    assert shown(begun.conditions) == [RETRYING, BAD]
