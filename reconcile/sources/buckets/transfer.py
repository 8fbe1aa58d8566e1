"""What the clients of all object stores share: errors of answers, and bodies on their way to disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import httpx

from reconcile.net.errors import NetworkError
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock
from reconcile.registry.errors import body_text
from reconcile.sources.buckets.client import BadAnswer, Entry

T = TypeVar("T")

AS_STORED = "imagebot.as-stored"
"""Request extension: true says that the body is wanted as it is stored, also where its metadata call it packed."""

PIECE = 256 * 1024
"""Bytes collected before a thread is asked to write them."""

MAX_PAGE = 16 * 1024 * 1024
"""Bytes of one page of a list."""

MAX_ERROR = 64 * 1024
"""Bytes of an error's body that are looked at."""


class AsStored(httpx.AsyncBaseTransport):
    """Below the size limits, which unpack what is packed: hides the stored encoding of objects that are wanted as stored."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; its `Content-Encoding` is gone from the answer where the request is marked `AS_STORED`."""
        response = await self._inner.handle_async_request(request)
        if request.extensions.get(AS_STORED) and response.status_code == 200:
            response.headers.pop("content-encoding", None)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


class BodyBroke(Exception):
    """A body ended early; `error` says how. The request itself had succeeded, so that nothing has repeated it yet."""

    def __init__(self, error: NetworkError) -> None:
        super().__init__(str(error))
        self.error = error


async def save(response: httpx.Response, into: Path) -> int:
    """Write the body to the file `into` in a thread, piece by piece, and close the response; the bytes written.

    Raises:
        BodyBroke: it did not come whole.
        NetworkError: another fault, such as a body over its limit.
    """
    total = 0
    try:
        async for pieces in _pieces(response.aiter_raw()):
            await to_end(partial(_write, into, pieces, total == 0))
            total += sum(map(len, pieces))
        if total == 0:
            await to_end(partial(_write, into, [], True))
    except NetworkError as error:
        raise _broken(error) from error
    finally:
        await response.aclose()
    return total


async def to_end(call: Callable[[], T]) -> T:
    """The result of `call`, run in a thread; a cancelled wait still lasts until the thread is done with its files."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def content(response: httpx.Response) -> bytes:
    """The whole body, whose bound the request has; raises as `save`."""
    try:
        return await response.aread()
    except NetworkError as error:
        raise _broken(error) from error
    finally:
        await response.aclose()


async def whole(attempt: Callable[[], Awaitable[T]], clock: Clock, policy: RetryPolicy) -> T:
    """What `attempt` gives, again as often as `policy` says when its body ends early; raises NetworkError."""
    number = 1
    while True:
        try:
            return await attempt()
        except BodyBroke as broken:
            if number >= policy.attempts:
                raise broken.error from broken
        await clock.sleep(policy.wait(number, random.random()))  # noqa: S311 - spreads attempts, guards nothing
        number += 1


def announced(response: httpx.Response) -> int | None:
    """Bytes of the body as stored, where the answer says it and nothing unpacks it on the way."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def check_size(entry: Entry, etag: str, size: int | None) -> None:
    """Raises BadAnswer when the same version has one size in the list and another in its answer."""
    if size is not None and etag == entry.etag and size != entry.size:
        raise BadAnswer(f"the answer has {size} bytes, and the list says {entry.size} of the same version")


async def error_body(response: httpx.Response) -> bytes:
    """The beginning of an error's body; closes the response. A body that does not come says nothing, the status does."""
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in response.aiter_raw():
            pieces.append(piece)
            size += len(piece)
            if size >= MAX_ERROR:
                break
    except NetworkError:
        pass
    finally:
        await response.aclose()
    return b"".join(pieces)[:MAX_ERROR]


def status_text(response: httpx.Response, body: bytes) -> str:
    """What to say of an answer whose body nobody can read."""
    try:
        phrase = f" {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        phrase = ""
    quoted = body_text(body, response.headers.get("content-type", ""))
    return f"unexpected status code {response.status_code}{phrase}" + (f": {quoted}" if quoted else "")


def error_text(code: str, message: str) -> str:
    """What a service says of an error, short and without secrets."""
    return body_text(": ".join(filter(None, (code, message))).encode("utf-8", "replace"))


def _broken(error: NetworkError) -> Exception:
    return BodyBroke(error) if error.temporary else error


async def _pieces(body: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    pieces: list[bytes] = []
    waiting = 0
    async for piece in body:
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= PIECE:
            yield pieces
            pieces, waiting = [], 0
    if pieces:
        yield pieces


def _write(into: Path, pieces: list[bytes], first: bool) -> None:
    with into.open("wb" if first else "ab") as file:
        file.writelines(pieces)
