"""What the Store on a real API server costs, and what it does with objects, versions and rights that are not as hoped for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.conditions import put
from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import FINALIZER, Key
from reconcile.api.scheme import KindInfo
from reconcile.errors import Conflict, NotFound
from reconcile.kube.client import Client
from reconcile.kube.errors import Denied
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.store import ChangeType
from reconcile.runtime.metrics import Metrics
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, scheme_of, thing, thing_kind

OURS = "imagebot/"
KIND = THING.kind


@asynccontextmanager
async def open_store(
    client: Client, namespace: str, *kinds: KindInfo, metrics: KubeMetrics | None = None
) -> AsyncIterator[KubeStore]:
    kinds = kinds or (THING,)
    async with KubeStore(client, scheme_of(*kinds), SystemClock(), namespace=namespace, metrics=metrics) as store:
        yield store


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    control_plane.api.install_crd(minimal_crd(THING))
    async with open_client(control_plane.kubeconfig) as made:
        yield made


def asked(plane: ControlPlane, mark: int) -> dict[str, int]:
    """Requests of ours after a mark; watches, which may begin a moment after the list, left out."""
    return {what: count for what, count in plane.audit.tally(mark, user_agent=OURS).items() if not what.startswith("watch ")}


async def known(store: KubeStore, key: Key) -> Any:
    await eventually(lambda: any(True for r in store.reflectors[KIND].cache.all() if r.key == key))
    return await store.get(KIND, key)


async def test_a_status_write_is_one_request_and_an_equal_one_none(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    own_control_plane.api.create(thing("a", namespace))
    async with open_store(client, namespace) as store:
        first = await store.get(KIND, Key(namespace, "a"))
        ready = list(put((), "Ready", "True", "Succeeded", "m", generation=1, now="2026-01-01T00:00:00Z"))
        status = first.status.model_copy(update={"conditions": ready, "note": "n"})
        mark = own_control_plane.audit.mark()
        written = await store.write_status(first, status)
        assert asked(own_control_plane, mark) == {"patch things/status": 1}
        mark = own_control_plane.audit.mark()
        for _ in range(5):
            assert await store.write_status(written, status) is written
            assert await store.write_finalizers(written, []) is written
            await store.get(KIND, Key(namespace, "a"))
            await store.list(KIND)
        assert asked(own_control_plane, mark) == {}
        held = await store.write_finalizers(written, [FINALIZER])
        assert asked(own_control_plane, mark) == {"patch things": 1}
        await store.write_finalizers(held, [])


async def test_the_next_read_sees_the_write_and_watchers_see_it_once(
    control_plane: Cluster, client: Client, namespace: str
) -> None:
    control_plane.api.create(thing("a", namespace))
    async with open_store(client, namespace) as store:
        first = await store.get(KIND, Key(namespace, "a"))
        watch = store.watch([KIND])
        await anext(watch)
        written = await store.write_status(first, first.status.model_copy(update={"note": "n"}))
        assert await store.get(KIND, Key(namespace, "a")) is written
        change = await anext(watch)
        assert (change.type, change.old, change.new) == (ChangeType.MODIFIED, first, written)
        control_plane.api.create(thing("b", namespace))
        # The echo of the write came before this one, and was no news.
        assert (await anext(watch)).new.key.name == "b"
        await watch.aclose()


async def test_removed_fields_go_and_fields_of_others_stay(control_plane: Cluster, client: Client, namespace: str) -> None:
    control_plane.api.create(thing("a", namespace))
    status = {"note": "n", "parts": {"one": "1", "two": "2"}, "foreign": {"kept": True}}
    control_plane.api.merge_patch("kubetests.imagebot.dev/v1", KIND, "a", {"status": status}, namespace, subresource="status")
    async with open_store(client, namespace) as store:
        first = await store.get(KIND, Key(namespace, "a"))
        await store.write_status(first, first.status.model_copy(update={"note": None, "parts": {"two": "2", "three": "3"}}))
    found = control_plane.api.get("kubetests.imagebot.dev/v1", KIND, "a", namespace)
    assert found["status"] == {"observedGeneration": -1, "parts": {"two": "2", "three": "3"}, "foreign": {"kept": True}}
    managers = {(entry["manager"], entry.get("subresource")) for entry in found["metadata"]["managedFields"]}
    assert ("thing-controller", "status") in managers


async def test_writes_are_recorded_under_the_name_that_a_kind_has_for_them(
    control_plane: Cluster, client: Client, namespace: str
) -> None:
    control_plane.api.create(thing("a", namespace))
    named = dataclasses.replace(THING, field_manager="gotk-thing-controller")
    async with open_store(client, namespace, named) as store:
        first = await store.write_finalizers(await store.get(KIND, Key(namespace, "a")), [FINALIZER])
        await store.write_status(first, first.status.model_copy(update={"note": "n"}))
        await store.write_finalizers(await store.get(KIND, Key(namespace, "a")), [])
    found = control_plane.api.get("kubetests.imagebot.dev/v1", KIND, "a", namespace)
    managers = {(entry["manager"], entry.get("subresource")) for entry in found["metadata"]["managedFields"]}
    assert ("gotk-thing-controller", "status") in managers
    assert not {manager for manager, _ in managers if manager == "thing-controller"}


def test_kustomizations_are_not_written_under_the_name_that_objects_are_applied_with() -> None:
    assert (KUSTOMIZATION.controller, KUSTOMIZATION.field_manager) == ("kustomize-controller", "gotk-kustomize-controller")


async def test_whoever_meets_a_conflict_reads_the_newer_object_at_once(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    own_control_plane.api.create(thing("a", namespace))
    async with open_store(client, namespace) as store:
        first = await store.get(KIND, Key(namespace, "a"))
        # Synchronous: the watch has no chance to bring the change before the write.
        own_control_plane.api.apply(thing("a", namespace, 2))
        mark = own_control_plane.audit.mark()
        with pytest.raises(Conflict, match="the object has been modified"):
            await store.write_status(first, first.status.model_copy(update={"note": "n"}))
        newer = await store.get(KIND, Key(namespace, "a"))
        assert (newer.spec.size, newer.meta.generation) == (2, 2)
        with pytest.raises(Conflict):
            await store.write_status(first, first.status.model_copy(update={"note": "n"}))
        await store.write_status(newer, newer.status.model_copy(update={"note": "n"}))
        assert asked(own_control_plane, mark) == {"patch things/status": 2, "get things": 1}


async def test_objects_are_kept_without_what_nobody_reads(control_plane: Cluster, client: Client, namespace: str) -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1000, "a": "b"}
    control_plane.api.create(thing("a", namespace, annotations=annotations))
    async with open_store(client, namespace) as store:
        found = await store.get(KIND, Key(namespace, "a"))
    assert found.meta.annotations == {"a": "b"}
    assert "managed" not in repr(found)
    assert "last-applied" not in repr(found)


async def test_an_object_that_cannot_be_read_is_left_out_and_said_once(
    control_plane: Cluster, client: Client, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    control_plane.api.create(thing("good", namespace))
    bad = thing("bad", namespace)
    bad["spec"]["size"] = "large"
    control_plane.api.create(bad)
    metrics = KubeMetrics.declare(Metrics())
    async with open_store(client, namespace, metrics=metrics) as store:
        assert [r.key.name for r in await store.list(KIND)] == ["good"]
        with pytest.raises(NotFound):
            await store.get(KIND, Key(namespace, "bad"))
        reflector = store.reflectors[KIND]
        assert metrics.unreadable.labels(KIND)._value.get() == 1
        reflector.cache.page("kubetests.imagebot.dev/v1", control_plane.api.list("kubetests.imagebot.dev/v1", KIND, namespace))
        text = "".join(capsys.readouterr())
        assert text.count("is not readable") == 1
        assert "spec.size" in text
        control_plane.api.apply(thing("bad", namespace, 3))
        assert (await known(store, Key(namespace, "bad"))).spec.size == 3
        assert reflector.cache.unreadable == {}


async def test_the_first_of_our_versions_that_is_served_is_used(control_plane: Cluster, namespace: str) -> None:
    kind = thing_kind("Oldie")
    control_plane.api.install_crd(minimal_crd(kind, served=("v1beta1",)))
    control_plane.api.create({**thing("a", namespace, kind=kind), "apiVersion": f"{kind.group}/v1beta1"})
    async with open_client(control_plane.kubeconfig) as client, open_store(client, namespace, kind) as store:
        found = await store.get(kind.kind, Key(namespace, "a"))
        assert found.api_version == f"{kind.group}/v1beta1"
        written = await store.write_status(found, found.status.model_copy(update={"note": "n"}))
        assert written.status.note == "n"
        assert written.api_version == f"{kind.group}/v1beta1"


async def test_a_kind_that_is_not_installed_is_waited_for(
    control_plane: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = thing_kind(f"Late{secrets.token_hex(3)}")
    async with open_client(control_plane.kubeconfig) as client, open_store(client, namespace, kind) as store:
        with pytest.raises(NotFound, match=f'no matches for kind "{kind.kind}" in version "kubetests.imagebot.dev/v1"'):
            await store.get(kind.kind, Key(namespace, "a"))
        assert await store.list(kind.kind) == []
        assert store.problem() is None
        watch = store.watch([kind.kind])
        coming = asyncio.ensure_future(anext(watch))
        await asyncio.to_thread(control_plane.api.install_crd, minimal_crd(kind))
        await asyncio.to_thread(control_plane.api.create, thing("a", namespace, kind=kind))
        async with asyncio.timeout(30):
            change = await coming
        assert (change.type, change.new.key.name) == (ChangeType.ADDED, "a")
        assert await store.get(kind.kind, Key(namespace, "a")) is change.new
        await watch.aclose()
    text = "".join(capsys.readouterr())
    assert text.count("cannot follow a kind") == 1
    assert text.count("following a kind again") == 1
    control_plane.api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{kind.plural}.{kind.group}")


async def test_a_missing_right_is_named_and_the_store_goes_on_when_it_is_given(
    control_plane: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = control_plane.api
    api.install_crd(minimal_crd(THING))
    api.create(thing("a", namespace))
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": namespace}})
    config = control_plane.service_account_kubeconfig(namespace, "bot", tmp_path / "bot.kubeconfig")
    monkeypatch.setattr("reconcile.kube.store.SYNC_TIMEOUT", 1.0)
    async with open_client(config) as client, open_store(client, namespace) as store:
        with pytest.raises(Denied) as denied:
            await store.get(KIND, Key(namespace, "a"))
        text = str(denied.value)
        assert f'User "system:serviceaccount:{namespace}:bot" cannot list resource "things"' in text
        assert 'missing RBAC rule {apiGroups: ["kubetests.imagebot.dev"], resources: ["things"], verbs: ["list"]}' in text
        assert "cannot list resource" in str(store.problem())
        with pytest.raises(Denied, match=r'apiGroups: \[""\], resources: \["secrets"\], verbs: \["get"\]'):
            await store.secret(Key(namespace, "s"))
        rule = {"apiGroups": ["kubetests.imagebot.dev"], "resources": ["things"], "verbs": ["get", "list", "watch"]}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "bot", "namespace": namespace}}
        await asyncio.to_thread(api.create, {**role, "rules": [rule]})
        await asyncio.to_thread(
            api.create,
            {
                **role,
                "kind": "RoleBinding",
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bot"},
                "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": namespace}],
            },
        )
        found = await known(store, Key(namespace, "a"))
        assert store.problem() is None
        with pytest.raises(Denied, match=r'resources: \["things/status"\], verbs: \["patch"\]'):
            await store.write_status(found, found.status.model_copy(update={"note": "n"}))


async def test_secrets_accounts_and_namespaces_are_asked_for_once_by_many(
    own_control_plane: ControlPlane, client: Client, namespace: str
) -> None:
    api = own_control_plane.api
    meta = {"name": "s", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"k": "hunter2"}, "type": "example/x"})
    account = {"imagePullSecrets": [{"name": "one"}, {"name": "two"}]}
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**meta, "annotations": {"a": "b"}}, **account})
    async with open_store(client, namespace) as store:
        await store.list(KIND)
        mark = own_control_plane.audit.mark()
        key = Key(namespace, "s")
        read = await asyncio.gather(*(store.secret(key) for _ in range(50)))
        assert {(s.type, s.data["k"]) for s in read} == {("example/x", b"hunter2")}
        accounts = await asyncio.gather(*(store.service_account(key) for _ in range(50)))
        assert (accounts[0].image_pull_secrets, accounts[0].annotations) == (("one", "two"), {"a": "b"})
        labels = await asyncio.gather(*(store.namespace_labels(namespace) for _ in range(50)))
        assert labels[0]["kubernetes.io/metadata.name"] == namespace
        assert await store.namespace_labels("there-is-no-such-namespace") == {}
        with pytest.raises(NotFound, match='serviceaccounts "nobody" not found'):
            await store.service_account(Key(namespace, "nobody"))
        assert asked(own_control_plane, mark) == {"get secrets": 1, "get serviceaccounts": 2, "get namespaces": 2}


async def test_ten_writers_of_one_object_lose_nothing(control_plane: Cluster, client: Client, namespace: str) -> None:
    control_plane.api.create(thing("a", namespace))
    async with open_store(client, namespace) as store:
        await store.get(KIND, Key(namespace, "a"))

        async def add(name: str) -> None:
            while True:
                found = await store.get(KIND, Key(namespace, "a"))
                try:
                    parts = {**(found.status.parts or {}), name: "x"}
                    await store.write_status(found, found.status.model_copy(update={"parts": parts}))
                except Conflict:
                    continue
                return

        async with asyncio.timeout(30):
            await asyncio.gather(*(add(f"w{n}") for n in range(10)))
    found = control_plane.api.get("kubetests.imagebot.dev/v1", KIND, "a", namespace)
    assert json.dumps(found["status"]["parts"], sort_keys=True) == json.dumps({f"w{n}": "x" for n in range(10)}, sort_keys=True)
