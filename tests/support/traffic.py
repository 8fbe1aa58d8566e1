"""Requests that nobody sends: an exporter with the series of meshes, ingresses and pods, whose errors and latency a test sets.

Counters grow with time, as if every target had a steady stream of requests, so that a real Prometheus has rates to compute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

RATE = 50.0
"""Requests a second of each target."""
BUCKETS = (128.0, 512.0, 1024.0, 4096.0, float("inf"))
"""Upper bounds in milliseconds."""
CODES = FINE, FAILED = "200", "503"
"""Status codes."""
GOOD, SLOW = 50.5, 800.5
"""Milliseconds of a request: the 99th percentile that Prometheus computes is 126.72 or 1018.88."""


@dataclass
class Stream:
    """The requests to one target. Every reading of `share` and `latency` counts for the time until the next change."""

    namespace: str
    target: str
    failing: float = 0.0
    """Share of requests that fail."""
    latency: float = GOOD
    within: dict[tuple[str, float], float] = field(default_factory=lambda: {(c, b): 0.0 for c in CODES for b in BUCKETS})
    milliseconds: float = 0.0

    def advance(self, seconds: float) -> None:
        """Let requests come for so long."""
        requests = RATE * seconds
        self.milliseconds += requests * self.latency
        for (code, bound), value in self.within.items():
            share = self.failing if code == FAILED else 1.0 - self.failing
            self.within[code, bound] = value + (requests * share if self.latency <= bound else 0.0)

    def lines(self) -> Iterator[str]:
        """What exporters say of it, each in its own words."""
        n, t = self.namespace, self.target
        istio = f'reporter="destination",destination_workload_namespace="{n}",destination_workload="{t}"'
        pods = f'kubernetes_namespace="{n}",kubernetes_pod_name="{t}-5d4f6c7b8-x2x4z"'
        nginx = f'namespace="{n}",ingress="{t}",canary="{t}-canary"'
        traefik = f'service="{n}-{t}-canary-80@kubernetescrd"'
        everything = {code: self.within[code, BUCKETS[-1]] for code in CODES}
        for code, value in everything.items():
            yield f'istio_requests_total{{{istio},response_code="{code}"}} {value}'
            yield f'http_request_duration_seconds_count{{{pods},status="{code}"}} {value}'
            yield f'nginx_ingress_controller_requests{{{nginx},status="{code}"}} {value}'
        for (code, bound), value in self.within.items():
            milliseconds, seconds = ("+Inf", "+Inf") if bound == BUCKETS[-1] else (f"{bound:g}", f"{bound / 1000:g}")
            yield f'istio_request_duration_milliseconds_bucket{{{istio},response_code="{code}",le="{milliseconds}"}} {value}'
            yield f'http_request_duration_seconds_bucket{{{pods},status="{code}",le="{seconds}"}} {value}'
            yield f'traefik_service_request_duration_seconds_bucket{{{traefik},code="{code}",le="{seconds}"}} {value}'
        yield f"nginx_ingress_controller_response_duration_seconds_sum{{{nginx}}} {self.milliseconds / 1000}"
        yield f"nginx_ingress_controller_response_duration_seconds_count{{{nginx}}} {sum(everything.values())}"


class Traffic:
    """All streams, behind `/metrics` on a loopback port; a context manager."""

    def __init__(self) -> None:
        self.scrapes = 0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._streams: dict[tuple[str, str], Stream] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="exporter", daemon=True)

    @property
    def address(self) -> str:
        """host:port, as Prometheus wants it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def set(self, namespace: str, target: str = "web", *, failing: float = 0.0, latency: float = GOOD) -> None:
        """From now on requests to a target go like this; there are none before the first time."""
        with self._lock:
            self._advance()
            stream = self._streams.setdefault((namespace, target), Stream(namespace, target))
            stream.failing, stream.latency = failing, latency

    def text(self) -> str:
        """The page."""
        with self._lock:
            self._advance()
            return "".join(f"{line}\n" for stream in self._streams.values() for line in stream.lines())

    def _advance(self) -> None:
        now = time.monotonic()
        for stream in self._streams.values():
            stream.advance(now - self._last)
        self._last = now

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        traffic = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = traffic.text().encode()
                traffic.scrapes += 1
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()
