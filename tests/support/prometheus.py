"""A scripted Prometheus on a socket: answers what it is told to, counts queries, and notes whatever is not by the HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

HEAD_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Query:
    """One query as it came; header names are in lower case."""

    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Raw:
    """An answer in full. `length` announces another size than the body has; `then_close` ends the connection after it."""

    status: int = 200
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    then_close: bool = False


Reply = float | Sequence[float] | str | Raw
"""A number, the numbers of several series, one of `WORDS`, or an answer in full."""

WORDS = (
    "empty", "nan", "inf", "-inf", "error500", "bad-json", "matrix", "scalar", "histogram", "hang", "drip-head", "drip-body",
    "huge", "truncated", "hang-up", "stale",
)  # fmt: skip

INTERNAL = '{"status":"error","errorType":"internal","error":"scripted failure"}'
REASONS = {200: "OK", 302: "Found", 307: "Temporary Redirect", 401: "Unauthorized", 422: "Unprocessable Entity",
           500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


def vector(*values: float, kind: str = "vector") -> str:
    """The JSON of an instant vector."""
    result = [{"metric": {"series": str(n)}, "value": [1700000000.123, _text(value)]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


def _text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return f"{'+' if value > 0 else '-'}Inf" if math.isinf(value) else repr(value)


_BODIES: Mapping[str, Any] = {
    "empty": vector(),
    "nan": vector(math.nan),
    "inf": vector(math.inf),
    "-inf": vector(-math.inf),
    "bad-json": '{"status":"success","data":{"resul',
    "matrix": json.dumps({"data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"], [2, "3"]]}]}}),
    "scalar": json.dumps({"data": {"resultType": "scalar", "result": [1700000000, "1"]}}),
    "histogram": json.dumps(
        {
            "data": {
                "resultType": "vector",
                "result": [{"metric": {}, "histogram": [1, {"count": "2", "sum": "3", "buckets": []}]}],
            }
        }
    ),
    "huge": vector(*([1.0] * 20_000)) + " " * 1024 * 1024,
}


class FakePrometheus:
    """Use as `async with`. `replies` maps a piece of a query to its reply, the longest piece that fits counts; `default` else.

    `vector(1)` is answered with 1 unless it is scripted too.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.default: Reply = 1.0
        self.queries: list[Query] = []
        self.problems: list[str] = []
        """What came and is not by the HTTP API."""
        self.connections = 0
        self.open = 0
        """Requests that have not been answered."""
        self.most_open = 0
        self.bases: tuple[str, ...] = ("",)
        """Paths under which the API is served."""
        self.released = asyncio.Event()
        """Lets hanging requests go."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT)
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
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def texts(self) -> list[str]:
        """The queries, in the order in which they came."""
        return [query.query for query in self.queries]

    def count(self, piece: str) -> int:
        """How many queries had this piece."""
        return sum(piece in text for text in self.texts)

    def quiet(self) -> None:
        """Forget what came."""
        self.queries.clear()
        self.problems.clear()

    def _reply(self, query: str) -> Reply:
        fitting = [piece for piece in self.replies if piece in query]
        if fitting:
            return self.replies[max(fitting, key=len)]
        return 1.0 if query == "vector(1)" else self.default

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while head := await self._head(reader):
                if not await self._exchange(head, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return ""

    async def _exchange(self, head: str, writer: asyncio.StreamWriter) -> bool:
        request, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = request.split(" ", 2)
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        url = urlsplit(target)
        place = target.partition("?")[0]
        params = parse_qs(url.query, keep_blank_values=True)
        problem = self._problem(method, place, params, [name.lower() for name, _ in pairs])
        if problem:
            self.problems.append(problem)
            await _send(writer, Raw(400, json.dumps({"status": "error", "errorType": "bad_data", "error": problem})))
            return True
        query = params["query"][0]
        self.queries.append(Query(place, query, headers))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(self._reply(query), writer)
        finally:
            self.open -= 1

    def _problem(self, method: str, path: str, params: Mapping[str, list[str]], names: list[str]) -> str:
        if method != "GET":
            return f"method {method}"
        if path not in {f"{base}/api/v1/query" for base in self.bases}:
            return f"path {path}"
        if set(params) != {"query"} or len(params["query"]) != 1 or not params["query"][0]:
            return f"parameters {sorted(params)}"
        twice = {name for name in names if names.count(name) > 1}
        return f"headers given twice: {sorted(twice)}" if twice else ""

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        if isinstance(reply, Raw):
            await _send(writer, reply)
            return not reply.then_close
        if reply == "hang":
            await self.released.wait()
            return False
        if reply == "drip-head":
            await self._drip(writer, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)
            return False
        if reply == "drip-body":
            await self._drip(writer, b"HTTP/1.0 200 OK\r\n\r\n" + vector(1.0).encode() * 100)
            return False
        if reply == "hang-up":
            return False
        if reply == "stale":  # a good answer, and an end without notice
            await _send(writer, Raw(body=vector(1.0)))
            return False
        if reply == "truncated":
            await _send(writer, Raw(body=vector(1.0), length=5000))
            return False
        if reply == "error500":
            await _send(writer, Raw(500, INTERNAL))
            return True
        values = (
            [float(value) for value in ([reply] if isinstance(reply, int | float) else reply)]
            if not isinstance(reply, str)
            else []
        )
        await _send(writer, Raw(body=_BODIES[reply] if isinstance(reply, str) else vector(*values)))
        return True

    async def _drip(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.released.wait(), 0.02)
                return


async def _send(writer: asyncio.StreamWriter, answer: Raw) -> None:
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    headers = {"Content-Type": "application/json", "Content-Length": str(answer.length or len(body)), **answer.headers}
    head = f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\n"
    writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode("latin-1") + body)
    with contextlib.suppress(ConnectionError):  # a client may leave at the byte that is too many
        await writer.drain()
