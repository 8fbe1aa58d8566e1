"""Threat: whoever reaches the service's own port learns something, or keeps others from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import MAX_CONNECTIONS, make_app, serving
from reconcile.settings import ServerSettings
from tests.support.lab import Lab, git_repository, lab, secret

PASSWORD = "hunter2-5f1c"


@asynccontextmanager
async def empty() -> AsyncIterator[tuple[str, int]]:
    """A server without a service: URL and port."""
    async with serving(make_app(Metrics(), {}, {}), "127.0.0.1:0") as url:
        yield url, int(url.rpartition(":")[2])


async def said(port: int, text: bytes) -> bytes:
    """All that the server answers to `text` until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text)
        await writer.drain()
        async with asyncio.timeout(40):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_metrics_and_probes_hold_no_secret_and_no_address(tmp_path: Path) -> None:
    """Names and counts of objects, and nothing of what is in them."""
    async with lab(tmp_path) as world:
        world.registry.push_image("web", "1.0.0")
        world.declare_app()
        url = world.url("app.git").replace("http://", f"http://bot:{PASSWORD}@")
        world.declare(
            git_repository("web", url, secretRef={"name": "git"}), secret("git", {"username": "bot", "password": PASSWORD})
        )
        world.settings = _served(world)
        async with world.start() as running:
            await running.until_ready("ImageUpdateAutomation", "web")
            base = running.service.url
            assert base is not None
            async with httpx.AsyncClient(base_url=base) as client:
                answers = [(await client.get(path)) for path in ("/metrics", "/healthz", "/readyz", "/", "/nowhere")]
    texts = [answer.text + str(dict(answer.headers)) for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 404]
    assert "imagebot_" in texts[0]
    for text in texts:
        for what in (PASSWORD, "app.git", world.registry.host, str(tmp_path), "uvicorn", "Traceback"):
            assert what not in text


def _served(world: Lab) -> object:
    return world.settings.__class__(
        user_docker_config=False, retry=world.settings.retry, server=ServerSettings(address="127.0.0.1:0")
    )


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/metrics/../../etc/passwd",
        "//etc/passwd",
        "/healthz%00",
        "/metrics/",
        "/debug",
    ],
)
async def test_paths_that_nobody_serves(path: str) -> None:
    async with empty() as (_, port):
        answer = await said(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 307 "))
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "BREW"])
async def test_nothing_is_changed_through_it(method: str) -> None:
    async with empty() as (_, port):
        answer = await said(port, f"{method} /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\n Transfer-Encoding: chunked\r\nHost: y\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
    ids=["two-lengths", "signed-length", "encodings", "blank-before-colon", "folded", "bare-return", "two-hosts"],
)
async def test_requests_that_two_servers_could_read_differently_are_refused(request_: bytes) -> None:
    """What request smuggling begins with: one answer of 400, and the connection ends without a look at what follows."""
    async with empty() as (_, port):
        answer = await said(port, request_ + b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET /metrics HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(50_000)),
    ],
    ids=["target", "header", "headers"],
)
async def test_a_head_without_end_is_not_kept(head: bytes) -> None:
    async with empty() as (url, port):
        answer = await said(port, head)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/healthz")).status_code == 200


async def test_silent_connections_do_not_keep_the_probes_out() -> None:
    """More connections than are taken, on which nobody says anything, or half a request, or an answer is not read."""
    openings = [b"", b"GET /healthz HTTP/1.1\r\nHost:", b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"]
    async with empty() as (url, port), AsyncExitStack() as stack:
        streams = []
        for number in range(MAX_CONNECTIONS + 60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(openings[number % len(openings)])
            streams.append(reader)
        async with httpx.AsyncClient(base_url=url) as client:
            for _ in range(5):
                assert (await client.get("/healthz")).status_code == 200
        # Room was made by those that came first: their connections have ended.
        async with asyncio.timeout(40):
            for reader in streams[:30]:
                with suppress(ConnectionError):
                    await reader.read()
