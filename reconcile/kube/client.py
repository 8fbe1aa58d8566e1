"""Requests to an API server: plain dictionaries in and out, every failure one of `errors`, every wait bounded."""

from __future__ import annotations

import io
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from reconcile.errors import Invalid
from reconcile.kube.connect import USER_AGENT, Connection, Impersonation, KubeSettings, connect
from reconcile.kube.errors import (
    KubeError,
    Late,
    Target,
    Temporary,
    TooLarge,
    Unauthenticated,
    Unreachable,
    Untrusted,
    from_answer,
)
from reconcile.kube.errors import from_status as error_of_status
from reconcile.kube.limiter import Limiter
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import Clock
from reconcile.redact import redact
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

Object = dict[str, Any]

PAGE = 500
"""Objects of one page of a list."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer; a page of 500 objects of 100 KiB fits."""
MAX_WATCH_LINE = 16 * 1024 * 1024
"""Bytes of one watch event; etcd holds no object above 1.5 MiB unless told to."""
MAX_WHOLE = 1 << 19
"""Bytes of a body that is sent at once."""
WATCH_SILENCE = 150.0
"""Seconds without a byte after which a watch counts as dead: servers send a bookmark about once a minute."""
ATTEMPTS = 4
"""Tries of one request that may be repeated."""
LONG_TURN, TELL_AGAIN = 1.0, 60.0
"""Seconds for which a request waits for its turn without a word, and between two words."""
LONGEST_WAIT = 10.0
"""Seconds between two of them; a server that asks for more gets no further try now."""

METADATA, METADATA_LIST = (
    f"application/json;as={form};g=meta.k8s.io;v=v1" for form in ("PartialObjectMetadata", "PartialObjectMetadataList")
)
"""Forms in which the server leaves the content of objects out. No other is accepted, so that content never comes."""
JSON, MERGE_PATCH, APPLY_PATCH = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"

Fence = Callable[[], None]
"""Raises when nothing may be written: the lease is not ours."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `version` is the resource version of the whole, `more` continues it."""

    items: list[Object]
    version: str
    more: str


@dataclass(frozen=True, slots=True)
class _Path(Target):
    """A request that is about a path and no resource that we know."""

    raw: str = ""

    @property
    def path(self) -> str:
        """The path with its query."""
        return self.raw

    def __str__(self) -> str:
        return self.raw.partition("?")[0]


