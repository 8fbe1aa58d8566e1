"""A lab that takes hints, and a registry's side of them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any, Self

import httpx
import orjson

from imagebot.hints.desk import Desk
from imagebot.hints.doors import path_of
from reconcile.api.meta import Key
from tests.support.lab import Lab, Running, eventually, image_repository, secret

TOKEN = "0123456789abcdef0123456789abcdef"


def hinted(world: Lab, kind: str, name: str = "web", image: str = "web", **spec: Any) -> None:
    """Declare an ImageRepository that takes hints of this kind, and its Secret; it is scanned once in an hour without them."""
    world.settings = replace(world.settings, packages={"hints_addr": "127.0.0.1:0"})
    world.declare(
        image_repository(name, world.image(image), hint={"type": kind, "secretRef": {"name": "hint"}}, **spec),
        secret("hint", {"token": TOKEN}),
    )


def path(name: str = "web", token: str = TOKEN) -> str:
    """Where the hints for an ImageRepository go to."""
    return path_of(token.encode(), Key("apps", name))


def signed(body: bytes, token: str = TOKEN, algorithm: str = "sha256") -> dict[str, str]:
    """The header of our own sender."""
    return {"x-signature": f"{algorithm}={hmac.new(token.encode(), body, getattr(hashlib, algorithm)).hexdigest()}"}


class Sender:
    """Sends to the service, and knows what it counts."""

    def __init__(self, running: Running) -> None:
        self._running = running
        controller = next(c for c in running.service.controllers if c.kind == "ImageRepository")
        self.queue = controller.queue
        self.desk: Desk = controller.reconciler.desk  # type: ignore[attr-defined]
        assert self.desk.url is not None
        self.client = httpx.AsyncClient(base_url=self.desk.url, trust_env=False, timeout=30.0)

    async def __aenter__(self) -> Self:
        await eventually(lambda: self.desk.find(path()) is not None, "the path of the hints")
        await self._running.until_ready("ImageRepository", "web")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def send(self, document: Any, *, to: str | None = None, headers: dict[str, str] | None = None) -> int:
        """Send a document, signed as our own sender does unless there are headers; the status of the answer."""
        body = document if isinstance(document, bytes) else orjson.dumps(document)
        response = await self.client.post(to or path(), content=body, headers=signed(body) if headers is None else headers)
        assert response.status_code == 404 or response.content == b""
        return response.status_code

    def count(self, kind: str, outcome: str) -> int:
        """How often the metric says this."""
        value = self._running.service.metrics.registry.get_sample_value(
            "imagebot_hints_total", {"type": kind, "outcome": outcome}
        )
        return int(value or 0)
