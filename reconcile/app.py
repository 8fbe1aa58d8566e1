"""The composition root: packages → kinds and controllers, a folder → a store, all of it → a running service.

Packages are found by the entry-point group `reconcile.packages`; each names a function that is given a `Registry`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.scheme import Scheme
from reconcile.api.source import SOURCES
from reconcile.artifact.storage import Storage
from reconcile.errors import Invalid
from reconcile.git.mirrors import Mirrors
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.lease import FileLease
from reconcile.local.store import LocalStore
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.cluster import Cluster, Object
from reconcile.ports.events import EventSink
from reconcile.ports.objects import Objects
from reconcile.ports.stamps import Stamps
from reconcile.ports.store import Store
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.bus import Bus
from reconcile.runtime.loop import KeyedLoop, Surroundings
from reconcile.runtime.manager import Manager
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.schedule import Schedule
from reconcile.runtime.server import make_app, serving
from reconcile.settings import Settings

PACKAGES = "reconcile.packages"
DATABASE_NAME = "state.db"


def free() -> None:
    """The fence of a process that is alone: nothing stands in the way."""


def untold(name: str, text: str) -> None:
    """The notes of a process that is alone: nobody reads them."""


Remote = Callable[[str], Awaitable[Cluster]]
"""From a kubeconfig to its cluster, with what the installation lets a kubeconfig do; raises Invalid."""


@dataclass(frozen=True, slots=True)
class Core:
    """What a package builds its controllers with."""

    store: Store
    clock: Clock
    events: EventSink
    metrics: Metrics
    settings: Settings
    state: Path
    """Folder for caches; may vanish while the service is down."""
    around: Surroundings
    mirrors: Mirrors
    """Mirrors of Git repositories; whoever asks for the same remote with the same credentials shares one."""
    bus: Bus
    local: bool
    """Whether there is no cluster."""
    fence: Callable[[], None] = free
    """Raises when we may not change anything: somebody else leads. Asked right before a push."""
    note: Callable[[str, str], None] = untold
    """Leaves a note, name and text, for the processes that stand by while we lead."""
    objects: Objects | None = None
    """Anybody's objects; None where there is no cluster."""
    api: Callable[[str], Awaitable[Object]] | None = None
    """Reads a path of the cluster's API; None where there is no cluster."""
    mesh_objects: Objects | None = None
    """Objects of the cluster that routes the traffic; the same as `objects` unless another one was named."""
    cluster: Cluster | None = None
    """The cluster that we are in, for those who apply; None where there is none."""
    stamps: Stamps | None = None
    """What metadata-only watches say of the objects that we apply; None where there is no cluster."""
    storage: Storage | None = None
    """The artifacts of sources; None where there is no cluster to serve them to."""
    remote: Remote | None = None
    """Other clusters, by kubeconfig; None where there is no cluster."""


ControllerFactory = Callable[[Core], AbstractAsyncContextManager[Sequence[KeyedLoop]]]


@dataclass(frozen=True, slots=True)
class Standby:
    """What a package has while this process waits to lead."""

    clock: Clock
    metrics: Metrics
    settings: Settings
    noted: Callable[[str], str | None]
    """What the process that leads has noted under a name, None when it has not or nobody leads."""


StandbyFactory = Callable[[Standby], AbstractAsyncContextManager[object]]
"""Something that a package does while it waits; it ends before the controllers begin."""


@dataclass
class Registry:
    """What packages bring: kinds, controllers, commands, options."""

    scheme: Scheme = field(default_factory=Scheme)
    factories: dict[str, ControllerFactory] = field(default_factory=dict)
    """Groups of controllers by name (`image`)."""
    standbys: dict[str, StandbyFactory] = field(default_factory=dict)
    """What groups of controllers do while another process leads; most do nothing."""
    reads: dict[str, Sequence[str]] = field(default_factory=dict)
    """Kinds of ours that a group of controllers reads; a group that is not in here may read all of them."""
    commands: list[Any] = field(default_factory=list)
    """Commands for the command line (click)."""
    run_options: list[Any] = field(default_factory=list)
    """Options for the command that runs the service (click); what they are given is in `Settings.packages`."""

    def chosen(self, groups: Sequence[str] = ()) -> list[ControllerFactory]:
        """The factories of these groups, of all when none is named; raises Invalid for an unknown name."""
        for name in groups:
            if name not in self.factories:
                raise Invalid(f"no controllers named {name!r}; there are: {', '.join(sorted(self.factories))}")
        return [factory for name, factory in self.factories.items() if not groups or name in groups]

    def followed(self, groups: Sequence[str] = ()) -> list[str]:
        """Kinds that these groups need: rights for the others may be missing."""
        names = list(groups or self.factories)
        if any(name not in self.reads for name in names):
            return list(self.scheme.kinds)
        wanted = {kind for name in names for kind in self.reads[name]}
        return [kind for kind in self.scheme.kinds if kind in wanted]


