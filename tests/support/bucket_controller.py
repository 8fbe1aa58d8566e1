"""The controller of Buckets on a LocalStore, in virtual time, with a bucket on loopback and a real artifact store."""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconcile.api.meta import REQUESTED_AT, Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.api.source import BUCKET
from reconcile.artifact.storage import Storage
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.telling import Teller
from reconcile.sources.base import SourceTools
from reconcile.sources.bucket import BucketOptions, BucketReconciler
from reconcile.sources.buckets.listing import BucketLimits
from tests.support.bench import Sink
from tests.support.bucket_servers import Store
from tests.support.bucket_world import NAMESPACE, World, world_of
from tests.support.clock import VirtualClock

KIND = "Bucket"
NAME = "source-controller"


@dataclass
class BucketWorld:
    """All parts, and hands to move them."""

    root: Path
    world: World
    local: LocalStore
    storage: Storage
    clock: VirtualClock
    sink: Sink
    metrics: Metrics
    gates: dict[str, bool]
    limits: BucketLimits
    controller: Controller = field(init=False)
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    @property
    def objects(self) -> Store:
        """What is in the bucket, and what was asked for."""
        return self.world.store

    @property
    def work(self) -> Path:
        """Folder of the controller."""
        return self.root / "buckets"

    def restart(self) -> None:
        """As after an end of the process: everything in memory is gone."""
        tools = SourceTools(self.local, self.storage, Teller(self.sink, self.metrics, NAME), gates=self.gates, jitter=0.0)
        reconciler = BucketReconciler(tools, self.world.access(), BucketOptions(self.work, self.limits, concurrent=4))
        around = Surroundings(self.local, self.clock, self.clock, self.sink, self.metrics)
        self.controller = Controller(reconciler, around, name=NAME, workers=2)

    async def declare(self, *, requested: str = "", **fields: Any) -> None:
        """Put the Bucket into the folder; what is not said stays as it was said before, None takes a field away."""
        spec = self.world.spec().model_dump(mode="json", by_alias=True, exclude_unset=True)
        self.fields.update(fields)
        spec = {name: value for name, value in {**spec, **self.fields}.items() if value is not None}
        meta = {"name": "files", "namespace": NAMESPACE, "annotations": {REQUESTED_AT: requested} if requested else {}}
        body = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": KIND, "metadata": meta, "spec": spec}
        (self.root / "manifests" / "bucket.yaml").write_text(json.dumps(body))
        await self.local.sync()

    async def withdraw(self) -> None:
        """Take the Bucket out of the folder."""
        (self.root / "manifests" / "bucket.yaml").unlink()
        await self.local.sync()

    async def step(self) -> AnyResource:
        """One pass; the object as it is then."""
        await self.controller.step(Key(NAMESPACE, "files"))
        return await self.local.get(KIND, Key(NAMESPACE, "files"))

    def outcome(self) -> Any:
        """How the last pass ended."""
        return self.controller.outcomes[Key(NAMESPACE, "files")]

    def files(self, resource: AnyResource) -> Mapping[str, bytes]:
        """Regular files of the artifact, in its order."""
        found = {}
        with tarfile.open(self.storage.path_of(resource.status.artifact), "r:gz") as tar:
            for member in tar:
                if member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read()
        return found

    @property
    def events(self) -> list[str]:
        """Events so far as `Type Reason message`."""
        return [f"{event.type} {event.reason} {event.message}" for event in self.sink.events]

    @property
    def writes(self) -> int:
        """Status writes so far."""
        return int(self.metrics.registry.get_sample_value("imagebot_status_writes_total", {"kind": KIND}) or 0)


def conditions(resource: AnyResource) -> list[str]:
    """Conditions as `Type=Status Reason: message`."""
    return [f"{c.type}={c.status} {c.reason}: {c.message}" for c in resource.status.conditions or ()]


@asynccontextmanager
async def bucket_world(
    root: Path, provider: str = "generic", *, gates: Mapping[str, bool] | None = None, limits: BucketLimits | None = None
) -> AsyncIterator[BucketWorld]:
    """A fresh world with an empty bucket."""
    (root / "manifests").mkdir()
    clock, scheme = VirtualClock(), Scheme()
    scheme.register(BUCKET)
    storage = Storage(root / "storage", clock, host="localhost")
    database = Database(root / "state" / "state.db")
    async with world_of(provider) as world, LocalStore(Folder(root / "manifests", scheme), database, scheme, clock) as local:
        made = BucketWorld(root, world, local, storage, clock, Sink(), Metrics(), dict(gates or {}), limits or BucketLimits())
        try:
            yield made
        finally:
            storage.close()
