"""Reading what forges answer: fields of JSON, texts of refusals, waits of rate limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from reconcile.errors import ReconcileError
from reconcile.net.retry import retry_after
from reconcile.ports.clock import parse_timestamp

MAX_TEXT = 300
DEFAULT_WAIT = 60.0
LONGEST_WAIT = 3600.0


def text(document: Any, *path: str) -> str:
    """The string at `path`; raises ReconcileError when it is not there."""
    found = _at(document, path)
    if not isinstance(found, str):
        raise ReconcileError(f"the forge's answer has no text '{'.'.join(path)}': is the address that of its API?")
    return found


def optional(document: Any, *path: str) -> str:
    """The string at `path`, empty when it is absent or null."""
    found = _at(document, path)
    return found if isinstance(found, str) else ""


def number(document: Any, *path: str) -> int:
    """The whole number at `path`; raises ReconcileError when it is not there."""
    found = _at(document, path)
    if not isinstance(found, int) or isinstance(found, bool):
        raise ReconcileError(f"the forge's answer has no number '{'.'.join(path)}': is the address that of its API?")
    return found


def flag(document: Any, *path: str) -> bool:
    """Whether there is `true` at `path`."""
    return _at(document, path) is True


def forbidden(document: Any, *path: str) -> bool:
    """Whether there is `false` at `path`: not merely nothing."""
    return _at(document, path) is False


def rows(document: Any) -> list[Any]:
    """The answer as a list; raises ReconcileError when it is none."""
    if not isinstance(document, list):
        raise ReconcileError("the forge's answer is no list: is the address that of its API?")
    return document


def names(document: Any, list_: str, field: str) -> tuple[str, ...]:
    """The strings `field` of the objects in the list `list_`."""
    return tuple(found for item in items(document, list_) if (found := optional(item, field)))


def items(document: Any, *path: str) -> list[Any]:
    """The list at `path`, empty when there is none."""
    found = _at(document, path)
    return found if isinstance(found, list) else []


def said(document: Any) -> str:
    """What an answer says to people, on one line, at most `MAX_TEXT` characters; empty when it says nothing.

    GitHub has `message` and a list `errors`; GitLab `message` (a text, a list, or lists by field), `error` and
    `error_description`; Gitea `message`.
    """
    if not isinstance(document, dict):
        return ""
    parts = [part for name in ("message", "error", "error_description") for part in _flat(document.get(name))]
    for error in items(document, "errors"):
        if isinstance(error, str):
            parts.append(error)
        elif isinstance(error, dict):
            parts.append(optional(error, "message") or " ".join(optional(error, name) for name in ("field", "code")).strip())
    line = "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def patience(status: int, headers: Mapping[str, str], message: str, now: datetime) -> float | None:
    """Seconds to wait when an answer is that of a rate limit, else None.

    GitHub («Rate limits for the REST API»): 403 or 429 with `retry-after`, or `x-ratelimit-remaining: 0` and
    `x-ratelimit-reset` in seconds of the epoch, or neither, after which a minute is asked for. GitLab («User and IP rate
    limits»): 429 with `Retry-After` and `RateLimit-Reset`.
    """
    asked = retry_after(headers, now)
    spent = headers.get("x-ratelimit-remaining", "").strip() == "0"
    if status == 403 and not (asked is not None or spent or "rate limit" in message.lower()):
        return None
    if status not in (403, 429):
        return None
    if asked is None:
        reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
        if reset.strip().isdigit():
            asked = float(reset.strip()[:11]) - now.timestamp()
    return min(max(asked if asked is not None else DEFAULT_WAIT, 1.0), LONGEST_WAIT)


def moment(value: str) -> datetime | None:
    """A time of RFC 3339, or of an HTTP header, in UTC; None when it is neither."""
    for read in (parse_timestamp, parsedate_to_datetime):
        try:
            found = read(value)
        except ValueError:
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def _flat(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [part for item in value for part in _flat(item)]
    if isinstance(value, dict):
        return [f"{name} {part}" for name, item in value.items() for part in _flat(item)]
    return []
