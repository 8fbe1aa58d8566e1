"""Events on a real API server: what kubectl shows, what a repetition costs, and that nobody who emits waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.kube.client import Client
from reconcile.kube.events import KubeEvents
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.events import Event, EventType
from reconcile.runtime.metrics import Metrics
from tests.support.clock import VirtualClock
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.kube import THING, eventually, minimal_crd, open_client, proxied, scheme_of, thing

OURS = "imagebot/"


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    control_plane.api.install_crd(minimal_crd(THING))
    async with open_client(control_plane.kubeconfig) as made:
        yield made


@pytest.fixture
async def resource(control_plane: Cluster, client: Client, namespace: str) -> AnyResource:
    control_plane.api.create(thing("a", namespace))
    async with KubeStore(client, scheme_of(THING), SystemClock(), namespace=namespace) as store:
        return await store.get(THING.kind, Key(namespace, "a"))


def event(resource: AnyResource, message: str = "m", kind: EventType = EventType.NORMAL, **metadata: str) -> Event:
    return Event(resource, kind, "Succeeded", message, "thing-controller", metadata)


def written(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found = cluster.api.list("v1", "Event", namespace)
    return sorted(found, key=lambda body: (body["lastTimestamp"], body["message"]))


async def test_an_event_is_as_upstream_writes_it(control_plane: Cluster, client: Client, resource: AnyResource) -> None:
    sink = KubeEvents(client, SystemClock(), instance="host-1")
    async with sink.running():
        sink.emit(event(resource, "it went wrong", EventType.WARNING, **{"example.com/revision": "r1", "not a name": "x"}))
    [found] = written(control_plane, resource.meta.namespace)
    assert found["metadata"]["name"].startswith("a.")
    assert found["metadata"]["annotations"] == {"example.com/revision": "r1"}
    assert found["involvedObject"] == {
        "apiVersion": "kubetests.imagebot.dev/v1",
        "kind": "Thing",
        "name": "a",
        "namespace": resource.meta.namespace,
        "uid": resource.meta.uid,
        "resourceVersion": resource.meta.resource_version,
    }
    said = {
        name: found[name] for name in ("type", "reason", "message", "count", "source", "reportingComponent", "reportingInstance")
    }
    assert said == {
        "type": "Warning",
        "reason": "Succeeded",
        "message": "it went wrong",
        "count": 1,
        "source": {"component": "thing-controller"},
        "reportingComponent": "thing-controller",
        "reportingInstance": "host-1",
    }
    assert found["firstTimestamp"] == found["lastTimestamp"]
    shown = control_plane.kubectl("-n", resource.meta.namespace, "describe", "things.kubetests.imagebot.dev", "a").stdout
    assert "thing-controller" in shown
    assert "it went wrong" in shown


async def test_a_repetition_is_counted_and_not_written_again(
    own_control_plane: ControlPlane, client: Client, resource: AnyResource
) -> None:
    sink = KubeEvents(client, SystemClock())
    mark = own_control_plane.audit.mark()
    async with sink.running():
        for _ in range(4):
            sink.emit(event(resource))
        sink.emit(event(resource, "other"))
        sink.emit(event(resource, "other", EventType.TRACE))
    found = written(own_control_plane, resource.meta.namespace)
    assert sorted((body["type"], body["message"], body["count"]) for body in found) == [
        ("Normal", "m", 4),
        ("Normal", "other", 1),
        ("Normal", "other", 1),
    ]
    assert own_control_plane.audit.tally(mark, user_agent=OURS) == {"create events": 3, "patch events": 3}


async def test_an_event_that_the_server_has_forgotten_is_written_anew(
    control_plane: Cluster, client: Client, resource: AnyResource
) -> None:
    namespace = resource.meta.namespace
    sink = KubeEvents(client, SystemClock())
    async with sink.running():
        sink.emit(event(resource))
        await eventually(lambda: written(control_plane, namespace))
        [first] = written(control_plane, namespace)
        control_plane.api.delete("v1", "Event", first["metadata"]["name"], namespace)
        sink.emit(event(resource))
        sink.emit(event(resource))
    [second] = written(control_plane, namespace)
    assert (second["count"], second["metadata"]["name"] != first["metadata"]["name"]) == (2, True)


async def test_each_step_of_a_controller_that_reports_steps_is_heard(
    own_control_plane: ControlPlane, client: Client, resource: AnyResource
) -> None:
    sink = KubeEvents(client, SystemClock())
    async with sink.running():
        for n in range(60):
            sink.emit(replace(event(resource, f"m{n}"), limited=False))
    assert (len(written(own_control_plane, resource.meta.namespace)), sink.dropped) == (60, 0)


async def test_steps_are_heard_within_reason(client: Client, resource: AnyResource) -> None:
    clock = VirtualClock()
    sink = KubeEvents(client, clock)
    for n in range(300):
        sink.emit(replace(event(resource, f"m{n}"), limited=False))
    assert sink.dropped == 100
    clock.advance(7.0)
    for n in range(10):
        sink.emit(replace(event(resource, f"m{n}"), limited=False))
    assert sink.dropped == 103


async def test_an_object_with_too_much_to_say_is_cut_short(
    own_control_plane: ControlPlane, client: Client, resource: AnyResource
) -> None:
    metrics = KubeMetrics.declare(Metrics())
    sink = KubeEvents(client, SystemClock(), metrics)
    async with sink.running():
        for n in range(100):
            sink.emit(event(resource, f"m{n}"))
    assert len(written(own_control_plane, resource.meta.namespace)) == 25
    assert sink.dropped == 75
    assert metrics.dropped_events.labels("thing-controller")._value.get() == 75


async def test_events_wait_for_a_server_that_cannot_be_reached(
    control_plane: Cluster, resource: AnyResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconcile.kube.events.TRY_AGAIN", 0.2)
    monkeypatch.setattr("reconcile.kube.client.ATTEMPTS", 1)
    async with proxied(control_plane.kubeconfig, tmp_path) as (proxy, config), open_client(config) as ours:
        sink = KubeEvents(ours, SystemClock())
        async with sink.running():
            proxy.refusing = True
            await proxy.cut()
            sink.emit(event(resource, "one"))
            sink.emit(event(resource, "two"))
            await asyncio.sleep(0.5)
            assert written(control_plane, resource.meta.namespace) == []
            proxy.refusing = False
            await eventually(lambda: len(written(control_plane, resource.meta.namespace)) == 2)
        assert sink.dropped == 0


async def test_the_oldest_go_when_too_many_wait(client: Client, resource: AnyResource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconcile.kube.events.MAX_WAITING", 3)
    sink = KubeEvents(client, SystemClock())
    for n in range(5):
        sink.emit(event(resource, f"m{n}"))
    assert [waiting.message for waiting, _ in sink._waiting] == ["m2", "m3", "m4"]
    assert sink.dropped == 2


async def test_a_missing_right_is_said_once_and_stops_nobody(
    control_plane: Cluster, resource: AnyResource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = resource.meta.namespace
    control_plane.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": namespace}})
    config = control_plane.service_account_kubeconfig(namespace, "bot", tmp_path / "bot.kubeconfig")
    async with open_client(config) as ours:
        sink = KubeEvents(ours, SystemClock())
        async with sink.running():
            for n in range(3):
                sink.emit(event(resource, f"m{n}"))
        assert sink.dropped == 3
    text = "".join(capsys.readouterr())
    assert text.count("could not write an event") == 1
    assert 'missing RBAC rule {apiGroups: [""], resources: ["events"], verbs: ["create"]}' in text
