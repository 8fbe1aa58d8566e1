"""The controllers of Kustomizations: group `kustomize`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from reconcile.api.kustomization import CONTROLLER, KUSTOMIZATION
from reconcile.api.source import BUCKET, EXTERNAL_ARTIFACT, GIT_REPOSITORY, OCI_REPOSITORY
from reconcile.app import Core, Registry
from reconcile.apply.memory import Memory
from reconcile.artifact.download import local_addresses
from reconcile.artifact.fetch import Artifacts
from reconcile.kustomize.controller import KustomizationReconciler
from reconcile.kustomize.rendering import Renderer
from reconcile.kustomize.sources import SourceFinder
from reconcile.kustomize.target import Targets
from reconcile.kustomize.tools import Tools
from reconcile.kustomize.waking import SOURCES, Waking
from reconcile.runtime.controller import Controller
from reconcile.runtime.telling import Teller

GROUP = "kustomize"


def register(registry: Registry) -> None:
    """Add the controller; the kinds are the core's."""
    registry.factories[GROUP] = controllers
    kinds = (KUSTOMIZATION, GIT_REPOSITORY, OCI_REPOSITORY, BUCKET, EXTERNAL_ARTIFACT)
    registry.reads[GROUP] = [info.kind for info in kinds]


@asynccontextmanager
async def controllers(core: Core) -> AsyncIterator[Sequence[Controller]]:
    """The controller of Kustomizations; there is none without a cluster to apply to."""
    if core.cluster is None or core.objects is None or core.remote is None:
        yield []
        return
    settings, gates = core.settings, core.settings.gates
    woken: list[Controller] = []
    waking = Waking(
        core.store,
        core.objects,
        lambda key: woken[0].add(key),
        settings.apply.watch_configs,
        crowded=lambda: len(woken[0].queue) > woken[0].workers,
    )
    strict = gates["StrictPostBuildSubstitutions"]
    rewrite = local_addresses(os.environ)
    folder = core.state / "unpacked"
    artifacts = Artifacts(core.storage, folder, core.clock, retries=settings.apply.http_retry, rewrite=rewrite)
    async with aclosing(artifacts), Renderer.opened(core.store, core.objects, core.state / "builds", strict=strict) as renderer:
        tools = Tools(
            store=core.store,
            objects=core.objects,
            clock=core.clock,
            teller=Teller(core.events, core.metrics, CONTROLLER),
            targets=Targets(core.store, core.cluster, core.remote, settings.apply.default_service_account),
            artifacts=artifacts,
            renderer=renderer,
            waking=waking,
            settings=settings.apply,
            memory=Memory(),
            stamps=core.stamps,
            requeue=settings.retry.requeue_dependency,
            jitter=settings.storage.jitter,
            strict=strict,
            migrate=gates["MigrateAPIVersion"],
            fail_fast=not gates["DisableFailFastBehavior"],
        )
        finder = SourceFinder(
            core.store,
            no_cross_namespace=settings.no_cross_namespace_refs,
            external=gates["ExternalArtifact"],
            requeue=settings.retry.requeue_dependency,
        )
        controller = Controller(
            KustomizationReconciler(tools, finder, core.bus, gates),
            core.around,
            name=CONTROLLER,
            workers=settings.concurrent,
            watches={**dict.fromkeys(SOURCES, waking.on_source), KUSTOMIZATION.kind: waking.on_dependency},
        )
        controller.notes.append(waking.note)
        woken.append(controller)
        if not gates["DisableConfigWatchers"]:
            core.objects.subscribe(waking.on_config)
        yield [controller]
