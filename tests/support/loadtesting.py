"""A load tester on a real socket, and what calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson

from canary.loadtester.kinds import Allowed
from canary.loadtester.payload import Refused
from canary.loadtester.releases import Kind, Releases
from canary.loadtester.service import Settings, load_tester
from reconcile.ports.clock import Clock, SystemClock

LOOPBACK = "127.0.0.1:0"
SETTINGS = Settings(LOOPBACK, Allowed(), longest=60.0)


class LoadTester:
    """Calls a load tester as webhooks and people do."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url, self.client = url, client

    async def post(self, path: str, content: bytes | None = None, **body: Any) -> tuple[int, str]:
        """Status and text of the answer to a payload for `my-app` in `production`, unless the body says otherwise."""
        payload = {"name": "my-app", "namespace": "production", **body}
        answer = await self.client.post(self.url + path, content=orjson.dumps(payload) if content is None else content)
        return answer.status_code, answer.text

    async def task(self, **metadata: str) -> tuple[int, str]:
        """The answer to a task."""
        return await self.post("/", metadata=metadata)

    async def metrics(self) -> dict[str, float]:
        """Every series by its name with labels."""
        text = (await self.client.get(f"{self.url}/metrics")).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    async def counted(self, series: str, value: float) -> dict[str, float]:
        """All series, once one of them has reached a value."""
        async with asyncio.timeout(20):
            while (found := await self.metrics()).get(series, 0.0) < value:
                await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def running(
    settings: Settings = SETTINGS, releases: Releases | None = None, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[LoadTester]:
    """A load tester, with some of its settings changed."""
    async with (
        load_tester(replace(settings, **changes), releases, clock or SystemClock()) as url,
        httpx.AsyncClient(timeout=30, trust_env=False, verify=False) as client,
    ):
        yield LoadTester(url, client)


@dataclass
class FakeReleases:
    """Objects of Flux: each call is answered by the next step of the script."""

    script: list[str | Refused] = field(default_factory=list)
    asked: list[tuple[Kind, str, str]] = field(default_factory=list)
    ended: int = 0

    async def ready(self, kind: Kind, namespace: str, name: str, seconds: float) -> str:
        self.asked.append((kind, namespace, name))
        if not self.script:
            try:
                await asyncio.sleep(seconds)
            finally:
                self.ended += 1
            raise Refused(424, "never ready")
        step = self.script.pop(0)
        if isinstance(step, Refused):
            raise step
        return step


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


def processes(mark: str) -> list[int]:
    """The processes that have a text in their command line, ended ones left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if mark.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
