"""A transport around a transport: what a server answers is bounded in size and may not lead us anywhere it likes."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import httpx

from reconcile.net.errors import AnswerTooLarge, NetworkError, RedirectRefused, from_httpx
from reconcile.net.proxy import parse_ip

BODY_LIMIT = "imagebot.body-limit"
"""Request extension: bytes of unpacked body allowed for this request, instead of the client's limit."""

_PIECE = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class GuardTransport(httpx.AsyncBaseTransport):
    """Limits bodies while they stream, unpacks gzip within the same limit, and checks where redirects lead.

    A body over its limit raises `AnswerTooLarge`: at once when the server announces the size, else at the byte that is too many.
    Nothing is ever cut. A redirect raises `RedirectRefused` as `check_redirect` says.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, body_limit: int) -> None:
        self._inner = inner
        self._body_limit = body_limit

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and wrap the answer's body."""
        response = await self._inner.handle_async_request(request)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                check_redirect(request, response.headers["location"])
            return self._wrap(request, response)
        except BaseException:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    def _wrap(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        limit = int(request.extensions.get(BODY_LIMIT, self._body_limit))
        announced = response.headers.get("content-length", "")
        if request.method != "HEAD" and announced.isdigit() and int(announced) > limit:
            raise too_large(request, limit, f"{announced} bytes announced")
        encoding = response.headers.get("content-encoding", "").strip().lower()
        packed = encoding in {"gzip", "x-gzip", "deflate"}
        if request.method != "HEAD":
            if packed:
                # From here on the body is plain, also for httpx, which would unpack without a bound.
                del response.headers["content-encoding"]
                response.headers.pop("content-length", None)
            elif encoding not in {"", "identity"}:
                raise NetworkError(request.method, str(request.url), f"the answer has the unknown encoding {encoding[:40]!r}")
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an async transport has no other
        response.stream = BoundedStream(stream, request, limit, packed=packed)
        return response


class BoundedStream(httpx.AsyncByteStream):
    """A body that fails at the byte that is too many; gzip and zlib are unpacked piece by piece on the way."""

    def __init__(self, inner: httpx.AsyncByteStream, request: httpx.Request, limit: int, *, packed: bool) -> None:
        self._inner = inner
        self._request = request
        self._limit = limit
        self._packed = packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for piece in self._plain() if self._packed else self._raw():
            left -= len(piece)
            if left < 0:
                raise too_large(self._request, self._limit, "more came")
            yield piece

    async def aclose(self) -> None:
        """Close the connection's stream."""
        await self._inner.aclose()

    async def _raw(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                yield piece
        except httpx.HTTPError as error:
            raise from_httpx(error, self._request) from error

    async def _plain(self) -> AsyncIterator[bytes]:
        unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
        received = 0
        try:
            async for packed in self._raw():
                received += len(packed)
                pending = packed
                while pending:
                    if unpacker.eof:  # gzip allows several members one after the other
                        unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
                    piece = unpacker.decompress(pending, _PIECE)
                    pending = unpacker.unconsumed_tail or unpacker.unused_data
                    if piece:
                        yield piece
            if received and not unpacker.eof:
                raise NetworkError(self._request.method, str(self._request.url), "unexpected EOF", temporary=True)
        except zlib.error as error:
            raise NetworkError(self._request.method, str(self._request.url), f"gzip: invalid data: {error}") from error


def check_redirect(request: httpx.Request, location: str) -> None:
    """Refuse redirects that a hostile server would use.

    Refused are: other schemes than http and https; from https to http; to a loopback, private or link-local address literal on
    another host (a metadata service, for instance); and to another host for anything but GET and HEAD, as the body may be secret.

    Raises:
        RedirectRefused: with the reason.
    """
    method, origin = request.method, request.url
    try:
        target = origin.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise RedirectRefused(method, str(origin), "redirect to something that is not a URL") from error
    if target.scheme not in {"http", "https"}:
        raise RedirectRefused(method, str(origin), f"redirect to scheme {target.scheme[:20]!r} refused")
    if origin.scheme == "https" and target.scheme == "http":
        raise RedirectRefused(method, str(origin), f"redirect from https to http refused: {target.host}")
    if target.host == origin.host:
        return
    if method not in {"GET", "HEAD"}:
        raise RedirectRefused(method, str(origin), f"redirect of a {method} to another host refused: {target.host}")
    if is_inner_address(target.host):
        raise RedirectRefused(method, str(origin), f"redirect to a private or link-local address refused: {target.host}")


def is_inner_address(host: str) -> bool:
    """Whether `host` is an address literal that outsiders have no business to send us to."""
    address = parse_ip(host)
    if address is None:
        return host == "localhost"
    return address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


def too_large(request: httpx.Request, limit: int, what: str) -> AnswerTooLarge:
    """The error for an answer over its limit of `limit` bytes."""
    return AnswerTooLarge(request.method, str(request.url), f"the answer is larger than the limit of {limit} bytes ({what})")
