"""Stands before a Prometheus and keeps the queries that pass."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

import httpx


class CountingProxy:
    """Passes GET requests on; a context manager.

    Args:
        upstream: Address of the Prometheus.
    """

    def __init__(self, upstream: str) -> None:
        self.queries: list[str] = []
        """Instant queries, in the order in which they came."""
        self._client = httpx.Client(base_url=upstream, timeout=30.0, trust_env=False)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="counting proxy", daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()
        self._client.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                proxy.queries.extend(query.strip() for query in parse_qs(parts.query).get("query", []))
                found = proxy._client.get(self.path)
                self.send_response(found.status_code)
                self.send_header("Content-Type", found.headers.get("content-type", ""))
                self.send_header("Content-Length", str(len(found.content)))
                self.end_headers()
                self.wfile.write(found.content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
