"""Puts the image kinds and their controllers into the service (entry point of the group `reconcile.packages`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from imagebot.api import AUTOMATION, IMAGE_POLICY, IMAGE_REPOSITORY, IMAGE_UPDATE_AUTOMATION, REFLECTOR
from imagebot.bot.controller import ImageUpdateAutomationReconciler
from imagebot.bot.source import Sources
from imagebot.bot.traces import Pushes
from imagebot.cli import commands
from imagebot.hints.desk import Desk, Sinks
from imagebot.hints.passing import note_address, passing_on
from imagebot.hints.server import OPTION, address_in, is_asked, listening
from imagebot.holds import IMAGE_HOLD
from imagebot.policy.controller import ImagePolicyController, ImagePolicyReconciler
from imagebot.scan.access import Access
from imagebot.scan.cache import TagStore
from imagebot.scan.controller import ImageRepositoryReconciler
from reconcile.api.source import GIT_REPOSITORY
from reconcile.app import Core, Registry, Standby
from reconcile.forges.session import Observe
from reconcile.registry.pool import ClientPool
from reconcile.runtime.controller import Controller
from reconcile.runtime.metrics import Metrics
from reconcile.sources.git_logins import default_logins

KINDS = (IMAGE_REPOSITORY, IMAGE_POLICY, IMAGE_UPDATE_AUTOMATION, IMAGE_HOLD)
QUIET = 2.0
"""Most seconds that an update waits for scans and choices that are under way."""


def register(registry: Registry) -> None:
    """Add the kinds, the controllers and the commands of this package."""
    for info in KINDS:
        registry.scheme.register(info)
    registry.factories["image"] = controllers
    registry.standbys["image"] = standing_by
    registry.reads["image"] = [info.kind for info in (GIT_REPOSITORY, *KINDS)]
    registry.commands.extend(commands)
    registry.run_options.append(OPTION)


@asynccontextmanager
async def controllers(core: Core) -> AsyncIterator[Sequence[Controller]]:
    """The controllers of the image kinds; registry connections and Git mirrors are closed at the end."""
    settings, store, tags = core.settings, core.store, TagStore()
    keychain = None
    if core.local and settings.user_docker_config:
        from reconcile.registry.helpers import keychain_from_user_docker_config

        keychain = keychain_from_user_docker_config(None)
    async with _registry_clients(core) as pool:
        access = Access(store, pool, keychain)
        desk = Desk(store, tags, core.clock, core.around.timers, listening=is_asked(settings.packages))
        scan = ImageRepositoryReconciler(access, tags, core.clock, settings.gates, desk)
        policy = ImagePolicyReconciler(
            store,
            access,
            tags,
            settings.gates,
            no_cross_namespace_refs=settings.no_cross_namespace_refs,
            requeue_dependency=settings.retry.requeue_dependency,
        )
        workers = settings.concurrent
        scans = Controller(scan, core.around, name=REFLECTOR, workers=workers)
        policies = ImagePolicyController(
            policy,
            core.around,
            name=REFLECTOR,
            workers=workers,
            watches={"ImageRepository": policy.on_repository, "ImageHold": policy.on_hold},
        )
        policies.notes.append(policy.dependants.note)
        tags.wake = policies.add
        desk.sinks = Sinks(scans.add, policies.add, policy.dependants.of)
        sources = Sources(
            store, settings.gates, default_logins(core.clock), no_cross_namespace_refs=settings.no_cross_namespace_refs
        )
        update = ImageUpdateAutomationReconciler(
            store,
            sources,
            core.mirrors,
            core.clock,
            settled=lambda: _quiet(scans, policies),
            fence=core.fence,
            bus=core.bus,
            mine=core.around.mine,
            forge_requests=_counted(core.metrics),
        )
        updates = Controller(
            update,
            core.around,
            name=AUTOMATION,
            workers=workers,
            watches={"GitRepository": update.on_repository, "ImagePolicy": update.on_policy, "ImageHold": update.on_hold},
        )
        updates.notes.append(update.dependants.note)
        update.gathering.wake = updates.add
        pushes = Pushes(store)
        updates.notes.append(pushes.note)
        core.bus.lookup = pushes.traces
        try:
            address = address_in(settings.packages)
            async with listening(desk, core.metrics, address, lambda url: note_address(core.note, address, url)):
                yield [scans, policies, updates]
        finally:
            await update.close()


def _counted(metrics: Metrics) -> Observe:
    text = "Requests to the APIs of forges by status code; error: there was no answer."
    requests = metrics.counter("imagebot_forge_requests_total", text, "provider", "code")
    return lambda provider, code: requests.labels(provider, code).inc()


def standing_by(standby: Standby) -> AbstractAsyncContextManager[object]:
    """What is done while another process leads: hints are passed on to it."""
    return passing_on(address_in(standby.settings.packages), standby.metrics, standby.noted)


async def _quiet(*controllers: Controller) -> None:
    """Wait, for a bounded time, until scans and choices that are under way have ended: what changed together is one commit."""
    with suppress(TimeoutError):
        async with asyncio.timeout(QUIET):
            while True:
                for controller in controllers:
                    await controller.queue.drained()
                await asyncio.sleep(0.005)  # let the changes that they made come through
                if all(controller.queue.idle for controller in controllers):
                    return


@asynccontextmanager
async def _registry_clients(core: Core) -> AsyncIterator[ClientPool]:
    """The registry clients, closed at the end."""
    pool = ClientPool(clock=core.clock)
    try:
        yield pool
    finally:
        await pool.close()
