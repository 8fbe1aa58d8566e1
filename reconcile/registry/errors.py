"""What a registry answers when it does not answer what was asked.

::

    RegistryError          the registry refused, or its answer makes no sense
    ├── StatusError        an answer with an error status; has status and the registry's codes
    ├── Unreachable        no complete answer; has whether it is temporary
    │   └── DeadlinePassed the time for the whole operation was over; also a TimedOut
    ├── DigestMismatch     the bytes are not those that the digest names
    ├── BadAnswer          the answer is not what the distribution specification says
    ├── Paused             the registry asked for a longer pause than anybody waits
    └── CredentialError    no credential could be made: helper program, cloud login, token endpoint

The texts are those of Flux (go-containerregistry), which dashboards and alerts know. None contains a secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from reconcile.errors import ReconcileError, TimedOut
from reconcile.net.errors import NetworkError
from reconcile.net.retry import TEMPORARY_STATUSES
from reconcile.redact import redact, redact_url

MAX_BODY_TEXT = 500
"""Characters of an unexpected body that are quoted in a message."""

_TAGS = re.compile(r"(?is)<(script|style)\b.*?</\1>|<[^>]{0,500}>")


class RegistryError(ReconcileError):
    """The registry refused, or its answer makes no sense."""

    temporary: bool = False


@dataclass(frozen=True)
class Diagnostic:
    """One entry of the registry's `errors` list (distribution specification, error codes)."""

    code: str
    message: str
    detail: Any = None

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return text if self.detail is None else f"{text}; {go_value(self.detail)}"


class StatusError(RegistryError):
    """An answer with an error status.

    Attributes:
        status: HTTP status.
        diagnostics: the registry's own errors, possibly none.
    """

    def __init__(self, method: str, url: str, status: int, body: bytes, content_type: str = "", note: str = "") -> None:
        self.status = status
        self.diagnostics = parse_diagnostics(body)
        self.temporary = status in TEMPORARY_STATUSES
        text = f"{method} {redact_url(url)}: {_answer_text(method, status, self.diagnostics, body, content_type)}"
        super().__init__(text + note)

    @property
    def codes(self) -> tuple[str, ...]:
        """The registry's error codes, in order."""
        return tuple(diagnostic.code for diagnostic in self.diagnostics)


class Unreachable(RegistryError):
    """No complete answer came; the text is that of the HTTP edge, several attempts joined by `; `."""

    def __init__(self, errors: Sequence[ReconcileError]) -> None:
        self.temporary = all(isinstance(error, NetworkError) and error.temporary for error in errors)
        super().__init__("; ".join(str(error) for error in errors))


class DeadlinePassed(Unreachable, TimedOut):
    """The time for the whole operation was over before the last answer came."""


class DigestMismatch(RegistryError):
    """The bytes are not those that the digest names."""


class BadAnswer(RegistryError):
    """The answer is not what the distribution specification says."""


class Paused(RegistryError):
    """The registry asked for a longer pause than anybody waits; nothing was sent."""

    temporary = True


class CredentialError(RegistryError):
    """No credential could be made."""


def parse_diagnostics(body: bytes) -> tuple[Diagnostic, ...]:
    """The entries of the body's `errors` list; none when it is not such a body."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    entries = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(
        Diagnostic(_short(entry.get("code")), _short(entry.get("message")), entry.get("detail"))
        for entry in entries[:10]
        if isinstance(entry, dict)
    )


def go_value(value: Any, depth: int = 4) -> str:
    """`value` as Go's `%v` prints decoded JSON, at most `MAX_BODY_TEXT` characters."""
    if depth == 0:
        return "…"
    match value:
        case None:
            text = "<nil>"
        case bool():
            text = str(value).lower()
        case dict():
            text = f"map[{' '.join(f'{key}:{go_value(value[key], depth - 1)}' for key in sorted(value)[:20])}]"
        case list():
            text = f"[{' '.join(go_value(entry, depth - 1) for entry in value[:20])}]"
        case float() if value.is_integer() and abs(value) < 1e21:
            text = str(int(value))
        case _:
            text = str(value)
    return _clean(text)


def body_text(body: bytes, content_type: str = "") -> str:
    """`body` for a message: text of HTML without its markup, cut to `MAX_BODY_TEXT` characters, without secrets."""
    text = body[: 64 * 1024].decode("utf-8", "replace")
    if "html" in content_type.lower() or text.lstrip()[:1] == "<":
        text = " ".join(_TAGS.sub(" ", text).split())
    return _clean(text.strip())


def _answer_text(method: str, status: int, diagnostics: tuple[Diagnostic, ...], body: bytes, content_type: str) -> str:
    if len(diagnostics) == 1:
        return _clean(str(diagnostics[0]))
    if diagnostics:
        return _clean(f"multiple errors returned: {'; '.join(map(str, diagnostics))}")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    text = f"unexpected status code {status} {phrase}"
    if method == "HEAD":
        return f"{text} (HEAD responses have no body, use GET for details)"
    quoted = body_text(body, content_type)
    return f"{text}: {quoted}" if quoted else text


def _short(value: Any) -> str:
    return _clean(value) if isinstance(value, str) else ""


def _clean(text: str) -> str:
    text = redact("".join(character if character.isprintable() else " " for character in text))
    return text if len(text) <= MAX_BODY_TEXT else f"{text[:MAX_BODY_TEXT]}… ({len(text)} characters)"
