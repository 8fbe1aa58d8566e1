"""Downloads one artifact over HTTP, as Flux's consumers do: patient with a server that is not up yet, strict about what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import BinaryIO

import httpx

from reconcile.api.source import Artifact
from reconcile.artifact.digest import hasher, parse_digest, same
from reconcile.artifact.errors import ArtifactMissing, FetchError
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.errors import AnswerTooLarge, ConnectFailed, NetworkError
from reconcile.net.retry import TEMPORARY_STATUSES, RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.redact import redact_url
from reconcile.runtime.threads import Threads

WAITS = (5.0, 10.0, 20.0, 30.0)
"""Seconds before each further attempt; the last one repeats."""
PATIENCE = 900.0
"""Seconds for one download with all its attempts."""

_BATCH = 1024 * 1024
Rewrite = Callable[[str], str]
"""Where to fetch what is said to be at an address."""


def local_addresses(environment: Mapping[str, str]) -> Rewrite:
    """Sends requests for artifacts to other hosts, as SOURCE_CONTROLLER_LOCALHOST and SOURCE_WATCHER_LOCALHOST say.

    The second one is for addresses of source-watcher. It lets a service outside the cluster use a forwarded port.
    """
    controller = environment.get("SOURCE_CONTROLLER_LOCALHOST", "")
    watcher = environment.get("SOURCE_WATCHER_LOCALHOST", "")

    def rewrite(url: str) -> str:
        host = watcher if "//source-watcher" in url else controller
        if not host:
            return url
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{host}/{rest.partition('/')[2]}"

    return rewrite


class Downloader:
    """Fetches artifacts with one client, made when it is first needed.

    Args:
        clock: time between attempts.
        threads: for hashing and writing.
        retries: attempts after the first one.
        most_bytes: of one artifact.
        rewrite: changes addresses.
    """

    def __init__(self, clock: Clock, threads: Threads, *, retries: int, most_bytes: int, rewrite: Rewrite | None = None) -> None:
        self._clock = clock
        self._threads = threads
        self._policy = RetryPolicy(attempts=max(0, retries) + 1, waits=WAITS)
        self._most_bytes = most_bytes
        self._rewrite = rewrite
        self._client: Client | None = None

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def download(self, artifact: Artifact, out: BinaryIO) -> None:
        """Write the file of `artifact` to `out`; it has the digest of the artifact then.

        Raises:
            ArtifactMissing: the server says that it is not there.
            FetchError: it cannot be had, is too large, or is something else.
        """
        url = self._rewrite(artifact.url) if self._rewrite is not None else artifact.url
        if not url.startswith(("http://", "https://")):
            raise FetchError(f"artifact {artifact.path!r} has no http or https address: {redact_url(url)}")
        algorithm, wanted = parse_digest(artifact.digest)
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._stream(url, artifact, out, algorithm)
        except TimeoutError:
            raise FetchError(f"artifact {redact_url(url)} did not come within {PATIENCE:.0f} seconds", temporary=True) from None
        except AnswerTooLarge as error:
            raise FetchError(f"artifact {error.url} is larger than the limit of {self._most_bytes} bytes") from error
        except NetworkError as error:
            raise FetchError(f"failed to download artifact: {error}", temporary=error.temporary) from error
        if not same(found, wanted):
            raise FetchError(
                f"failed to verify artifact {redact_url(url)}: "
                f"computed digest {algorithm}:{found} does not match {algorithm}:{wanted}",
                temporary=True,
            )

    async def _stream(self, url: str, artifact: Artifact, out: BinaryIO, algorithm: str) -> str:
        digest = hasher(algorithm)

        def take(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        async with self._open().stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            _check(response, artifact)
            pending = bytearray()
            async for piece in response.aiter_raw():
                pending += piece
                if len(pending) >= _BATCH:
                    batch, pending = bytes(pending), bytearray()
                    await self._threads.run(lambda data=batch: take(data))  # type: ignore[misc]
            await self._threads.run(lambda: take(bytes(pending)))
        return digest.hexdigest()

    def _open(self) -> Client:
        if self._client is None:
            limits = Limits(body=self._most_bytes)
            self._client = make_client(limits=limits, retry=self._policy, clock=self._clock, around=_Patient)
        return self._client


def _check(response: httpx.Response, artifact: Artifact) -> None:
    status = response.status_code
    if status == httpx.codes.NOT_FOUND:
        raise ArtifactMissing(f"artifact not found: {redact_url(str(response.url))} ({artifact.revision})")
    if status != httpx.codes.OK:
        what = f"status {status} {response.reason_phrase}".rstrip()
        raise FetchError(
            f"failed to download artifact from {redact_url(str(response.url))}: {what}", temporary=status in TEMPORARY_STATUSES
        )


class _Patient(httpx.AsyncBaseTransport):
    """Says of a refused connection that another attempt may help: an artifact server comes back after its restart."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._inner.handle_async_request(request)
        except ConnectFailed as error:
            error.temporary = True
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
