"""Archives that nobody should make, a storage that is served on a real socket, and a server that counts and misbehaves."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconcile.api.meta import Key
from reconcile.api.source import Artifact
from reconcile.artifact.archive import Member, pack
from reconcile.artifact.server import artifact_routes
from reconcile.artifact.storage import Storage
from reconcile.runtime.server import serving

KEY = Key("flux-system", "podinfo")
FILES = {"a.yaml": b"a: 1\n", "bin/run.sh": b"#!/bin/sh\n", "dir/sub/c.yaml": b"c: 3\n"}


def members(files: dict[str, bytes] | None = None) -> list[Member]:
    """Members to pack; scripts are executable."""
    return [Member(path, data, path.endswith(".sh")) for path, data in sorted((FILES if files is None else files).items())]


def packed(files: dict[str, bytes] | None = None) -> bytes:
    """The archive of some files."""
    out = io.BytesIO()
    pack(members(files), out)
    return out.getvalue()


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar, with any fields."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tarball(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed tar of whatever entries."""
    out = io.BytesIO()
    for info, data in entries:
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    out.write(bytes(1024))
    return out.getvalue()


def zipped(data: bytes) -> bytes:
    """gzip without a time."""
    return gzip.compress(data, mtime=0)


def tree(root: Path) -> dict[str, bytes]:
    """Content of all files below a folder."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


async def stored(storage: Storage, files: dict[str, bytes] | None = None, name: str = "1.tar.gz", **options: str) -> Artifact:
    """Put an archive of files into storage."""
    return await storage.put("GitRepository", KEY, name, f"main@{name}", lambda out: pack(members(files), out), **options)


@asynccontextmanager
async def served(storage: Storage) -> AsyncIterator[str]:
    """Serve a storage on a free port; yields the address."""
    async with serving(Starlette(routes=artifact_routes(storage)), "127.0.0.1:0") as url:
        yield url


class Shop:
    """An HTTP server of whatever bytes, which counts."""

    def __init__(self) -> None:
        self.goods: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[int] = []
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.url = ""

    async def _answer(self, request: Request) -> Response:
        path = request.url.path.lstrip("/")
        self.requests.append(path)
        if self.before is not None:
            await self.before(path)
        if self.failures:
            return Response(status_code=self.failures.pop(0))
        return Response(self.goods[path], media_type="application/gzip") if path in self.goods else Response(status_code=404)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Shop]:
        """Serve on a free port."""
        async with serving(Starlette(routes=[Route("/{path:path}", self._answer)]), "127.0.0.1:0") as self.url:
            yield self

    def artifact(self, path: str, digest: str, revision: str = "main@1") -> Artifact:
        """An artifact that is said to be here."""
        return Artifact(
            path=path, url=f"{self.url}/{path}", revision=revision, digest=digest, last_update_time="2026-01-01T00:00:00Z", size=1
        )
