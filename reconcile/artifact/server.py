"""Serves artifact storage over HTTP: a plain file server, as Flux source-controller runs Go's over its storage.

Files with ranges (RFC 9110 §14, one range at a time), `Last-Modified`, `ETag`, conditional requests, and listings of folders. No
login. Nothing outside the root is served, nor locks and what is being written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from html import escape
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from reconcile.artifact.layout import is_artifact
from reconcile.artifact.rooted import open_below
from reconcile.artifact.storage import Storage
from reconcile.runtime.threads import Threads

CHUNK = 256 * 1024
"""Bytes read and sent at once."""
MOST_LISTED = 10_000
"""Names in one listing."""

_WORKERS = 2
_GZIP_MAGIC = b"\x1f\x8b\x08"
_SNIFFED = 512
_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".txt": _TEXT,
    ".zip": "application/zip",
}
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})\s*-\s*(\d{0,18})|-(\d{1,18}))\s*")


def artifact_routes(storage: Storage) -> list[Route]:
    """The routes that serve `storage` from the root of an application."""
    server = _Server(storage)
    return [Route("/{path:path}", server.answer, methods=["GET", "HEAD"])]


@dataclass(frozen=True, slots=True)
class _Span:
    """The bytes of a file to send, and whether they were asked for as a part."""

    start: int
    end: int
    partial: bool = False


class _NoSuchRange(Exception):
    """The range asked for is malformed or not in the file."""

    def __init__(self, message: str, size: int | None = None) -> None:
        super().__init__(message)
        self.headers = {} if size is None else {"Content-Range": f"bytes */{size}"}


class _Opened:
    """An open file or folder; what is sent is this one, whatever happens to its name meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        self.folder = stat.S_ISDIR(status.st_mode)
        self.size = status.st_size
        self.modified = int(status.st_mtime)
        self.etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
        self.head = b"" if self.folder else os.pread(descriptor, _SNIFFED, 0)

    def names(self) -> list[str]:
        """What is in the folder, folders with a slash, in order."""
        with os.scandir(self.descriptor) as found:
            entries = [entry for entry, _ in zip(found, range(MOST_LISTED), strict=False) if is_artifact(entry.name)]
        return sorted(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in entries)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Server:
    def __init__(self, storage: Storage) -> None:
        self._root = storage.root
        self._threads = Threads("artifact-server", _WORKERS)

    async def answer(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        parts = [part for part in path.split("/") if part]
        if ".." in path.split("/") or not all(is_artifact(part) for part in parts):
            return _missing()
        try:
            opened = await self._threads.run(lambda: _Opened(open_below(self._root, parts)))
        except FileNotFoundError:
            if parts:
                return _missing()
            return HTMLResponse(_listing([]))  # nothing has been stored yet
        except OSError:
            return PlainTextResponse("500 Internal Server Error\n", 500)
        try:
            response = await self._found(request, path, opened)
        except BaseException:
            opened.close()
            raise
        if not isinstance(response, _FileResponse):
            opened.close()
        return response

    async def _found(self, request: Request, path: str, opened: _Opened) -> Response:
        if path and opened.folder != path.endswith("/"):
            name = path.rstrip("/").rpartition("/")[2]
            return RedirectResponse(f"{quote(name)}/" if opened.folder else f"../{quote(name)}", 301)
        headers = {"Last-Modified": _http_date(opened.modified)}
        if opened.folder:
            return HTMLResponse(_listing(await self._threads.run(opened.names)), headers=headers)
        headers |= {"ETag": opened.etag, "Accept-Ranges": "bytes"}
        if _unchanged(request, opened):
            return Response(status_code=304, headers=headers)
        try:
            span = _span(request, opened)
        except _NoSuchRange as error:
            return PlainTextResponse(f"{error}\n", 416, headers | error.headers)
        headers["Content-Length"] = str(span.end - span.start)
        if span.partial:
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{opened.size}"
        status = 206 if span.partial else 200
        media_type = content_type(path, opened.head)
        return _FileResponse(opened, span, self._threads, status, headers, media_type, head=request.method == "HEAD")


class _FileResponse(StreamingResponse):
    """Sends part of an open file and closes it, also when the client goes away."""

    def __init__(
        self, opened: _Opened, span: _Span, threads: Threads, status: int, headers: dict[str, str], media_type: str, *, head: bool
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            at = span.end if head else span.start
            while at < span.end:
                read = partial(os.pread, opened.descriptor, min(CHUNK, span.end - at), at)
                piece = await threads.run(read)
                if not piece:
                    return  # the file was cut under us: the client sees that the length is wrong
                at += len(piece)
                yield piece

        super().__init__(pieces(), status, headers, media_type)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._opened.close()


def content_type(path: str, head: bytes) -> str:
    """Media type of a file as Go's file server tells it: by the end of its name, else by its first bytes."""
    known = _TYPES.get(PurePosixPath(path).suffix.lower())
    if known is not None:
        return known
    if head.startswith(_GZIP_MAGIC):
        return "application/x-gzip"
    return "application/octet-stream" if _BINARY.search(head) else _TEXT


def _missing() -> Response:
    return PlainTextResponse("404 page not found\n", 404)


def _listing(names: list[str]) -> str:
    links = "".join(f'<a href="{escape(_reference(name))}">{escape(name)}</a>\n' for name in names)
    return f'<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n{links}</pre>\n'


def _reference(name: str) -> str:
    quoted = quote(name, errors="surrogateescape")
    return quoted if name == quoted else f"./{quoted}"  # a colon would make a scheme of what stands before it


def _http_date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def _seconds(header: str) -> float | None:
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _unchanged(request: Request, opened: _Opened) -> bool:
    """RFC 9110 §13.1.2 and §13.1.3: the entity tag decides where it is given, else the time."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or opened.etag in {tag.strip().removeprefix("W/") for tag in tags.split(",")}
    since = _seconds(request.headers.get("if-modified-since", ""))
    return since is not None and opened.modified <= since


def _span(request: Request, opened: _Opened) -> _Span:
    """Which bytes are asked for; several ranges at once are answered with the whole file, as a server may."""
    size = opened.size
    asked = request.headers.get("range")
    if asked is None or not size or "," in asked or not _still(request, opened):
        return _Span(0, size)
    found = _RANGE.fullmatch(asked)
    if found is None:
        raise _NoSuchRange("invalid range")
    first, last, tail = found.groups()
    start = int(first) if tail is None else max(0, size - int(tail))
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        raise _NoSuchRange("invalid range")
    if start >= size:
        raise _NoSuchRange("invalid range: failed to overlap", size)
    return _Span(start, end, partial=True)


def _still(request: Request, opened: _Opened) -> bool:
    """Whether `If-Range`, if any, names this file (RFC 9110 §13.1.5)."""
    condition = request.headers.get("if-range")
    return condition is None or condition == opened.etag or _seconds(condition) == opened.modified
