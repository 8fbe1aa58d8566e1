"""Objects on a real API server: what reads and writes cost, kinds that come and go, missing rights, watches that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconcile.app import Core, Registry
from reconcile.cluster import ClusterService, ClusterSettings
from reconcile.errors import Conflict, LimitExceeded, NotFound, ReconcileError
from reconcile.kube.client import Client
from reconcile.kube.connect import Impersonation, KubeSettings
from reconcile.kube.errors import Denied, KindMissing, LeaseLost
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.objects import KubeObjects
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Reference
from reconcile.ports.objects import Moved
from reconcile.runtime.loop import KeyedLoop
from reconcile.runtime.metrics import Metrics
from reconcile.settings import Settings
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, proxied, thing, thing_kind

OURS = "imagebot/"
MANAGER = "tests"
V1 = THING.api_version


def ref(namespace: str, name: str = "a", kind: str = THING.kind, api_version: str = V1) -> Reference:
    return Reference(api_version, kind, namespace, name)


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    control_plane.api.install_crd(minimal_crd(THING))
    async with open_client(control_plane.kubeconfig) as made:
        yield made


@asynccontextmanager
async def opened(client: Client, namespace: str = "", **options: Any) -> AsyncIterator[KubeObjects]:
    async with KubeObjects(client, SystemClock(), namespace=namespace, **options) as objects:
        yield objects


async def test_reads_cost_one_list_and_one_watch_however_many_they_are(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    for n in range(5):
        own_control_plane.api.create(thing(f"t{n}", namespace, n))
    mark = own_control_plane.audit.mark()
    async with opened(client, namespace, page=2) as objects:
        found = await asyncio.gather(*(objects.get(ref(namespace, f"t{n % 5}")) for n in range(200)))
        assert [body["spec"]["size"] for body in found] == [n % 5 for n in range(200)]
        await eventually(lambda: own_control_plane.audit.count(mark, user_agent=OURS, verb="watch") == 1)
        assert own_control_plane.audit.tally(mark, user_agent=OURS) == {"get ": 1, "list things": 3, "watch things": 1}
        mark = own_control_plane.audit.mark()
        for _ in range(50):
            assert await objects.find(ref(namespace, "nobody")) is None
            await objects.get(ref(namespace, "t0"))
            await objects.stamp(ref(namespace, "t0"))
        assert own_control_plane.audit.tally(mark, user_agent=OURS) == {}


async def test_each_write_is_one_request_and_needless_ones_are_none(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    async with opened(client, namespace) as objects:
        assert await objects.find(ref(namespace)) is None
        mark = own_control_plane.audit.mark()
        made = await objects.create(thing("a", namespace), manager=MANAGER)
        after = await objects.patch(made, {"spec": {"size": 2}}, manager=MANAGER)
        assert await objects.patch(after, {}, manager=MANAGER) == after
        with pytest.raises(Conflict):
            await objects.patch(made, {"spec": {"size": 3}}, manager=MANAGER)
        assert await objects.delete(after)
        assert own_control_plane.audit.tally(mark, user_agent=OURS) == {
            "create things": 1,
            "patch things": 1,
            "delete things": 1,
        }


async def test_field_managers_are_those_that_callers_name(control_plane: Cluster, client: Client, namespace: str) -> None:
    async with opened(client, namespace) as objects:
        made = await objects.create(thing("a", namespace), manager="one")
        await objects.patch(made, {"spec": {"tags": ["x"]}}, manager="two")
    managed = control_plane.api.get(V1, THING.kind, "a", namespace)["metadata"]["managedFields"]
    assert sorted(entry["manager"] for entry in managed) == ["one", "two"]


async def test_a_conflict_brings_what_the_server_has_at_once(
    control_plane: Cluster, client: Client, namespace: str, tmp_path: Path
) -> None:
    control_plane.api.create(thing("a", namespace))
    async with (
        proxied(control_plane.kubeconfig, tmp_path) as (proxy, config),
        open_client(config) as ours,
        opened(ours, namespace) as objects,
    ):
        before = await objects.get(ref(namespace))
        await asyncio.sleep(0.3)  # the watch is under way
        proxy.freeze()  # and brings nothing any more
        control_plane.api.apply(thing("a", namespace, 9))
        with pytest.raises(Conflict):
            await objects.patch(before, {"spec": {"size": 2}}, manager=MANAGER)
        assert (await objects.get(ref(namespace)))["spec"]["size"] == 9


async def test_a_kind_whose_definition_comes_later(control_plane: Cluster, client: Client, namespace: str) -> None:
    later = thing_kind("LateObject")
    which = ref(namespace, kind=later.kind)
    async with opened(client, namespace) as objects:
        told: list[Moved] = []
        objects.subscribe(told.append)
        for _ in range(2):
            with pytest.raises(KindMissing, match='no matches for kind "LateObject" in version'):
                await objects.find(which)
        control_plane.api.install_crd(minimal_crd(later))
        control_plane.api.create(thing("a", namespace, 3, kind=later))

        async def served() -> bool:
            try:
                return await objects.find(which) is not None
            except KindMissing:
                return False

        await eventually(served)
        assert (await objects.get(which))["spec"] == {"size": 3}
        assert told == [Moved(which)]
        control_plane.api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{later.plural}.{later.group}")

        async def unserved() -> bool:
            try:
                await objects.find(which)
            except KindMissing:
                return True
            return False

        await eventually(unserved)
        with pytest.raises(KindMissing):
            await objects.create(thing("b", namespace, kind=later), manager=MANAGER)


async def test_a_missing_right_is_named(control_plane: Cluster, namespace: str) -> None:
    nobody = Impersonation(f"system:serviceaccount:{namespace}:nobody")
    async with open_client(control_plane.kubeconfig, impersonate=nobody) as client, opened(client) as objects:
        rule = r'missing RBAC rule \{apiGroups: \["apps"\], resources: \["deployments"\], verbs: \["list"\]\}'
        for _ in range(2):
            with pytest.raises(Denied, match=rule):
                await objects.find(ref(namespace, kind="Deployment", api_version="apps/v1"))
        with pytest.raises(Denied, match=r'resources: \["secrets"\], verbs: \["list"\]'):
            await objects.stamp(ref(namespace, kind="Secret", api_version="v1"))


async def test_a_broken_watch_goes_on_and_tells_what_happened_meanwhile(
    control_plane: Cluster, client: Client, namespace: str, tmp_path: Path
) -> None:
    api = control_plane.api
    for name in ("a", "b"):
        api.create(thing(name, namespace))
    metrics = KubeMetrics.declare(Metrics())
    async with (
        proxied(control_plane.kubeconfig, tmp_path) as (proxy, config),
        open_client(config) as ours,
        opened(ours, namespace, metrics=metrics) as objects,
    ):
        label = f"{THING.kind}.{THING.group}"
        await objects.get(ref(namespace))
        await eventually(lambda: metrics.watches.labels(label)._value.get() == 1)
        told: set[Reference] = set()
        objects.subscribe(lambda moved: told.add(moved.which))
        proxy.refusing = True
        await proxy.cut()
        api.apply(thing("a", namespace, 5))
        api.delete(V1, THING.kind, "b", namespace)
        api.create(thing("c", namespace))
        assert (await objects.get(ref(namespace)))["spec"]["size"] == 1  # the best there is
        proxy.refusing = False
        await eventually(lambda: told == {ref(namespace, name) for name in "abc"})
        assert (await objects.get(ref(namespace)))["spec"]["size"] == 5
        assert [await objects.find(ref(namespace, name)) is None for name in "abc"] == [False, True, False]
        assert metrics.lists.labels(label)._value.get() == 1
        assert metrics.objects.labels(label)._value.get() == 2


async def test_only_the_watched_namespace_is_spoken_of(client: Client, namespace: str) -> None:
    async with opened(client, namespace) as objects:
        with pytest.raises(ReconcileError, match=f'only namespace "{namespace}" is watched') as caught:
            await objects.find(ref("default"))
        assert not isinstance(caught.value, NotFound)


async def test_kinds_that_people_made_up_take_nobody_s_place(client: Client, namespace: str) -> None:
    async with opened(client, namespace, most=2) as objects:
        for kind in ("Made", "Up", "Names"):
            with pytest.raises(KindMissing):
                await objects.find(ref(namespace, kind=kind))
        assert await objects.find(ref(namespace)) is None
        assert await objects.stamp(ref(namespace, kind="Secret", api_version="v1")) is None
        with pytest.raises(LimitExceeded, match="2 kinds of objects are watched already"):
            await objects.find(ref(namespace, kind="Deployment", api_version="apps/v1"))
        assert await objects.find(ref(namespace)) is None


async def test_a_name_that_is_a_path_is_none(client: Client, namespace: str) -> None:
    async with opened(client, namespace) as objects:
        for name in ("a/status", "..", "a?x=y"):
            with pytest.raises(ReconcileError, match="is not a name"):
                await objects.read(ref(namespace, name))


async def test_without_the_lease_nothing_is_written(own_control_plane: ControlPlane, client: Client, namespace: str) -> None:
    def lost() -> None:
        raise LeaseLost("the lease is not ours")

    async with opened(client, namespace) as objects:
        made = await objects.create(thing("a", namespace), manager=MANAGER)
        client.fence = lost
        mark = own_control_plane.audit.mark()
        for write in (
            lambda: objects.create(thing("b", namespace), manager=MANAGER),
            lambda: objects.patch(made, {"spec": {"size": 2}}, manager=MANAGER),
            lambda: objects.delete(made),
        ):
            with pytest.raises(LeaseLost):
                await write()
        assert own_control_plane.audit.tally(mark, user_agent=OURS, namespace=namespace) == {}


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_packages_are_given_the_objects_of_both_clusters(
    control_plane: Cluster, client: Client, namespace: str, elsewhere: bool
) -> None:
    control_plane.api.create(thing("a", namespace))
    given: list[Core] = []

    @asynccontextmanager
    async def factory(core: Core) -> AsyncIterator[list[KeyedLoop]]:
        given.append(core)
        assert core.objects is not None
        assert core.mesh_objects is not None
        for objects in (core.objects, core.mesh_objects):
            assert (await objects.get(ref(namespace)))["spec"] == {"size": 1}
        yield []

    registry = Registry(factories={"tests": factory})
    config = str(control_plane.kubeconfig)
    cluster = ClusterSettings(
        kube=KubeSettings(kubeconfig=config),
        mesh_kubeconfig=config if elsewhere else "",
        namespace=namespace,
        metrics_address="",
        health_address="",
    )
    async with ClusterService(Settings(), cluster, registry, SystemClock()).serving() as service:
        work = asyncio.create_task(service.lead())
        await eventually(lambda: given or work.done())
        work.cancel()
        await asyncio.wait([work])
    [core] = given
    assert (core.mesh_objects is core.objects) is not elsewhere
