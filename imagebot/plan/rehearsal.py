"""One pass that writes nothing: real scans and choices on a copy of the state, and commits that are pushed nowhere."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from imagebot.api import ImageUpdateAutomation
from imagebot.bot.controller import ImageUpdateAutomationReconciler
from imagebot.explain.chain import copy_database
from imagebot.scan.cache import TagStore
from imagebot.scan.controller import ImageRepositoryReconciler, SharedLists
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.app import DATABASE_NAME, Core, Registry, local_service
from reconcile.cli.folder import state_path
from reconcile.errors import TimedOut
from reconcile.local.walk import Problem
from reconcile.ports.store import Store
from reconcile.registry.client import RegistryClient
from reconcile.registry.names import Repository
from reconcile.registry.tags import TagPages
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import KeyedLoop
from reconcile.runtime.outcome import Success
from reconcile.settings import Settings

GROUP = "image"
"""The controllers that take part."""
KINDS = ("ImageRepository", "ImagePolicy")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The objects after the scans and choices of a pass.

    Attributes:
        store: the objects; their status is that of the copy.
        before: the objects as they were, by kind and key.
        updater: proposes commits.
        tags: what was scanned.
        failures: kind and key of what went wrong, with reason and message.
        problems: files of the folder that could not be used.
    """

    store: Store
    before: dict[tuple[str, Key], AnyResource]
    updater: ImageUpdateAutomationReconciler
    tags: TagStore
    failures: dict[tuple[str, Key], tuple[str, str]]
    problems: tuple[Problem, ...]

    async def automations(self) -> Sequence[ImageUpdateAutomation]:
        """All automations, in the order of their keys."""
        found: Sequence[ImageUpdateAutomation] = await self.store.list("ImageUpdateAutomation")
        return found


class Overheard(SharedLists):
    """Listings of tags that are kept as they came, excluded ones among them, for those who would ask for them again."""

    def __init__(self) -> None:
        super().__init__()
        self._tags: dict[str, dict[RegistryClient, tuple[str, ...]]] = {}

    async def list(self, client: RegistryClient, repository: Repository, known: str | None) -> TagPages:
        """As for everybody."""
        pages = await super().list(client, repository, known)
        self._tags.setdefault(repository.canonical, {})[client] = pages.tags
        return pages

    def tags(self, repository: Repository) -> tuple[str, ...] | None:
        """All tags of an image; None when nobody asked, or several did whose credentials may have shown them different ones."""
        found = list(self._tags.get(repository.canonical, {}).values())
        return found[0] if len(found) == 1 else None


@asynccontextmanager
async def rehearsed(
    directory: Path,
    registry: Registry,
    settings: Settings,
    state: Path | None = None,
    *,
    timeout: float,
    wanted: Callable[[AnyResource], bool] | None = None,
    lists: SharedLists | None = None,
) -> AsyncIterator[Rehearsal]:
    """Make the scans and choices of a pass over a folder.

    Args:
        directory: the manifests.
        registry: packages.
        settings: as for a pass.
        state: folder with the state, None: the usual one. It is read and never written.
        timeout: most seconds for scans and choices.
        wanted: which ImageRepositories and ImagePolicies take part; None: all.
        lists: makes the listings of tags; None: the usual.

    Raises:
        Invalid: There is no such folder, or its state cannot be read.
        TimedOut: It takes longer.
    """
    path = state_path(directory, state)
    with tempfile.TemporaryDirectory(prefix="imagebot-plan-") as scratch:
        if path is not None:
            await asyncio.to_thread(copy_database, path, Path(scratch) / DATABASE_NAME)
        loops: dict[str, KeyedLoop] = {}
        before: dict[tuple[str, Key], AnyResource] = {}

        @asynccontextmanager
        async def without_updates(core: Core) -> AsyncIterator[Sequence[KeyedLoop]]:
            for info in registry.scheme:
                before.update({(info.kind, found.key): found for found in await core.store.list(info.kind)})
            limited = core if wanted is None else replace(core, around=replace(core.around, mine=wanted))
            async with registry.factories[GROUP](limited) as made:
                loops.update({loop.kind: loop for loop in made})
                if lists is not None:
                    _scans(loops).lists = lists
                yield [loop for loop in made if loop.kind != ImageUpdateAutomationReconciler.kind]

        limited = Registry(scheme=registry.scheme, factories={GROUP: without_updates})
        async with local_service(directory, registry=limited, settings=settings, state=Path(scratch), retry=False) as service:
            try:
                async with asyncio.timeout(timeout):
                    await service.manager.drained()
            except TimeoutError:
                raise TimedOut(f"the scans were not done after {timeout:g} s; see --timeout") from None
            failures = {
                (loop.kind, key): (getattr(outcome, "reason", "Failed"), getattr(outcome, "message", str(outcome)))
                for loop in service.controllers
                for key, outcome in loop.outcomes.items()
                if not isinstance(outcome, Success)
            }
            updates = cast(
                ImageUpdateAutomationReconciler, cast(Controller, loops[ImageUpdateAutomationReconciler.kind]).reconciler
            )
            yield Rehearsal(service.store, before, updates, _scans(loops).tags, failures, service.store.problems)


def _scans(loops: Mapping[str, KeyedLoop]) -> ImageRepositoryReconciler:
    return cast(ImageRepositoryReconciler, cast(Controller, loops[ImageRepositoryReconciler.kind]).reconciler)
