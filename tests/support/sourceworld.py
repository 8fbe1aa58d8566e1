"""A source controller on a LocalStore, in virtual time, with a real Git server and a real artifact store in temporary folders."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagebot.demo.gitserver import GitServer
from reconcile.api.meta import REQUESTED_AT, Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.api.source import GIT_REPOSITORY
from reconcile.artifact.storage import Storage
from reconcile.git.mirrors import Mirrors
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.store import Change
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Success
from reconcile.runtime.telling import Teller
from reconcile.sources.base import SourceTools
from reconcile.sources.git_access import CloudLogin
from reconcile.sources.git_tree import Limits
from reconcile.sources.gitrepository import GitRepositoryReconciler
from tests.support.bench import Sink
from tests.support.clock import VirtualClock
from tests.support.gitrepo import BareRepository, Files

SOURCE = "source.toolkit.fluxcd.io/v1"
KIND = "GitRepository"
NAMESPACE = "apps"
NAME = "source-controller"


@dataclass
class SourceWorld:
    """All parts, and hands to move them."""

    root: Path
    folder: Path
    store: LocalStore
    storage: Storage
    clock: VirtualClock
    sink: Sink
    metrics: Metrics
    mirrors: Mirrors
    git: GitServer
    reconciler: GitRepositoryReconciler
    controller: Controller
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: AsyncIterator[Change] | None = None
    next_change: asyncio.Future[Change] | None = None

    # --- what people do

    def repository(self, name: str = "app", files: Files | None = None, **options: Any) -> BareRepository:
        """A bare repository behind the Git server, with a first commit if there are files."""
        made = BareRepository.create(self.root / "git" / name)
        if files is not None:
            made.commit(files, **options)
        return made

    async def declare(self, name: str = "app", *, requested: str = "", **spec: Any) -> None:
        """Put a GitRepository into the folder; what is not said stays as it was said before, None takes a field away."""
        known = self.specs.setdefault(name, {"url": self.git.url(name), "interval": "10m", "ref": {"branch": "main"}})
        known.update(spec)
        self.specs[name] = known = {field: value for field, value in known.items() if value is not None}
        annotations = {REQUESTED_AT: requested} if requested else {}
        meta = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
        await self.put({"apiVersion": SOURCE, "kind": KIND, "metadata": meta, "spec": known})

    async def secret(self, name: str, data: Mapping[str, str | bytes]) -> None:
        """Put a Secret into the folder."""
        values = {key: value.decode() if isinstance(value, bytes) else value for key, value in data.items()}
        meta = {"name": name, "namespace": NAMESPACE}
        await self.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "stringData": values})

    async def put(self, body: dict[str, Any]) -> None:
        """Put any manifest into the folder and let the store see it."""
        (self.folder / f"{body['kind']}.{body['metadata']['name']}.json".lower()).with_suffix(".yaml").write_text(
            json.dumps(body)
        )
        await self.store.sync()

    async def withdraw(self, name: str = "app") -> None:
        """Take a GitRepository out of the folder."""
        (self.folder / f"{KIND}.{name}.yaml".lower()).unlink()
        await self.store.sync()

    # --- what the service does

    async def step(self, name: str = "app") -> AnyResource:
        """One pass; the object as it is then."""
        await self.controller.step(Key(NAMESPACE, name))
        return await self.get(name)

    async def heard(self) -> list[str]:
        """Let the controller hear of what has changed; the names of those that it would look at."""
        if self.changes is None:
            self.changes = self.store.watch([KIND])
        while True:
            if self.next_change is None:
                self.next_change = asyncio.ensure_future(anext(self.changes))
            done, _ = await asyncio.wait([self.next_change], timeout=0.2)
            if not done:
                break
            await self.controller.notice(self.next_change.result())
            self.next_change = None
        found = []
        while len(self.controller.queue):
            key = await self.controller.queue.take()
            self.controller.queue.done(key)
            found.append(key.name)
        return sorted(found)

    # --- what there is

    async def get(self, name: str = "app") -> AnyResource:
        """The object as it is now."""
        return await self.store.get(KIND, Key(NAMESPACE, name))

    def outcome(self, name: str = "app") -> Any:
        """How the last pass ended."""
        return self.controller.outcomes[Key(NAMESPACE, name)]

    def successful(self, name: str = "app") -> Success:
        """How the last pass ended, which was well."""
        found = self.outcome(name)
        assert isinstance(found, Success), found
        return found

    def files(self, resource: AnyResource) -> dict[str, tuple[bytes, bool]]:
        """Regular files of the artifact: content, and whether it may be executed."""
        found = {}
        with tarfile.open(self.storage.path_of(resource.status.artifact), "r:gz") as tar:
            for member in tar:
                if member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = (content.read(), bool(member.mode & 0o111))
        return found

    def names(self, resource: AnyResource) -> list[str]:
        """Names of the regular files of the artifact."""
        return sorted(self.files(resource))

    def folders(self, resource: AnyResource) -> list[str]:
        """Names of the folders of the artifact."""
        with tarfile.open(self.storage.path_of(resource.status.artifact), "r:gz") as tar:
            return sorted(member.name for member in tar if member.isdir())

    def processes(self) -> dict[str, int]:
        """Processes of git since the last call, by verb; the reader that is kept does not count."""
        found = dict(self.mirrors.counters.processes)
        self.mirrors.counters.processes.clear()
        found.pop("cat-file", None)
        return found

    @property
    def writes(self) -> int:
        """Status writes so far."""
        return int(self.metrics.registry.get_sample_value("imagebot_status_writes_total", {"kind": KIND}) or 0)


def conditions(resource: AnyResource) -> list[str]:
    """Conditions as `Type=Status Reason: message`."""
    return [f"{c.type}={c.status} {c.reason}: {c.message}" for c in resource.status.conditions or ()]


@asynccontextmanager
async def source_world(
    root: Path,
    *,
    logins: Mapping[str, CloudLogin] | None = None,
    gates: Mapping[str, bool] | None = None,
    limits: Limits | None = None,
    **server: Any,
) -> AsyncIterator[SourceWorld]:
    """A fresh world; `server` are options of the Git server."""
    folder = root / "manifests"
    for made in (folder, root / "git"):
        made.mkdir(exist_ok=True)
    clock, sink, metrics, scheme = VirtualClock(), Sink(), Metrics(), Scheme()
    scheme.register(GIT_REPOSITORY)
    mirrors = Mirrors(root / "mirrors", allow_file=True)
    storage = Storage(root / "storage", clock, host="localhost")
    async with LocalStore(Folder(folder, scheme), Database(root / "state" / "state.db"), scheme, clock) as store:
        tools = SourceTools(store, storage, Teller(sink, metrics, NAME), gates=gates or {}, jitter=0.0)
        reconciler = GitRepositoryReconciler(tools, mirrors, logins=logins, limits=limits)
        around = Surroundings(store, clock, clock, sink, metrics)
        controller = Controller(reconciler, around, name=NAME, workers=2, watches={KIND: reconciler.on_repository})
        controller.notes.append(reconciler.repositories.note)
        with GitServer(root / "git", **server) as git:
            world = SourceWorld(root, folder, store, storage, clock, sink, metrics, mirrors, git, reconciler, controller)
            try:
                yield world
            finally:
                if world.next_change is not None:
                    world.next_change.cancel()
                reconciler.close()
                await mirrors.close()
