"""EventSink: telling people what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from reconcile.api.resource import AnyResource


class EventType(StrEnum):
    """How loud an event is."""

    NORMAL = "Normal"
    WARNING = "Warning"
    TRACE = "Trace"
    """Shown as Normal beside the object, but not sent to anybody."""
    POSTED = "Posted"
    """Sent as Normal to those who asked for events, but not written beside the object: news only for them."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object; `reason` and the start of `message` are contract, alerts match on them."""

    resource: AnyResource
    type: EventType
    reason: str
    message: str
    controller: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    limited: bool = True
    """Whether an object that says a lot is soon heard seldom; False where every step is told to people who follow it."""


class EventSink(Protocol):
    """Takes events; never blocks and never raises."""

    def emit(self, event: Event) -> None:
        """Take one event."""
        ...
