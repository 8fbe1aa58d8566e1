"""What a write of the status changes. Pure: status and effect in, status out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from canary.api import MAX_CHECKS, CanaryCondition, CanaryStatus, MetricCheck
from canary.effects import Write
from canary.metrics.base import Check
from canary.phases import Phase
from canary.plan import Plan
from canary.workload.base import Target
from canary.workload.tracker import binaries, texts
from reconcile.ports.clock import parse_timestamp, timestamp

PROMOTED, INVALID = "Promoted", "Invalid"
_KEEPS_COUNTERS = {Phase.PROGRESSING, Phase.WAITING, Phase.PROMOTING}
_PROMOTES = {Phase.INITIALIZED, Phase.SUCCEEDED}
_STEPPING = {Phase.PROGRESSING, Phase.WAITING, Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.FINALISING}

MAX_WHY = 1024

_WORDS: Mapping[Phase, tuple[str, str]] = {
    Phase.INITIALIZED: ("True", "{kind} initialization completed."),
    Phase.WAITING: ("Unknown", "Waiting for approval."),
    Phase.WAITING_PROMOTION: ("Unknown", "Waiting for approval."),
    Phase.PROGRESSING: ("Unknown", "New revision detected, progressing canary analysis."),
    Phase.PROMOTING: ("Unknown", "Canary analysis completed, starting primary rolling update."),
    Phase.FINALISING: ("Unknown", "Canary analysis completed, routing all traffic to primary."),
    Phase.SUCCEEDED: ("True", "Canary analysis completed successfully, promotion finished."),
    Phase.FAILED: ("False", "Canary analysis failed, {kind} scaled to zero."),
}


@dataclass(frozen=True, slots=True)
class Present:
    """What a status is written from besides the old one."""

    kind: str
    plan: Plan
    target: Target | None
    configs: Mapping[str, str] | None
    known_good: int
    """How many promoted revisions are remembered."""
    now: datetime
    due: datetime | None = None
    """When the next step is due, if there is one."""


def phase_of(status: CanaryStatus) -> Phase:
    """The phase that a status says."""
    return Phase(status.phase or "")


def written(status: CanaryStatus, write: Write, present: Present) -> CanaryStatus:
    """`status` after a write."""
    before = phase_of(status)
    phase = write.phase if write.phase is not None else before
    changes: dict[str, object] = {"last_transition_time": timestamp(present.now)}
    if write.phase is not None:
        changes["phase"] = phase.value
        if phase not in _KEEPS_COUNTERS:
            changes |= {"canary_weight": 0, "iterations": 0}
    if write.sync:
        changes |= {"canary_weight": 0, "failed_checks": 0, "iterations": 0, **_in_work(write, present)}
    given = {"canary_weight": write.weight, "failed_checks": write.failed, "iterations": write.iterations}
    changes |= {name: value for name, value in given.items() if value is not None}
    if phase in _PROMOTES and write.phase is not None:
        promoted = changes.get("last_applied_spec", status.last_applied_spec)
        changes["last_promoted_spec"] = promoted
        changes["known_good"] = _remembered(status, str(promoted or ""), present.known_good)
    if present.target is not None and present.target.revision == changes.get("last_applied_spec", status.last_applied_spec):
        # Only of the revision in work: that of a newer one must go on to be a change.
        changes["target_generation"] = present.target.generation or None
    if phase is not before or (write.phase is not None and write.sync):
        changes["phase_since"] = timestamp(present.now)
        changes["failure"] = write.why[:MAX_WHY] or None
        changes["not_ready_since"] = changes["hold_since"] = changes["gate_since"] = None
    changes["next_step_time"] = timestamp(present.due) if present.due is not None and phase in _STEPPING else None
    status = status.model_copy(update=changes)
    return status.model_copy(update={"conditions": conditions(status.conditions, phase, present.kind, present.now)})


def _in_work(write: Write, present: Present) -> dict[str, object]:
    if present.target is None:
        raise RuntimeError("a revision is recorded only after the target was read")
    found: dict[str, object] = {
        "last_applied_spec": present.target.revision,
        **tracked(present.configs),
    }
    if write.phase is Phase.PROGRESSING:
        found |= {"checks": None, "images": list(present.target.images) or None}
    return found


def tracked(configs: Mapping[str, str] | None) -> dict[str, object]:
    """The fields of the status that say which configuration is in work."""
    return {"tracked_configs": texts(configs) if configs is not None else None, "tracked_binary": binaries(configs) or None}


def known_configs(status: CanaryStatus) -> dict[str, str]:
    """The configuration in work."""
    return {**(status.tracked_configs or {}), **(status.tracked_binary or {})}


def _remembered(status: CanaryStatus, revision: str, most: int) -> list[str] | None:
    if most <= 0 or not revision:
        return None
    older = [known for known in status.known_good or () if known != revision]
    return [revision, *older][:most]


def conditions(present: Sequence[CanaryCondition] | None, phase: Phase, kind: str, now: datetime) -> list[CanaryCondition]:
    """The one condition of a Canary: whether what the target says is what serves the traffic."""
    status, words = _WORDS.get(phase, ("Unknown", "New {kind} detected, starting initialization."))
    old = next((entry for entry in present or () if entry.type == PROMOTED), None)
    if old is not None and (old.status, old.reason) == (status, phase.value):
        return [old]
    stamp = timestamp(now)
    since = old.last_transition_time if old is not None and old.status == status and old.last_transition_time else stamp
    return [
        CanaryCondition(
            type=PROMOTED,
            status=status,
            reason=phase.value,
            message=words.format(kind=kind),
            last_update_time=stamp,
            last_transition_time=since,
        )
    ]


def refused(status: CanaryStatus, why: str, now: datetime) -> CanaryStatus:
    """`status` of a Canary whose spec cannot be carried out, the same when it says so already."""
    old = next((entry for entry in status.conditions or () if entry.type == PROMOTED), None)
    if old is not None and (old.reason, old.message) == (INVALID, why):
        return status
    stamp = timestamp(now)
    condition = CanaryCondition(
        type=PROMOTED, status="False", reason=INVALID, message=why, last_update_time=stamp, last_transition_time=stamp
    )
    return status.model_copy(update={"conditions": [condition]})


def accepted(status: CanaryStatus, kind: str, now: datetime) -> CanaryStatus:
    """`status` of a Canary whose spec can be carried out: the same, unless it says that it cannot."""
    if not any(entry.reason == INVALID for entry in status.conditions or ()):
        return status
    return status.model_copy(update={"conditions": conditions(status.conditions, phase_of(status), kind, now)})


def shown_checks(checks: Sequence[Check]) -> list[MetricCheck]:
    """Checks as the status keeps them."""
    return [
        MetricCheck(
            metric=check.metric,
            query=check.query[:MAX_WHY],
            value=None if check.value is None else f"{check.value:g}",
            threshold=check.threshold,
            verdict=check.verdict.value,
            message=check.text[:MAX_WHY],
            samples=check.count,
            time=timestamp(check.at),
        )
        for check in checks[:MAX_CHECKS]
    ]


def due_of(status: CanaryStatus, now: datetime, interval: float) -> datetime:
    """When the next step of a run is due, by what the status says: never more than an interval away, whatever the clock did."""
    latest = now + timedelta(seconds=interval)
    text = status.next_step_time
    if not text:
        return now
    try:
        return min(parse_timestamp(text), latest)
    except ValueError:
        return now
