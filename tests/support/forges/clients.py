"""Clients for fake forges."""

from __future__ import annotations

from collections.abc import Mapping

from reconcile.forges.open import OpenForge, Shared, open_forge
from reconcile.ports.clock import SystemClock
from reconcile.ports.forge import Forge, Request, Wanted
from tests.support.forges.interface import FakeForge

BRANCH = "imagebot/podinfo"
WANTED = Wanted("Update podinfo", "| old | new |\n")


class Hasty(SystemClock):
    """Waits for nothing."""

    async def sleep(self, seconds: float) -> None:
        pass


def hasty(timeout: float = 30.0) -> Shared:
    """What clients share, without waits between attempts."""
    return Shared(Hasty(), timeout=timeout)


def client_of(fake: FakeForge, shared: Shared | None = None, *, secret: Mapping[str, bytes] | None = None) -> OpenForge:
    """A client for the repository of a fake."""
    data = fake.secret if secret is None else secret
    return open_forge(fake.provider, fake.url, fake.address, data, secret="apps/forge", shared=shared or hasty())


async def opened(fake: FakeForge, client: Forge, wanted: Wanted = WANTED, branch: str = BRANCH) -> Request:
    """A request of the bot, with one commit."""
    fake.repository.commit({"app.yaml": b"image: app:2\n"}, branch=branch, start=fake.repository.head(), message="Update")
    return await client.open(branch, "main", wanted)
