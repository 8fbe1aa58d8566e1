"""Redirects as Go's `net/http` client follows them for a POST: people's receivers were built for that."""

from __future__ import annotations

import httpx

from reconcile.net.errors import NetworkError, RedirectRefused

MOST = 10
"""Requests for one call."""

_AS_GET = frozenset({301, 302, 303})
_AS_IT_IS = frozenset({307, 308})
_NOT_TAKEN_ALONG = frozenset({"host", "content-length", "transfer-encoding"})
_OF_THE_BODY = frozenset({"content-type", "content-encoding"})


class GoRedirects(httpx.AsyncBaseTransport):
    """Follows redirects below the client, to any host: 301, 302, 303 by GET without the body, 307, 308 as it was.

    Credentials go to the scheme, host and port that they were meant for and nowhere else.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The first answer that is no redirect, or that does not say where to; raises RedirectRefused after ten."""
        for _ in range(MOST):
            response = await self._inner.handle_async_request(request)
            location = response.headers.get("location", "")
            if response.status_code not in _AS_GET | _AS_IT_IS or not location:
                return response
            await response.aclose()
            request = _following(request, response.status_code, location)
        raise RedirectRefused(request.method, str(request.url), f"stopped after {MOST} redirects")

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


def _following(request: httpx.Request, status: int, location: str) -> httpx.Request:
    try:
        url = request.url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        text = f"failed to parse Location header {location[:200]!r}"
        raise RedirectRefused(request.method, str(request.url), text) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise NetworkError("GET", str(url), f'unsupported protocol scheme "{url.scheme[:20]}"')
    keeps_body = status in _AS_IT_IS
    left = _NOT_TAKEN_ALONG if keeps_body else _NOT_TAKEN_ALONG | _OF_THE_BODY
    if (url.scheme, url.host, url.port) != (request.url.scheme, request.url.host, request.url.port):
        left = left | {"authorization"}
    return httpx.Request(
        request.method if keeps_body or request.method == "HEAD" else "GET",
        url.copy_with(username=None, password=None),
        headers=[(name, value) for name, value in request.headers.multi_items() if name not in left],
        content=request.content if keeps_body else None,
        extensions=request.extensions,
    )
