"""EventSink that posts events to `--events-addr`, as the Flux controllers post them to their notification-controller.

Five seconds for a request, a few repetitions with growing waits, none after 429: that is how the receiver says that it has the
event already. Trace events are not posted. Nothing here needs a cluster.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from reconcile.errors import ReconcileError
from reconcile.kube.eventdata import payload
from reconcile.net.client import Client, make_client
from reconcile.ports.clock import Clock, timestamp
from reconcile.ports.events import Event, EventSink, EventType
from reconcile.redact import redact_url
from reconcile.runtime.logs import get_logger

log = get_logger("events")

TIMEOUT = 5.0
"""Seconds for one request."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each repetition."""
MAX_WAITING = 1000
"""Events that wait to be posted; the oldest beyond that are dropped."""
DUPLICATE = 429


class EventPoster:
    """Posts events as JSON; works inside `running()`."""

    def __init__(self, address: str, clock: Clock, *, client: Client | None = None, instance: str | None = None) -> None:
        self.dropped = 0
        """Events that were given up."""
        self._address, self._clock, self._client = address, clock, client
        self._instance = instance or socket.gethostname()
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._problem = ""

    def emit(self, event: Event) -> None:
        """Take one event; never blocks and never raises."""
        if event.type is EventType.TRACE:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(orjson.dumps(payload(event, timestamp(self._clock.now()), self._instance)))
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Post events while inside; at the end the one under way is given up."""
        client = self._client or make_client(timeout=TIMEOUT, clock=self._clock)
        task = asyncio.create_task(self._work(client), name="post events")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if self._client is None:
                await client.aclose()

    async def _work(self, client: Client) -> None:
        while True:
            while self._waiting:
                problem = await self._post(client, self._waiting.popleft())
                if problem is not None:
                    self.dropped += 1
                    if problem != self._problem:
                        log.error("could not post an event", address=redact_url(self._address), error=problem)
                self._problem = problem or ""
            self._wake.clear()
            await self._wake.wait()

    async def _post(self, client: Client, body: bytes) -> str | None:
        """What went wrong in the end, None when the receiver has the event."""
        problem: str | None = None
        for wait in (0.0, *WAITS):
            if wait:
                await self._clock.sleep(wait)
            try:
                async with asyncio.timeout(TIMEOUT):
                    answer = await client.post(self._address, content=body, headers={"Content-Type": "application/json"})
            except TimeoutError:
                problem = f"no answer within {TIMEOUT:g} seconds"
            except ReconcileError as error:
                problem = str(error)
            else:
                if answer.status_code < 300 or answer.status_code == DUPLICATE:
                    return None
                problem = f"HTTP {answer.status_code}"
                if answer.status_code < 500:
                    return problem
        return problem


class Sinks:
    """Tells several sinks."""

    def __init__(self, *sinks: EventSink) -> None:
        self._sinks: Sequence[EventSink] = sinks

    def emit(self, event: Event) -> None:
        """Take one event."""
        for sink in self._sinks:
            sink.emit(event)
