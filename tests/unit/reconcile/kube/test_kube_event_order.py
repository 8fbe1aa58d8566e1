"""In which order Events are written, and how many at once."""

from __future__ import annotations

import asyncio
from typing import Any

from reconcile.api.meta import ObjectMeta
from reconcile.api.resource import AnyResource, Resource
from reconcile.kube.events import WRITERS, KubeEvents
from reconcile.ports.clock import SystemClock
from reconcile.ports.events import Event, EventType


class Server:
    """Takes Events, and answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.spare: set[bool] = set()
        self.free = asyncio.Event()

    async def create(self, _: Any, body: dict[str, Any], *, manager: str, spare: bool) -> dict[str, Any]:
        self.asked.append(f"{body['involvedObject']['name']} {body['message']}")
        self.spare.add(spare)
        await self.free.wait()
        return body


def thing(name: str) -> AnyResource:
    nothing: Any = None
    return Resource("flagger.app/v1beta1", "Canary", ObjectMeta(name=name, namespace="ns", uid=f"u-{name}"), nothing, nothing)


def event(name: str, message: str) -> Event:
    return Event(thing(name), EventType.NORMAL, "Synced", message, "flagger", limited=False)


async def rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_slow_event_of_one_object_holds_up_no_other_object() -> None:
    server = Server()
    sink = KubeEvents(server, SystemClock())  # type: ignore[arg-type]
    async with sink.running():
        for message in ("1", "2", "3"):
            sink.emit(event("web", message))
        sink.emit(event("shop", "1"))
        await rest()
        assert server.asked == ["web 1", "shop 1"]
        server.free.set()
    assert [told for told in server.asked if told.startswith("web")] == ["web 1", "web 2", "web 3"]
    assert server.spare == {True}


async def test_only_so_many_are_written_at_once_and_all_in_the_end() -> None:
    server = Server()
    sink = KubeEvents(server, SystemClock())  # type: ignore[arg-type]
    async with sink.running():
        for n in range(3 * WRITERS):
            sink.emit(event(f"web-{n}", "hello"))
        await rest()
        assert len(server.asked) == WRITERS
        server.free.set()
    assert (len(server.asked), sink.dropped) == (3 * WRITERS, 0)
