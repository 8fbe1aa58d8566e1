"""Passing hints on: a process that stands by hands what it gets to the one that leads, so a plain Service may lead to either.

Where the leader takes hints is one of its notes on the Lease, which those that wait look at anyway. Nothing is known here of
tokens and senders: a delivery goes on as it came, with the headers that count, and its answer comes back.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from imagebot.hints.doors import PREFIX
from imagebot.hints.server import AT_ONCE, PATIENCE, Refused, body_of, counter
from reconcile.errors import Invalid
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import NetworkError
from reconcile.net.proxy import ProxyEnvironment
from reconcile.runtime.logs import get_logger
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.server import parse_address, serving

log = get_logger("hints")

NOTE = "hints-address"
"""Name of the leader's note: where it takes hints, like `http://10.1.2.3:9292`."""
POD_IP = "POD_IP"
"""Environment variable with the address under which other pods reach this one."""
PASSED_ON = "imagebot-passed-on"
"""Header of a delivery that has been passed on once, and is not again."""
RETRY_AFTER = 5
"""Seconds after which a sender may try again when nobody leads: notes are as old as that."""
MOST_ANSWER = 1024
"""Bytes of an answer; those of ours are a few."""

HEADERS = frozenset(
    {
        b"authorization",
        b"ce-type",
        b"content-type",
        b"x-api-key",
        b"x-github-event",
        b"x-gitlab-token",
        b"x-hub-signature",
        b"x-hub-signature-256",
        b"x-nexus-webhook-signature",
        b"x-signature",
    }
)
"""What senders prove themselves with, and what says how a body is to be read."""

_PATH = re.compile(re.escape(PREFIX) + "[0-9a-f]{64}")
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def own_address(address: str, url: str, pod: str) -> str | None:
    """Where other processes reach what listens on `address`; None when nobody has told.

    Args:
        address: what was asked for; an address that is not all of the machine's is its own name.
        url: where it answers, with the port that was bound.
        pod: the address of this pod, empty when it is not known.
    """
    host, _ = parse_address(address)
    if host not in _ANYWHERE:
        return url
    if not pod:
        return None
    return f"http://{f'[{pod}]' if ':' in pod else pod}:{url.rpartition(':')[2]}"


def leader_address(text: str | None) -> str | None:
    """The leader's note when it is an address that a pod can have, `http://<IP>:<port>`; None for everything else.

    Deliveries have tokens in them: a note that leads to a name, to another path or to the machine's metadata is not followed.
    """
    host, _, port = (text or "").removeprefix("http://").rpartition(":")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
    except ValueError:
        return None
    shown = f"[{ip}]" if ip.version == 6 else str(ip)
    if text != f"http://{shown}:{port}" or not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
        return None
    return None if ip.is_link_local or ip.is_multicast or ip.is_unspecified else text


def note_address(note: Callable[[str, str], None], address: str, url: str) -> None:
    """Note where hints are taken, for those that stand by, where that is known."""
    own = own_address(address, url, os.environ.get(POD_IP, ""))
    if own is not None:
        note(NOTE, own)


class Relay:
    """Answers `POST /hints/<64 hexadecimal digits>` with what the leader answers.

    503: nobody leads, or the leader does not answer; `Retry-After` says when to try again. 404: no path of a hint. 408, 413: too
    slow, too large, as at the leader.
    """

    def __init__(self, metrics: Metrics, leader: Callable[[], str | None], client: Client) -> None:
        self.own: str | None = None
        """Where we are reached ourselves."""
        self._leader = leader
        self._client = client
        self._counts = counter(metrics)
        self._under_way = 0

    def routes(self) -> list[Route]:
        """What the web server needs."""
        return [Route(PREFIX + "{digits}", self.answer, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """Pass one delivery on."""
        path = request.scope["path"]
        if not _PATH.fullmatch(path):
            self._counts.labels("unknown", "path").inc()
            return PlainTextResponse("Not Found", 404)
        try:
            response = await self._passed_on(path, request)
        except Refused as refused:
            self._counts.labels("unknown", refused.outcome).inc()
            return refused.response()
        self._counts.labels("unknown", "passed-on").inc()
        kept = {name: response.headers[name] for name in ("content-type", "retry-after") if name in response.headers}
        return Response(response.content, response.status_code, kept)

    async def _passed_on(self, path: str, request: Request) -> httpx.Response:
        self._target(request)  # where there is nobody, the body need not be read
        if self._under_way >= AT_ONCE:
            raise Refused(503, "busy")
        self._under_way += 1
        try:
            body = await body_of(request)
            headers = [(name, value) for name, value in request.headers.raw if name in HEADERS]
            async with asyncio.timeout(PATIENCE):
                return await self._client.post(
                    self._target(request) + path,
                    content=body,
                    headers=[*headers, (PASSED_ON.encode(), b"1")],
                    follow_redirects=False,
                )
        except (NetworkError, TimeoutError):
            raise Refused(503, "no-leader", RETRY_AFTER) from None
        finally:
            self._under_way -= 1

    def _target(self, request: Request) -> str:
        leader = leader_address(self._leader())
        if leader is None or leader == self.own or PASSED_ON in request.headers:
            raise Refused(503, "no-leader", RETRY_AFTER)
        return leader


@asynccontextmanager
async def passing_on(address: str, metrics: Metrics, noted: Callable[[str], str | None]) -> AsyncIterator[str | None]:
    """Pass hints on that come to `address` while inside; yields where it answers, None when `address` is empty or in use.

    Args:
        address: like that of the leader.
        metrics: where hints are counted.
        noted: the leader's notes by name.
    """
    if not address:
        yield None
        return
    limits = Limits(body=MOST_ANSWER, redirects=0, connections=AT_ONCE, idle_connections=0)
    async with AsyncExitStack() as stack:
        # Pods reach each other without a proxy.
        client = await stack.enter_async_context(make_client(timeout=PATIENCE, limits=limits, environment=ProxyEnvironment()))
        relay = Relay(metrics, lambda: noted(NOTE), client)
        app = Starlette(routes=relay.routes())
        app.router.redirect_slashes = False
        try:
            url = await stack.enter_async_context(serving(app, address))
        except Invalid as error:
            # No reason not to stand by: whoever leads has to listen.
            log.error("cannot pass hints on", error=str(error))
            yield None
            return
        relay.own = own_address(address, url, os.environ.get(POD_IP, ""))
        log.info("passing hints on to the leader", address=url)
        yield url
