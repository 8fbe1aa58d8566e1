"""The web server of hints: small bodies, a short wait, few at once, answers at once; the work is done by the controllers.

It has an address of its own, so that whatever strangers send there cannot keep probes and metrics from being answered. It runs
where the controllers run; a process that stands by passes on what it gets (`imagebot.hints.passing`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import click
from prometheus_client import Counter as Counts
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from imagebot.hints.desk import Desk, Entry
from imagebot.hints.doors import PREFIX, refusal
from imagebot.hints.payloads import Unreadable
from reconcile.api.meta import Key
from reconcile.runtime.logs import get_logger
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import serving

log = get_logger("hints")

MAX_BODY = 64 * 1024
"""Bytes of a delivery; what registries send is a few thousand."""
PATIENCE = 5.0
"""Seconds that a body may take to arrive."""
AT_ONCE = 32
"""Deliveries that are read at once."""
AT_ONCE_EACH = 4
"""Deliveries for one object that are read at once."""

OPTION = click.Option(
    ["--hints-addr", "hints_addr"],
    default="",
    envvar="IMAGEBOT_HINTS_ADDR",
    help="Where registries tell of pushes (paths /hints/…), like :9292.  [default: nowhere]",
)


def address_in(values: Mapping[str, Any]) -> str:
    """The address to listen on, out of the values of packages; empty: nowhere."""
    return str(values.get("hints_addr") or "")


def is_asked(values: Mapping[str, Any]) -> bool:
    """Whether hints can be taken: an address is set, or this is a single pass, which leaves what the service says alone."""
    return bool(values.get("hints_addr", True))


class Refused(Exception):
    """A delivery is not taken.

    Args:
        status: of the answer.
        outcome: for the metric.
        again: seconds after which a sender may try again what was refused with 503.
    """

    def __init__(self, status: int, outcome: str, again: int = 1) -> None:
        super().__init__(outcome)
        self.status = status
        self.outcome = outcome
        self.again = again

    def response(self) -> Response:
        """The answer, which has no text."""
        return Response(status_code=self.status, headers={"Retry-After": str(self.again)} if self.status == 503 else None)


def counter(metrics: Metrics) -> Counts:
    """The counter of hints, by type and outcome."""
    return metrics.counter("imagebot_hints_total", "Hints of registries by what came of them.", "type", "outcome")


class Receiver:
    """Answers `POST /hints/<64 hexadecimal digits>`.

    202: taken, whatever comes of it. 404: nobody takes hints here, the same answer as for every other path. 401: not signed, or
    wrongly. 400: not what this sender sends. 408, 413: too slow, too large. 503: too many at once.
    """

    def __init__(self, desk: Desk, metrics: Metrics) -> None:
        self._desk = desk
        self._counts = counter(metrics)
        self._reading: Counter[Key] = Counter()

    def routes(self) -> list[Route]:
        """What the web server needs."""
        return [Route(PREFIX + "{digits}", self.answer, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """Take one delivery."""
        entry = self._desk.find(request.scope["path"])
        if entry is None:
            self._counts.labels("unknown", "path").inc()
            return PlainTextResponse("Not Found", 404)
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            # A header that comes twice is joined, as HTTP says, and so is neither of the two.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        try:
            outcome = await self._taken(entry, headers, request)
        except Refused as refused:
            self._counts.labels(entry.kind, refused.outcome).inc()
            return refused.response()
        self._counts.labels(entry.kind, outcome).inc()
        return Response(status_code=202)

    async def _taken(self, entry: Entry, headers: Mapping[str, str], request: Request) -> str:
        with self._place(entry.key):
            body = await body_of(request)
        reason = refusal(entry.kind, entry.token, headers, body)
        if reason is not None:
            raise Refused(401, reason)
        try:
            return await self._desk.take(entry, headers, body)
        except Unreadable:
            raise Refused(400, "unreadable") from None

    @contextmanager
    def _place(self, key: Key) -> Iterator[None]:
        if self._reading.total() >= AT_ONCE or self._reading[key] >= AT_ONCE_EACH:
            raise Refused(503, "busy")
        self._reading[key] += 1
        try:
            yield
        finally:
            self._reading[key] -= 1
            if not self._reading[key]:
                del self._reading[key]


async def body_of(request: Request) -> bytes:
    """The body of a delivery; raises Refused when it is too large, too slow, or does not come to its end."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()) or len(length) > 9 or int(length) > MAX_BODY:
        raise Refused(413, "large")
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY:
                    raise Refused(413, "large")
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "slow") from None
    except ClientDisconnect:
        raise Refused(400, "broken") from None
    return b"".join(parts)


@asynccontextmanager
async def listening(
    desk: Desk, metrics: Metrics, address: str, listens: Callable[[str], None] = lambda _: None
) -> AsyncIterator[None]:
    """Take hints on `address` while inside; nowhere when it is empty. Raises Invalid when it cannot be listened on.

    `listens` is told the URL as soon as it answers.
    """
    if not address:
        yield
        return
    app = Starlette(routes=Receiver(desk, metrics).routes())
    app.router.redirect_slashes = False  # every path but one is answered alike
    async with serving(app, address) as url:
        desk.url = url
        listens(url)
        log.info("listening for hints", address=url)
        try:
            yield
        finally:
            desk.url = None
