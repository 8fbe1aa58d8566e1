"""Events of Canaries: beside the object and to event webhooks, in order, without holding up a tick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from canary.events import Recorder
from canary.exported import Exported
from canary.hooks import Hooks
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.ports.events import Event, EventType
from reconcile.runtime.metrics import Metrics
from tests.support.canary_posts import site
from tests.support.clock import VirtualClock
from tests.support.webhooks import Receiver, Reply


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Bed:
    """A Recorder with all that it needs, and what came of it."""

    def __init__(self) -> None:
        self.sink, self.metrics, self.clock = Sink(), Metrics(), VirtualClock()
        exported = Exported(self.metrics, "istio")
        self.hooks = Hooks(self.clock, exported)
        self.recorder = Recorder(self.sink, self.hooks, exported, self.clock)

    @property
    def lost(self) -> float | None:
        return self.metrics.registry.get_sample_value("imagebot_canary_lost_event_posts_total", {"canary": "prod/web"})


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    made = Bed()
    yield made
    await made.hooks.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as server:
        yield server


def listening(*urls: str, everybody: str = "") -> Site:
    hooks = [{"name": f"listener-{i}", "type": "event", "url": url} for i, url in enumerate(urls)]
    hooks.append({"name": "gate", "type": "confirm-rollout", "url": "http://127.0.0.1:9/never"})
    analysis = {"interval": "10s", "threshold": 1, "stepWeight": 10, "webhooks": hooks}
    return site(analysis=analysis, settings=CanarySettings(event_webhook=everybody))


def told(receiver: Receiver, path: str) -> list[str]:
    return [request.data["metadata"]["eventMessage"] for request in receiver.requests if request.path == path]


async def test_events_stand_beside_the_object_as_flagger_writes_them(bed: Bed) -> None:
    where = site()
    await bed.recorder.tell(where, "Normal", "Starting canary analysis for web.prod", phase="Progressing", checksum="c")
    await bed.recorder.tell(where, "Warning", "Halt web.prod advancement", phase="Progressing", checksum="c")
    assert [(e.type, e.reason, e.message, e.controller, e.resource) for e in bed.sink.events] == [
        (EventType.NORMAL, "Synced", "Starting canary analysis for web.prod", "flagger", where.canary),
        (EventType.WARNING, "Synced", "Halt web.prod advancement", "flagger", where.canary),
    ]
    assert bed.lost is None


async def test_own_listeners_replace_the_one_of_the_service(bed: Bed, receiver: Receiver) -> None:
    where = listening(f"{receiver.url}/a", f"{receiver.url}/b", everybody=f"{receiver.url}/everybody")
    tick = bed.recorder.tick(10)
    for message in ("first", "second"):
        await tick.tell(where, "Normal", message, phase="Progressing", checksum="c1")
    assert receiver.paths == ["/a", "/b", "/a", "/b"]
    assert told(receiver, "/a") == ["first", "second"]


async def test_the_webhook_of_the_service_hears_of_everybody_else(bed: Bed, receiver: Receiver) -> None:
    where = listening(everybody=f"{receiver.url}/everybody")
    await bed.recorder.tick(10).tell(where, "Warning", "Canary failed! Scaling down web.prod", phase="Failed", checksum="c1")
    (request,) = receiver.requests
    assert request.path == "/everybody"
    assert {key: request.data[key] for key in ("name", "namespace", "phase", "checksum")} == {
        "name": "web",
        "namespace": "prod",
        "phase": "Failed",
        "checksum": "c1",
    }
    assert request.data["metadata"]["eventType"] == "Warning"


async def test_a_receiver_that_failed_is_left_alone_until_the_next_tick(bed: Bed, receiver: Receiver) -> None:
    receiver.script("/a", Reply(500))
    where = listening(f"{receiver.url}/a", f"{receiver.url}/b")
    tick = bed.recorder.tick(10)
    for message in ("first", "second", "third"):
        await tick.tell(where, "Normal", message, phase="Progressing", checksum="c1")
    assert told(receiver, "/a") == ["first"]
    assert told(receiver, "/b") == ["first", "second", "third"]
    assert bed.lost == 3
    await bed.recorder.tick(10).tell(where, "Normal", "fourth", phase="Progressing", checksum="c1")
    assert told(receiver, "/a") == ["first", "fourth"]
    assert bed.lost == 3
    assert [event.message for event in bed.sink.events] == ["first", "second", "third", "fourth"]


async def test_a_receiver_that_hangs_costs_a_tick_no_more_than_its_share(bed: Bed, receiver: Receiver) -> None:
    receiver.script("/a", *[Reply(hang=True)] * 5)
    where = listening(f"{receiver.url}/a", f"{receiver.url}/b")
    tick = bed.recorder.tick(4)  # a share of one second, where the hook itself has ten
    for message in ("first", "second"):
        await tick.tell(where, "Normal", message, phase="Progressing", checksum="c1")
    assert receiver.paths == ["/a"]
    assert bed.lost == 4
    assert [event.message for event in bed.sink.events] == ["first", "second"]


async def test_slow_posts_share_what_a_tick_has(bed: Bed, receiver: Receiver) -> None:
    where = listening(f"{receiver.url}/a")
    tick = bed.recorder.tick(10)
    receiver.script("/a", Reply(503, headers={"Retry-After": "3"}))
    hook = {"name": "a", "type": "event", "url": f"{receiver.url}/a", "retries": 1}
    where = site(analysis={"interval": "10s", "threshold": 1, "stepWeight": 10, "webhooks": [hook]})
    first = asyncio.create_task(tick.tell(where, "Normal", "first", phase="Progressing", checksum="c1"))
    await receiver.received(1)
    while bed.clock.monotonic() < 4:  # the pause that the receiver asked for, and more
        await asyncio.sleep(0.001)
        bed.clock.advance(0.5)
    await first
    await tick.tell(where, "Normal", "second", phase="Progressing", checksum="c1")
    assert told(receiver, "/a") == ["first", "first"]
    assert bed.lost == 1


async def test_a_cancelled_tick_stays_cancelled(bed: Bed, receiver: Receiver) -> None:
    receiver.script("/a", Reply(hang=True))
    where = listening(f"{receiver.url}/a")
    telling = asyncio.create_task(bed.recorder.tick(600).tell(where, "Normal", "first", phase="Progressing", checksum="c1"))
    await receiver.received(1)
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert bed.lost is None
