"""Cluster tests of our own Kubernetes adapter: minimal CRDs, a kind of the tests' own, and an open client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import yaml

from reconcile.api.meta import CommonSpec, CommonStatus
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.kube import client
from reconcile.kube.connect import Impersonation, KubeSettings
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import SystemClock


class ThingSpec(CommonSpec):
    """Spec of the tests' own kind."""

    size: int
    """Any number."""


class ThingStatus(CommonStatus):
    """Status of the tests' own kind."""

    note: str | None = None
    """Any text."""
    parts: dict[str, str] | None = None
    """Any texts."""


THING = KindInfo(
    group="kubetests.imagebot.dev",
    kind="Thing",
    plural="things",
    versions=("v1", "v1beta1"),
    spec=ThingSpec,
    status=ThingStatus,
    controller="thing-controller",
)


def thing_kind(name: str) -> KindInfo:
    """A kind like THING, for a test that needs one nobody else uses; `name` in CamelCase."""
    return replace(THING, kind=name, plural=f"{name.lower()}s")


def minimal_crd(info: KindInfo, served: tuple[str, ...] | None = None) -> dict[str, Any]:
    """A CustomResourceDefinition that accepts everything, with a status subresource and its usual default."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "default": {"observedGeneration": -1},
                "properties": {"observedGeneration": {"type": "integer", "format": "int64"}},
            },
        },
    }
    versions = served if served is not None else info.versions
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{info.group}"},
        "spec": {
            "group": info.group,
            "scope": "Namespaced",
            "names": {"kind": info.kind, "plural": info.plural, "singular": info.singular, "listKind": f"{info.kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
                for index, version in enumerate(versions)
            ],
        },
    }


def thing(name: str, namespace: str, size: int = 1, *, kind: KindInfo = THING, **metadata: Any) -> dict[str, Any]:
    """A manifest of the tests' own kind."""
    meta = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": {"size": size}}


def scheme_of(*kinds: KindInfo) -> Scheme:
    """A scheme with these kinds."""
    scheme = Scheme()
    for info in kinds:
        scheme.register(info)
    return scheme


@asynccontextmanager
async def open_client(
    kubeconfig: Path, *, impersonate: Impersonation | None = None, timeout: float = 30.0, metrics: KubeMetrics | None = None
) -> AsyncIterator[client.Client]:
    """A client of ours by a kubeconfig."""
    settings = KubeSettings(kubeconfig=str(kubeconfig), impersonate=impersonate, timeout=timeout, qps=500, burst=1000)
    async with client.open_client(settings, SystemClock(), metrics, environment={}) as made:
        yield made


class Proxy:
    """A TCP proxy on loopback in front of an API server, whose connections a test may cut and refuse."""

    def __init__(self, host: str, port: int) -> None:
        self.refusing = False
        self._upstream = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows: set[asyncio.Event] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def cut(self) -> None:
        """End all connections, with a reset."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def freeze(self) -> None:
        """Let nothing through any more on the connections of this moment, which stay open; new ones work."""
        for flow in self._flows:
            flow.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        flow = asyncio.Event()
        flow.set()
        self._flows.add(flow)
        above: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                return
            back, above = await asyncio.open_connection(*self._upstream)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, above, flow))
                group.create_task(_pump(back, writer, flow))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._flows.discard(flow)
            for side in (writer, above):
                if side is not None:
                    side.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event) -> None:
    while data := await reader.read(1 << 16):
        await flow.wait()
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy before the API server of a kubeconfig, and a kubeconfig that goes through it."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    async with Proxy(host, int(port)) as proxy:
        cluster["server"] = f"https://127.0.0.1:{proxy.port}"
        path = folder / "proxied.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        yield proxy, path


async def eventually(probe: Callable[[], Awaitable[Any] | Any], *, seconds: float = 30.0) -> None:
    """Wait until a probe says yes; it may await."""
    async with asyncio.timeout(seconds):
        while True:
            answer = probe()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.02)
