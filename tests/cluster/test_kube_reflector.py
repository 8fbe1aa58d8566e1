"""The reflector on a real API server that forgets, goes away, comes back and cuts: nothing is lost, and requests are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconcile.api.meta import Key
from reconcile.kube.cache import Cache
from reconcile.kube.client import Client
from reconcile.kube.discovery import Discovery
from reconcile.kube.errors import Target
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.reflector import Reflector, Scope
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock
from reconcile.runtime.feed import Feed
from reconcile.runtime.metrics import Metrics
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, proxied, scheme_of, thing

OURS = "imagebot/"
KIND, API_VERSION = THING.kind, THING.api_version


@asynccontextmanager
async def following(client: Client, namespace: str, *, version: str = "", page: int = 500) -> AsyncIterator[Reflector[Cache]]:
    """A reflector at work, from a resource version if one is given."""
    scheme = scheme_of(THING)
    cache = Cache(THING, scheme, Feed())
    metrics = KubeMetrics.declare(Metrics())
    reflector = Reflector(client, Discovery(client), cache, Scope(namespace), SystemClock(), metrics, page=page)
    reflector.version = version
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector
    finally:
        task.cancel()
        await asyncio.wait([task])


def count(reflector: Reflector[Cache], what: str) -> int:
    metrics = reflector._metrics
    assert metrics is not None
    return int(getattr(metrics, what).labels(KIND)._value.get())


def names(reflector: Reflector[Cache]) -> list[str]:
    return [found.key.name for found in reflector.cache.all()]


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    control_plane.api.install_crd(minimal_crd(THING))
    async with open_client(control_plane.kubeconfig) as made:
        yield made


@pytest.mark.slow
async def test_two_thousand_objects_are_listed_in_pages(own_control_plane: ControlPlane, client: Client, namespace: str) -> None:
    def create() -> None:
        for n in range(2000):
            own_control_plane.api.create(thing(f"t{n:04}", namespace, n))

    await asyncio.to_thread(create)
    mark = own_control_plane.audit.mark()
    async with KubeStore(client, scheme_of(THING), SystemClock(), namespace=namespace) as store:
        found = await store.list(KIND, namespace)
        assert [r.spec.size for r in found] == list(range(2000))
        await asyncio.gather(*(store.get(KIND, Key(namespace, f"t{n:04}")) for n in range(2000)))
        await eventually(lambda: own_control_plane.audit.count(mark, user_agent=OURS, verb="watch") == 1)
    requests = own_control_plane.audit.tally(mark, user_agent=OURS)
    assert requests == {"list things": 4, "watch things": 1, "get ": 2}


async def test_a_version_that_is_forgotten_leads_to_one_list(control_plane: Cluster, client: Client, namespace: str) -> None:
    for name in ("a", "b"):
        control_plane.api.create(thing(name, namespace))
    async with following(client, namespace, version="1") as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert names(reflector) == ["a", "b"]
        control_plane.api.create(thing("c", namespace))
        await eventually(lambda: names(reflector) == ["a", "b", "c"])
        assert (count(reflector, "lists"), count(reflector, "watches")) == (1, 2)
        assert reflector.error is None


async def test_a_list_whose_continuation_expires_begins_again(
    control_plane: Cluster, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        control_plane.api.create(thing(f"t{n}", namespace))
    original, asked = Client.page, []

    async def page(self: Client, target: object, *, more: str = "", **options: object) -> object:
        asked.append(bool(more))
        # A continuation of long ago, as the server sees it.
        return await original(self, target, more="bm90IGEgdG9rZW4" if asked == [False, True] else more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "page", page)
    async with following(client, namespace, page=2) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert names(reflector) == [f"t{n}" for n in range(5)]
    assert asked == [False, True, False, True, True]


async def test_a_cut_watch_goes_on_where_it_stopped(
    control_plane: Cluster, client: Client, namespace: str, tmp_path: Path
) -> None:
    api = control_plane.api
    api.create(thing("a", namespace))
    async with (
        proxied(control_plane.kubeconfig, tmp_path) as (proxy, config),
        open_client(config) as ours,
        following(ours, namespace) as reflector,
    ):
        await eventually(lambda: count(reflector, "watches") == 1)
        proxy.refusing = True
        await proxy.cut()
        api.create(thing("b", namespace))
        api.apply(thing("a", namespace, 2))
        await eventually(lambda: reflector.error is not None)
        assert names(reflector) == ["a"]  # what was known is still there
        proxy.refusing = False
        await eventually(lambda: names(reflector) == ["a", "b"])
        assert [found.spec.size for found in reflector.cache.all()] == [2, 1]
        for _ in range(3):
            await proxy.cut()
            await asyncio.sleep(0.1)
        api.delete(API_VERSION, KIND, "a", namespace)
        await eventually(lambda: names(reflector) == ["b"])
        assert count(reflector, "lists") == 1


async def test_frozen_connections_hold_nobody_for_ever(
    control_plane: Cluster, client: Client, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconcile.kube.client.WATCH_SILENCE", 2.0)
    api = control_plane.api
    async with (
        proxied(control_plane.kubeconfig, tmp_path) as (proxy, config),
        open_client(config, timeout=1.0) as ours,
        following(ours, namespace) as reflector,
    ):
        await eventually(lambda: count(reflector, "watches") == 1)
        await asyncio.sleep(0.3)
        proxy.freeze()
        api.create(thing("a", namespace))
        await eventually(lambda: names(reflector) == ["a"])
        # Silence is an end, not a failure: the watch is taken up again without a list and without an error.
        assert (count(reflector, "lists"), reflector.error) == (1, None)
        proxy.freeze()
        target = Target(THING.group, "v1", THING.plural, namespace, "a")
        assert (await ours.get(target))["spec"] == {"size": 1}


@pytest.mark.slow
async def test_an_api_server_that_restarts_loses_no_object(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    api = own_control_plane.api
    for name in ("a", "b", "c"):
        api.create(thing(name, namespace))
    async with KubeStore(client, scheme_of(THING), SystemClock(), namespace=namespace) as store:
        first = await store.get(KIND, Key(namespace, "a"))
        reflector = store.reflectors[KIND]
        await asyncio.to_thread(own_control_plane.stop, "kube-apiserver")
        try:
            await eventually(lambda: reflector.error is not None)
            assert [r.key.name for r in await store.list(KIND)] == ["a", "b", "c"]
            assert await store.get(KIND, Key(namespace, "a")) is first
        finally:
            await asyncio.to_thread(own_control_plane.start, "kube-apiserver")
        await asyncio.to_thread(api.install_crd, minimal_crd(THING))
        await asyncio.to_thread(api.create, thing("d", namespace))
        await asyncio.to_thread(api.delete, API_VERSION, KIND, "b", namespace)
        await eventually(lambda: names(reflector) == ["a", "c", "d"], seconds=90)
        await eventually(lambda: reflector.error is None)
        written = await store.write_status(first, first.status.model_copy(update={"note": "after"}))
        assert written.status.note == "after"
