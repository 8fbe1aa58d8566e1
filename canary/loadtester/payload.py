"""What a caller sends: the payload of Flagger's webhooks, of which the load tester reads name, namespace and metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from reconcile.api.meta import Key
from reconcile.errors import Invalid

MAX_BODY = 1024 * 1024
"""Bytes of one request."""
MAX_NAME, MAX_NAMESPACE = 253, 63

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Unreadable(Invalid):
    """A body is not a payload."""


class Refused(Invalid):
    """What is asked for is not done.

    Attributes:
        status: Of the HTTP answer; the text is its body.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Payload:
    """One call.

    Attributes:
        canary: Of which Canary; name and namespace may be empty, as a call by hand need not name any.
        metadata: The words of the webhook.
    """

    canary: Key
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_payload(body: bytes) -> Payload:
    """The payload in a JSON body; fields that are not known are skipped, null is as absent.

    Raises:
        Unreadable: The body is no JSON object, a field has the wrong type, or a name cannot be that of an object.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"the body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise Unreadable('the body must be a JSON object such as {"name": "my-app", "namespace": "production"}')
    name = is_name(_text(data, "name"))
    namespace = is_namespace(_text(data, "namespace"))
    metadata = data.get("metadata")
    if metadata is None:
        return Payload(Key(namespace, name))
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Unreadable("metadata must be a mapping of texts to texts: put numbers and booleans in quotes")
    return Payload(Key(namespace, name), metadata)


def is_name(text: str) -> str:
    """`text`, which may be empty; raises Unreadable when it cannot be the name of an object."""
    if text and (len(text) > MAX_NAME or not _NAME.fullmatch(text)):
        raise Unreadable(f"{text[:80]!r} cannot be the name of an object")
    return text


def is_namespace(text: str) -> str:
    """`text`, which may be empty; raises Unreadable when it cannot be the name of a namespace."""
    if text and (len(text) > MAX_NAMESPACE or not _NAMESPACE.fullmatch(text)):
        raise Unreadable(f"{text[:80]!r} cannot be the name of a namespace")
    return text


def is_true(metadata: Mapping[str, str], key: str) -> bool:
    """Whether a switch of the metadata is on: exactly `true`, as Flagger has it."""
    return metadata.get(key) == "true"


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{key} must be a text")
    return value
