"""The composition root of cluster mode: an API server → a store, events and a lease → the same controllers as everywhere.

A standby keeps its caches warm and is ready; controllers start when the lease is ours. Losing the lease ends the process, as
upstream: whoever restarts it finds a clean start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from starlette.applications import Starlette

from reconcile.api.selectors import compile_selector, parse_selector
from reconcile.app import Core, Registry, Standby, free, git_mirrors, untold
from reconcile.artifact.storage import Storage
from reconcile.kube.client import Client
from reconcile.kube.cluster import KubeCluster
from reconcile.kube.connect import KubeSettings, connect
from reconcile.kube.events import KubeEvents
from reconcile.kube.lease import LEASE_NAME, KubeLease, LeaseTimes
from reconcile.kube.limiter import Limiter
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.notify import EventPoster, Sinks
from reconcile.kube.objects import KubeObjects
from reconcile.kube.owned import OwnedStamps
from reconcile.kube.remote import RemoteClusters, safe_kubeconfig
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.events import EventSink
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.bus import Bus
from reconcile.runtime.logs import get_logger
from reconcile.runtime.loop import Surroundings
from reconcile.runtime.manager import Manager
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.schedule import Schedule
from reconcile.runtime.server import make_app, serving
from reconcile.settings import Settings, StorageSettings

log = get_logger("manager")

RUNTIME_NAMESPACE = "RUNTIME_NAMESPACE"
"""Environment variable with the namespace that we run in."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What is set only in cluster mode; the names are those of upstream's flags."""

    kube: KubeSettings = field(default_factory=KubeSettings)
    mesh_kubeconfig: str = ""
    """Kubeconfig of the cluster that holds the routing objects; empty: ours does."""
    storage: Path = Path("/data")
    """Folder for caches; may vanish at any time while we are down."""
    namespace: str = ""
    """The only namespace to work in; empty: all."""
    selector: str = ""
    """Label selector of the objects of this shard; empty: all objects."""
    events_address: str = ""
    metrics_address: str = ":8080"
    health_address: str = ":9440"
    leader_election: bool = False
    lease: LeaseTimes = field(default_factory=LeaseTimes)
    groups: Sequence[str] = ()
    """Which groups of controllers run; empty: all."""


def advertised(settings: StorageSettings) -> str:
    """Host and port under which others reach the artifacts: as set, or made of where they are served."""
    if settings.advertised:
        return settings.advertised
    host, _, port = (settings.address or ":80").rpartition(":")
    name = {"": "localhost", "0.0.0.0": socket.gethostname()}.get(host, host)  # noqa: S104 - not listened on here
    return f"{name}:{port}"


def lease_name(selector: str) -> str:
    """Name of the Lease: one for each shard, as upstream names them."""
    if not selector:
        return LEASE_NAME
    return f"{LEASE_NAME}-{hashlib.sha256(selector.encode()).hexdigest()[:8]}"


