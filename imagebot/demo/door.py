"""Who may come into the demonstration registry, and its answers in the specification's form."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

MAX_TOKENS = 10_000
MAX_FORM = 64 * 1024


@dataclass(frozen=True)
class Account:
    """Who may come in, and how.

    Attributes:
        username: the one user.
        password: that user's password.
        scheme: `basic`, or `bearer` with the registry's own token endpoint.
        identity_token: refresh token that the token endpoint takes by POST; empty for none.
        anonymous_pull: whether tokens for pulling are given to anybody.
        token_life: seconds a bearer token is good for.
    """

    username: str
    password: str = field(repr=False)
    scheme: str = "basic"
    identity_token: str = field(default="", repr=False)
    anonymous_pull: bool = False
    token_life: int = 300


class ApiError(Exception):
    """An error in the specification's form: status, code and message."""

    def __init__(self, status: int, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail


@dataclass
class Door:
    """Checks requests against an account, and is the token endpoint for `bearer`.

    Attributes:
        account: who may come in; None lets everybody.
        tokens: bearer tokens given out: scope and the monotonic time they are good until.
    """

    account: Account | None = None
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def allows(self, request: Request, name: str) -> bool:
        """Whether `request` may do what it asks for in repository `name` (empty: none in particular)."""
        account = self.account
        if account is None:
            return True
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if account.scheme == "basic":
            return kind.lower() == "basic" and _knows(account, value)
        scope, good_until = self.tokens.get(value, ("", 0.0))
        action = "pull" if request.method in {"GET", "HEAD"} else "push"
        granted = scope.rpartition(":")
        fits = not name or (granted[0] == f"repository:{name}" and action in granted[2].split(","))
        return kind.lower() == "bearer" and time.monotonic() < good_until and fits

    def challenge(self, request: Request, name: str, url: str) -> Response:
        """The 401 that says how to come into the registry at `url`."""
        response = error_response(ApiError(401, "UNAUTHORIZED", "authentication required"))
        challenge = 'Basic realm="registry"'
        if self.account is not None and self.account.scheme == "bearer":
            action = "pull" if request.method in {"GET", "HEAD"} else "pull,push"
            scope = f',scope="repository:{name}:{action}"' if name else ""
            challenge = f'Bearer realm="{url}/token",service="{urlsplit(url).netloc}"{scope}'
        response.headers["WWW-Authenticate"] = challenge
        return response

    async def token(self, request: Request) -> Response:
        """The token endpoint: GET with Basic or nobody, POST with a refresh token.

        Raises:
            ApiError: the account knows no tokens, or not this somebody.
        """
        account = self.account
        if account is None or account.scheme != "bearer":
            raise ApiError(404, "UNSUPPORTED", "no such endpoint")
        scope = request.query_params.get("scope", "")
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if request.method == "POST":
            if not account.identity_token:
                raise ApiError(404, "UNSUPPORTED", "no OAuth here")
            form = parse_qs((await read_body(request, MAX_FORM)).decode("utf-8", "replace"))
            scope = form.get("scope", [""])[0]
            known = form.get("refresh_token", [""])[0] == account.identity_token
        else:
            known = kind.lower() == "basic" and _knows(account, value)
        if not known and not (account.anonymous_pull and scope.endswith(":pull") and not value):
            raise ApiError(401, "UNAUTHORIZED", "authentication required")
        token = secrets.token_urlsafe(24)
        while len(self.tokens) >= MAX_TOKENS:
            del self.tokens[next(iter(self.tokens))]
        self.tokens[token] = scope, time.monotonic() + account.token_life
        return json_response({"token": token, "expires_in": account.token_life})


def json_response(document: Mapping[str, Any], status: int = 200) -> Response:
    """`document` as JSON."""
    return Response(orjson.dumps(document), status_code=status, media_type="application/json")


def error_response(error: ApiError) -> Response:
    """`error` in the specification's form."""
    entry = {"code": error.code, "message": error.message} | ({"detail": error.detail} if error.detail is not None else {})
    return json_response({"errors": [entry]}, error.status)


async def read_body(request: Request, limit: int) -> bytes:
    """The body of `request`.

    Raises:
        ApiError: it is larger than `limit` bytes.
    """
    pieces: list[bytes] = []
    left = limit
    async for piece in request.stream():
        left -= len(piece)
        if left < 0:
            raise ApiError(413, "SIZE_INVALID", "the content is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _knows(account: Account, basic: str) -> bool:
    wanted = f"{account.username}:{account.password}".encode()
    return secrets.compare_digest(basic.encode(), base64.b64encode(wanted))
