"""How a pass shows in status and events. Pure: conditions before and an outcome in, conditions, delay and event out.

This is the state machine of the Flux controllers (their documents: «Conditions» of each kind). One pass:

start    Reconciling=True Progressing; Stalled goes; Ready becomes Unknown only where it was missing or Unknown
success  Reconciling and Stalled go; Ready=True Succeeded; the generation counts as observed
failure  Ready=False with the reason; Reconciling stays as ProgressingWithRetry with its last message; generation not observed
waiting  as failure, after a fixed delay
stalled  Stalled=True and Ready=False with the reason; Reconciling goes; the generation counts as observed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reconcile.api import conditions as cond
from reconcile.api.conditions import Conditions
from reconcile.errors import Failed, ReasonedError, ReconcileError, Stalled, Told, Waiting
from reconcile.redact import redact

START_MESSAGE = "reconciliation in progress"


@dataclass(frozen=True, slots=True)
class Success:
    """The pass reached its end. `after` is when to come back, in seconds (None: only when something changes)."""

    message: str
    after: float | None = None
    event: str | None = None
    """Text of the event if the pass did something worth telling; else the Ready message is told when it is news."""
    quiet: bool = False
    """A message that differs from the last one is no news by itself (ImageUpdateAutomation)."""
    trace: str = ""
    """What to say when nothing changed."""
    changed: bool = False
    """Whether the pass changed something outside: a commit was pushed."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    reason: str = cond.SUCCEEDED
    """Reason of Ready."""
    event_reason: str = ""
    """Reason of the event; that of Ready where it is empty."""
    event_type: Literal["Normal", "Posted"] = "Normal"
    """Type of the event: one that is only posted is not written beside the object."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing to say yet: what the object waits for will wake it. It goes on showing what it showed at the start of the pass."""

    message: str
    """What it waits for, for the log."""
    after: float | None = None


Outcome = Success | Pending | Exception


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an outcome. `after` None means no timed return; `back_off` means the queue chooses the delay."""

    conditions: Conditions = ()
    observed: bool = False
    after: float | None = None
    back_off: bool = False
    warning: tuple[str, str] | None = None
    """Reason and message of a failure: what Ready says."""
    told: Told = ""
    """What kind of event tells of it."""
    event: str = ""
    """The text of that event."""
    result: str = "success"
    """Label of the result metric: success, requeue_after, requeue, error."""


def begin(conditions: Conditions, *, generation: int, observed: int | None, now: str) -> Conditions:
    """Conditions at the start of a pass."""
    message = START_MESSAGE
    if generation != observed:
        message = f"processing object: new generation {-1 if observed is None else observed} -> {generation}"
    return progress(conditions, message, generation=generation, now=now)


def progress(conditions: Conditions, message: str, *, generation: int, now: str) -> Conditions:
    """Conditions in the middle of a pass that has got as far as `message` says."""
    result = cond.put(conditions, cond.RECONCILING, "True", cond.PROGRESSING, message, generation=generation, now=now)
    ready = cond.get(result, cond.READY)
    if ready is None or ready.status == "Unknown":
        result = cond.put(result, cond.READY, "Unknown", cond.PROGRESSING, message, generation=generation, now=now)
    return result


def conclude(conditions: Conditions, outcome: Outcome, *, generation: int, now: str, announced: bool = True) -> Verdict:
    """What `outcome` makes of the conditions in force when the pass ended.

    Where passes do not announce their start (`announced` False), a failure shows Reconciling only if it was there.
    """
    if isinstance(outcome, Success):
        cleared = cond.drop(conditions, cond.RECONCILING, cond.STALLED)
        ready = cond.put(cleared, cond.READY, "True", outcome.reason, outcome.message, generation=generation, now=now)
        return Verdict(ready, observed=True, after=outcome.after, result="requeue_after" if outcome.after else "success")
    if isinstance(outcome, Pending):
        return Verdict(conditions, observed=False, after=outcome.after, result="requeue_after" if outcome.after else "success")
    reason, message = reason_and_message(outcome)
    reasoned = outcome if isinstance(outcome, ReasonedError) else None
    told: Told = reasoned.told if reasoned else "Warning"
    event = message if reasoned is None or reasoned.event is None else redact(reasoned.event)
    if isinstance(outcome, Stalled):
        stalled = cond.put(conditions, cond.STALLED, "True", reason, message, generation=generation, now=now)
        ready = cond.put(stalled, cond.READY, "False", reason, message, generation=generation, now=now)
        return Verdict(ready, observed=outcome.observed, warning=(reason, message), told=told, event=event)
    retrying = cond.drop(conditions, cond.STALLED)
    current = cond.get(conditions, cond.RECONCILING)
    if current is not None or announced:
        text = current.message if current else START_MESSAGE
        retrying = cond.put(retrying, cond.RECONCILING, "True", cond.PROGRESSING_WITH_RETRY, text, generation=generation, now=now)
    retrying = cond.put(retrying, cond.READY, "False", reason, message, generation=generation, now=now)
    after = outcome.after if isinstance(outcome, Waiting | Failed) else None
    return Verdict(
        retrying,
        after=after,
        back_off=after is None,
        warning=(reason, message),
        told=told,
        event=event,
        result="requeue_after" if isinstance(outcome, Waiting) else "error",
    )


def reason_and_message(error: Exception) -> tuple[str, str]:
    """Reason and message of an error, without credentials; `Failed` and its text when nobody classified it."""
    if isinstance(error, ReasonedError):
        return error.reason, redact(error.message)
    if isinstance(error, ReconcileError):
        return cond.FAILED, redact(str(error))
    return cond.FAILED, redact(f"internal error: {type(error).__name__}: {error}")
