"""A Canary that is being deleted and gives back what it took over: pods to the target, then traffic, then it may go.

Without `revertOnDeletion` nothing of this happens: what the Canary owns is collected, and the target stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

from canary.effects import Write
from canary.errors import Problem
from canary.phases import Phase
from canary.prepare import TargetUnreadable, read_target
from canary.status import Present, phase_of, written
from canary.tick import Tick
from canary.workload.services import give_back_apex
from reconcile.errors import NotFound, ReconcileError

FINALIZER = "finalizer.flagger.app"


async def finalise(tick: Tick) -> str:
    """One look at a Canary that is to go; why it may not go yet, empty when it may.

    Raises:
        Problem: Something cannot be given back; the finalizer stays until all is.
    """
    await _announce(tick)
    if waits := await _pods_given_back(tick):
        return waits
    site = tick.site
    if site.spec.target_ref.kind != "Service":
        await give_back_apex(tick.tools.objects, site)
    await tick.router.revert(site)
    tick.tools.fence()
    left = [name for name in tick.canary.meta.finalizers if name != FINALIZER]
    try:
        await tick.tools.store.write_finalizers(tick.canary, left)
    except ReconcileError as error:
        raise Problem(f"removing the finalizer of {site.name}.{site.namespace} failed: {error}") from error
    await tick.say("Normal", f"Terminated canary {site.name}.{site.namespace}")
    return ""


async def _pods_given_back(tick: Tick) -> str:
    """Give the target its pods; why it cannot take the traffic yet. A target or autoscaler that went first is not waited for."""
    try:
        await read_target(tick)
    except TargetUnreadable as error:
        if error.missing:
            return ""
        raise
    if tick.scaler is not None:
        try:
            await tick.scaler.resume(tick.site)
        except Problem as error:
            if not isinstance(error.__cause__, NotFound):
                raise
    await tick.workload.give_back(tick.site)
    return (await tick.workload.canary_ready(tick.site)).text


async def _announce(tick: Tick) -> None:
    if phase_of(tick.site.status) is Phase.TERMINATING:
        return
    present = Present(tick.site.spec.target_ref.kind, tick.plan, None, None, 0, tick.now)
    status = written(tick.site.status, Write(Phase.TERMINATING), present)
    canary = await tick.tools.store.write_status(tick.canary, status)
    tick.site = replace(tick.site, canary=canary)
    await tick.say("Normal", f"Terminating canary {tick.site.name}.{tick.site.namespace}")
