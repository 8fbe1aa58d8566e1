"""Events as JSON: the core/v1 Event beside the object, and what is posted to `--events-addr`. Pure."""

from __future__ import annotations

import re
import secrets
from typing import Any

from reconcile.ports.events import Event, EventType

MAX_MESSAGE = 32768
"""Bytes of a message; as the message of a condition."""
MAX_INSTANCE = 128
"""Characters that Kubernetes allows for the name of who reports."""

_ANNOTATION = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

Object = dict[str, Any]


def event_body(event: Event, moment: str, instance: str) -> Object:
    """The core/v1 Event; Trace is shown as Normal, metadata become annotations (those whose name is a valid one)."""
    meta = event.resource.meta
    namespace = meta.namespace or "default"
    annotations = {name: text for name, text in event.metadata.items() if _ANNOTATION.fullmatch(name)}
    metadata: Object = {"name": f"{meta.name[:230]}.{secrets.token_hex(8)}", "namespace": namespace}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": metadata,
        "involvedObject": reference(event),
        "type": "Warning" if event.type is EventType.WARNING else "Normal",
        "reason": event.reason,
        "message": _cut(event.message),
        "source": {"component": event.controller},
        "reportingComponent": event.controller,
        "reportingInstance": instance[:MAX_INSTANCE],
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def reference(event: Event) -> Object:
    """The ObjectReference of what the event is about."""
    resource, meta = event.resource, event.resource.meta
    return {
        "kind": resource.kind,
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "apiVersion": resource.api_version,
        "resourceVersion": meta.resource_version,
    }


def payload(event: Event, moment: str, instance: str) -> Object:
    """What is posted to a notification-controller."""
    return {
        "involvedObject": reference(event),
        "severity": "error" if event.type is EventType.WARNING else "info",
        "timestamp": moment,
        "message": event.message,
        "reason": event.reason,
        "metadata": dict(event.metadata),
        "reportingController": event.controller,
        "reportingInstance": instance,
    }


def _cut(message: str) -> str:
    raw = message.encode("utf-8", "replace")
    return message if len(raw) <= MAX_MESSAGE else raw[: MAX_MESSAGE - 3].decode("utf-8", "ignore") + "..."
