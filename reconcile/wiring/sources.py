"""The controllers of sources and the server of their artifacts: group `source`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette

from reconcile.api.source import SOURCES
from reconcile.app import Core, Registry
from reconcile.artifact.server import artifact_routes
from reconcile.artifact.storage import Storage
from reconcile.registry.access import RegistryAccess
from reconcile.registry.pool import ClientPool
from reconcile.runtime.bus import Pushed
from reconcile.runtime.controller import Controller
from reconcile.runtime.server import serving
from reconcile.runtime.telling import Teller
from reconcile.sources.base import SourceTools
from reconcile.sources.bucket import BucketOptions, BucketReconciler
from reconcile.sources.buckets.access import BucketAccess
from reconcile.sources.buckets.logins import Logins
from reconcile.sources.git_logins import default_logins
from reconcile.sources.gitrepository import GitRepositoryReconciler
from reconcile.sources.helmrepository import HelmRepositoryReconciler
from reconcile.sources.ocirepository import OCIRepositoryReconciler

GROUP = "source"
CONTROLLER = "source-controller"


def register(registry: Registry) -> None:
    """Add the controllers; the kinds are the core's."""
    registry.factories[GROUP] = controllers
    registry.reads[GROUP] = [info.kind for info in SOURCES]


@asynccontextmanager
async def controllers(core: Core) -> AsyncIterator[Sequence[Controller]]:
    """The controllers of sources, and their artifacts served; there are none without a cluster to make them for."""
    if core.storage is None:
        yield []
        return
    async with AsyncExitStack() as stack:
        await _serve(core, core.storage, stack)
        tools = SourceTools(
            core.store,
            core.storage,
            Teller(core.events, core.metrics, CONTROLLER),
            core.settings.gates,
            bus=core.bus,
            jitter=core.settings.storage.jitter,
            requeue_dependency=core.settings.retry.requeue_dependency,
        )
        pool = ClientPool(clock=core.clock)
        stack.push_async_callback(pool.close)
        git = GitRepositoryReconciler(tools, core.mirrors, logins=default_logins(core.clock))
        stack.callback(git.close)
        oci = OCIRepositoryReconciler(tools, RegistryAccess(core.store, pool), core.state / "unpacking")
        helm = HelmRepositoryReconciler(tools, most_bytes=core.settings.storage.helm_index)
        access = BucketAccess(core.store, logins=Logins(clock=core.clock), clock=core.clock)
        options = BucketOptions(core.state / "buckets", algorithm=core.settings.storage.digest)
        bucket = BucketReconciler(tools, access, options)
        workers = core.settings.concurrent
        gits = Controller(git, core.around, name=CONTROLLER, workers=workers, watches={git.kind: git.on_repository})
        gits.notes.append(git.repositories.note)
        _follow_pushes(core, git, gits, stack)
        others = [Controller(each, core.around, name=CONTROLLER, workers=workers) for each in (oci, helm, bucket)]
        yield [gits, *others]


async def _serve(core: Core, storage: Storage, stack: AsyncExitStack) -> None:
    address = core.settings.storage.address
    if address:
        await stack.enter_async_context(serving(Starlette(routes=artifact_routes(storage)), address))


def _follow_pushes(core: Core, git: GitRepositoryReconciler, controller: Controller, stack: AsyncExitStack) -> None:
    """Look at a repository as soon as we have pushed to it ourselves."""
    tasks: set[asyncio.Task[None]] = set()

    async def wake(push: Pushed) -> None:
        for key in await git.pushed(push.url, f"refs/heads/{push.branch}"):
            controller.add(key)

    def notice(push: Pushed) -> None:
        task = asyncio.get_running_loop().create_task(wake(push))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def stop() -> None:
        for task in tasks:
            task.cancel()

    core.bus.on_push(notice)
    stack.callback(stop)
