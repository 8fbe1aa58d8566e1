"""`status.history` of a Kustomization: what was built, how it ended, how often. Pure.

Flux's HistorySnapshot: entries are told apart by digest and outcome; the one of the last pass comes first, five are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconcile.api.duration import format_duration
from reconcile.api.kustomization import Snapshot as HistorySnapshot

MOST = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One pass that got as far as applying: `seconds` it took, the Ready reason that it ended with."""

    digest: str
    outcome: str
    time: str
    seconds: float
    metadata: Mapping[str, str] = field(default_factory=dict)


def with_snapshot(history: Sequence[HistorySnapshot] | None, new: Snapshot) -> list[HistorySnapshot]:
    """The history after a pass: the entry of the same digest and outcome counts on, else a new one begins."""
    old = next((h for h in history or () if (h.digest, h.last_reconciled_status) == (new.digest, new.outcome)), None)
    entry = HistorySnapshot(
        digest=new.digest,
        first_reconciled=old.first_reconciled if old else new.time,
        last_reconciled=new.time,
        last_reconciled_duration=format_duration(new.seconds),
        last_reconciled_status=new.outcome,
        total_reconciliations=(old.total_reconciliations if old else 0) + 1,
        metadata=dict(new.metadata) or None,
    )
    return [entry, *(h for h in history or () if h is not old)][:MOST]
