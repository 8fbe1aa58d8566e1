"""The hosts that the chapter's manifests name, on loopback: a proxy leads https to them, with certificates of an own authority.

The service trusts that authority by `SSL_CERT_FILE`, and finds the hosts by `HTTPS_PROXY`; nothing in the manifests is replaced.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from imagebot.demo.registry import Registry
from reconcile.ports.clock import SystemClock
from tests.support.bucket_servers import S3Keys, S3Server, Store
from tests.support.chart_site import INDEX
from tests.support.oci_artifacts import of_files, signature_image, simple_signing
from tests.support.pki import Authority, private_key, public_pem

T = TypeVar("T")

REGISTRY, BUCKETS, CHARTS = "ghcr.io", "s3.amazonaws.com", "charts.bitnami.com"
BUCKET = "my-company-manifests"
LOGIN = "robot", "of-the-registry"
"""Who may see the charts."""


class Charts(Registry):
    """Charts at `/bitnami` of a web server, for those who log in; `served` counts its answers."""

    def __init__(self, login: tuple[str, str], certificate: tuple[Path, Path]) -> None:
        super().__init__(certificate=certificate)
        self._wanted = b"Basic " + base64.b64encode(":".join(login).encode())
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        allowed = dict(scope["headers"]).get(b"authorization") == self._wanted
        there = scope["path"] == "/bitnami/index.yaml"
        answer = Response(INDEX, 200 if there else 404, media_type="text/yaml") if allowed else Response("log in", 401)
        self.served += allowed and there
        await answer(scope, receive, send)


@dataclass
class Internet:
    """What is there.

    Attributes:
        proxy: Address of the proxy.
        trusted: File with the authority that everybody has a certificate of.
        registry: `ghcr.io`.
        store: The bucket at `s3.amazonaws.com`, and `keys` for it.
        charts: `charts.bitnami.com`.
        asked: Hosts that the proxy was asked for, in order.
    """

    trusted: Path
    registry: Registry
    store: Store
    keys: S3Keys
    charts: Charts
    proxy: str = ""
    asked: list[str] = field(default_factory=list)

    def sign(self, name: str, tag: str, files: Mapping[str, str]) -> bytes:
        """An artifact in the registry, signed as cosign signs; the public key."""
        key = private_key()
        digest = self.registry.put_image(name, tag, of_files(files))
        payload = simple_signing(digest)
        signature = key.sign(payload, ec.ECDSA(hashes.SHA256()))
        self.registry.put_image(name, f"{digest.replace(':', '-')}.sig", signature_image([(payload, signature, b"", b"")]))
        return public_pem(key)


@asynccontextmanager
async def _internet(root: Path) -> AsyncIterator[Internet]:
    authority = Authority("the internet")
    trusted = root / "authority.pem"
    trusted.write_bytes(authority.certificate)

    def certified(*hosts: str) -> tuple[Path, Path]:
        paths = root / f"{hosts[0]}.crt", root / f"{hosts[0]}.key"
        for path, content in zip(paths, authority.server(hosts), strict=True):
            path.write_bytes(content)
        return paths

    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(Registry(certificate=certified(REGISTRY)))
        store, keys = Store(), S3Keys()
        buckets = S3Server(store, SystemClock(), bucket=BUCKET, keys=keys)
        buckets.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        buckets.tls.load_cert_chain(*certified(BUCKETS, f"{BUCKET}.{BUCKETS}"))
        await stack.enter_async_context(buckets)
        charts = await stack.enter_async_context(Charts(LOGIN, certified(CHARTS)))
        made = Internet(trusted, registry, store, keys, charts)
        places = {REGISTRY: registry.host, BUCKETS: buckets.host, f"{BUCKET}.{BUCKETS}": buckets.host, CHARTS: charts.host}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await _lead(reader, writer, places, made.asked)
            writer.close()

        proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
        stack.callback(proxy.close)
        made.proxy = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        yield made


async def _lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, places: Mapping[str, str], asked: list[str]) -> None:
    method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode().split(" ")
    name, _, port = target.rpartition(":")
    asked.append(name)
    if (method, port) != ("CONNECT", "443") or name not in places:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return
    host, _, real = places[name].rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(real))
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


@contextmanager
def internet(root: Path) -> Iterator[Internet]:
    """All hosts, in a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="internet", daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    context = _internet(root)
    try:
        made = call(context.__aenter__())
        try:
            yield made
        finally:
            call(context.__aexit__(None, None, None))
            call(_ended())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def _ended() -> None:
    """End the connections that are still open."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
