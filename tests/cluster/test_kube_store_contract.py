"""The laws of the Store port on a real API server: the suite of tests/contract, unchanged, in a world of custom resources."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from imagebot.api import IMAGE_REPOSITORY
from reconcile.api.meta import Key
from reconcile.errors import NotFound
from reconcile.kube.kindcache import newer
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.store import Store
from tests.contract.test_store import *  # noqa: F403 - the suite itself
from tests.contract.test_store import KIND, World
from tests.support.controlplane import Cluster
from tests.support.kube import minimal_crd, open_client, scheme_of

WORLD = "imagebot.test/world"


class KubeWorld:
    """Objects on the shared control plane, told apart from everybody else's by a label that the store selects."""

    def __init__(self, cluster: Cluster, store: KubeStore) -> None:
        self.api = cluster.api
        self.store = store
        self.mark = ""
        self.made: list[dict[str, Any]] = []

    async def declare(self, body: dict[str, Any]) -> None:
        """Apply a manifest, and wait until the store has seen it."""
        namespace = body["metadata"]["namespace"]
        marked = {**body, "metadata": {**body["metadata"], "labels": {WORLD: self.mark}}}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await asyncio.to_thread(self.api.apply, space)
        applied = await asyncio.to_thread(self.api.apply, marked)
        self.made.append(marked)
        if body["kind"] != KIND:
            return
        key, version = Key(namespace, body["metadata"]["name"]), applied["metadata"]["resourceVersion"]
        async with asyncio.timeout(20):
            while newer(version, await self._version(key)):
                await asyncio.sleep(0.005)

    async def withdraw(self, body: dict[str, Any]) -> None:
        """Delete an object, and wait until the store has seen that it goes."""
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        await asyncio.to_thread(self.api.delete, body["apiVersion"], KIND, key.name, key.namespace)
        async with asyncio.timeout(20):
            while True:
                try:
                    if (await self.store.get(KIND, key)).meta.deletion_timestamp:
                        return
                except NotFound:
                    return
                await asyncio.sleep(0.005)

    async def _version(self, key: Key) -> str:
        try:
            return (await self.store.get(KIND, key)).meta.resource_version
        except NotFound:
            return "0"

    def clean(self) -> None:
        """Remove what was made, also what is held by a finalizer."""
        for body in self.made:
            meta = body["metadata"]
            found = self.api.find(body["apiVersion"], body["kind"], meta["name"], meta["namespace"])
            if found is None:
                continue
            if found["metadata"].get("finalizers"):
                patch = {"metadata": {"finalizers": []}}
                self.api.merge_patch(body["apiVersion"], body["kind"], meta["name"], patch, meta["namespace"])
            self.api.delete(body["apiVersion"], body["kind"], meta["name"], meta["namespace"], missing_ok=True)


@pytest.fixture
async def world(control_plane: Cluster) -> AsyncIterator[World]:
    """A store on the API server, and what changes the objects from outside."""
    crd = minimal_crd(IMAGE_REPOSITORY)
    if control_plane.api.find(crd["apiVersion"], crd["kind"], crd["metadata"]["name"]) is None:
        control_plane.api.install_crd(crd)
    mark = secrets.token_hex(4)
    async with open_client(control_plane.kubeconfig) as client:

        def build() -> KubeStore:
            selectors = {KIND: f"{WORLD}={mark}"}
            return KubeStore(client, scheme_of(IMAGE_REPOSITORY), SystemClock(), selectors=selectors)

        outside = KubeWorld(control_plane, await build().__aenter__())
        outside.mark = mark

        async def reopen() -> Store:
            await outside.store.__aexit__()
            outside.store = made.store = await build().__aenter__()
            return made.store

        made = World(outside.store, outside.declare, outside.withdraw, reopen, {WORLD: mark}, outside.made)
        try:
            yield made
        finally:
            await outside.store.__aexit__()
            await asyncio.to_thread(outside.clean)