def load_packages() -> Registry:
    """The kinds of the core and those of every installed package."""
    registry = Registry()
    for info in (*SOURCES, KUSTOMIZATION):
        registry.scheme.register(info)
    for entry in sorted(entry_points(group=PACKAGES), key=lambda e: e.name):
        entry.load()(registry)
    return registry


@asynccontextmanager
async def git_mirrors(state: Path) -> AsyncIterator[Mirrors]:
    """The Git mirrors below a folder for caches, closed at the end."""
    mirrors = Mirrors(state / "git")
    try:
        yield mirrors
    finally:
        await mirrors.close()


def state_folder(directory: Path, chosen: Path | None = None) -> Path:
    """Where the state for `directory` is kept: `chosen`, or a folder of the user's state folder named after the directory."""
    if chosen is not None:
        return chosen.resolve()  # git runs in other folders
    full = directory.resolve()
    mark = hashlib.sha256(str(full).encode()).hexdigest()[:12]
    return Path(user_state_path("imagebot", appauthor=False)) / f"{full.name or 'root'}-{mark}"


def require_folder(directory: Path) -> None:
    """Raise Invalid when there is no such folder, or it may not be read."""
    try:
        if not directory.is_dir():
            raise Invalid(f"{directory} is not a folder: give the folder with your manifests")
        next(directory.iterdir(), None)
    except OSError as error:
        raise Invalid(f"{directory} cannot be read: {error.strerror}") from error


@dataclass
class Service:
    """A service on a folder: its parts, for those who run it once or for long."""

    store: LocalStore
    manager: Manager
    metrics: Metrics
    url: str | None
    """Where the web server answers."""

    @property
    def controllers(self) -> Sequence[KeyedLoop]:
        """The controllers that run."""
        return self.manager.controllers


@asynccontextmanager
async def local_service(
    directory: Path,
    *,
    registry: Registry | None = None,
    settings: Settings | None = None,
    state: Path | None = None,
    clock: Clock | None = None,
    retry: bool = True,
) -> AsyncIterator[Service]:
    """The service on the manifests in `directory`, started; ends in order when the block is left.

    Raises Invalid for a folder that is not there or state that cannot be used, Conflict when another process has the state.
    """
    registry, settings, clock = registry or load_packages(), settings or Settings(), clock or SystemClock()
    require_folder(directory)
    home = state_folder(directory, state)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(FileLease(home / "lock").hold())
        database = Database(home / DATABASE_NAME)
        store = await stack.enter_async_context(LocalStore(Folder(directory, registry.scheme), database, registry.scheme, clock))
        schedule = Schedule(clock)
        back_off = BackOff(settings.retry.least, settings.retry.greatest)
        around = Surroundings(store, clock, schedule, store, metrics, back_off, retry=retry)
        mirrors = await stack.enter_async_context(git_mirrors(home))
        core = Core(store, clock, store, metrics, settings, home, around, mirrors, Bus(), local=True)
        controllers = [c for factory in registry.chosen() for c in await stack.enter_async_context(factory(core))]
        manager = Manager(store, controllers, schedule)
        metrics.file_problems.set_function(lambda: len(store.problems))
        url = None
        if settings.server.address:
            probes = {"store": lambda: None, "manager": lambda: str(manager.failed) if manager.failed else None}
            url = await stack.enter_async_context(serving(make_app(metrics, probes, probes), settings.server.address))
        await stack.enter_async_context(manager.running())
        yield Service(store, manager, metrics, url)


async def run_local(service: Service) -> None:
    """Keep a service running: look at the folder each second; ends when cancelled or when a part of it fails."""
    async with asyncio.TaskGroup() as group:
        group.create_task(service.store.poll(), name="poll folder")
        group.create_task(service.manager.wait(), name="manager")
