"""Registries for tests: the demonstration registry with switches to misbehave, and a bare socket server for the worst."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
from starlette.requests import Request
from starlette.responses import Response

from imagebot.demo.images import Image
from imagebot.demo.registry import Registry
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.budget import Budget
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import digest_of
from reconcile.registry.names import Repository, parse_repository
from reconcile.registry.pool import ClientPool

Fault = Callable[[Request], Response | None]


class TestRegistry(Registry):
    """The demonstration registry; `faults` may answer in its place, first one that gives an answer wins."""

    __test__ = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults: list[Fault] = []
        self.authorizations: list[str] = []

    async def respond(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization", ""))
        for fault in self.faults:
            response = fault(request)
            if response is not None:
                self.requests["fault"] += 1
                self.log.append(f"{request.method} {request.url.path} (fault {response.status_code})")
                return response
        return await super().respond(request)

    def repository(self, name: str) -> Repository:
        return parse_repository(f"{self.host}/{name}")

    def answers(self, response: Response, *, path: str = "", times: int = 10**9) -> None:
        """Answer requests whose path contains `path` with `response`, `times` times."""
        left = times

        def fault(request: Request) -> Response | None:
            nonlocal left
            if path not in request.url.path or left <= 0:
                return None
            left -= 1
            return response

        self.faults.append(fault)

    def quiet(self) -> None:
        """Forget counts and log."""
        self.requests.clear()
        self.log.clear()
        self.authorizations.clear()


class FakeClock:
    """A clock whose sleeps take no time but move it, and are noted."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds - 1000.0)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class FixedKeychain:
    """Everybody gets the same credential."""

    credential: Credential | None

    async def resolve(self, repository: Repository) -> Credential | None:
        return self.credential


@contextlib.asynccontextmanager
async def make_pool(**options: Any) -> AsyncIterator[ClientPool]:
    """A pool that ignores the environment's proxies and whose waits take no time (unless `clock` is given)."""
    clock = options.pop("clock", None) or FakeClock()
    options.setdefault("budget", Budget(clock=clock))
    pool = ClientPool(clock=clock, environment=ProxyEnvironment(), **options)
    try:
        yield pool
    finally:
        await pool.close()


Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request as a bare server sees it, and the way to answer."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: str = "200 OK", body: bytes = b"", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        for start in range(0, 0 if self.method == "HEAD" else len(body), 256 * 1024):
            await self.send(body[start : start + 256 * 1024])


@dataclass
class BareServer:
    """An HTTP/1.1 server that leaves every byte of its answers to `handler`; use with `async with`."""

    handler: Handler
    exchanges: list[Exchange] = field(default_factory=list)
    host: str = ""
    sent: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def repository(self, name: str) -> Repository:
        return parse_repository(f"{self.host}/{name}")

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a TLS hello: this server speaks plain HTTP
                return
            while True:
                head = first + await reader.readuntil(b"\r\n\r\n")
                first = b""
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                exchange = Exchange(method, target, headers, body, writer)
                self.exchanges.append(exchange)
                await self.handler(exchange)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def push_over_http(client: httpx.AsyncClient, base: str, name: str, tag: str, image: Image) -> str:
    """Push `image` as `name:tag` to the registry at `base` as docker does it; returns the digest the registry gave.

    Blobs go up in turn in one request, in two pieces and at the end of an upload, so that all three ways are used.
    """
    for number, blob in enumerate(image.blobs):
        digest = digest_of(blob)
        started = await client.post(f"{base}/v2/{name}/blobs/uploads/")
        assert started.status_code == 202, started.text
        location = httpx.URL(base).join(started.headers["location"])
        rest = blob
        if number % 2:
            half = len(blob) // 2
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"0-{half - 1}"}
            patched = await client.patch(location, content=blob[:half], headers=headers)
            assert patched.status_code == 202, patched.text
            location, rest = httpx.URL(base).join(patched.headers["location"]), blob[half:]
        headers = {"Content-Type": "application/octet-stream"}
        done = await client.put(location.copy_merge_params({"digest": digest}), content=rest, headers=headers)
        assert done.status_code == 201, done.text
        assert done.headers["docker-content-digest"] == digest
    for media_type, content in image.manifests:
        last = content is image.manifests[-1][1]
        url = f"{base}/v2/{name}/manifests/{tag if last else digest_of(content)}"
        put = await client.put(url, content=content, headers={"Content-Type": media_type})
        assert put.status_code == 201, put.text
    return str(put.headers["docker-content-digest"])
