"""Prometheus as a judge: instant queries through prometheus-api-client, by the Prometheus HTTP API (`GET /api/v1/query`).

The library is blocking: queries run in a bounded pool of threads, a bounded number of them per server, each with one deadline for
all that it does. Error texts are Flagger's.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import orjson
from prometheus_api_client import PrometheusConnect
from requests import Response
from urllib3.util import Retry

from canary.metrics.base import NoValues, ProviderConfig, Sample
from canary.metrics.builtin import PROBE, collapse
from canary.metrics.session import Attempt, Session
from reconcile.errors import Invalid, ReconcileError
from reconcile.gotemplate.strconv import parse_float
from reconcile.net.errors import DEADLINE, NetworkError, NetworkTimedOut
from reconcile.net.proxy import ProxyEnvironment
from reconcile.redact import redact, redact_url
from reconcile.runtime.threads import Threads

WORKERS: Final = 32
"""Threads, and with them queries that run at the same moment."""
PER_SERVER: Final = 16
"""Queries that run at the same moment with the same server and credentials: one that hangs leaves room for others."""
SERVERS: Final = 64
"""Servers, each with credentials, whose connections are kept."""
SHOWN: Final = 512
"""Characters of an answer that an error text shows."""

_SECRETIVE: Final = re.compile("(?i)auth|token|key|secret|password|cookie")


@dataclass(frozen=True)
class Server:
    """Where queries go and who asks; credentials never show in `repr`.

    Attributes:
        url: Base of the API, without user information, query and closing slash.
        headers: Sent with each query.
        basic: User and password.
        insecure: Whether any certificate will do.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    insecure: bool = False

    @classmethod
    def of(cls, config: ProviderConfig) -> Server:
        """The server of a configuration: credentials of the Secret (`token`, else `username` and `password`) before those in the
        address.

        Raises:
            Invalid: The address is no HTTP URL, or the Secret lacks a key.
        """
        try:
            url = httpx.URL(config.address)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            raise Invalid(f"{config.type} address {redact_url(config.address)} is not a valid URL")
        headers = {name: ", ".join(values) for name, values in config.headers}
        authorized = any(name.lower() == "authorization" for name in headers)
        basic = (url.username, url.password) if url.userinfo and not authorized else None
        if config.credentials is not None:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            token, basic = _credentials(config)
            if token:
                headers["Authorization"] = f"Bearer {token}"
        base = str(url.copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")
        return cls(base, tuple(sorted(headers.items())), basic, config.insecure_skip_verify)

    def asks(self, query: str) -> str:
        """The URL of an instant query."""
        return f"{self.url}/api/v1/query?{urlencode({'query': query})}"

    def clean(self, text: str) -> str:
        """A text without the credentials."""
        hidden = [word for name, value in self.headers if _SECRETIVE.search(name) for word in (value, *value.split())]
        return redact(text, (*hidden, *(self.basic or ())[1:]))


def _credentials(config: ProviderConfig) -> tuple[str, tuple[str, str] | None]:
    """The token, or user and password."""
    secret = {key: _text(config, key, value) for key, value in config.secret.items() if key in {"token", "username", "password"}}
    if "token" in secret:
        return secret["token"].strip(), None
    for key in ("username", "password"):
        if key not in secret:
            raise Invalid(f"{config.type} credentials does not contain a {key}")
    return "", (secret["username"], secret["password"])


def _text(config: ProviderConfig, key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{config.type} credentials have a {key} that is not UTF-8 text") from None


class Connections:
    """All servers that are asked, with their sessions; make it in the loop, and close it."""

    def __init__(
        self,
        *,
        workers: int = WORKERS,
        per_server: int = PER_SERVER,
        servers: int = SERVERS,
        environment: ProxyEnvironment | None = None,
    ) -> None:
        self._threads = Threads("prometheus", workers)
        self._per_server = per_server
        self._limit = servers
        self._environment = environment
        self._known: OrderedDict[Server, _Connection] = OrderedDict()
        self._attempts: set[Attempt] = set()

    async def ask(self, server: Server, query: str, seconds: float) -> list[Any]:
        """The result of an instant query, series as the API gives them; the wait for a free thread counts too.

        Raises:
            ReconcileError: In Flagger's words.
        """
        connection = self._connection(server)
        attempt = Attempt(seconds)
        connection.users += 1
        self._attempts.add(attempt)
        try:
            async with asyncio.timeout(seconds):
                await connection.slots.acquire()
                running = asyncio.ensure_future(self._threads.run(lambda: connection.ask(query, attempt)))
                running.add_done_callback(connection.done)
                return await asyncio.shield(running)
        except TimeoutError:
            raise _failed(NetworkTimedOut("GET", server.asks(query), DEADLINE, temporary=True), server) from None
        finally:
            attempt.end()
            self._attempts.discard(attempt)
            connection.users -= 1

    async def close(self) -> None:
        """End running queries, close all connections."""
        for attempt in self._attempts:
            attempt.end()
        await asyncio.to_thread(self._threads.close)
        while self._known:
            self._known.popitem()[1].session.close()

    def _connection(self, server: Server) -> _Connection:
        found = self._known.get(server)
        if found is None:
            found = _Connection(server, self._per_server, self._environment)
            self._known[server] = found
            idle = [other for other, known in self._known.items() if not known.users and known is not found]
            for other in idle[: max(0, len(self._known) - self._limit)]:
                self._known.pop(other).session.close()
        self._known.move_to_end(server)
        return found


class _Connection:
    """One server with its session."""

    def __init__(self, server: Server, size: int, environment: ProxyEnvironment | None) -> None:
        self.server = server
        self.session = _QuerySession(server, size, environment)
        self.slots = asyncio.Semaphore(size)
        self.users = 0
        self._client = PrometheusConnect(
            url=server.url,
            headers=dict(server.headers),
            auth=server.basic,
            retry=Retry(0, read=False),
            session=self.session,
        )

    def done(self, running: asyncio.Future[list[Any]]) -> None:
        """The thread is free again, whether or not somebody still waits for what it found."""
        self.slots.release()
        if not running.cancelled():
            running.exception()

    def ask(self, query: str, attempt: Attempt) -> list[Any]:
        """Thread side of `Connections.ask`."""
        with attempt:
            try:
                return self._ask(query)
            except NetworkError as error:
                # A server may close an idle connection at the moment in which it is used again; that is no failure.
                if attempt.fresh or not error.temporary or isinstance(error, NetworkTimedOut):
                    raise _failed(error, self.server) from None
            try:
                return self._ask(query)
            except NetworkError as error:
                raise _failed(error, self.server) from None

    def _ask(self, query: str) -> list[Any]:
        found: list[Any] = self._client.custom_query(query)
        return found


class _QuerySession(Session):
    """Looks at answers before the library does, which only knows that 200 is good."""

    def __init__(self, server: Server, size: int, environment: ProxyEnvironment | None) -> None:
        super().__init__(insecure=server.insecure, connections=size, environment=environment)
        self._server = server

    def request(self, method: Any, url: Any, **options: Any) -> Response:  # type: ignore[override]
        """The answer, when it has a vector."""
        answer = super().request(method, url, **options)
        text = self._server.clean(answer.content[: 8 * SHOWN].decode(errors="replace"))[:SHOWN]
        if answer.status_code != HTTPStatus.OK:
            raise ReconcileError(f"error response: Status {answer.status_code} {answer.reason}: {text}")
        _check_shape(answer.content, text)
        return answer


def _check_shape(body: bytes, shown: str) -> None:
    """Raises what an answer other than a vector means; its `status` is not looked at, as in Flagger."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unreadable(str(error), shown) from None
    data = found.get("data") if isinstance(found, dict) else found
    if data is None:
        raise NoValues
    result = data.get("result") if isinstance(data, dict) else data
    if isinstance(data, dict) and not result:
        raise NoValues
    kind = data.get("resultType") if isinstance(data, dict) else None
    if kind == "matrix":
        raise ReconcileError("query returned multiple values")
    if not isinstance(data, dict) or not isinstance(result, list) or not all(isinstance(series, dict) for series in result):
        raise _unreadable(f"the result is a {kind}, not a vector" if kind else "the answer has no vector", shown)


def _number(series: Mapping[str, Any]) -> float:
    """The value of a series; NaN when it is no text, which Flagger does not take for a value."""
    if "histogram" in series and "value" not in series:
        raise ReconcileError("query returned a native histogram: take a number from it, with histogram_quantile or histogram_sum")
    pair = series.get("value")
    if not isinstance(pair, list) or len(pair) < 2:
        raise ReconcileError("error unmarshaling result: a series has no value")
    try:
        return parse_float(pair[1]) if isinstance(pair[1], str) else math.nan
    except ValueError:
        raise ReconcileError(f'strconv.ParseFloat: parsing "{pair[1][:40]}": invalid syntax') from None


def _unreadable(why: str, shown: str) -> ReconcileError:
    return ReconcileError(f"error unmarshaling result: {why}, '{shown}'")


def _failed(error: NetworkError, server: Server) -> ReconcileError:
    return ReconcileError(server.clean(f"request failed: {error}"))


class Prometheus:
    """A Prometheus, or what speaks its API. A `Provider`.

    Args:
        config: Address, headers, credentials and time limit.
        connections: Shared by all.

    Raises:
        Invalid: The address or the Secret cannot be used.
    """

    def __init__(self, config: ProviderConfig, connections: Connections) -> None:
        self._server = Server.of(config)
        self._seconds = config.timeout
        self._connections = connections

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002 - a Provider's
        """Run an instant query at the server's own time; of several series all are kept in mind (see `Sample`)."""
        return _sample(await self._connections.ask(self._server, collapse(text), self._seconds))

    async def online(self) -> None:
        """Raises ReconcileError unless the server can calculate."""
        try:
            sample = await self.query(PROBE)
        except ReconcileError as error:
            raise ReconcileError(f"running query failed: {error}") from error
        if sample.value != 1:
            raise ReconcileError(f"running query failed: {PROBE} is {sample.value:g}")


def _sample(result: Sequence[Mapping[str, Any]]) -> Sample:
    return Sample.of([_number(series) for series in result])
