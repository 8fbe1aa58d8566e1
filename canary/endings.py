"""How a run fails, is taken back, or waits for its workloads: the part of the machine that moves traffic away. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from canary.effects import Alert, Count, Effect, Handled, PostRollout, Route, Say, ScaleDown, ScaleUp, Write
from canary.phases import Phase
from canary.plan import Strategy
from canary.routing.base import ALL_PRIMARY, TOTAL, Weights
from canary.seen import Reply, Seen
from canary.workload.base import Readiness

Effects = Iterator[Effect]
"""What a tick does, in this order."""


def failed_check(seen: Seen, text: str) -> Effects:
    """A check that says no is counted; the one that reaches the threshold also rolls back."""
    failed = seen.failed + 1
    yield Say("Warning", text)
    # Written before the rollback begins: who takes over in between finds the threshold reached.
    yield Write(failed=failed)
    if failed >= seen.plan.threshold:
        yield from threshold_reached(seen, failed, text)


def threshold_reached(seen: Seen, failed: int, last: str) -> Effects:
    """Too many checks have failed."""
    yield Say("Warning", f"Rolling back {seen.canary} failed checks threshold reached {failed}")
    yield Alert("error", f"Failed checks threshold reached {failed}")
    yield from rollback(seen, last or f"{failed} checks failed")


def not_ready(seen: Seen, readiness: Readiness) -> Effects:
    """A workload is waited for until its deadline; then the run is rolled back."""
    if readiness.retriable and readiness is seen.ready:
        yield from _woken(seen)
        return
    yield Say("Warning", readiness.text)
    if not readiness.retriable:
        yield Alert("error", f"Progress deadline exceeded {readiness.text}")
        yield from rollback(seen, readiness.text)


def _woken(seen: Seen) -> Effects:
    """The target is waited for; when somebody has taken its pods, or a rollback that did not get to its end, it gets some."""
    yield Say("Warning", seen.ready.text)
    if seen.ready.asleep:
        yield ScaleUp()


def hindered(seen: Seen) -> Effects:
    """Nothing goes on, but what ends the run badly is still possible."""
    yield Say("Warning", seen.hindered)


def stranded(seen: Seen) -> bool:
    """Whether the target has all the traffic and the primary is beyond hope, as after a promotion that failed.

    No traffic must go back then, and only another promotion can mend the primary. The audience of an A/B test is not all.
    """
    everything = seen.plan.strategy is not Strategy.AB_TESTING and seen.live.canary == TOTAL
    return everything and not seen.primary.ready and not seen.primary.retriable


def back_to_primary(seen: Seen) -> Effects:
    """All traffic to the primary, unless that could not take any."""
    if not stranded(seen):
        yield Route(ALL_PRIMARY)


def wished_rollback(seen: Seen) -> Effects:
    """A person asks for a rollback."""
    yield Handled()
    yield Say("Warning", f"Rolling back {seen.canary} as requested by annotation")
    yield Alert("warn", "Rolling back as requested by annotation")
    yield from rollback(seen, "somebody asked for it by annotation")


def gate_overdue(seen: Seen, closed: Reply) -> Effects:
    """A gate was closed for too long."""
    text = f"Rolling back {seen.canary}: gate {closed.name} was closed for longer than {seen.plan.gate_deadline:g}s"
    yield Say("Warning", text)
    yield Alert("error", text)
    yield from rollback(seen, f"gate {closed.name} stayed closed")


def rollback(seen: Seen, why: str) -> Effects:
    """The run has failed: the traffic leaves the target, then the target may go."""
    yield from back_to_primary(seen)
    # Without a ready primary the target's pods are all there is.
    keep = seen.plan.hold_on_failure or not seen.primary.ready
    yield Say("Warning", f"Canary failed! {'Keeping' if keep else 'Scaling down'} {seen.canary}", Phase.FAILED)
    if not keep:
        yield ScaleDown()
    yield Write(Phase.FAILED, sync=True, weight=TOTAL if stranded(seen) else None, why=why)
    yield Count(success=False)
    yield PostRollout(Phase.FAILED)


def back_at_promoted(seen: Seen) -> Effects:
    """The target is what the primary runs already: nothing is left to analyse."""
    if not seen.primary.ready and seen.live.canary > 0:
        yield Say("Warning", seen.primary.text)
        return
    if seen.wish is not None:
        yield Handled()
    yield Say("Normal", f"Revision of {seen.target} is back at the promoted one! Nothing to analyse", Phase.SUCCEEDED)
    yield Route(ALL_PRIMARY)
    if seen.primary.ready:
        yield ScaleDown()
    yield Write(Phase.SUCCEEDED, sync=True)


def promotion_failed(seen: Seen) -> Effects:
    """The primary cannot take the new revision, the target can: it gets all traffic, and keeps running."""
    if not seen.ready.ready:
        yield from _woken(seen)
        return
    text = seen.primary.text
    yield Say("Warning", f"Promotion of {seen.target} failed, primary not ready: {text}")
    yield Alert("error", f"Promotion failed, primary not ready: {text}")
    if seen.plan.weighted:
        yield Route(Weights.at(TOTAL))
    yield Write(Phase.FAILED, sync=True, weight=TOTAL, why=f"primary not ready: {text}")
    yield Count(success=False)
    yield PostRollout(Phase.FAILED)
