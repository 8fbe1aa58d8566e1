"""The web server: Starlette on uvicorn. `/healthz`, `/readyz`, `/metrics`, and what packages add."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconcile.errors import Invalid
from reconcile.runtime.metrics import CONTENT_TYPE, Metrics

MAX_CONNECTIONS = 256
Probe = Callable[[], str | None]
"""Says what is wrong, None when all is well."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `:port` (all addresses); raises Invalid."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5) or int(port) > 65535:
        raise Invalid(f"{text!r} is not an address to listen on: write it like 127.0.0.1:9440 or :9440")
    return host.strip("[]"), int(port)


def _probe(probes: dict[str, Probe]) -> Callable[[Request], Response]:
    def answer(_: Request) -> Response:
        wrong = {name: text for name, probe in probes.items() if (text := probe()) is not None}
        lines = [f"[{'-' if name in wrong else '+'}]{name} {wrong.get(name, 'ok')}" for name in probes]
        return PlainTextResponse("\n".join(lines) or "ok", status_code=503 if wrong else 200)

    return answer


def make_app(metrics: Metrics, health: dict[str, Probe], ready: dict[str, Probe], routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The one application object of the service."""

    def exposition(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/healthz", _probe(health)),
            Route("/readyz", _probe(ready)),
            Route("/metrics", exposition),
            *routes,
        ]
    )


class _Connection(H11Protocol):
    """A connection that makes room: when there are too many, whoever has kept us waiting longest goes, and the new one stays.

    Otherwise a few hundred connections on which nobody says anything would have the probes refused, and the process ended.
    """

    since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; another one may have to go for it."""
        super().connection_made(transport)
        self.since = time.monotonic()
        if len(self.connections) < MAX_CONNECTIONS:
            return
        idle: list[_Connection] = [c for c in self.connections if isinstance(c, _Connection) and c is not self and c.waiting]
        if idle:
            longest = min(idle, key=lambda connection: connection.since)
            self.connections.discard(longest)
            longest.transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = time.monotonic()
        super().on_response_complete()

    @property
    def waiting(self) -> bool:
        """Whether the other side has yet to say what it wants, or does not take what it asked for."""
        state: Any = self.conn.their_state
        return state in {h11.IDLE, h11.SEND_BODY} or self.flow.write_paused


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the manager owns signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Starlette, address: str) -> AsyncIterator[str]:
    """Serve `app` on `address` while inside; yields the URL that it answers on (port 0 picks a free one).

    Raises Invalid when the address cannot be listened on.
    """
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host or "0.0.0.0", port))  # noqa: S104 - ":9440" means every address, as upstream's flags do
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise Invalid(f"cannot listen on {address}: {error.strerror}; choose another address or end what uses it") from error
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="web server")
    bound = listener.getsockname()
    shown = f"[{host}]" if ":" in host else host or "127.0.0.1"
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for this
            await asyncio.sleep(0.005)
        yield f"http://{shown}:{bound[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()
