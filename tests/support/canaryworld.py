"""A world for canary stories in one process: our kinds in a real store, a cluster in memory whose workloads run, time that jumps.

Everything of ours is real: controller, machine, routers, workloads, webhooks over sockets. What is pretended is what surrounds
it: the API server's objects (tests/support/objects.py, held to the laws of the real adapter), the controllers that make pods of
Deployments, and what metrics say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from canary.alerts.notifier import Alerts
from canary.api import ALERT_PROVIDER, CANARY, METRIC_TEMPLATE, CanarySpec, CanaryStatus
from canary.controller import CanaryLoop
from canary.events import Recorder
from canary.exported import Exported
from canary.hooks import Hooks
from canary.metrics.base import Check, Verdict
from canary.phases import Phase
from canary.settings import CanarySettings
from canary.site import Site
from canary.status import phase_of
from canary.tick import Tools
from reconcile.api.meta import Key
from reconcile.api.resource import Resource
from reconcile.api.scheme import Scheme
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.events import Event
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.metrics import Metrics
from tests.support.clock import VirtualClock
from tests.support.objects import MemoryObjects

NAMESPACE = "test"
KEY = Key(NAMESPACE, "web")
INTERVAL = 10.0
ISTIO = "networking.istio.io/v1beta1"


class Killed(BaseException):
    """The process has ended here, without another word."""


def deployment(tag: str = "1", *, replicas: int = 2, name: str = "web", **template: Any) -> Object:
    """A target."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": f"example.org/{name}:{tag}"}], **template},
            },
        },
    }


def canary(provider: str = "istio", *, spec: Object | None = None, **analysis: Any) -> Object:
    """A Canary of `web`: a ladder of 20 and 40 unless the analysis says otherwise."""
    wanted: Object = {"interval": "10s", "threshold": 2, **analysis}
    if not {"iterations", "stepWeight", "stepWeights"} & wanted.keys():
        wanted |= {"stepWeight": 20, "maxWeight": 40}
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "provider": provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": wanted,
            **(spec or {}),
        },
    }


