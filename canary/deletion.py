"""A Canary that is being deleted and gives back what it took over: pods to the target, then traffic, then it may go.

Without `revertOnDeletion` nothing of this happens: what the Canary owns is collected, and the target stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

from canary.effects import Write
from canary.errors import Problem
from canary.phases import Phase
from canary.prepare import read_target
from canary.status import Present, phase_of, written
from canary.tick import Tick
from canary.workload.services import give_back_apex
from reconcile.errors import ReconcileError

FINALIZER = "finalizer.flagger.app"


async def finalise(tick: Tick) -> bool:
    """One look at a Canary that is to go; whether it may go now. Raises Problem; the finalizer stays until all is given back."""
    await _announce(tick)
    await read_target(tick)
    site = tick.site
    if tick.scaler is not None:
        await tick.scaler.resume(site)
    await tick.workload.give_back(site)
    readiness = await tick.workload.canary_ready(site)
    if not readiness.ready:
        return False
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
    return True


async def _announce(tick: Tick) -> None:
    if phase_of(tick.site.status) is Phase.TERMINATING:
        return
    present = Present(tick.site.spec.target_ref.kind, tick.plan, None, None, 0, tick.now)
    status = written(tick.site.status, Write(Phase.TERMINATING), present)
    canary = await tick.tools.store.write_status(tick.canary, status)
    tick.site = replace(tick.site, canary=canary)
    await tick.say("Normal", f"Terminating canary {tick.site.name}.{tick.site.namespace}")
