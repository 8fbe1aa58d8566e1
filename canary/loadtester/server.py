"""The web server of the load tester: Flagger's paths, statuses and texts.

Any method is taken. A path that is none of the others starts a task, as with Flagger's, whose `/` stands for all of them.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from canary.loadtester.gates import Gates, Space
from canary.loadtester.kinds import Workshop
from canary.loadtester.measures import Measures
from canary.loadtester.payload import MAX_BODY, Payload, Refused, Unreadable, read_payload
from canary.loadtester.tasks import Outcome, Tasks
from reconcile.redact import redact
from reconcile.runtime.logs import get_logger
from reconcile.runtime.metrics import CONTENT_TYPE, Metrics

BODY_SECONDS = 10.0
"""Within which a body must have come."""
MAX_TEXT = 64 * 1024
"""Characters of an answer."""
MAX_TOKEN = 4096

log = get_logger("loadtester")

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server is made of.

    Attributes:
        token: File with the token that who opens or closes a gate must show; None for anybody.
    """

    metrics: Metrics
    measures: Measures
    gates: Gates
    tasks: Tasks
    workshop: Workshop
    token: Path | None = None


class _Endpoint:
    """One path: takes any method, turns what is refused into an answer, and counts."""

    def __init__(self, path: str, measures: Measures, handler: Handler) -> None:
        self._path, self._measures, self._handler = path, measures, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._handler(request)
        except Refused as error:
            response = _text(error.status, str(error))
        except Unreadable as error:
            response = _text(400, str(error))
        except ClientDisconnect:
            return
        self._measures.call(self._path, response.status_code)
        await response(scope, receive, send)


class Api:
    """The handlers of all paths."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def healthz(self, _: Request) -> Response:
        """Alive."""
        return _text(200, "OK")

    async def exposition(self, _: Request) -> Response:
        """Metrics in the format of Prometheus."""
        return Response(self._parts.metrics.render(), media_type=CONTENT_TYPE)

    async def approve(self, _: Request) -> Response:
        """A gate that is always open; for every namespace, and whatever the body."""
        return _text(200, "OK")

    async def halt(self, _: Request) -> Response:
        """A gate that is always closed."""
        return _text(403, "Forbidden")

    def check(self, space: Space) -> Handler:
        """Asks a gate."""

        async def answer(request: Request) -> Response:
            payload = await self._payload(request, of_one=True)
            opened = self._parts.gates.is_open(space, payload.canary)
            return _text(200, "Approved") if opened else _text(403, "Forbidden")

        return answer

    def turn(self, space: Space, *, opened: bool) -> Handler:
        """Opens or closes a gate."""

        async def answer(request: Request) -> Response:
            self._authorize(request)
            payload = await self._payload(request, of_one=True)
            await self._parts.gates.set(space, payload.canary, opened=opened)
            log.info("gate opened" if opened else "gate closed", space=space, canary=str(payload.canary))
            return Response(status_code=202)

        return answer

    async def start(self, request: Request) -> Response:
        """Starts a task; answers at once, or when it is done."""
        payload = await self._payload(request)
        task = self._parts.workshop.task(payload)
        if task.background:
            self._parts.tasks.start(task)
            return Response(status_code=202)
        outcome = await _unless_hung_up(request, self._parts.tasks.run(task))
        output = outcome.output if task.shows_output else ""
        if outcome.ok:
            return _text(200, output)
        return _text(outcome.status, "\n".join(filter(None, (outcome.error, output if output not in outcome.error else ""))))

    async def _payload(self, request: Request, *, of_one: bool = False) -> Payload:
        """The payload of a request, from a namespace that is allowed; with `of_one` it must name a Canary."""
        payload = read_payload(await _body(request))
        self._parts.workshop.allowed.check(payload.canary.namespace)
        if of_one and not (payload.canary.name and payload.canary.namespace):
            raise Refused(400, "name and namespace of the Canary must be in the payload")
        return payload

    def _authorize(self, request: Request) -> None:
        """Raise Refused unless the caller shows the token, if there is one; the file is read each time, as it may change."""
        if self._parts.token is None:
            return
        wanted = read_token(self._parts.token)
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode(), wanted.encode())
        if not (wanted and same and scheme.lower() == "bearer"):
            raise Refused(401, "Unauthorized")


def make_app(parts: Parts) -> Starlette:
    """The application of the load tester."""
    api = Api(parts)
    paths: dict[str, Handler] = {
        "/healthz": api.healthz,
        "/metrics": api.exposition,
        "/gate/approve": api.approve,
        "/gate/halt": api.halt,
        "/gate/check": api.check("gate"),
        "/gate/open": api.turn("gate", opened=True),
        "/gate/close": api.turn("gate", opened=False),
        "/rollback/check": api.check("rollback"),
        "/rollback/open": api.turn("rollback", opened=True),
        "/rollback/close": api.turn("rollback", opened=False),
    }
    routes = [Route(path, _Endpoint(path, parts.measures, handler)) for path, handler in paths.items()]
    return Starlette(routes=[*routes, Route("/{rest:path}", _Endpoint("/", parts.measures, api.start))])


def read_token(file: Path) -> str:
    """The token in a file, empty (which no caller can show) when it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_TOKEN).decode("utf-8", "replace").strip()
    except OSError as error:
        log.error("the token cannot be read", error=error.strerror)
        return ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise Refused(413, f"the body is longer than {MAX_BODY} bytes")
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:g}s") from None
    return bytes(body)


async def _unless_hung_up(request: Request, work: Awaitable[Outcome]) -> Outcome:
    """What `work` gives; it is ended when the caller hangs up, as nobody waits for it any more.

    Raises:
        ClientDisconnect: The caller has hung up.
    """
    working = asyncio.ensure_future(work)
    listening = asyncio.create_task(_hung_up(request), name="caller of a task")
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    """Return when the caller has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(redact(text)[:MAX_TEXT], status_code=status)
