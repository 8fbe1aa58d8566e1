"""The laws of the Objects port on a real API server: the suite of tests/contract, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from reconcile.errors import ReconcileError
from reconcile.kube.kindcache import newer
from reconcile.kube.objects import KubeObjects
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Stamp
from tests.contract.test_objects import *  # noqa: F403 - the suite itself
from tests.contract.test_objects import World
from tests.support.controlplane import Cluster
from tests.support.kube import THING, minimal_crd, open_client


class Outside:
    """Somebody else who changes objects, and waits until reads have the change."""

    def __init__(self, cluster: Cluster, objects: KubeObjects) -> None:
        self.api = cluster.api
        self.objects = objects

    async def declare(self, body: Object) -> Object:
        made = await asyncio.to_thread(self.api.create, body)
        which = Reference.of(made)
        if (which.api_version, which.kind) in self.objects._followed:
            await self._until(which, lambda stamp: stamp is not None)
        return made

    async def change(self, which: Reference, patch: Object, subresource: str | None = None) -> Object:
        made: Object = await asyncio.to_thread(
            self.api.merge_patch, which.api_version, which.kind, which.name, patch, which.namespace, subresource=subresource
        )
        expected = made["metadata"]["resourceVersion"]
        await self._until(which, lambda stamp: stamp is not None and not newer(expected, stamp.version))
        return made

    async def status(self, which: Reference, body: Object) -> Object:
        return await self.change(which, {"status": body}, "status")

    async def withdraw(self, which: Reference) -> None:
        await asyncio.to_thread(self.api.delete, which.api_version, which.kind, which.name, which.namespace)
        await self._until(which, lambda stamp: stamp is None)

    async def _until(self, which: Reference, seen: Callable[[Stamp | None], bool]) -> None:
        async with asyncio.timeout(20):
            while not seen(await self.objects.stamp(which)):
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(control_plane: Cluster, namespace: str) -> AsyncIterator[World]:
    """Objects at the API server, and somebody else who changes them."""
    control_plane.api.install_crd(minimal_crd(THING))
    async with (
        open_client(control_plane.kubeconfig) as client,
        KubeObjects(client, SystemClock(), namespace=namespace) as objects,
    ):
        outside = Outside(control_plane, objects)
        yield World(objects, namespace, outside.declare, outside.change, outside.status, outside.withdraw)
        with suppress(ReconcileError):
            await objects.delete(Reference("networking.k8s.io/v1", "IngressClass", "", f"class-{namespace}"))
