"""Strict metrics backends on sockets: they answer what they are told to, and refuse whatever is not by the vendor's API.

A request that fits no rule is answered as the vendor would (404, 405, 401, 400) and noted in `problems`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl

from canary.api import MetricProvider
from canary.metrics.base import Provider
from canary.metrics.providers import Providers
from reconcile.net.proxy import ProxyEnvironment

REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
           405: "Method Not Allowed", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request as it came; header names are in lower case, parameters in order."""

    method: str
    path: str
    params: Sequence[tuple[str, str]]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = b""

    def param(self, name: str) -> str:
        """The one value of a parameter."""
        (value,) = [value for key, value in self.params if key == name]
        return value


@dataclass(frozen=True)
class Raw:
    """An answer in full."""

    status: int = 200
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Reply = Raw | str | Callable[[Request], Raw] | list[Any]
"""`hang`, `hang-up`, `drip`, `truncated`, `huge`, an answer in full, what makes one, or several, one after the other."""


@dataclass(frozen=True)
class Rule:
    """One endpoint of the vendor's API.

    Attributes:
        method: HTTP method.
        path: Path, as it must come.
        params: Pattern of each parameter that must come, once.
        optional: Parameters that may come as well, any number of times.
        auth: Headers that prove who asks; anything else is answered with `denied`.
        headers: Other headers that must come.
        body: Says what is wrong with a body; empty when nothing is.
        denied: Status for whoever cannot prove that.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    optional: Sequence[str] = ()
    auth: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[Request], str] | None = None
    denied: int = 401

    def problem(self, request: Request) -> tuple[int, str]:
        """Status and words; (0, "") when the request is as it must be."""
        for name, value in self.auth.items():
            if request.headers.get(name.lower()) != value:
                return self.denied, f"missing or wrong {name}"
        for name, value in self.headers.items():
            if request.headers.get(name.lower()) != value:
                return 400, f"header {name} is {request.headers.get(name.lower())}"
        names = [name for name, _ in request.params]
        unknown = {name for name in names if name not in self.params and name not in self.optional}
        if unknown:
            return 400, f"unknown parameters {sorted(unknown)}"
        for name, pattern in self.params.items():
            values = [value for key, value in request.params if key == name]
            if len(values) != 1 or not re.fullmatch(pattern, values[0], re.DOTALL):
                return 400, f"parameter {name} is {values}"
        wrong = self.body(request) if self.body is not None else "a body" if request.body else ""
        return (400, wrong) if wrong else (0, "")


class FakeBackend:
    """Use as `async with`. `replies` maps paths to what is answered to requests that keep the rules."""

    def __init__(self, *rules: Rule, tls: ssl.SSLContext | None = None) -> None:
        self.rules = rules
        self._tls = tls
        self.replies: dict[str, Reply] = {}
        self.requests: list[Request] = []
        """All that kept the rules."""
        self.problems: list[str] = []
        self.released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.released.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def last(self) -> Request:
        return self.requests[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await _read(reader)) is not None:
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)

    def _judge(self, request: Request) -> tuple[int, str]:
        here = [rule for rule in self.rules if rule.path == request.path]
        if not here:
            return 404, f"path {request.path}"
        fitting = [rule for rule in here if rule.method == request.method]
        if not fitting:
            return 405, f"method {request.method}"
        return fitting[0].problem(request)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        status, words = self._judge(request)
        if words:
            self.problems.append(words)
            await _send(writer, Raw(status, json.dumps({"errors": [words]})))
            return True
        self.requests.append(request)
        reply = self.replies.get(request.path, Raw(200, "{}"))
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, Raw):
            await _send(writer, reply)
            return True
        if reply == "hang":
            await self.released.wait()
        elif reply == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.released.is_set():
                writer.write(b" ")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.released.wait(), 0.02)
        elif reply == "truncated":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"series":')
            await writer.drain()
        elif reply == "huge":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(100):
                writer.write(b" " * 64 * 1024)
                await writer.drain()
        else:
            assert reply == "hang-up", reply
        return False


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert len(headers) == len(lines), "a header came twice"
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Request(method, path, parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)), headers, body)


async def _send(writer: asyncio.StreamWriter, answer: Raw) -> None:
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **answer.headers}
    head = f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\n"
    writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode("latin-1") + body)
    with contextlib.suppress(ConnectionError):  # a client may leave at the byte that is too many
        await writer.drain()


# --- what all providers are tested with

SECRET = "s3cr3t-V4lue-of-the-Test"
"""Part of each key that tests use; refusals say it, error texts must not."""

FAULTS: Mapping[str, tuple[Reply, str]] = {
    "unauthorized": (Raw(401, f'{{"errors":["{SECRET} is no key"]}}'), r"error response: Status 401 Unauthorized: \{"),
    "forbidden": (Raw(403, f"not with {SECRET}"), "error response: Status 403 Forbidden: not with"),
    "too many": (Raw(429, "slow down"), "error response: Status 429 Too Many Requests: slow down"),
    "broken": (Raw(500, "<html>boom</html>"), "error response: Status 500 Internal Server Error: <html>boom"),
    "elsewhere": (
        Raw(302, headers={"Location": "https://evil.example/x"}),
        "(error response: Status 302 Found: redirects are not followed|request failed: .*redirect of a POST .* refused)",
    ),
    "slow head": ("hang", "request failed: .*deadline exceeded"),
    "slow body": ("drip", "request failed: .*deadline exceeded"),
    "huge": ("huge", "request failed: .*larger than the limit of 4194304 bytes"),
    "cut": ("truncated", "request failed: .*unexpected EOF"),
    "hang-up": ("hang-up", "request failed: .*EOF"),
}
"""What goes wrong whatever the vendor, and what is said then."""

BAD_JSON: Mapping[str, str] = {
    '{"series":[': "error unmarshaling result: unexpected end of data.*'{\"series\":\\['",
    "": "error unmarshaling result",
    "[[]]": "error unmarshaling result",
    '"text"': "error unmarshaling result",
}
"""Bodies that no vendor means, and what is said then."""


@contextlib.asynccontextmanager
async def provider_of(
    type_: str,
    address: str,
    secret: Mapping[str, bytes | str] | None,
    *,
    timeout: float = 5.0,
    spec: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Provider]:
    """A provider as the controller makes it, with connections of its own; `spec` is more of the template's provider."""
    providers = Providers(environment=ProxyEnvironment(), **options)
    try:
        data = secret and {key: value.encode() if isinstance(value, str) else value for key, value in secret.items()}
        described = MetricProvider.model_validate({"type": type_, "address": address or None, **(spec or {})})
        yield providers.make(providers.config(described, data, timeout=timeout))
    finally:
        await providers.aclose()


def short(fault: str) -> float:
    """Seconds to wait in a test of this fault: few only where the wait is the point."""
    return 0.2 if fault.startswith("slow") else 5.0
