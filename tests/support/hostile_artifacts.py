"""A server of artifacts as strangers publish them: cut off, swollen, endless, absent, until they are mended."""

from __future__ import annotations

import gzip
import hashlib
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.artifacts import entry, packed, tarball, zipped
from tests.support.gitopslab import config_map

ENDLESS = b""
"""Goods of which there is no end, at a few bytes a second."""


class HostileStore:
    """Serves `goods` by path, 404 for the rest; a context manager. Endless ones end when `ended` is set."""

    def __init__(self) -> None:
        self.goods: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hostile store", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()

    def artifact(self, path: str, revision: str, told: bytes | None = None) -> dict[str, Any]:
        """The artifact of an object's status, with the digest of `told` (of what is served, without)."""
        data = self.goods.get(path, b"") if told is None else told
        return {
            "path": path,
            "url": f"http://127.0.0.1:{self._server.server_address[1]}/{path}",
            "revision": revision,
            "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "size": len(data),
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                store.requests.append(path)
                goods = store.goods.get(path)
                self.send_response(404 if goods is None else 200)
                endless = goods is ENDLESS
                self.send_header("Content-Length", str(1 << 29 if endless else len(goods or b"")))
                self.end_headers()
                try:
                    self._drip() if endless else self.wfile.write(goods or b"")
                except OSError:
                    self.close_connection = True

            def _drip(self) -> None:
                while not store.ended.wait(0.1):
                    self.wfile.write(bytes(64))
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def until_asked(store: HostileStore, path: str, seconds: float = 40.0) -> None:
    """Wait until somebody has asked for a path."""
    end = time.monotonic() + seconds
    while path not in store.requests:
        if time.monotonic() > end:
            raise AssertionError(f"nobody asked for {path} in {seconds:g} s")
        time.sleep(0.05)


def hostile_artifacts(store: HostileStore) -> dict[str, tuple[dict[str, Any], str]]:
    """Name → the artifact, and what is said of it (nothing: no failure); the good one is `<name>-good`."""
    good = {
        name: packed({"app/map.yaml": config_map(f"art-{name}").encode()})
        for name in ("digest", "cut", "path", "link", "bomb", "none", "drip", "plain")
    }
    whole = good["cut"]
    mine = config_map("art-link").encode()
    store.goods |= {f"{name}-good": data for name, data in good.items()}
    store.goods |= {
        "digest": good["digest"],
        "cut": whole[: len(whole) // 2],
        "path": zipped(tarball(entry("../../../art-escape.yaml", mine))),
        "link": zipped(tarball(entry("app", b"", b"2", linkname="/etc"), entry("app/map.yaml", mine))),
        "bomb": _bomb(),
        "drip": ENDLESS,
        "plain": b"no archive at all",
    }
    return {
        "digest": (store.artifact("digest", "main@1", told=b"something else"), "does not match"),
        "cut": (store.artifact("cut", "main@1"), "cannot unpack"),
        "path": (store.artifact("path", "main@1"), "cannot unpack"),
        "link": (store.artifact("link", "main@1"), ""),
        "bomb": (store.artifact("bomb", "main@1"), "cannot unpack"),
        "none": (store.artifact("none", "main@1"), "artifact not found, retrying in 1s"),
        "plain": (store.artifact("plain", "main@1"), "cannot unpack"),
        "drip": (store.artifact("drip", "main@1", told=good["drip"]), ""),
    }


def _bomb() -> bytes:
    """300 MB of nothing in 300 kB."""
    out = io.BytesIO()
    size = 300 << 20
    info, _ = entry("app/map.yaml")
    info.size = size
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as packing:
        packing.write(info.tobuf())
        for _ in range(size >> 20):
            packing.write(bytes(1 << 20))
        packing.write(bytes(1024))
    return out.getvalue()
