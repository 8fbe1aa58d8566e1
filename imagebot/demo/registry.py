"""A small real registry in this process, for the demonstration and for tests (OCI distribution specification v1.1).

It speaks HTTP on a free loopback port: push (blobs at once, in pieces, or monolithic), pull, HEAD, tag lists in pages with
`Link`, deletion, the specification's JSON errors, and Basic or Bearer authentication with its own token endpoint. Content is in
memory::

    async with Registry() as registry:
        registry.push_image("acme/app", "1.2.3")
        print(registry.host)
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from imagebot.demo.door import Account, ApiError, Door, error_response, json_response, read_body
from imagebot.demo.images import Image, make_image
from reconcile.registry.manifest import OCI_MANIFEST, digest_of
from reconcile.registry.names import is_digest, is_tag

MAX_BLOB = 64 * 1024 * 1024
MAX_TOTAL = 512 * 1024 * 1024
MAX_MANIFEST = 4 * 1024 * 1024
MAX_UPLOADS = 100

_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_ROUTES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("ping", r"/v2/?"),
        ("token", r"/token"),
        ("tags", rf"/v2/{_NAME}/tags/list"),
        ("manifest", rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)"),
        ("upload", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]*)"),
        ("blob", rf"/v2/{_NAME}/blobs/(?P<digest>[^/]+)"),
    )
)


@dataclass
class Stored:
    """One repository: its tags and manifests.

    Attributes:
        tags: tag → digest.
        manifests: digest → media type and bytes.
    """

    tags: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sorted_tags: tuple[str, ...] | None = None


class Registry:
    """The registry; start it with `async with`.

    Attributes:
        door: who may come in.
        host: `127.0.0.1:<port>` once started; the registry part of image names.
        url: the same with the scheme.
        requests: how often each kind of request came: `ping`, `token`, `tags`, `manifest`, `blob`, `upload`, `other`.
        log: the last thousand requests as `METHOD path?query`.

    Args:
        account: who may come in; None lets everybody.
        certificate: certificate and key files (PEM) for https; None serves http.
        max_page: largest page of a tag list; larger `n` is answered with 400, as some registries do. None sets no bound.
    """

    def __init__(
        self, *, account: Account | None = None, certificate: tuple[Path, Path] | None = None, max_page: int | None = None
    ) -> None:
        self.door = Door(account)
        self.max_page = max_page
        self.repositories: dict[str, Stored] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.log: deque[str] = deque(maxlen=1000)
        self._uploads: dict[str, bytes] = {}
        self._certificate = certificate
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.host = ""

    @property
    def url(self) -> str:
        """Scheme and host."""
        return f"{'https' if self._certificate else 'http'}://{self.host}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback at `port`, or at a free one.

        Raises:
            OSError: the port is taken.
        """
        # asyncio switches Nagle's delay off only for sockets that say they are TCP; create_server leaves the protocol at 0.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
        self.host = f"127.0.0.1:{listening.getsockname()[1]}"
        certificate, key = self._certificate or (None, None)
        config = uvicorn.Config(
            self,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="demo registry")
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Stop listening and close all connections; content stays."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None

    def push_image(
        self,
        name: str,
        tag: str,
        *,
        labels: Mapping[str, str] | None = None,
        platforms: Sequence[str] = ("linux/amd64",),
        created: str = "2024-01-01T00:00:00Z",
    ) -> str:
        """Put a tiny valid image under `name:tag` and return its digest; several `platforms` make an index."""
        image = make_image(name, tag, labels=labels or {}, platforms=platforms, created=created)
        return self.put_image(name, tag, image)

    def put_image(self, name: str, tag: str, image: Image) -> str:
        """Put `image` under `name:tag` and return its digest."""
        for blob in image.blobs:
            self._keep_blob(blob, digest_of(blob))
        for media_type, content in image.manifests:
            self.put_manifest(name, digest_of(content), media_type, content)
        media_type, content = image.manifests[-1]
        return self.put_manifest(name, tag, media_type, content)

    def put_tags(self, name: str, tags: Sequence[str]) -> None:
        """Point many `tags` at one image; quick, for long lists."""
        digest = self.push_image(name, tags[0])
        stored = self.repositories[name]
        stored.tags.update(dict.fromkeys(tags, digest))
        stored.sorted_tags = None

    def delete_tag(self, name: str, tag: str) -> None:
        """Remove a tag; its image stays.

        Raises:
            ApiError: there is no such repository or tag.
        """
        stored = self._stored(name)
        if stored.tags.pop(tag, None) is None:
            raise _unknown_manifest(tag)
        stored.sorted_tags = None

    def put_manifest(self, name: str, reference: str, media_type: str, content: bytes) -> str:
        """Store a manifest under a tag or under its own digest; returns the digest.

        Raises:
            ApiError: not a manifest, the wrong digest, or something it points to is not here.
        """
        digest = digest_of(content)
        if is_digest(reference):
            if digest != reference:
                raise ApiError(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        elif not is_tag(reference):
            raise ApiError(400, "TAG_INVALID", "manifest tag did not match URI")
        stored = self.repositories.get(name, Stored())
        self._check_parts(stored, content)
        self.repositories[name] = stored
        stored.manifests[digest] = media_type, content
        if reference != digest:
            stored.tags[reference] = digest
            stored.sorted_tags = None
        return digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self.respond(request)
        except ApiError as error:
            response = error_response(error)
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """Count, check who asks, and answer; tests override this to misbehave.

        Raises:
            ApiError: the answer is an error of the specification.
        """
        path = request.url.path
        kind, match = next(((kind, found) for kind, route in _ROUTES if (found := route.fullmatch(path))), ("other", None))
        self.requests[kind] += 1
        self.log.append(f"{request.method} {path}{f'?{request.url.query}' if request.url.query else ''}")
        if match is None:
            raise ApiError(404, "UNSUPPORTED", "no such endpoint")
        if kind == "token":
            return await self.door.token(request)
        values = match.groupdict()
        name = values.get("name", "")
        if not self.door.allows(request, name):
            return self.door.challenge(request, name, self.url)
        match kind:
            case "ping":
                return json_response({})
            case "tags":
                return self._tags(request, name)
            case "manifest":
                return await self._manifest(request, name, values["reference"])
            case "upload":
                return await self._upload(request, name, values["upload"])
            case _:
                return self._blob(request, values["digest"])

    def _tags(self, request: Request, name: str) -> Response:
        stored = self._stored(name)
        if stored.sorted_tags is None:
            stored.sorted_tags = tuple(sorted(stored.tags))
        tags = stored.sorted_tags
        last, text = request.query_params.get("last"), request.query_params.get("n")
        if last is not None:
            tags = tuple(tag for tag in tags if tag > last)
        if text is None:
            return json_response({"name": name, "tags": tags})
        if not text.isdigit() or (self.max_page is not None and int(text) > self.max_page):
            raise ApiError(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested", {"n": text})
        size = int(text)
        page = tags[:size]
        response = json_response({"name": name, "tags": page})
        if page and len(tags) > size:
            response.headers["Link"] = f'</v2/{name}/tags/list?last={page[-1]}&n={size}>; rel="next"'
        return response

    async def _manifest(self, request: Request, name: str, reference: str) -> Response:
        if request.method == "PUT":
            content = await read_body(request, MAX_MANIFEST)
            media_type = request.headers.get("content-type", OCI_MANIFEST)
            digest = self.put_manifest(name, reference, media_type, content)
            headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
            return Response(status_code=201, headers=headers)
        stored = self._stored(name)
        if request.method == "DELETE":
            if not is_digest(reference):
                self.delete_tag(name, reference)
            elif stored.manifests.pop(reference, None) is None:
                raise _unknown_manifest(reference)
            else:
                stored.tags = {tag: digest for tag, digest in stored.tags.items() if digest != reference}
                stored.sorted_tags = None
            return Response(status_code=202)
        _only(request, "GET", "HEAD")
        digest = stored.tags.get(reference, reference)
        if digest not in stored.manifests:
            raise _unknown_manifest(reference)
        media_type, content = stored.manifests[digest]
        return Response(content, media_type=media_type, headers={"Docker-Content-Digest": digest})

    def _blob(self, request: Request, digest: str) -> Response:
        _only(request, "GET", "HEAD")
        content = self.blobs.get(digest)
        if content is None:
            raise ApiError(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return Response(content, media_type="application/octet-stream", headers={"Docker-Content-Digest": digest})

    async def _upload(self, request: Request, name: str, upload: str) -> Response:
        _only(request, "POST", "PATCH", "PUT", "DELETE")
        content = await read_body(request, MAX_BLOB)
        digest = request.query_params.get("digest", "")
        if request.method == "POST":
            if digest:
                return self._finish(name, content, digest)
            upload = secrets.token_hex(16)
            while len(self._uploads) >= MAX_UPLOADS:
                del self._uploads[next(iter(self._uploads))]
            self._uploads[upload] = b""
        elif upload not in self._uploads:
            raise ApiError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        content = self._uploads.pop(upload, b"") + content
        if len(content) > MAX_BLOB:
            raise ApiError(413, "SIZE_INVALID", "the blob is too large")
        if request.method == "DELETE":
            return Response(status_code=204)
        if request.method == "PUT":
            return self._finish(name, content, digest)
        self._uploads[upload] = content
        headers = {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": f"0-{max(0, len(content) - 1)}"}
        return Response(status_code=202, headers=headers)

    def _finish(self, name: str, content: bytes, digest: str) -> Response:
        self._keep_blob(content, digest)
        headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return Response(status_code=201, headers=headers)

    def _keep_blob(self, content: bytes, digest: str) -> None:
        if not is_digest(digest) or digest_of(content, digest.partition(":")[0]) != digest:
            raise ApiError(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if digest not in self.blobs and sum(map(len, self.blobs.values())) + len(content) > MAX_TOTAL:
            raise ApiError(507, "DENIED", "this registry is full")
        self.blobs[digest] = content

    def _check_parts(self, stored: Stored, content: bytes) -> None:
        try:
            document = orjson.loads(content)
            parts = [document[name] for name in ("config",) if name in document] + list(document.get("layers", ()))
            blobs = [part["digest"] for part in parts]
            images = [image["digest"] for image in document.get("manifests", ())]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ApiError(400, "MANIFEST_INVALID", "manifest invalid") from error
        for digest in blobs:
            if digest not in self.blobs:
                raise ApiError(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        for digest in images:
            if digest not in stored.manifests:
                raise ApiError(400, "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry", {"digest": digest})

    def _stored(self, name: str) -> Stored:
        stored = self.repositories.get(name)
        if stored is None:
            raise ApiError(404, "NAME_UNKNOWN", "repository name not known to registry", {"name": name})
        return stored


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program around."""
        yield


def _unknown_manifest(reference: str) -> ApiError:
    return ApiError(404, "MANIFEST_UNKNOWN", "manifest unknown", {"name": reference})


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise ApiError(405, "UNSUPPORTED", "the operation is unsupported")