class Client:
    """Talks to one API server as one user.

    Reads are repeated a bounded number of times when the server is busy or unreachable; a write only when it surely was not
    carried out (429, nobody listening). `fence` is asked right before each write is sent, except urgent ones.
    """

    def __init__(
        self,
        connection: Connection,
        limiter: Limiter,
        metrics: KubeMetrics | None = None,
        *,
        timeout: float = 30.0,
        fence: Fence | None = None,
        impersonate: Impersonation | None = None,
    ) -> None:
        self.connection = connection
        self.fence = fence
        self._limiter = limiter
        self._metrics = metrics
        self._timeout = timeout
        self._clock = connection.clock
        self._impersonate = impersonate or connection.impersonate
        self._told_until = float("-inf")

    def acting_as(self, impersonation: Impersonation) -> Client:
        """The same connection and limits as another user."""
        return Client(
            self.connection, self._limiter, self._metrics, timeout=self._timeout, fence=self.fence, impersonate=impersonation
        )

    # --- verbs

    async def get(self, target: Target, *, urgent: bool = False, timeout: float | None = None) -> Object:
        """One object, or whatever is at that path."""
        return await self._send("GET", "get", target, urgent=urgent, timeout=timeout)

    async def raw(self, path: str) -> Object:
        """What is at a path of the API, such as that of an aggregated one; percent-encoded, its query included.

        Raises:
            Invalid: It does not begin below `/api` or `/apis`, and is not `/version`.
        """
        if not path.startswith(("/api/", "/apis/")) and path != "/version":
            raise Invalid(f"{path!r} is no path of the Kubernetes API")
        return await self._send("GET", "get", _Path("", "", "", raw=path))

    async def page(
        self, target: Target, *, selector: str = "", limit: int = PAGE, more: str = "", metadata_only: bool = False
    ) -> Page:
        """One page of a list; raises Expired when `more` cannot be continued."""
        params = {"limit": str(limit), "continue": more, "labelSelector": selector}
        given = {k: v for k, v in params.items() if v}
        answer = await self._send("GET", "list", target, params=given, accept=METADATA_LIST if metadata_only else JSON)
        meta = answer.get("metadata") or {}
        return Page(list(answer.get("items") or ()), str(meta.get("resourceVersion", "")), str(meta.get("continue") or ""))

    async def create(
        self,
        target: Target,
        body: Object,
        *,
        manager: str,
        urgent: bool = False,
        spare: bool = False,
        timeout: float | None = None,
    ) -> Object:
        """Make an object, in the collection `target` or as a subresource of an object."""
        params = {"fieldManager": manager}
        return await self._send("POST", "create", target, params=params, body=body, urgent=urgent, spare=spare, timeout=timeout)

    async def merge_patch(
        self,
        target: Target,
        patch: Object,
        *,
        manager: str,
        urgent: bool = False,
        spare: bool = False,
        timeout: float | None = None,
    ) -> Object:
        """Merge patch (RFC 7386) of an object or subresource; a `metadata.resourceVersion` in it makes it compare-and-set."""
        params = {"fieldManager": manager}
        return await self._send(
            "PATCH", "patch", target, params=params, body=patch, content=MERGE_PATCH, urgent=urgent, spare=spare, timeout=timeout
        )

    async def json_patch(self, target: Target, operations: Sequence[Object], *, manager: str) -> Object:
        """JSON patch (RFC 6902) of an object; setting its `/metadata/resourceVersion` makes it compare-and-set."""
        params = {"fieldManager": manager}
        return await self._send("PATCH", "patch", target, params=params, body=list(operations), content=JSON_PATCH)

    async def apply(self, target: Target, body: Object, *, manager: str, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply of our fields under a manager's name; raises Outdated when another manager owns one of them."""
        params = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        return await self._send("PATCH", "patch", target, params=params, body=body, content=APPLY_PATCH)

    async def delete(self, target: Target, *, propagation: str = "Background", uid: str = "", version: str = "") -> Object:
        """Ask for an object's end; with `uid` or `version` only if it still is that one (else raises Outdated)."""
        conditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if conditions:
            body["preconditions"] = conditions
        return await self._send("DELETE", "delete", target, body=body)

    async def watch(
        self, target: Target, version: str, *, selector: str = "", seconds: int = 300, metadata_only: bool = False
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Events after a resource version as (type, object), bookmarks among them.

        Ends when the server ends it, when the connection breaks and when it is silent for too long.

        Raises:
            Expired: The version is too old.
            KubeError: The server refused, or did not answer at all.
        """
        params = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        if selector:
            params["labelSelector"] = selector
        await self._turn()
        limits = aiohttp.ClientTimeout(total=seconds + 30.0, sock_connect=10.0, sock_read=WATCH_SILENCE)
        headers = await self._headers(None, METADATA if metadata_only else JSON)
        begun = False
        try:
            async with self.connection.session.get(
                self.connection.server + target.path, params=params, headers=headers, timeout=limits, **self.connection.options
            ) as answer:
                self._count("GET", answer.status)
                if answer.status >= 400:
                    self._refused(answer.status)
                    raise from_answer(answer.status, answer.headers, await _read(answer, "watch", target), "watch", target)
                begun = True
                async with aclosing(_lines(answer, target)) as lines:
                    async for line in lines:
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            raise error_of_status(event["object"], "watch", target)
                        yield event["type"], event["object"]
        except orjson.JSONDecodeError as error:
            raise Unreachable(f"watch {target}: an event is not JSON: {error}", "watch", target) from error
        except (aiohttp.ClientError, OSError) as error:
            self._count("GET", "<error>")
            if not begun:
                raise _from_transport(error, "watch", target, self.connection.server) from error

    # --- one request

    async def _send(
        self,
        method: str,
        verb: str,
        target: Target,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | list[Object] | None = None,
        content: str = JSON,
        accept: str = JSON,
        urgent: bool = False,
        spare: bool = False,
        timeout: float | None = None,
    ) -> Object:
        """A request with its repetitions; an urgent one is sent once, its caller has a rhythm of its own.

        A `spare` one gives way to others where the number of requests is limited.
        """
        data = None if body is None else orjson.dumps(body)
        attempts = 1 if urgent else ATTEMPTS
        for attempt in range(1, attempts + 1):
            await self._turn(urgent=urgent, spare=spare)
            try:
                async with self._limiter.slot(urgent=urgent):
                    if method != "GET" and not urgent and self.fence is not None:
                        self.fence()
                    return await self._once(method, verb, target, params, data, content, accept, timeout)
            except (Temporary, Unreachable, Unauthenticated) as error:
                wait = _wait_before_repeat(error, method, attempt)
                if attempt == attempts or wait is None:
                    raise
            await self._clock.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _turn(self, *, urgent: bool = False, spare: bool = False) -> None:
        """Wait until the limit lets a request through; a wait is never silent."""
        waited = await self._limiter.take(urgent=urgent, spare=spare)
        if self._metrics is not None:
            self._metrics.waits.labels("spare" if spare else "normal").observe(waited)
        if waited > LONG_TURN and not spare and self._clock.monotonic() >= self._told_until:
            self._told_until = self._clock.monotonic() + TELL_AGAIN
            log.warning("requests wait for --kube-api-qps and --kube-api-burst", seconds=round(waited, 1))

    async def _once(
        self, method: str, verb: str, target: Target, params: Mapping[str, str] | None, data: bytes | None, content: str,
        accept: str, timeout: float | None,
    ) -> Object:  # fmt: skip
        url = self.connection.server + target.path
        headers = await self._headers(content if data is not None else None, accept)
        limits = aiohttp.ClientTimeout(total=timeout or self._timeout, connect=min(10.0, timeout or self._timeout))
        try:
            async with self.connection.session.request(
                method, url, params=params, data=_piecewise(data), headers=headers, timeout=limits, allow_redirects=False,
                **self.connection.options,
            ) as answer:  # fmt: skip
                self._count(method, answer.status)
                raw = await _read(answer, verb, target)
        except (aiohttp.ClientError, OSError) as error:  # a deadline is an OSError too
            self._count(method, "<error>")
            raise _from_transport(error, verb, target, self.connection.server) from error
        if answer.status >= 300:
            self._refused(answer.status)
            raise from_answer(answer.status, answer.headers, raw, verb, target)
        try:
            decoded = orjson.loads(raw)
        except orjson.JSONDecodeError:
            decoded = None
        if not isinstance(decoded, dict):
            raise Unreachable(f"{verb} {target}: the answer is not a Kubernetes object; is this an API server?", verb, target)
        return decoded

    async def _headers(self, content: str | None, accept: str) -> list[tuple[str, str]]:
        headers = [("User-Agent", USER_AGENT), ("Accept", accept)]
        authorization = await self.connection.authorization()
        if authorization is not None:
            headers.append(("Authorization", authorization))
        if content is not None:
            headers.append(("Content-Type", content))
        return headers + (self._impersonate.headers() if self._impersonate else [])

    def _refused(self, code: int) -> None:
        if code == 401:
            self.connection.forget_token()

    def _count(self, method: str, code: int | str) -> None:
        if self._metrics is not None:
            self._metrics.requests.labels(str(code), method, self.connection.server.partition("://")[2]).inc()


@asynccontextmanager
async def open_client(
    settings: KubeSettings,
    clock: Clock,
    metrics: KubeMetrics | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[Client]:
    """Connect by these settings, with their limits; closed when the block is left. Raises Invalid without a configuration."""
    async with connect(settings, clock, environment) as connection:
        yield Client(connection, Limiter(clock, settings.qps, settings.burst), metrics, timeout=settings.timeout)


def _piecewise(data: bytes | None) -> bytes | io.BytesIO | None:
    """A large body is sent in pieces, between which others have their turn."""
    return io.BytesIO(data) if data is not None and len(data) > MAX_WHOLE else data


def _wait_before_repeat(error: KubeError, method: str, attempt: int) -> float | None:
    """Seconds until the request may be sent again; None when it may not."""
    if isinstance(error, Unauthenticated):
        return 0.0 if attempt == 1 else None  # once more with a new token
    if isinstance(error, Temporary):
        # After another answer than 429 a write may have been carried out.
        safe, wait = method == "GET" or error.untouched, error.retry_after
    else:
        sent = not getattr(error, "unsent", False)
        safe, wait = (method == "GET" or not sent) and not isinstance(error, Untrusted), None
    if not safe:
        return None
    if wait is None:
        wait = 0.2 * 2.0**attempt * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
    return wait if wait <= LONGEST_WAIT else None


async def _read(answer: aiohttp.ClientResponse, verb: str, target: Target) -> bytes:
    raw = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 18):
        raw += chunk
        if len(raw) > MAX_ANSWER:
            raise TooLarge(f"{verb} {target}: the answer is larger than {MAX_ANSWER >> 20} MiB", verb, target)
    return bytes(raw)


async def _lines(answer: aiohttp.ClientResponse, target: Target) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    async for chunk in answer.content.iter_any():
        rest += chunk
        if b"\n" not in chunk:
            if len(rest) > MAX_WATCH_LINE:
                raise TooLarge(f"watch {target}: one event is larger than {MAX_WATCH_LINE >> 20} MiB", "watch", target)
            continue
        *lines, last = bytes(rest).split(b"\n")
        rest = bytearray(last)
        for line in lines:
            if line:
                yield line


def _from_transport(error: Exception, verb: str, target: Target, server: str) -> KubeError | Invalid:
    detail = redact(str(error)) or type(error).__name__
    where = f"{verb} {target}: the API server {server}"
    if isinstance(error, TimeoutError):
        return Late(f"{where} did not answer in time", verb, target)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return Untrusted(f"{where} cannot be trusted: {detail}", verb, target)
    if isinstance(error, aiohttp.InvalidURL):
        return Invalid(f"{server!r} is not the address of an API server")
    failed = Unreachable(f"{where} cannot be reached: {detail}", verb, target)
    failed.unsent = isinstance(error, aiohttp.ClientConnectorError)
    return failed
