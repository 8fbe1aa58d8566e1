"""What an API server or the way to it may answer, mapped once to the core's tree.

::

    KubeError                 the request failed; has the verb and what it was about
    ├── ObjectMissing         404 for an object; also a NotFound, with Kubernetes' message
    ├── KindMissing           404 for a whole resource: its CRD is not installed, or this version is not served
    ├── Outdated              409: the object has changed since it was read, or exists already; also a Conflict
    ├── Refused               400, 422: the object does not pass validation; also an Invalid
    ├── Denied                403: RBAC or admission; says which rule is missing
    ├── Unauthenticated       401: the credentials are not accepted
    ├── Expired               410: the resource version is too old (or too new); list again
    ├── Temporary             429, 5xx: try again, after `retry_after` seconds if the server said so
    ├── Unreachable           no complete answer came: connection, TLS, name
    │   ├── Untrusted         TLS failed or the certificate is not the server's: no retry helps
    │   └── Late              a deadline passed; also a TimedOut
    ├── TooLarge              the answer is over its limit; also a LimitExceeded
    └── LeaseLost             somebody else may lead by now: nothing may be written

Messages of the server are kept to the letter: people search for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from reconcile.errors import Conflict, Invalid, LimitExceeded, NotFound, TimedOut
from reconcile.ports.cluster import ClusterError, UnknownKind
from reconcile.redact import redact

MAX_TEXT = 2000
"""Characters kept of an answer that is no Status object."""
_PLAIN: Final = "!$&'()*+,;=:@"
"""Characters of a path that need no encoding, besides letters, digits and `-._~`."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about: a collection, an object, or a subresource of one. The core group is the empty text."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """The path below the server's address, percent-encoded; raises Invalid for a name that would lead elsewhere."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespace:
            parts += ["namespaces", self.namespace]
        return "/" + "/".join(_segment(part) for part in (*parts, self.plural, self.name, self.subresource) if part)

    @property
    def resource(self) -> str:
        """`plural[.group][/subresource]`, as Kubernetes writes resources."""
        named = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{named}/{self.subresource}" if self.subresource else named

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.resource} {where}" if where else self.resource


def _segment(text: str) -> str:
    """One step of a path. Names come from anybody: none of them may be more than one step.

    The rule and its words are those of Kubernetes' own client.
    """
    wrong = [f"may not be '{text}'"] if text in {".", ".."} else [f"may not contain '{each}'" for each in "/%" if each in text]
    if wrong:
        raise Invalid(f'invalid resource name "{text}": [{" ".join(wrong)}]')
    try:
        return quote(text, safe=_PLAIN)
    except UnicodeEncodeError:
        raise Invalid(f"invalid resource name {text!r}: [must be UTF-8]") from None


class KubeError(ClusterError):
    """A request to the API server failed.

    Attributes:
        verb: Kubernetes verb: get, list, watch, create, patch, delete.
        target: what it was about; None when it was about nothing in particular.
    """

    def __init__(self, message: str, verb: str = "", target: Target | None = None) -> None:
        super().__init__(message)
        self.verb = verb
        self.target = target


class ObjectMissing(KubeError, NotFound):
    """There is no such object."""


class KindMissing(KubeError, UnknownKind):
    """The server knows no such resource."""


class Outdated(KubeError, Conflict):
    """The object has changed since it was read, or exists already."""


class Refused(KubeError, Invalid):
    """The object was refused as it is."""


class Denied(KubeError):
    """We may not do this."""


class Unauthenticated(KubeError):
    """The server does not know who we are."""


class Expired(KubeError):
    """The resource version cannot be continued from."""


class Temporary(KubeError):
    """The server cannot answer now.

    Attributes:
        retry_after: seconds that the server asks to wait, if it said so.
        untouched: the request was turned away before anything was done (429).
    """

    retry_after: float | None = None
    untouched: bool = False


class Unreachable(KubeError):
    """No complete answer came; `unsent` when the request certainly did not reach the server."""

    unsent: bool = False


class Untrusted(Unreachable):
    """Whoever answers there is not the API server that we are to talk to."""


class Late(Unreachable, TimedOut):
    """No answer in time."""


class TooLarge(KubeError, LimitExceeded):
    """The answer is larger than its limit; it was refused, not cut."""


class LeaseLost(KubeError):
    """The lease is not ours any more."""


def from_answer(code: int, headers: Mapping[str, str], body: bytes, verb: str, target: Target) -> KubeError:
    """The most specific error for an answer of 400 or more."""
    status = _status(body)
    return from_status({**status, "code": code}, verb, target, headers.get("Retry-After"))


def from_status(status: Mapping[str, Any], verb: str, target: Target, retry_after: str | None = None) -> KubeError:
    """The most specific error for a Status object, also one that came as an ERROR event of a watch."""
    error = _of_code(status, verb, target, retry_after)
    error.reason = str(status.get("reason") or "")
    error.text = redact(str(status.get("message") or "")) or str(error)
    return error


def _of_code(status: Mapping[str, Any], verb: str, target: Target, retry_after: str | None) -> KubeError:
    code, message = int(status.get("code") or 0), redact(str(status.get("message") or f"HTTP {status.get('code')}"))
    details = status.get("details") or {}
    causes = {cause.get("reason") for cause in details.get("causes") or () if isinstance(cause, dict)}
    match code:
        case 401:
            return Unauthenticated(
                f"the API server does not accept our credentials to {verb} {target.resource}: {message}", verb, target
            )
        case 403:
            return Denied(f"{message}{_missing_rule(message, verb, target)}", verb, target)
        case 404 if details.get("name"):
            return ObjectMissing(message, verb, target)
        case 404:
            return KindMissing(f"the server could not find the requested resource ({verb} {target.resource})", verb, target)
        case 409:
            return Outdated(message, verb, target)
        case 410:
            return Expired(message, verb, target)
        case 504 if "ResourceVersionTooLarge" in causes:
            return Expired(message, verb, target)
        case 429 | 500 | 502 | 503 | 504:
            error = Temporary(f"{message} ({verb} {target})", verb, target)
            error.retry_after = _seconds(retry_after, details.get("retryAfterSeconds"))
            error.untouched = code == 429
            return error
        case 400 | 405 | 406 | 413 | 415 | 422:
            return Refused(message, verb, target)
        case _:
            return KubeError(f"{message} ({verb} {target}: HTTP {code})", verb, target)


def _status(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return found
    text = body.decode("utf-8", "replace").strip()[:MAX_TEXT]
    return {"message": text} if text else {}


_IMPERSONATION = re.compile(r'cannot impersonate resource "([a-z]+)"')


def _missing_rule(message: str, verb: str, target: Target) -> str:
    """The RBAC rule that would allow it; nothing when it was not RBAC that refused."""
    if " cannot " not in message:
        return ""
    resource, group = target.plural + (f"/{target.subresource}" if target.subresource else ""), target.group
    impersonated = _IMPERSONATION.search(message)
    if impersonated is not None:  # refused before the request itself was looked at
        resource, group, verb = impersonated[1], "", "impersonate"
    rule = f'{{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
    return f": missing RBAC rule {rule}"


def _seconds(header: str | None, detail: object) -> float | None:
    if header is not None and header.isascii() and header.isdigit():
        return float(header[:6])
    return float(detail) if isinstance(detail, int) and detail > 0 else None
