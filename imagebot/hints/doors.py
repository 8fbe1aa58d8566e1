"""Who may give a hint: signatures, tokens, and the path that nobody can guess. Pure; every comparison takes constant time.

The checks are those of the Receivers of Flux's notification-controller, with two differences: a sender that can show a token has
to (`acr`), and `Bearer` may stand before a token in `Authorization`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal

from imagebot.hints.payloads import Headers
from reconcile.api.meta import Key
from reconcile.errors import Invalid

PREFIX = "/hints/"
LEAST_TOKEN = 16
"""Bytes that a token has at least."""

Refusal = Literal["unsigned", "forged"]
"""Why a delivery is refused: it shows nothing, or something wrong."""
Check = Callable[[bytes, Headers, bytes], Refusal | None]
"""From token, headers and body to the refusal, if any."""

_ALGORITHMS = ("sha1", "sha256", "sha512")
_BEARER = b"Bearer "


def token_of(secret: str, data: Mapping[str, bytes]) -> bytes:
    """The token in a Secret, without line breaks at its end; raises Invalid, naming the Secret."""
    token = data.get("token", b"").rstrip(b"\r\n")
    if not token:
        raise Invalid(f"secret '{secret}': key 'token' is missing or empty")
    if len(token) < LEAST_TOKEN:
        raise Invalid(f"secret '{secret}': key 'token' is shorter than {LEAST_TOKEN} bytes; make one with: openssl rand -hex 32")
    return token


def path_of(token: bytes, key: Key) -> str:
    """The path of an ImageRepository's hints: `/hints/` and HMAC-SHA256 of `namespace/name` with the token, in hexadecimal.

    Flux hashes token, name and namespace with nothing between them, so that two objects can get one path; a slash is in no name.
    """
    return PREFIX + hmac.new(token, str(key).encode(), hashlib.sha256).hexdigest()


def refusal(kind: str, token: bytes, headers: Headers, body: bytes) -> Refusal | None:
    """Why a delivery by this kind of sender is refused, None when it may come in."""
    return DOORS[kind](token, headers, body)


def _path_alone(token: bytes, headers: Headers, body: bytes) -> Refusal | None:  # noqa: ARG001 - senders that sign nothing
    return None


def _signed(*names: str) -> Check:
    """`<algorithm>=<hex>` of the body in the first of these headers that is there."""

    def check(token: bytes, headers: Headers, body: bytes) -> Refusal | None:
        given = next((headers[name] for name in names if name in headers), None)
        if given is None:
            return "unsigned"
        algorithm, _, digits = given.partition("=")
        if algorithm not in _ALGORITHMS:
            return "forged"
        return _compare(hmac.new(token, body, algorithm).digest(), digits)

    return check


def _signed_plainly(name: str) -> Check:
    """HMAC-SHA1 of the body in hexadecimal, without the name of the algorithm."""

    def check(token: bytes, headers: Headers, body: bytes) -> Refusal | None:
        given = headers.get(name)
        return "unsigned" if given is None else _compare(hmac.new(token, body, hashlib.sha1).digest(), given)

    return check


def _compare(expected: bytes, digits: str) -> Refusal | None:
    try:
        given = bytes.fromhex(digits) if digits.isalnum() else b""
    except ValueError:
        given = b""
    return None if hmac.compare_digest(expected, given) else "forged"


def _shown(*names: str) -> Check:
    """The token itself in the first of these headers that is there, with or without `Bearer`."""

    def check(token: bytes, headers: Headers, body: bytes) -> Refusal | None:  # noqa: ARG001 - nothing is signed
        given = next((headers[name] for name in names if name in headers), None)
        if given is None:
            return "unsigned"
        raw = given.encode("latin-1", "replace")
        # Hashes have one length: how long the token is must not show, either.
        found = hashlib.sha256(raw).digest()
        bare = hmac.compare_digest(found, hashlib.sha256(token).digest())
        bearer = hmac.compare_digest(found, hashlib.sha256(_BEARER + token).digest())
        return None if bare | bearer else "forged"

    return check


DOORS: Mapping[str, Check] = {
    "acr": _shown("authorization"),
    "cdevents": _path_alone,
    "distribution": _shown("authorization"),
    "dockerhub": _path_alone,
    "ecr": _shown("authorization", "x-api-key"),
    "generic-hmac": _signed("x-signature"),
    "github": _signed("x-hub-signature-256", "x-hub-signature"),
    "gitlab": _shown("x-gitlab-token", "authorization"),
    "harbor": _shown("authorization"),
    "nexus": _signed_plainly("x-nexus-webhook-signature"),
    "quay": _path_alone,
}
