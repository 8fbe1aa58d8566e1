"""Fetches the index of a chart repository over HTTP: only if it changed, to a file, bounded."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import BinaryIO

import httpx

from reconcile.errors import Invalid, ReconcileError
from reconcile.net.client import Client, make_client
from reconcile.net.guard import BODY_LIMIT
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT, Tls
from reconcile.redact import redact_url
from reconcile.registry.download import write_hashed
from reconcile.runtime.processes import end, start
from reconcile.sources import helm_index
from reconcile.sources.helm_index import InvalidIndex, clean

INDEX = "index.yaml"
OWN_PROCESS = 512 * 1024
"""Bytes from which on an index is read by a process of its own; smaller ones take a thread a tenth of a second."""
PARSE_TIME = 300.0
"""Seconds that an index may take to be read."""
_ERROR_BYTES = 4096


class BadUrl(Invalid):
    """The URL is none that an index can be fetched from."""


class FetchFailed(ReconcileError):
    """The server answered, but not with an index."""


@dataclass(frozen=True, slots=True)
class Login:
    """What to show to the repository's host, and to no other; nothing of it appears in `repr`."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: Tls = DEFAULT

    def basic(self) -> httpx.BasicAuth | None:
        """User and password, None without."""
        return httpx.BasicAuth(self.username, self.password) if self.username else None


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of the version of an index that it sent (RFC 9110 §8.8)."""

    etag: str = ""
    modified: str = ""

    def headers(self) -> dict[str, str]:
        """Headers that ask for another version only."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}


@dataclass(frozen=True, slots=True)
class Fetched:
    """An index that was fetched.

    Attributes:
        revision: `sha256:<hex>` of its bytes.
        size: its bytes.
        validators: for the next time.
    """

    revision: str
    size: int
    validators: Validators


def index_url(url: str) -> str:
    """The address of the index of the repository at `url`; raises BadUrl."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadUrl("not a URL") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise BadUrl(f"not an address of a web server: {redact_url(url)}")
    path = parsed.path.rstrip("/")
    return str(parsed.copy_with(path=f"{path}/{INDEX}", fragment=None))


async def fetch(
    url: str,
    login: Login,
    known: Validators | None,
    out: BinaryIO,
    *,
    most: int,
    timeout: float,
    environment: ProxyEnvironment | None = None,
    retry: RetryPolicy | None = None,
) -> Fetched | None:
    """Write the index at `url` to `out`; None when the server says that it is still the version that `known` is of.

    Credentials go to the host of `url` alone: a redirect to another one does not take them along.

    Args:
        url: of the index.
        login: user, password, trust.
        known: of the version that the caller has.
        out: a file.
        most: bytes of the index.
        timeout: seconds for the whole.
        environment: proxy variables; None reads the process's.
        retry: when requests are tried again.

    Raises:
        FetchFailed: an error status.
        NetworkError: no complete answer, or one that is too large.
        TimeoutError: the time is over.
    """
    async with asyncio.timeout(timeout):
        async with make_client(tls=login.tls, timeout=min(timeout, 30.0), environment=environment, retry=retry) as client:
            return await _fetch(client, url, login, known, out, most)


async def _fetch(client: Client, url: str, login: Login, known: Validators | None, out: BinaryIO, most: int) -> Fetched | None:
    headers = known.headers() if known is not None else {}
    request = client.build_request("GET", url, headers=headers, extensions={BODY_LIMIT: most})
    basic = login.basic()
    response = await (client.send(request, stream=True) if basic is None else client.send(request, auth=basic, stream=True))
    try:
        if response.status_code == 304 and headers:
            return None
        if response.status_code != 200:
            raise FetchFailed(f"failed to fetch {redact_url(url)} : {response.status_code} {response.reason_phrase}")
        revision, size = await write_hashed(response.aiter_raw(), out)
        validators = Validators(response.headers.get("etag", ""), response.headers.get("last-modified", ""))
        return Fetched(revision, size, validators)
    finally:
        await response.aclose()


async def cleaned(raw: BinaryIO, size: int, out: BinaryIO) -> None:
    """Write the index in the file `raw`, of `size` bytes, to the file `out` as it is stored; large ones in an own process.

    Raises:
        InvalidIndex: it is no index.
    """
    raw.seek(0)
    if size <= OWN_PROCESS:
        text = await asyncio.to_thread(lambda: clean(raw.read()).json)
        out.write(text)
        return
    command = (sys.executable, "-P", "-m", helm_index.__name__)  # -P: nothing of the folder that we happen to be in
    process = await start(*command, stdin=raw, stdout=out, stderr=asyncio.subprocess.PIPE, env=_environment())
    try:
        async with asyncio.timeout(PARSE_TIME):
            assert process.stderr is not None  # noqa: S101 - it was asked for
            said = await process.stderr.read(_ERROR_BYTES)
            code = await process.wait()
    except TimeoutError:
        raise InvalidIndex(f"the index could not be read within {PARSE_TIME:.0f} seconds") from None
    finally:
        await end(process)
    if code == helm_index.UNREADABLE:
        raise InvalidIndex(said.decode("utf-8", "replace"))
    if code != 0:
        raise InvalidIndex(f"the process that read the index ended with status {code}")


def _environment() -> dict[str, str]:
    """What the process needs to find our code."""
    return {"PATH": "", "PYTHONPATH": ":".join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
