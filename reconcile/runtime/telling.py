"""Telling people of an object: the one place where an event gets what the object's annotations add to it."""

from __future__ import annotations

from collections.abc import Mapping

from reconcile.api import conditions as cond
from reconcile.api.meta import EVENT_ANNOTATIONS
from reconcile.api.resource import AnyResource
from reconcile.ports.events import Event, EventSink, EventType
from reconcile.redact import redact
from reconcile.runtime.metrics import Metrics


class Teller:
    """Emits the events of one controller, and counts them."""

    def __init__(self, events: EventSink, metrics: Metrics, controller: str) -> None:
        self._events, self._metrics, self._controller = events, metrics, controller

    def tell(
        self, resource: AnyResource, kind: EventType, reason: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Emit an event; its message is cut and without credentials, its metadata has the object's event annotations too."""
        forwarded = {
            name: value
            for name, value in resource.meta.annotations.items()
            if name.startswith(EVENT_ANNOTATIONS) and name != EVENT_ANNOTATIONS
        }
        self._metrics.events.labels(resource.kind, kind.value, reason).inc()
        text = cond.cut(redact(message))
        self._events.emit(Event(resource, kind, reason, text, self._controller, {**forwarded, **(metadata or {})}))
