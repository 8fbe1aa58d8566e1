"""A registry and a Git server that can be told to fail for a number of requests."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from imagebot.demo.door import json_response
from imagebot.demo.registry import Registry
from tests.faults.child import HOST

REGISTRY_FAULTS = ("hang", "cut", "500", "429", "401", "truncated", "stale", "empty", "slow", "nonsense")
GIT_FAULTS = ("refuse", "hang", "cut", "500", "401", "answer lost", "hook")
LONGEST = 30.0
"""Seconds after which a server that hangs closes the connection, if nobody has released it before."""


class FaultyRegistry(Registry):
    """A registry with a list of faults; the next requests meet them one by one.

    Attributes:
        faults: kinds of fault, one for each of the next requests for tags or manifests.
        met: faults that were met, by kind.
        old: per repository the tags of an earlier moment, for stale lists.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults: list[str] = []
        self.met: Counter[str] = Counter()
        self.old: dict[str, tuple[str, ...]] = {}
        self._released = asyncio.Event()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # broken answers are meant

    @property
    def url(self) -> str:
        """Scheme and host; a name, so that a resolver takes part."""
        return f"http://{HOST}:{self.host.rpartition(':')[2]}"

    def reset(self) -> None:
        """Forget all content and all faults."""
        self.calm()
        self.repositories.clear()
        self.old.clear()
        self.met.clear()

    def calm(self) -> None:
        """No more faults; who hangs is let go."""
        self.faults.clear()
        self._released.set()
        self._released = asyncio.Event()

    def remember(self, name: str) -> None:
        """Keep the tags as they are now for stale lists."""
        self.old[name] = tuple(self.repositories[name].tags) if name in self.repositories else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http" or not self.faults or scope["path"] == "/token":
            await super().__call__(scope, receive, send)
            return
        fault = self.faults.pop(0)
        self.met[fault] += 1
        match fault:
            case "hang":
                released = self._released
                with_limit = asyncio.wait_for(released.wait(), LONGEST)
                await asyncio.gather(with_limit, return_exceptions=True)
            case "cut":
                await super().__call__(scope, receive, _Halved(send))
            case "slow":
                await super().__call__(scope, receive, _Slow(send))
            case _:
                await self._wrong(fault, Request(scope, receive))(scope, receive, send)

    def _wrong(self, fault: str, request: Request) -> Response:
        name = request.url.path.removeprefix("/v2/").removesuffix("/tags/list")
        match fault:
            case "500":
                return Response(b"the database is gone", 500)
            case "429":
                return Response(b"slow down", 429, headers={"Retry-After": "1"})
            case "401":
                return Response(b"", 401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
            case "nonsense":
                return Response(b"<html>maintenance</html>", 200, media_type="text/html")
        if not self.door.allows(request, name) or not request.url.path.endswith("/tags/list"):
            return self.door.challenge(request, name, self.url)
        present = tuple(sorted(self.repositories[name].tags)) if name in self.repositories else ()
        tags = {"truncated": present[: len(present) // 2], "stale": self.old.get(name, ()), "empty": ()}[fault]
        return json_response({"name": name, "tags": list(tags) or None})


class _Halved:
    """Passes on half of each body and then no more, which ends the connection."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._over = False

    async def __call__(self, message: Message) -> None:
        if self._over:
            return
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            self._over = True
            await self._send({**message, "body": body[: len(body) // 2], "more_body": True})
            return
        await self._send(message)


class _Slow:
    """Passes bodies on in small pieces."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            body, size = message.get("body", b""), 8
            for at in range(0, len(body), size):
                await self._send({**message, "body": body[at : at + size], "more_body": True})
                await asyncio.sleep(0.02)
            await self._send({**message, "body": b"", "more_body": message.get("more_body", False)})
            return
        await self._send(message)


class GitFaults:
    """What the Git server does to the next requests; give `intercept` to the server.

    Attributes:
        faults: kinds of fault, one for each of the next requests.
        met: faults that were met, by kind.
        on_push: called when a push arrives, before it is taken in; the schedule kills the service here.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.met: Counter[str] = Counter()
        self.on_push: Callable[[], None] | None = None
        self._released = threading.Event()
        self._guard = threading.Lock()

    def calm(self) -> None:
        """No more faults; who hangs is let go."""
        with self._guard:
            self.faults.clear()
            self.on_push = None
            self._released.set()
            self._released = threading.Event()

    def intercept(self, handler: BaseHTTPRequestHandler) -> bool:
        """See a request; True: it has been answered."""
        push = handler.command == "POST" and handler.path.endswith("git-receive-pack")
        with self._guard:
            call, released = self.on_push, self._released
            if push:
                self.on_push = None
            # What is cut or lost is an answer, not the question who is there.
            early = bool(self.faults) and self.faults[0] in {"cut", "answer lost"} and not handler.headers.get("Authorization")
            fault = self.faults.pop(0) if self.faults and not early else ""
            if fault:
                self.met[fault] += 1
        if push and call is not None:
            call()
        return bool(fault) and self._fail(handler, fault, released)

    def _fail(self, handler: Any, fault: str, released: threading.Event) -> bool:
        match fault:
            case "refuse":
                # Closing at once with data unread resets the connection, as a port that nobody listens on would.
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.close_connection = True
            case "hang":
                released.wait(LONGEST)
                handler.close_connection = True
            case "500":
                handler._plain(500, b"the disk of the server is full")
            case "401":
                handler._plain(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
            case "cut":
                handler.wfile = _Cut(handler.wfile, 300 if handler.command == "POST" else 120)
                return False
            case "answer lost":
                handler.close_connection = True
                handler.wfile = _Cut(handler.wfile, 0, deaf=True)
                return False
        return True


class _Cut:
    """A stream that takes `left` bytes; what comes then is an error, or with `deaf` goes nowhere."""

    def __init__(self, stream: Any, left: int, *, deaf: bool = False) -> None:
        self._stream = stream
        self._left = left
        self._deaf = deaf

    def write(self, data: bytes) -> int:
        if len(data) <= self._left:
            self._left -= len(data)
            return int(self._stream.write(data))
        if not self._deaf:
            self._stream.write(data[: self._left])
            self._stream.flush()
            raise ConnectionError("cut")
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
