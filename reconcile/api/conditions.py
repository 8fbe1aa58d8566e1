"""Conditions as data: set, remove, read. Pure; the transition time moves only when something changed.

The rules are those of kstatus and of the Flux controllers: Stalled, Reconciling and Ready come first and in this order;
Reconciling and Stalled exclude each other and are removed, never False.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconcile.api.meta import Condition, ConditionStatus

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
PROGRESSING, PROGRESSING_WITH_RETRY, SUCCEEDED, FAILED = "Progressing", "ProgressingWithRetry", "Succeeded", "Failed"

MAX_MESSAGE = 32768
_ORDER = {STALLED: 0, RECONCILING: 1, READY: 2}

Conditions = tuple[Condition, ...]


def get(conditions: Sequence[Condition] | None, kind: str) -> Condition | None:
    """The condition of this type, or None."""
    return next((c for c in conditions or () if c.type == kind), None)


def is_true(conditions: Sequence[Condition] | None, kind: str) -> bool:
    """Whether the condition of this type is there and True."""
    found = get(conditions, kind)
    return found is not None and found.status == "True"


def is_ready(conditions: Sequence[Condition] | None) -> bool:
    """Ready is True, and neither Stalled nor Reconciling is."""
    return is_true(conditions, READY) and not is_true(conditions, STALLED) and not is_true(conditions, RECONCILING)


def put(
    conditions: Sequence[Condition], kind: str, status: ConditionStatus, reason: str, message: str, *, generation: int, now: str
) -> Conditions:
    """`conditions` with this one set at `generation`; `now` (RFC 3339) becomes its transition time if anything changed.

    A message above 32,768 bytes is cut and ends in `...`. Setting Reconciling removes Stalled and the reverse.
    """
    message = cut(message)
    old = get(conditions, kind)
    same = old is not None and (old.status, old.reason, old.message) == (status, reason, message)
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if same and old is not None else now,
    )
    excluded = {kind} | ({STALLED} if kind == RECONCILING else {RECONCILING} if kind == STALLED else set())
    return _ordered([*(c for c in conditions if c.type not in excluded), new])


def keep_times(conditions: Sequence[Condition], before: Sequence[Condition] | None) -> Conditions:
    """`conditions`, each with the transition time that it has in `before` if status, reason and message are the same there."""
    found = []
    for new in conditions:
        old = get(before, new.type)
        if old is not None and (old.status, old.reason, old.message) == (new.status, new.reason, new.message):
            new = new.model_copy(update={"last_transition_time": old.last_transition_time})
        found.append(new)
    return tuple(found)


def drop(conditions: Sequence[Condition], *kinds: str) -> Conditions:
    """`conditions` without these types."""
    return tuple(c for c in conditions if c.type not in kinds)


def _ordered(conditions: list[Condition]) -> Conditions:
    """The three in their order, then the others: what was set upon a later generation first, then by type."""

    def place(condition: Condition) -> tuple[int, int, str]:
        known = _ORDER.get(condition.type)
        return (known, 0, "") if known is not None else (3, -(condition.observed_generation or 0), condition.type)

    return tuple(sorted(conditions, key=place))


def cut(message: str) -> str:
    """`message` as a condition and an event may have it: at most 32,768 bytes; a longer one is cut and ends in `...`."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= MAX_MESSAGE:
        return raw.decode()
    return raw[: MAX_MESSAGE - 3].decode("utf-8", "ignore") + "..."