async def run_cluster(
    settings: Settings, cluster: ClusterSettings, registry: Registry, stop: asyncio.Event, clock: Clock | None = None
) -> None:
    """Run until `stop` is set; raises what ends the service before that (a lost lease, a part that failed)."""
    async with ClusterService(settings, cluster, registry, clock or SystemClock()).serving() as service:
        work = asyncio.create_task(service.lead(), name="lead")
        halt = asyncio.create_task(stop.wait(), name="signals")
        try:
            await asyncio.wait({work, halt}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (halt, work):
                task.cancel()
            await asyncio.wait({halt, work})


class ClusterService:
    """The parts of the service in cluster mode."""

    def __init__(self, settings: Settings, cluster: ClusterSettings, registry: Registry, clock: Clock) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._cluster = cluster
        self._registry = registry
        self._clock = clock
        self._manager: Manager | None = None
        self._lease: KubeLease | None = None
        self._leading = self.metrics.gauge(
            "leader_election_master_status", "Whether this process leads (1) or stands by (0).", "name"
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ClusterService]:
        """Connect, follow our kinds and answer probes while inside; nothing is reconciled yet."""
        cluster = self._cluster
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(connect(cluster.kube, self._clock))
            counted = self._counted = KubeMetrics.declare(self.metrics)
            client = self._client = Client(connection, Limiter(self._clock, cluster.kube.qps, cluster.kube.burst), counted)
            if cluster.leader_election:
                home = os.environ.get(RUNTIME_NAMESPACE) or connection.namespace
                self._lease = KubeLease(client, home, self._clock, name=lease_name(cluster.selector), times=cluster.lease)
                client.fence = self._lease.require
            self._remotes = RemoteClusters(self._clock, client.fence, counted, qps=cluster.kube.qps, burst=cluster.kube.burst)
            stack.push_async_callback(self._remotes.close)
            self._store = KubeStore(
                client,
                self._registry.scheme,
                self._clock,
                kinds=self._registry.followed(cluster.groups),
                namespace=cluster.namespace,
                metrics=counted,
            )
            await stack.enter_async_context(self._store)
            self._objects = await self._follow(stack, client, counted)
            self._api = client.raw
            self._mesh = self._objects
            if cluster.mesh_kubeconfig:
                settings = replace(cluster.kube, kubeconfig=cluster.mesh_kubeconfig, context="")
                other = await stack.enter_async_context(connect(settings, self._clock))
                mesh = Client(other, Limiter(self._clock, settings.qps, settings.burst), counted)
                # The lease is here, and so is its say in what is written there.
                mesh.fence = client.fence
                self._mesh = await self._follow(stack, mesh, counted, "mesh")
            events = KubeEvents(client, self._clock, counted)
            await stack.enter_async_context(events.running())
            sinks: list[EventSink] = [events]
            if cluster.events_address:
                poster = EventPoster(cluster.events_address, self._clock)
                await stack.enter_async_context(poster.running())
                sinks.append(poster)
            self._events = Sinks(*sinks)
            await self._serve(stack)
            yield self

    async def _follow(self, stack: AsyncExitStack, client: Client, counted: KubeMetrics, name: str = "") -> KubeObjects:
        objects = KubeObjects(client, self._clock, namespace=self._cluster.namespace, metrics=counted, cluster=name)
        return await stack.enter_async_context(objects)

    async def _serve(self, stack: AsyncExitStack) -> None:
        def alive() -> str | None:
            return str(self._manager.failed) if self._manager is not None and self._manager.failed else None

        app: Starlette = make_app(self.metrics, {"manager": alive}, {"manager": alive, "store": self._store.problem})
        for address in {self._cluster.health_address, self._cluster.metrics_address} - {"", "0"}:
            await stack.enter_async_context(serving(app, address))

    async def lead(self) -> None:
        """Wait for the lease if there is one, then reconcile; ends only by being cancelled or by failing."""
        if self._lease is None:
            await self._work()
            return
        gauge = self._leading.labels(self._lease.name)
        gauge.set(0)
        async with AsyncExitStack() as waiting:
            standby = Standby(self._clock, self.metrics, self._settings, self._lease.noted)
            for name, factory in self._registry.standbys.items():
                if not self._cluster.groups or name in self._cluster.groups:
                    await waiting.enter_async_context(factory(standby))
            async with self._lease.hold():
                gauge.set(1)
                try:
                    await waiting.aclose()
                    await self._work()
                finally:
                    gauge.set(0)

    async def _work(self) -> None:
        settings, schedule = self._settings, Schedule(self._clock)
        back_off = BackOff(settings.retry.least, settings.retry.greatest)
        # The selector is for what we reconcile; what that refers to may belong to any shard, so the store follows everything.
        matches = compile_selector(parse_selector(self._cluster.selector))
        around = Surroundings(
            self._store, self._clock, schedule, self._events, self.metrics, back_off, mine=lambda r: matches(r.meta.labels)
        )
        async with AsyncExitStack() as stack:
            core = await self._core(stack, around)
            controllers = [
                controller
                for factory in self._registry.chosen(self._cluster.groups)
                for controller in await stack.enter_async_context(factory(core))
            ]
            manager = self._manager = Manager(self._store, controllers, schedule)
            await stack.enter_async_context(manager.running())
            log.info("controllers started", kinds=[c.kind for c in controllers])
            try:
                await manager.wait()
            finally:
                # Others begin when the lease has ended: a push that is under way then must have ended before.
                if self._lease is not None and not self._lease.leading:
                    manager.abandon()

    async def _core(self, stack: AsyncExitStack, around: Surroundings) -> Core:
        """What packages build their controllers with."""
        return Core(
            self._store,
            self._clock,
            self._events,
            self.metrics,
            self._settings,
            self._cluster.storage,
            around,
            await stack.enter_async_context(git_mirrors(self._cluster.storage)),
            Bus(),
            local=False,
            fence=self._lease.require if self._lease is not None else free,
            note=self._lease.note if self._lease is not None else untold,
            objects=self._objects,
            api=self._api,
            mesh_objects=self._mesh,
            cluster=KubeCluster(self._client, self._clock),
            stamps=await self._stamps(stack),
            storage=await self._storage(stack),
            remote=self._remote,
        )

    async def _stamps(self, stack: AsyncExitStack) -> OwnedStamps:
        namespace, counted = self._cluster.namespace, self._counted
        return await stack.enter_async_context(OwnedStamps(self._client, self._clock, metrics=counted, namespace=namespace))

    async def _storage(self, stack: AsyncExitStack) -> Storage:
        """The artifacts; what a killed process left half written is taken away first."""
        settings = self._settings.storage
        storage = Storage(
            self._cluster.storage / "artifacts",
            self._clock,
            host=advertised(settings),
            ttl=settings.retention_ttl,
            records=settings.retention_records,
            algorithm=settings.digest,
            metrics=self.metrics,
        )
        stack.callback(storage.close)
        await storage.recover()
        return storage

    async def _remote(self, kubeconfig: str) -> KubeCluster:
        apply = self._settings.apply
        return await self._remotes.cluster(
            safe_kubeconfig(kubeconfig, programs=apply.insecure_kubeconfig_exec, unchecked=apply.insecure_kubeconfig_tls)
        )
