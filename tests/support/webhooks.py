"""A server for webhooks and chats on a real socket: keeps requests, answers by script, refuses what is not plain HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """One request; header names are lower case.

    Attributes:
        answered: The status that it was given.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    answered: int = 200

    @property
    def data(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer of the script.

    Attributes:
        hang: Take the request and never answer.
        hang_body: Send the head, then nothing more.
        closes_after: Close the connection after so many bytes of the body, which was announced in full.
        hang_up: Close the connection without a word.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    hang_body: bool = False
    closes_after: int | None = None
    hang_up: bool = False


class Receiver:
    """Answers each path by its script, then by its standing answer, then with `default`; used as an async context manager.

    Args:
        tls: Serve HTTPS.
        told: Is given each request when it has come.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, told: Callable[[Received], None] | None = None) -> None:
        self.requests: list[Received] = []
        self.faults: list[str] = []
        self.default = Reply()
        self.standing: dict[str, Reply] = {}
        self.open = 0
        """Requests that are being answered at this moment."""
        self.most_open = 0
        self._tls = tls
        self._told = told
        self._scripts: dict[str, deque[Reply]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: list[tuple[int, asyncio.Event]] = []

    def script(self, path: str, *replies: Reply) -> None:
        """Answer the next requests for `path` with these, in order."""
        self._scripts.setdefault(path, deque()).extend(replies)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    async def received(self, count: int) -> None:
        """Wait until so many requests have come."""
        if len(self.requests) < count:
            event = asyncio.Event()
            self._waiters.append((count, event))
            await asyncio.wait_for(event.wait(), 20)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        assert self.faults == []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the end of the test
        except Exception as error:
            self.faults.append(repr(error))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, version = first.split(" ")
        assert version == "HTTP/1.1", first
        headers: dict[str, str] = {}
        for line in lines:
            name, separator, value = line.partition(": ")
            assert separator, line
            assert name.lower() not in headers, f"{name} came twice"
            headers[name.lower()] = value
        assert "host" in headers, head
        body = b""
        if method == "POST":
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            assert headers.get("content-length", "0") == "0", head
        script = self._scripts.get(path)
        reply = script.popleft() if script else self.standing.get(path, self.default)
        self.requests.append(Received(method, path, headers, body, reply.status))
        if self._told is not None:
            self._told(self.requests[-1])
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        for count, event in self._waiters:
            if len(self.requests) >= count:
                event.set()
        try:
            return await self._answer(reply, reader, writer)
        finally:
            self.open -= 1

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if reply.hang_up:
            return False
        if reply.hang:
            await reader.read()  # until the caller has had enough
            return False
        lines = [f"HTTP/1.1 {reply.status} Scripted", f"Content-Length: {len(reply.body)}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        if reply.hang_body:
            await writer.drain()
            await reader.read()
            return False
        writer.write(reply.body if reply.closes_after is None else reply.body[: reply.closes_after])
        await writer.drain()
        return reply.closes_after is None
