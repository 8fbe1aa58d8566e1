"""A controller with a reconciler that does what the test says, on a LocalStore in a temporary folder, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagebot.api import IMAGE_POLICY, IMAGE_REPOSITORY, IMAGE_UPDATE_AUTOMATION
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.api.source import GIT_REPOSITORY
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.events import Event
from reconcile.ports.store import Change
from reconcile.runtime.controller import Controller
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.outcome import Pending, Success
from reconcile.runtime.run import Reconciler, Run
from tests.support.clock import VirtualClock

KIND = "ImageRepository"
KEY = Key("default", "a")

Action = Callable[[Run], Awaitable[Success | Pending] | Success | Pending]


def all_kinds() -> Scheme:
    """The scheme with every kind of this product."""
    scheme = Scheme()
    for info in (GIT_REPOSITORY, IMAGE_REPOSITORY, IMAGE_POLICY, IMAGE_UPDATE_AUTOMATION):
        scheme.register(info)
    return scheme


def manifest(
    name: str = "a", *, annotations: dict[str, str] | None = None, namespace: str = "default", **spec: Any
) -> dict[str, Any]:
    """A repository, the simplest object there is."""
    return {
        "apiVersion": "image.toolkit.fluxcd.io/v1",
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
        "spec": {"image": f"registry.example/{name}", "interval": "1m", **spec},
    }


class Scripted(Reconciler):
    """A reconciler whose outcome is set by the test: a value, an exception, or a function of the run."""

    kind = KIND

    def __init__(self) -> None:
        self.announces_requests = False
        self.acknowledges_suspended = True
        self.outcome: Success | Pending | BaseException | Action = Success("all is well", after=60.0)
        self.runs = 0
        self.gone: list[Key] = []
        self.removal_error: Exception | None = None

    async def reconcile(self, run: Run) -> Success | Pending:
        self.runs += 1
        outcome = self.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Success | Pending):
            return outcome
        result = outcome(run)
        return result if isinstance(result, Success | Pending) else await result

    async def removed(self, resource: AnyResource) -> None:
        if self.removal_error is not None:
            raise self.removal_error
        self.gone.append(resource.key)


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[tuple[str, str, str]]:
        """Type, reason and message of the events since the last call."""
        found = [(e.type.value, e.reason, e.message) for e in self.events]
        self.events.clear()
        return found


@dataclass
class Bench:
    """All parts, and hands to move them."""

    folder: Path
    store: LocalStore
    clock: VirtualClock
    sink: Sink
    metrics: Metrics
    reconciler: Scripted
    controller: Controller
    changes: AsyncIterator[Change] | None = field(default=None)

    async def declare(self, body: dict[str, Any] | None = None) -> None:
        """Put a manifest into the folder and let the store see it."""
        body = body or manifest()
        (self.folder / f"{body['metadata']['name']}.yaml").write_text(json.dumps(body))
        await self.store.sync()

    async def withdraw(self, name: str = "a") -> None:
        """Take a manifest out of the folder."""
        (self.folder / f"{name}.yaml").unlink()
        await self.store.sync()

    async def step(self, key: Key = KEY) -> None:
        """One pass."""
        await self.controller.step(key)

    async def get(self, key: Key = KEY) -> AnyResource:
        """The object as it is now."""
        return await self.store.get(KIND, key)

    def conditions(self, resource: AnyResource) -> list[tuple[str, str, str, str]]:
        """Type, status, reason, message."""
        return [(c.type, c.status, c.reason, c.message) for c in resource.status.conditions or ()]

    def value(self, name: str, /, **labels: str) -> float:
        """A sample of the metrics; 0 when there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def writes(self) -> int:
        """Status writes so far."""
        return int(self.value("imagebot_status_writes_total", kind=KIND))


@asynccontextmanager
async def bench(tmp_path: Path, **options: Any) -> AsyncIterator[Bench]:
    """A fresh bench; `options` go to the controller's surroundings."""
    folder = tmp_path / "manifests"
    folder.mkdir(exist_ok=True)
    clock, sink, metrics, reconciler, scheme = VirtualClock(), Sink(), Metrics(), Scripted(), all_kinds()
    async with LocalStore(Folder(folder, scheme), Database(tmp_path / "state" / "state.db"), scheme, clock) as store:
        around = Surroundings(store, clock, clock, sink, metrics, **options)
        controller = Controller(reconciler, around, name="image-reflector-controller", workers=2)
        yield Bench(folder, store, clock, sink, metrics, reconciler, controller)
