"""EventSink that writes core/v1 Events, as the recorders of the Flux controllers do (client-go's event correlator).

Events are written in the background, those of one object one after the other; where requests are limited they give way to all
others. The same event again (same object, type, reason, message) within ten minutes raises the count of the first. An object that
has too much to say is heard 25 times, then once in five minutes; where its controller reports each step (`Event.limited` is
False), 200 times, then once in a second. While the API server cannot be reached events wait; beyond a bound the oldest are
dropped and counted. Nobody who emits ever waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from reconcile.errors import ReconcileError
from reconcile.kube.client import Client, Object
from reconcile.kube.errors import ObjectMissing, Outdated, Target, Temporary, Unreachable
from reconcile.kube.eventdata import event_body
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import Clock, timestamp
from reconcile.ports.events import Event, EventType
from reconcile.runtime.logs import get_logger

log = get_logger("events")

MAX_WAITING = 10_000
"""Events that wait to be written; the first looks at a thousand objects bring several of each."""
WRITERS = 4
"""Events that are written at once."""
MAX_REMEMBERED = 4096
"""Events and objects that are remembered to recognise repetitions."""
SAME_WITHIN = 600.0
"""Seconds after which a repetition is a new event."""
OBJECT_BURST, OBJECT_REFILL = 25, 300.0
"""Events of one object at once, and seconds for each one more."""
STEPS_BURST, STEPS_REFILL = 200, 1.0
"""The same for events that are not `limited`."""
GRACE = 5.0
"""Seconds that waiting events have when the service ends."""
TRIES, TRY_AGAIN = 12, 5.0
"""How often one event is tried while the server cannot be reached, and the seconds in between."""

_Entry = tuple[Event, str]
_Same = tuple[str, str, str, str, str, str]


@dataclass
class _Written:
    """An event that the server has."""

    name: str
    count: int
    last: float


@dataclass
class _Allowance:
    """How much an object may still say."""

    tokens: float
    filled: float


class KubeEvents:
    """The EventSink of cluster mode; works inside `running()`."""

    def __init__(self, client: Client, clock: Clock, metrics: KubeMetrics | None = None, *, instance: str | None = None) -> None:
        self.dropped = 0
        """Events that were given up: too many at once, or too many of one object."""
        self._client, self._clock, self._metrics = client, clock, metrics
        self._instance = instance or socket.gethostname()
        self._waiting: deque[_Entry] = deque()
        self._behind: dict[str, deque[_Entry]] = {}
        """What waits behind an event that is being written, by the uid of the object: order is kept within an object."""
        self._wake = asyncio.Event()
        self._written: OrderedDict[_Same, _Written] = OrderedDict()
        self._allowances: OrderedDict[tuple[str, str, bool], _Allowance] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self._problem = ""

    def emit(self, event: Event) -> None:
        """Take one event; never blocks and never raises."""
        if event.type is EventType.POSTED:
            return
        if not self._allowed(event):
            self._drop(event)
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop(self._waiting.popleft()[0])
        self._waiting.append((event, timestamp(self._clock.now())))
        self._idle.clear()
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write events while inside; at the end those that wait have a moment left."""
        tasks = [asyncio.create_task(self._work(), name=f"write events {n}") for n in range(WRITERS)]
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(GRACE):
                    await self._idle.wait()
            except TimeoutError:
                count = len(self._waiting) + sum(map(len, self._behind.values()))
                log.error("events were not written before the end", count=count)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _work(self) -> None:
        while True:
            while self._waiting:
                entry = self._waiting.popleft()
                uid = entry[0].resource.meta.uid
                if uid in self._behind:
                    self._behind[uid].append(entry)
                else:
                    await self._write_all(uid, entry)
            if not self._behind:
                self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    async def _write_all(self, uid: str, first: _Entry) -> None:
        """Write an event of an object, and what comes behind it meanwhile."""
        entries = self._behind[uid] = deque((first,))
        try:
            while entries:
                event, moment = entries.popleft()
                try:
                    await self._write(event, moment)
                    self._problem = ""
                except ReconcileError as error:
                    self._drop(event)
                    self._note(event, error)
                except Exception:
                    self._drop(event)
                    log.exception("unexpected failure while writing an event")
        finally:
            del self._behind[uid]

    # --- one event

    async def _write(self, event: Event, moment: str) -> None:
        same, now = _same(event), self._clock.monotonic()
        known = self._written.get(same)
        namespace = event.resource.meta.namespace or "default"
        if known is not None and now - known.last < SAME_WITHIN:
            patch = {"count": known.count + 1, "lastTimestamp": moment}
            target = Target("", "v1", "events", namespace, known.name)
            try:
                await self._patiently(
                    event, lambda: self._client.merge_patch(target, patch, manager=event.controller, spare=True)
                )
            except ObjectMissing:  # its time on the server was over
                del self._written[same]
            else:
                known.count, known.last = known.count + 1, now
                self._written.move_to_end(same)
                return
        body = event_body(event, moment, self._instance)
        collection = Target("", "v1", "events", namespace)
        try:
            await self._patiently(event, lambda: self._client.create(collection, body, manager=event.controller, spare=True))
        except Outdated:  # the first try had come through, its answer had not: the name is ours alone
            log.debug("event was there already", object=body["metadata"]["name"])
        self._written[same] = _Written(body["metadata"]["name"], 1, now)
        self._written.move_to_end(same)
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)

    async def _patiently(self, event: Event, send: Callable[[], Awaitable[Object]]) -> None:
        for left in reversed(range(TRIES)):
            try:
                await send()
                return
            except (Temporary, Unreachable) as error:
                if not left:
                    raise
                self._note(event, error)
                await self._clock.sleep(TRY_AGAIN)

    def _note(self, event: Event, error: ReconcileError) -> None:
        if str(error) != self._problem:
            log.error("could not write an event", reason=event.reason, object=str(event.resource.key), error=str(error))
        self._problem = str(error)

    def _allowed(self, event: Event) -> bool:
        """Whether the object may say this much; every event, also a repetition, costs one token."""
        whose, now = (event.controller, event.resource.meta.uid, event.limited), self._clock.monotonic()
        burst, refill = (OBJECT_BURST, OBJECT_REFILL) if event.limited else (STEPS_BURST, STEPS_REFILL)
        allowance = self._allowances.setdefault(whose, _Allowance(burst, now))
        self._allowances.move_to_end(whose)
        if len(self._allowances) > MAX_REMEMBERED:
            self._allowances.popitem(last=False)
        allowance.tokens = min(burst, allowance.tokens + (now - allowance.filled) / refill)
        allowance.filled = now
        if allowance.tokens < 1:
            return False
        allowance.tokens -= 1
        return True

    def _drop(self, event: Event) -> None:
        self.dropped += 1
        if self._metrics is not None:
            self._metrics.dropped_events.labels(event.controller).inc()


def _same(event: Event) -> _Same:
    resource = event.resource
    return (event.controller, resource.kind, resource.meta.uid, event.type.value, event.reason, event.message)
