"""The way to a forge: out of a Secret a client, kept as long as what it is made of stays the same."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from imagebot.bot.source import Source
from imagebot.pullrequests import ForgeReference
from reconcile.api.meta import Key
from reconcile.forges.open import OpenForge, Shared, open_forge
from reconcile.forges.session import Observe
from reconcile.net.proxy import make_proxy
from reconcile.ports.clock import Clock
from reconcile.ports.store import Store

MAX_CLIENTS = 64


@dataclass(slots=True)
class _Client:
    forge: OpenForge = field(repr=False)
    users: int = 0


class Forges:
    """Gives out clients; those used longest ago are closed above `MAX_CLIENTS`."""

    def __init__(self, store: Store, clock: Clock, observe: Observe | None = None) -> None:
        """`observe` is told of every request to a forge."""
        self._store = store
        self._shared = Shared(clock, observe)
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    @asynccontextmanager
    async def using(self, namespace: str, where: ForgeReference, source: Source) -> AsyncIterator[OpenForge]:
        """The client for the repository of `source`; it is not closed while it is in use.

        Raises:
            NotFound: there is no such Secret in the namespace.
            Invalid: the Secret or an address cannot be used.
        """
        key = Key(namespace, where.secret_ref.name)
        data = (await self._store.secret(key)).data
        identity = _identity(key, where, source, data)
        client = self._clients.get(identity)
        if client is None:
            proxy = make_proxy(source.credentials.proxy) if source.credentials.proxy else None
            forge = open_forge(
                where.provider, source.url, where.address or "", data, secret=str(key), proxy=proxy, shared=self._shared
            )
            client = self._clients[identity] = _Client(forge)
        self._clients.move_to_end(identity)
        client.users += 1
        try:
            await self._trim()
            yield client.forge
        finally:
            client.users -= 1

    async def close(self) -> None:
        """Close every client."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.forge.aclose()

    async def _trim(self) -> None:
        idle = [identity for identity, client in self._clients.items() if client.users == 0]
        for identity in idle[: max(0, len(self._clients) - MAX_CLIENTS)]:
            await self._clients.pop(identity).forge.aclose()


def _identity(key: Key, where: ForgeReference, source: Source, data: Mapping[str, bytes]) -> str:
    """A name for all that a client is made of, which gives nothing of it away."""
    hasher = hashlib.sha256()
    parts = [str(key), where.provider, where.address or "", source.url, source.credentials.proxy]
    for part in (*(text.encode() for text in parts), *(x for name in sorted(data) for x in (name.encode(), data[name]))):
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.hexdigest()
