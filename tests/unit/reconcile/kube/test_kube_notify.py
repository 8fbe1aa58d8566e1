"""Events that are posted: their JSON, and how often a post is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from reconcile.api.meta import CommonSpec, CommonStatus, ObjectMeta
from reconcile.api.resource import Resource
from reconcile.kube.notify import EventPoster, Sinks
from reconcile.net.client import Client, make_client
from reconcile.ports.events import Event, EventType

ADDRESS = "http://notification-controller.example/"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def event(kind: EventType = EventType.NORMAL, message: str = "m") -> Event:
    meta = ObjectMeta(name="n", namespace="ns", uid="u-1", resource_version="42")
    resource: Any = Resource("example.com/v1", "Thing", meta, CommonSpec(), CommonStatus())
    return Event(resource, kind, "Succeeded", message, "thing-controller", {"revision": "r1"})


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return make_client(around=lambda _: httpx.MockTransport(answer))


async def post(answers: list[int | Exception], *events: Event) -> tuple[list[dict[str, Any]], Clock, EventPoster]:
    """What was received when the receiver answers like this, in order."""
    clock, received, done = Clock(), list[dict[str, Any]](), asyncio.Event()
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        received.append(orjson.loads(request.content))
        assert request.headers["content-type"] == "application/json"
        found = left.pop(0)
        if not left:
            done.set()
        if isinstance(found, Exception):
            raise found
        return httpx.Response(found)

    async with client_of(answer) as client:
        poster = EventPoster(ADDRESS, clock, client=client, instance="host-1")
        async with poster.running():
            for one in events:
                poster.emit(one)
            await asyncio.wait_for(done.wait(), 5)
            for _ in range(20):
                await asyncio.sleep(0)
    return received, clock, poster


async def test_the_json_is_that_of_the_flux_controllers() -> None:
    [found], _, poster = await post([202], event(EventType.WARNING, "it went wrong"))
    assert found == {
        "involvedObject": {
            "kind": "Thing",
            "namespace": "ns",
            "name": "n",
            "uid": "u-1",
            "apiVersion": "example.com/v1",
            "resourceVersion": "42",
        },
        "severity": "error",
        "timestamp": "2026-01-02T03:04:05Z",
        "message": "it went wrong",
        "reason": "Succeeded",
        "metadata": {"revision": "r1"},
        "reportingController": "thing-controller",
        "reportingInstance": "host-1",
    }
    assert poster.dropped == 0


async def test_trace_is_not_posted_and_normal_is_info() -> None:
    received, _, _ = await post([200], event(EventType.TRACE), event(EventType.NORMAL, "shown"))
    assert [(body["severity"], body["message"]) for body in received] == [("info", "shown")]


@pytest.mark.parametrize(
    ("answers", "slept", "dropped"),
    [
        ([500, 503, 202], [1.0, 2.0], 0),
        ([429], [], 0),
        ([400], [], 1),
        ([httpx.ConnectError("refused"), 202], [1.0], 0),
        ([500] * 5, [1.0, 2.0, 4.0, 8.0], 1),
    ],
)
async def test_a_post_is_tried_a_bounded_number_of_times(answers: list[Any], slept: list[float], dropped: int) -> None:
    received, clock, poster = await post(answers, event())
    assert (len(received), clock.slept, poster.dropped) == (len(answers), slept, dropped)


async def test_the_oldest_go_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconcile.kube.notify.MAX_WAITING", 2)
    poster = EventPoster(ADDRESS, Clock())
    for n in range(5):
        poster.emit(event(message=f"m{n}"))
    assert [orjson.loads(body)["message"] for body in poster._waiting] == ["m3", "m4"]
    assert poster.dropped == 3


def test_several_sinks_are_told() -> None:
    first, second = list[Event](), list[Event]()

    class Sink:
        def __init__(self, taken: list[Event]) -> None:
            self.emit = taken.append

    Sinks(Sink(first), Sink(second)).emit(event())
    assert (len(first), len(second)) == (1, 1)
