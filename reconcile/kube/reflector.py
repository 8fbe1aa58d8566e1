"""Keeps a cache equal to what an API server has of one kind: list in pages, then watch, for ever.

- A watch that ends or breaks is taken up where it stopped; only when the server has forgotten that version (410) is listed again.
- While the server cannot be reached, the cache stays as it was.
- A kind that is not installed, or that we may not read, is waited for; the log says so once, and once when it is over.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from reconcile.errors import ReconcileError
from reconcile.kube.client import PAGE, Client
from reconcile.kube.errors import Denied, Expired, KindMissing, Target, Temporary
from reconcile.kube.kindcache import KindCache
from reconcile.kube.metrics import KubeMetrics
from reconcile.ports.clock import Clock
from reconcile.runtime.backoff import BackOff
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

BACK_OFF = BackOff(0.5, 30.0)
"""After a failure, as client-go's reflector."""
SLOW_BACK_OFF = BackOff(2.0, 60.0)
"""While a CRD or a permission is missing: somebody has to do something first."""
WATCH_SECONDS = (300, 600)
"""How long a watch is asked to last, by chance in between: so that not all end together."""
BRIEF = 1.0
"""A watch that ended sooner than this many seconds and brought nothing counts as a failure."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kind is wanted: one namespace or all (empty), and a label selector or none (empty)."""

    namespace: str = ""
    selector: str = ""


class Places(Protocol):
    """Says where the objects of a kind are."""

    async def target(self, info: Any, namespace: str = "") -> Target:
        """The collection; raises KindMissing."""
        ...

    def forget(self, info: Any) -> None:
        """Ask again next time."""
        ...


C = TypeVar("C", bound=KindCache[Any])


class Reflector(Generic[C]):
    """One kind. `run` never ends; `synced` is set once the cache has had everything for the first time.

    `error` is what keeps it from being up to date at present, None when nothing does.
    """

    def __init__(
        self,
        client: Client,
        places: Places,
        cache: C,
        scope: Scope,
        clock: Clock,
        metrics: KubeMetrics | None = None,
        *,
        page: int = PAGE,
    ) -> None:
        self.cache = cache
        self.info = cache.info
        self.synced = asyncio.Event()
        self.tried = asyncio.Event()
        """Set once the first attempt has ended, well or not."""
        self.error: ReconcileError | None = None
        self.version = ""
        """Resource version up to which everything is known; empty: has to be listed."""
        self._client, self._places, self._scope, self._clock = client, places, scope, clock
        self._metrics = metrics
        self._page = page
        self._failures = 0
        self._expirations = 0

    async def run(self) -> None:
        """List and watch; never ends."""
        while True:
            try:
                if not self.version:
                    await self._list()
                await self._follow()
            except Expired as error:
                # The first time is ordinary and needs no wait; a server that says so again and again does.
                self.version = ""
                self._expirations += 1
                log.debug("watch version expired, listing again", kind=self.cache.label, error=str(error))
                if self._expirations > 1:
                    await self._clock.sleep(BACK_OFF.delay(self._expirations - 1))
            except KindMissing as error:
                self.version = ""
                self._places.forget(self.info)
                await self._pause(error, SLOW_BACK_OFF)
            except Denied as error:
                await self._pause(error, SLOW_BACK_OFF)
            except ReconcileError as error:
                await self._pause(error, BACK_OFF)
            except Exception as error:
                log.exception("unexpected failure while following a kind", kind=self.cache.label)
                self.version = ""
                await self._pause(ReconcileError(f"internal error: {type(error).__name__}: {error}"), SLOW_BACK_OFF)

    async def _list(self) -> None:
        target = await self._places.target(self.info, self._scope.namespace)
        api_version = f"{target.group}/{target.version}" if target.group else target.version
        self._count("lists")
        self.cache.begin()
        more = ""
        while True:
            page = await self._client.page(
                target, selector=self._scope.selector, limit=self._page, more=more, metadata_only=self.cache.metadata_only
            )
            self.cache.page(api_version, page.items)
            more = page.more
            if not more:
                break
        self.cache.end(page.version)
        self.version = page.version
        self._well()
        self.synced.set()
        self._gauge()

    async def _follow(self) -> None:
        """One watch, to its end."""
        target = await self._places.target(self.info, self._scope.namespace)
        self._count("watches")
        began, brought = self._clock.monotonic(), False
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - not a secret
        events = self._client.watch(
            target, self.version, selector=self._scope.selector, seconds=seconds, metadata_only=self.cache.metadata_only
        )
        async with aclosing(events):
            async for kind, body in events:
                brought, self._expirations = True, 0
                self._well()
                self._take(kind, body)
        if not brought and self._clock.monotonic() - began < BRIEF:
            raise Temporary(f"the watch of {target.resource} ended at once", "watch", target)

    def _take(self, kind: str, body: dict[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.watch_events.labels(self.cache.label, kind).inc()
        if kind in {"ADDED", "MODIFIED"}:
            self.cache.changed(body)
        elif kind == "DELETED":
            self.cache.deleted(body)
        self.version = str(body["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            self._gauge()

    def _well(self) -> None:
        if self.error is not None:
            log.info("following a kind again", kind=self.cache.label)
        self.error, self._failures = None, 0
        self.tried.set()

    async def _pause(self, error: ReconcileError, back_off: BackOff) -> None:
        if type(self.error) is not type(error):
            log.error("cannot follow a kind", kind=self.cache.label, error=str(error), known=len(self.cache))
        self.error = error
        self._failures += 1
        self.tried.set()
        wait = back_off.delay(self._failures) * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
        asked = getattr(error, "retry_after", None) or 0.0
        await self._clock.sleep(max(min(asked, back_off.greatest), wait))

    def _count(self, what: str) -> None:
        if self._metrics is not None:
            getattr(self._metrics, what).labels(self.cache.label).inc()

    def _gauge(self) -> None:
        if self._metrics is not None:
            self._metrics.objects.labels(self.cache.label).set(len(self.cache))
            self._metrics.unreadable.labels(self.cache.label).set(len(self.cache.unreadable))
