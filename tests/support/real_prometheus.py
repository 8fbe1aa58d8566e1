"""A real Prometheus that scrapes an exporter whose error rate and latency a test controls."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

USER = "ann"
PASSWORD = "secret-password"
# bcrypt of the password at the lowest cost
_WEB = f"basic_auth_users: {{{USER}: '$2b$04$abcdefghijklmnopqrstuuq8DwlpszTVmH1ckl/VPV38Vwtq3col2'}}\n"
BUCKETS = (10.0, 100.0, 1000.0)


@dataclass
class Exporter:
    """The telemetry that Istio would give of one workload: each scrape finds more requests than the last.

    Attributes:
        failed: Share of requests that fail.
        milliseconds: How long each request takes.
        silent: Whether there is no traffic, and so no series.
    """

    namespace: str
    workload: str
    failed: float = 0.0
    milliseconds: float = 5.0
    silent: bool = False
    scrapes: int = 0
    port: int = 0
    _good: float = 0.0
    _bad: float = 0.0
    _buckets: dict[float, float] = field(default_factory=lambda: dict.fromkeys((*BUCKETS, float("inf")), 0.0))

    def _text(self) -> str:
        self.scrapes += 1
        if self.silent:
            return "idle 1\n"
        self._good += 100 * (1 - self.failed)
        self._bad += 100 * self.failed
        for bound in self._buckets:
            self._buckets[bound] += 100 if self.milliseconds <= bound else 0
        labels = (
            f'reporter="destination",destination_workload_namespace="{self.namespace}",destination_workload="{self.workload}"'
        )
        lines = [
            f'istio_requests_total{{{labels},response_code="{code}"}} {count}'
            for code, count in (("200", self._good), ("503", self._bad))
        ]
        name = "istio_request_duration_milliseconds_bucket"
        lines += [
            f'{name}{{{labels},le="{"+Inf" if bound == float("inf") else bound}"}} {n}' for bound, n in self._buckets.items()
        ]
        lines += [f'part{{n="{n}"}} {n}' for n in range(3)]
        return "\n".join(lines) + "\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one scrape."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = self._text().encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()


@dataclass(frozen=True)
class RealPrometheus:
    """A running server under a base path, open to `USER` alone, and what it scrapes."""

    url: str
    exporter: Exporter

    async def scraped(self, more: int) -> None:
        """Wait until so many more scrapes were begun, and those before them stored."""
        goal = self.exporter.scrapes + more
        while self.exporter.scrapes <= goal:
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def real_prometheus(folder: Path, exporter: Exporter) -> AsyncIterator[RealPrometheus]:
    """Start both; a scrape every 250 ms."""
    server = await asyncio.start_server(exporter.serve, "127.0.0.1", 0)
    exporter.port = server.sockets[0].getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    config, web = folder / "prometheus.yml", folder / "web.yml"
    config.write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
        f"scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]}}]\n"
    )
    web.write_text(_WEB)
    process = await asyncio.create_subprocess_exec(
        shutil.which("prometheus") or "prometheus", f"--config.file={config}", f"--web.config.file={web}",
        f"--storage.tsdb.path={folder}/data", f"--web.listen-address={place}", f"--web.external-url=http://{place}/base",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False, auth=(USER, PASSWORD)) as client:
            while not await _ready(client, f"http://{place}/base/-/ready"):
                await asyncio.sleep(0.1)
        yield RealPrometheus(f"http://{place}/base", exporter)
    finally:
        process.kill()
        await process.wait()
        server.close()
        await server.wait_closed()


async def _ready(client: Any, url: str) -> bool:
    try:
        return bool((await client.get(url)).status_code == 200)
    except httpx.HTTPError:
        return False
