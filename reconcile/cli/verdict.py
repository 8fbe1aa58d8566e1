"""How an object is doing, read from plain data by the rules of kstatus and of the Flux controllers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`current`: done and well; `failed`: the last pass went wrong; `progressing`: not known yet. The message says more."""

    state: Literal["current", "progressing", "failed"]
    message: str


def condition(found: Object, kind: str) -> Object | None:
    """The condition of this type, None when there is none."""
    entries = (found.get("status") or {}).get("conditions") or ()
    return next((entry for entry in entries if entry.get("type") == kind), None)


def verdict(found: Object) -> Verdict:
    """How an object is doing at its present generation.

    A pass that failed and will be tried again counts as failed, while Flux's own commands wait for it until their deadline: the
    message is there already, and a script should not stand still for five minutes to see it.
    """
    generation = (found["metadata"]).get("generation")
    status = found.get("status") or {}
    ready, stalled, reconciling = (condition(found, kind) for kind in ("Ready", "Stalled", "Reconciling"))
    text = str((ready or {}).get("message") or "")
    if _true(stalled) and status.get("observedGeneration") == generation:
        return Verdict("failed", str((stalled or {}).get("message") or text))
    if ready is not None and ready.get("status") == "False" and _at(ready, generation, status):
        retried = reconciling is None or reconciling.get("reason") == "ProgressingWithRetry"
        return Verdict("failed" if retried else "progressing", text)
    if _true(reconciling):
        return Verdict("progressing", str((reconciling or {}).get("message") or text))
    if status.get("observedGeneration") != generation:
        return Verdict("progressing", "no controller has looked at this generation yet")
    if ready is not None and ready.get("status") == "True":
        return Verdict("current", text)
    return Verdict("progressing", text or "waiting to be reconciled")


def _true(entry: Object | None) -> bool:
    return entry is not None and entry.get("status") == "True"


def _at(entry: Object, generation: Any, status: Object) -> bool:
    """Whether a condition is about this generation; one that does not say counts by that of the status."""
    return bool((entry.get("observedGeneration") or status.get("observedGeneration")) == generation)
