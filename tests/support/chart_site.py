"""A chart repository on loopback: serves an index over HTTP as a web server does, and notes what it was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from imagebot.demo.registry import Registry

INDEX = """\
apiVersion: v1
entries:
  app:
  - name: app
    version: 1.0.0
    urls: [app-1.0.0.tgz]
  - name: app
    version: 1.10.0
    urls: [app-1.10.0.tgz]
generated: "2026-01-01T00:00:00Z"
"""


class ChartSite:
    """The server; use with `async with`. `index` is what it has now."""

    def __init__(self, index: str | bytes = INDEX, *, etags: bool = True, certificate: tuple[Path, Path] | None = None) -> None:
        self.index = index.encode() if isinstance(index, str) else index
        self.etags = etags
        self.seen: list[Request] = []
        self.answers: list[Response | Callable[[Request], Response | None]] = []
        self._site = _Site(self, certificate=certificate)

    async def __aenter__(self) -> Self:
        await self._site.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._site.stop()

    @property
    def host(self) -> str:
        return self._site.host

    @property
    def url(self) -> str:
        return f"{self._site.url}/charts"

    def log(self) -> list[str]:
        """Requests since the last call: method, path, and whether conditional."""
        found = []
        for request in self.seen:
            conditional = " conditional" if set(request.headers) & {"if-none-match", "if-modified-since"} else ""
            found.append(f"{request.method} {request.url.path}{conditional}")
        self.seen.clear()
        return found

    def answer(self, request: Request) -> Response:
        self.seen.append(request)
        if self.answers:
            first = self.answers.pop(0)
            response = first if isinstance(first, Response) else first(request)
            if response is not None:
                return response
        if request.url.path != "/charts/index.yaml":
            return Response("nothing here", status_code=404)
        etag = f'"{hashlib.sha256(self.index).hexdigest()}"'
        headers = {"ETag": etag} if self.etags else {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if request.headers.get("if-none-match") == etag or (not self.etags and "if-modified-since" in request.headers):
            return Response(status_code=304, headers=headers)
        return Response(self.index, media_type="text/yaml", headers=headers)


class _Site(Registry):
    """The demonstration registry's server with another application in it."""

    def __init__(self, site: ChartSite, *, certificate: tuple[Path, Path] | None) -> None:
        super().__init__(certificate=certificate)
        self._answers = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answers.answer(Request(scope, receive))(scope, receive, send)


__all__ = ["INDEX", "ChartSite"]
