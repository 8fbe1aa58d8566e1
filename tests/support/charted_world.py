"""Controllers of OCIRepository and HelmRepository on a LocalStore, in virtual time, with a real artifact store."""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconcile.api.meta import REQUESTED_AT, Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.api.source import HELM_REPOSITORY, OCI_REPOSITORY
from reconcile.artifact.storage import Storage
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.registry.access import RegistryAccess
from reconcile.registry.keychain import Keychain
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Success
from reconcile.runtime.telling import Teller
from reconcile.sources.base import SourceReconciler, SourceTools
from reconcile.sources.helmrepository import HelmRepositoryReconciler
from reconcile.sources.ocirepository import OCIRepositoryReconciler
from tests.support.bench import Sink
from tests.support.clock import VirtualClock
from tests.support.registry import make_pool

SOURCE = "source.toolkit.fluxcd.io/v1"
NAMESPACE = "apps"
NAME = "source-controller"

Making = Callable[[SourceTools], SourceReconciler]


@dataclass
class ChartedWorld:
    """All parts, and hands to move them."""

    kind: str
    folder: Path
    store: LocalStore
    storage: Storage
    clock: VirtualClock
    sink: Sink
    metrics: Metrics
    reconciler: SourceReconciler
    controller: Controller
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def declare(self, name: str = "app", *, requested: str = "", **spec: Any) -> None:
        """Put an object into the folder; what is not said stays as it was said before, None takes a field away."""
        known = self.specs.setdefault(name, {"interval": "10m"})
        known.update(spec)
        self.specs[name] = known = {field: value for field, value in known.items() if value is not None}
        annotations = {REQUESTED_AT: requested} if requested else {}
        meta = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
        await self.put({"apiVersion": SOURCE, "kind": self.kind, "metadata": meta, "spec": known})

    async def secret(self, name: str, data: Mapping[str, str | bytes], type_: str = "Opaque") -> None:
        """Put a Secret into the folder."""
        values = {key: value.decode() if isinstance(value, bytes) else value for key, value in data.items()}
        meta = {"name": name, "namespace": NAMESPACE}
        await self.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": type_, "stringData": values})

    async def login(self, name: str, host: str, username: str, password: str) -> None:
        """Put a pull Secret into the folder."""
        config = {"auths": {host: {"username": username, "password": password}}}
        await self.secret(name, {".dockerconfigjson": json.dumps(config)}, "kubernetes.io/dockerconfigjson")

    async def put(self, body: dict[str, Any]) -> None:
        """Put any manifest into the folder and let the store see it."""
        (self.folder / f"{body['kind']}.{body['metadata']['name']}.yaml".lower()).write_text(json.dumps(body))
        await self.store.sync()

    async def withdraw(self, name: str = "app") -> None:
        """Take an object out of the folder."""
        (self.folder / f"{self.kind}.{name}.yaml".lower()).unlink()
        await self.store.sync()

    async def step(self, name: str = "app") -> AnyResource:
        """One pass; the object as it is then."""
        await self.controller.step(Key(NAMESPACE, name))
        return await self.get(name)

    async def get(self, name: str = "app") -> AnyResource:
        """The object as it is now."""
        return await self.store.get(self.kind, Key(NAMESPACE, name))

    def outcome(self, name: str = "app") -> Any:
        """How the last pass ended."""
        return self.controller.outcomes[Key(NAMESPACE, name)]

    def successful(self, name: str = "app") -> Success:
        """How the last pass ended, which was well."""
        found = self.outcome(name)
        assert isinstance(found, Success), found
        return found

    def content(self, resource: AnyResource) -> bytes:
        """The bytes of the artifact."""
        return self.storage.path_of(resource.status.artifact).read_bytes()

    def files(self, resource: AnyResource) -> dict[str, bytes]:
        """Regular files in the artifact."""
        found = {}
        with tarfile.open(self.storage.path_of(resource.status.artifact), "r:gz") as tar:
            for member in tar:
                if member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read()
        return found

    @property
    def writes(self) -> int:
        """Status writes so far."""
        return int(self.metrics.registry.get_sample_value("imagebot_status_writes_total", {"kind": self.kind}) or 0)


def conditions(resource: AnyResource) -> list[str]:
    """Conditions as `Type=Status Reason: message`."""
    return [f"{c.type}={c.status} {c.reason}: {c.message}" for c in resource.status.conditions or ()]


@asynccontextmanager
async def oci_world(root: Path, *, keychain: Keychain | None = None, **options: Any) -> AsyncIterator[ChartedWorld]:
    """A world of OCIRepositories; `options` go to the controller's reconciler."""
    gates = options.pop("gates", {})
    pool_options = options.pop("pool", {})
    async with make_pool(**pool_options) as pool:

        def make(tools: SourceTools) -> SourceReconciler:
            return OCIRepositoryReconciler(tools, RegistryAccess(tools.store, pool, keychain), root / "scratch", **options)

        async with _world(root, OCI_REPOSITORY.kind, make, gates) as world:
            yield world


@asynccontextmanager
async def helm_world(root: Path, **options: Any) -> AsyncIterator[ChartedWorld]:
    """A world of HelmRepositories; `options` go to the controller's reconciler."""
    options.setdefault("environment", ProxyEnvironment())
    options.setdefault("retry", RetryPolicy(attempts=1))
    async with _world(root, HELM_REPOSITORY.kind, lambda tools: HelmRepositoryReconciler(tools, **options), {}) as world:
        yield world


@asynccontextmanager
async def _world(root: Path, kind: str, make: Making, gates: Mapping[str, bool]) -> AsyncIterator[ChartedWorld]:
    folder = root / "manifests"
    folder.mkdir(exist_ok=True)
    clock, sink, metrics, scheme = VirtualClock(), Sink(), Metrics(), Scheme()
    scheme.register(OCI_REPOSITORY)
    scheme.register(HELM_REPOSITORY)
    storage = Storage(root / "storage", clock, host="localhost")
    async with LocalStore(Folder(folder, scheme), Database(root / "state" / "state.db"), scheme, clock) as store:
        tools = SourceTools(store, storage, Teller(sink, metrics, NAME), gates=gates, jitter=0.0)
        reconciler = make(tools)
        controller = Controller(reconciler, Surroundings(store, clock, clock, sink, metrics), name=NAME, workers=2)
        try:
            yield ChartedWorld(kind, folder, store, storage, clock, sink, metrics, reconciler, controller)
        finally:
            storage.close()
