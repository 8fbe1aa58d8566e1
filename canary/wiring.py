"""Puts Flagger's kinds and their controller into the service (entry point of the group `reconcile.packages`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from canary.alerts.notifier import Alerts
from canary.api import ALERT_PROVIDER, CANARY, METRIC_TEMPLATE
from canary.cli.commands import canary
from canary.loadtester.command import loadtester
from canary.options import OPTIONS, settings_from, workers
from reconcile.app import Core, Registry
from reconcile.runtime.loop import KeyedLoop


def register(registry: Registry) -> None:
    """Add the kinds, the controller, the commands and the options of this package."""
    for info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER):
        registry.scheme.register(info)
    registry.factories["canary"] = controllers
    registry.reads["canary"] = [info.kind for info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER)]
    registry.run_options.extend(OPTIONS)
    registry.commands.append(loadtester)
    registry.commands.append(canary)


@asynccontextmanager
async def controllers(core: Core) -> AsyncIterator[Sequence[KeyedLoop]]:
    """The controller of Canaries; none without a cluster, as there is no traffic to shift."""
    if core.objects is None:
        yield []
        return
    # Metrics backends and routers are many: only a service that runs Canaries loads them.
    from canary.controller import CanaryLoop
    from canary.events import Recorder
    from canary.exported import Exported
    from canary.hooks import Hooks
    from canary.metrics.checks import Checks
    from canary.metrics.providers import Providers
    from canary.tick import Tools

    values = core.settings.packages
    settings = settings_from(values, no_cross_namespace_refs=core.settings.no_cross_namespace_refs)
    exported = Exported(core.metrics, settings.mesh_provider)
    hooks = Hooks(core.clock, exported)
    recorder = Recorder(core.events, hooks, exported, core.clock)
    providers = Providers(core.objects, core.clock, api=core.api)
    made = Checks(core.store, core.objects, settings, core.clock, exported.analysis, providers=providers)
    async with aclosing(hooks), aclosing(made) as checks:
        tools = Tools(
            store=core.store,
            objects=core.objects,
            clock=core.clock,
            settings=settings,
            hooks=hooks,
            alerts=Alerts(core.store, exported),
            checks=checks,
            exported=exported,
            events=recorder.tick,
            fence=core.fence,
        )
        yield [CanaryLoop(tools, core.mesh_objects or core.objects, core.around, workers=workers(values))]