class Pods:
    """Makes pods of Deployments: at once, or when let."""

    def __init__(self, objects: MemoryObjects) -> None:
        self._objects = objects
        self.held: set[str] = set()
        """Deployments whose new pods do not become ready."""
        self.failed: set[str] = set()
        """Deployments whose progress deadline is over."""

    def run(self) -> None:
        """Bring every Deployment as far as it gets."""
        for found in self._objects.all("Deployment"):
            self._settle(found)

    def _settle(self, found: Object) -> None:
        name, meta, spec = found["metadata"]["name"], found["metadata"], found["spec"]
        wanted = spec.get("replicas", 1)
        old = found.get("status") or {}
        ready = min(old.get("availableReplicas", 0), wanted) if name in self.held else wanted
        status: Object = {
            "observedGeneration": meta["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        if name in self.failed:
            late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
            status["conditions"] = [late]
        if status != old:
            self._objects.status(Reference.of(found), status)

    def available(self, name: str) -> int:
        """Ready pods of a Deployment."""
        found = self._objects.now(Reference("apps/v1", "Deployment", NAMESPACE, name))
        return int(((found or {}).get("status") or {}).get("availableReplicas", 0))


@dataclass
class Measures:
    """What metrics say: a list of verdicts, the last one for ever."""

    verdicts: list[Verdict] = field(default_factory=lambda: [Verdict.PASS])
    probes: int = 0
    asked: int = 0

    async def probe(self, site: Site) -> None:
        self.probes += 1

    async def measure(self, site: Site, now: datetime) -> Sequence[Check]:
        self.asked += 1
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        text = "" if verdict is Verdict.PASS else f"Halt {site.name}.{site.namespace} advancement errors 7.10 > 5"
        return [Check("errors", "errors", 7.1, "<= 5", verdict, text, now)]


class Told:
    """Events as they were told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class CanaryWorld:
    """One cluster with its Canaries; `start` makes a new process of the controller, as after a crash."""

    def __init__(self, folder: Path, objects: MemoryObjects | None = None, settings: CanarySettings | None = None) -> None:
        self.clock = VirtualClock()
        self.objects = objects or MemoryObjects()
        self.pods = Pods(self.objects)
        self.measures = Measures()
        self.told = Told()
        self.settings = settings or CanarySettings()
        self.watch: list[Callable[[], None]] = []
        """Called after each step of the world: invariants live here."""
        self.scheme = Scheme()
        for info in (CANARY, METRIC_TEMPLATE, ALERT_PROVIDER):
            self.scheme.register(info)
        self._folder = folder / "manifests"
        self._folder.mkdir()
        self._database = folder / "state.db"
        self.deaths = 0
        self.kill: Callable[[str], None] = lambda _: None
        """Called before everything that the controller changes, with a word for it; may raise Killed."""

    async def open(self) -> None:
        """Open the store and start the controller."""
        store = LocalStore(Folder(self._folder, self.scheme), Database(self._database), self.scheme, self.clock)
        self.store = await store.__aenter__()
        self.start()

    def start(self) -> None:
        """A new process: nothing is remembered but what is stored."""
        metrics = Metrics()
        self.exported = Exported(metrics, self.settings.mesh_provider)
        self.metrics = metrics
        self.hooks = Hooks(self.clock, self.exported)
        recorder = Recorder(self.told, self.hooks, self.exported, self.clock)
        store: Any = _Guarded(self.store, self)
        objects: Any = _GuardedObjects(self.objects, self)
        tools = Tools(
            store=store,
            objects=objects,
            clock=self.clock,
            settings=self.settings,
            hooks=self.hooks,
            alerts=Alerts(self.store, self.exported),
            checks=self.measures,  # type: ignore[arg-type]
            exported=self.exported,
            events=recorder.tick,
            fence=lambda: None,
        )
        around = Surroundings(store, self.clock, self.clock, self.told, metrics)
        self.loop = CanaryLoop(tools, objects, around, workers=1)
        self.loop.add(KEY)

    async def close(self) -> None:
        """End."""
        await self.hooks.aclose()
        await self.store.__aexit__()

    async def declare(self, *bodies: Object) -> None:
        """Have these objects: ours in the store, others in the cluster."""
        for body in bodies:
            if body["apiVersion"].startswith("flagger.app/"):
                (self._folder / f"{body['kind']}-{body['metadata']['name']}.yaml").write_text(yaml.safe_dump(body))
            else:
                self.objects.put(body)
        before = await self._canary()
        await self.store.sync()
        after = await self._canary()
        if after is not None and (before is None or before.meta != after.meta):
            self.loop.add(KEY)
        self.pods.run()

    def release(self, tag: str) -> None:
        """A new revision of the target."""
        which = Reference("apps/v1", "Deployment", NAMESPACE, "web")
        template = {"spec": {"containers": [{"name": "app", "image": f"example.org/web:{tag}"}]}}
        self.objects.change(which, {"spec": {"template": template}})
        found = self.objects.now(which)
        assert found is not None
        if found["metadata"]["generation"] == (found.get("status") or {}).get("observedGeneration"):
            self.objects.change(which, {"metadata": {"generation": found["metadata"]["generation"] + 1}})
        self.pods.run()

    # --- time

    async def work(self) -> None:
        """What is due now."""
        for _ in range(50):
            if not len(self.loop.queue):
                return
            key = await self.loop.queue.take()
            try:
                await self.loop.step(key)
            except Killed:
                self.deaths += 1
                await self.hooks.aclose()
                self.start()
            else:
                self.loop.queue.done(key)
            for look in self.watch:
                look()
            self.pods.run()
            for look in self.watch:
                look()
        raise AssertionError("the controller wakes itself again and again")

    async def run(self, seconds: float) -> None:
        """Let time pass, working at what falls due."""
        await self.work()
        end = self.clock.monotonic() + seconds
        while True:
            due = min(self.clock.due.values(), default=float("inf"))
            if self.clock.monotonic() + due > end:
                self.clock.advance(max(0.0, end - self.clock.monotonic()))
                await self.work()
                return
            self.clock.advance(due)
            await self.work()

    async def until(self, phase: Phase, *, ticks: int = 40) -> None:
        """Let time pass until the phase is reached."""
        await self.work()
        for _ in range(ticks):
            if await self.phase() is phase:
                return
            await self.run(INTERVAL)
        raise AssertionError(f"not {phase.value} after {ticks} ticks, but {(await self.status()).phase}; {self.texts()[-5:]}")

    # --- looking

    async def _canary(self) -> Resource[CanarySpec, CanaryStatus] | None:
        found = await self.store.list("Canary", NAMESPACE)
        return next((each for each in found if each.key == KEY), None)

    async def status(self) -> CanaryStatus:
        """The status of the Canary."""
        found = await self._canary()
        assert found is not None
        return found.status

    async def phase(self) -> Phase:
        """Its phase."""
        return phase_of(await self.status())

    def texts(self) -> list[str]:
        """The texts of all events."""
        return [event.message for event in self.told.events]

    def routed(self) -> int:
        """The canary's weight in the VirtualService."""
        found = self.objects.now(Reference(ISTIO, "VirtualService", NAMESPACE, "web"))
        rules = (found or {}).get("spec", {}).get("http", [])
        return next((r["weight"] for r in rules[0]["route"] if r["destination"]["host"] == "web-canary"), 0) if rules else 0

    def image(self, name: str) -> str:
        """The image that a Deployment runs."""
        found = self.objects.now(Reference("apps/v1", "Deployment", NAMESPACE, name))
        assert found is not None, f"there is no Deployment {name}"
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


class _Guarded:
    """The store, with a way to die before each write."""

    def __init__(self, inner: LocalStore, world: CanaryWorld) -> None:
        self._inner, self._world = inner, world

    async def write_status(self, resource: Any, status: Any) -> Any:
        self._world.kill(f"status {status.phase}")
        found = await self._inner.write_status(resource, status)
        self._world.kill(f"after status {status.phase}")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _GuardedObjects:
    """The cluster's objects, with a way to die before and after each write."""

    def __init__(self, inner: MemoryObjects, world: CanaryWorld) -> None:
        self._inner, self._world = inner, world

    async def create(self, wanted: Object, *, manager: str) -> Object:
        return await self._written("create", Reference.of(wanted), self._inner.create(wanted, manager=manager))

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        reference = which if isinstance(which, Reference) else Reference.of(which)
        return await self._written("patch", reference, self._inner.patch(which, patch, manager=manager))

    async def _written(self, verb: str, which: Reference, work: Any) -> Object:
        try:
            self._world.kill(f"{verb} {which.kind} {which.name}")
        except BaseException:
            work.close()
            raise
        found: Object = await work
        self._world.kill(f"after {verb} {which.kind} {which.name}")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@asynccontextmanager
async def canary_world(folder: Path, settings: CanarySettings | None = None) -> AsyncIterator[CanaryWorld]:
    """The world, opened."""
    world = CanaryWorld(folder, settings=settings)
    await world.open()
    try:
        yield world
    finally:
        await world.close()
        await asyncio.sleep(0)
