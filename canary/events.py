"""Tells what happens to a Canary: beside the object, in the log, and to event webhooks.

Posts are made inside the tick and in order, as Flagger makes them, but no receiver can hold up a rollout: all posts of one tick
share a small part of its interval, and a receiver that failed once is not asked again in this tick. What is lost is counted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from canary.api import Webhook
from canary.exported import Exported
from canary.hooks import EVENT, EventKind, HookFailed, Hooks
from canary.site import MANAGER, Site
from reconcile.ports.clock import Clock
from reconcile.ports.events import Event, EventSink, EventType
from reconcile.runtime.logs import get_logger

log = get_logger("canary events")

REASON = "Synced"
"""Reason of every event of a Canary."""
SHARE = 0.25
"""Part of the interval that all posts of one tick may take."""
LONGEST = 30.0
"""Seconds that they may take however long the interval is."""
SHORTEST_INTERVAL = 10.0


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Who is posted to."""

    name: str
    where: Webhook | str

    @property
    def url(self) -> str:
        """The address, by which a receiver is known within a tick."""
        return self.where if isinstance(self.where, str) else self.where.url


def receivers(site: Site) -> list[_Receiver]:
    """The Canary's own event hooks in their order; without any, the webhook of the service if it has one."""
    own = [_Receiver(hook.name, hook) for hook in site.spec.analysis.webhooks or () if hook.type == EVENT]
    everybody = site.settings.event_webhook
    return own or ([_Receiver("of the service", everybody)] if everybody else [])


class TickEvents:
    """The events of one tick of one Canary, and how much time their posts have left."""

    def __init__(self, sink: EventSink, hooks: Hooks, exported: Exported, clock: Clock, budget: float) -> None:
        self._sink, self._hooks, self._exported, self._clock = sink, hooks, exported, clock
        self._left = budget
        self._failed: set[str] = set()

    async def tell(self, site: Site, kind: EventKind, message: str, *, phase: str, checksum: str) -> None:
        """Tell one event; never fails, and takes no longer than the tick has for posts.

        Args:
            site: What it happened to.
            kind: Normal or Warning.
            message: In Flagger's words where it has some.
            phase: For the receivers, which may be told another one than the object has.
            checksum: Of the revision, for the receivers.
        """
        say = log.warning if kind == "Warning" else log.info
        say(message, canary=f"{site.name}.{site.namespace}")
        self._sink.emit(Event(site.canary, EventType(kind), REASON, message, MANAGER, limited=False))
        for receiver in receivers(site):
            if receiver.url in self._failed or self._left <= 0:
                self._exported.event_post(site, lost=True)
            else:
                await self._post(site, receiver, kind, message, phase=phase, checksum=checksum)

    async def _post(self, site: Site, receiver: _Receiver, kind: EventKind, message: str, *, phase: str, checksum: str) -> None:
        began, problem = self._clock.monotonic(), ""
        try:
            async with asyncio.timeout(self._left):
                await self._hooks.event(site, receiver.where, kind, message, phase=phase, checksum=checksum)
        except HookFailed as error:
            problem = str(error)
        except TimeoutError:
            problem = "the time that a tick has for event webhooks is over"
            self._left = 0.0
        finally:
            self._left -= self._clock.monotonic() - began
        self._exported.event_post(site, lost=bool(problem))
        if problem:
            self._failed.add(receiver.url)
            log.error(
                "sending event to webhook failed",
                canary=f"{site.name}.{site.namespace}",
                webhook=receiver.name,
                error=problem,
            )


class Recorder:
    """Makes what tells the events of Canaries; one instance per service."""

    def __init__(self, sink: EventSink, hooks: Hooks, exported: Exported, clock: Clock) -> None:
        self._sink, self._hooks, self._exported, self._clock = sink, hooks, exported, clock

    def tick(self, interval: float) -> TickEvents:
        """The events of one tick of a Canary that ticks every `interval` seconds."""
        budget = min(LONGEST, SHARE * interval)
        return TickEvents(self._sink, self._hooks, self._exported, self._clock, budget)

    async def tell(self, site: Site, kind: EventKind, message: str, *, phase: str, checksum: str) -> None:
        """Tell an event outside of any tick; as `TickEvents.tell`, with the time that a tick of the shortest interval has."""
        await self.tick(SHORTEST_INTERVAL).tell(site, kind, message, phase=phase, checksum=checksum)
