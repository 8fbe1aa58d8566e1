"""Marks of managed objects: for each kind in use one metadata-only list and watch, by the label that owners put on their objects.

Neither contents nor labels are kept: of each object only what tells that it has moved. A kind that cannot be followed is unknown,
never empty, so that whoever relies on marks asks for its objects one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Self

from reconcile.api.meta import Key
from reconcile.kube.client import PAGE, Client
from reconcile.kube.errors import Denied, KindMissing
from reconcile.kube.kindcache import KindCache, newer, version_of
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.rawcache import AnyKind, AnyPlaces
from reconcile.kube.reflector import Reflector, Scope
from reconcile.kube.resources import Resources
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.stamps import Mark, Notice, Seen, Sight, Touched
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

MAX_KINDS = 48
"""Kinds that are followed at once: each holds a connection. The objects of further ones are asked for one by one."""
SYNC_TIMEOUT = 20.0
"""Seconds for which `follow` waits for the first lists."""
NOTICE_DELAY = 0.2
"""Seconds for which a change is kept back: by then it is known whether it was our own. A watch may be faster than the answer."""
KUSTOMIZE = "kustomize.toolkit.fluxcd.io"

_Kind = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    """What is kept of an object."""

    version: str
    mark: Mark
    owner: tuple[str, str]
    """Namespace and name."""


class _Marks(KindCache[_Held]):
    metadata_only = True

    def __init__(self, info: AnyKind, label: str, stamps: OwnedStamps) -> None:
        super().__init__(label)
        self.info: AnyKind = info
        self._stamps = stamps

    def _decode(self, body: Mapping[str, Any]) -> _Held:
        return _Held(version_of(body), Mark.of(body), self._stamps.owner_of(body))

    def _state(self, held: _Held) -> tuple[str, str]:
        return held.mark.uid, held.version

    def _publish(self, key: Key, old: _Held | None, new: _Held | None, /) -> None:
        if old is None or new is None or (old.mark, old.owner) != (new.mark, new.owner):
            self._stamps.tell(self.info, key, {held.owner for held in (old, new) if held is not None})


class OwnedStamps:
    """The Stamps of one cluster, with our own rights. Use as an async context manager: what follows kinds ends with it.

    Args:
        client: Who we are at which server.
        clock: Time.
        resources: Where kinds are, to share what is remembered.
        prefix: Of the labels `<prefix>/name` and `<prefix>/namespace`; objects that carry the first are followed.
        metrics: Where to count.
        most: Kinds that are followed at once.
        page: Objects of one page of a list.
        namespace: Follow this namespace only; empty: all. Kinds without namespaces are followed either way.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        resources: Resources | None = None,
        prefix: str = KUSTOMIZE,
        metrics: KubeMetrics | None = None,
        most: int = MAX_KINDS,
        page: int = PAGE,
        namespace: str = "",
    ) -> None:
        self._client, self._clock, self._metrics = client, clock, metrics
        self._places = AnyPlaces(resources or Resources(client, clock))
        self._prefix, self._most, self._page, self._namespace = prefix, most, page, namespace
        self._followed: dict[_Kind, Reflector[_Marks]] = {}
        self._tasks: dict[_Kind, asyncio.Task[None]] = {}
        self._notices: list[Notice] = []
        self._moved: dict[Reference, set[tuple[str, str]]] = {}
        self._telling: asyncio.Task[None] | None = None
        self._full = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tasks.values(), *([self._telling] if self._telling is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()
        self._followed.clear()

    # --- the port

    async def follow(self, kinds: Iterable[tuple[str, str]]) -> None:
        """Follow these kinds (apiVersion, kind) from now on; waits a bounded time until what exists of them is known."""
        fresh = [reflector for kind in kinds if (reflector := self._reflector(kind)) is not None and not reflector.tried.is_set()]
        if not fresh:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SYNC_TIMEOUT):
                for reflector in fresh:
                    await reflector.tried.wait()

    def seen(self, which: Reference) -> Seen:
        """What is known of an object: UNKNOWN as well while its kind is not followed or what follows it has fallen behind."""
        reflector = self._followed.get((which.api_version, which.kind))
        if reflector is None or not reflector.synced.is_set() or reflector.error is not None:
            return Sight.UNKNOWN
        if self._namespace and which.namespace not in {"", self._namespace}:
            return Sight.UNKNOWN
        held = reflector.cache.get(Key(which.namespace, which.name))
        return Sight.NONE if held is None else held.mark

    def wrote(self, found: Object) -> None:
        """The answer to a write or read of ours: known at once, before the watch brings it, and without a notice."""
        reflector = self._followed.get((str(found.get("apiVersion")), str(found.get("kind"))))
        if reflector is None or not reflector.synced.is_set() or not reflector.version:
            return
        if self._namespace and found["metadata"].get("namespace", "") not in {"", self._namespace}:
            return  # no watch will tell of its end
        if self._selects(found):
            reflector.cache.wrote(found, known=reflector.version)
        elif newer(version_of(found), reflector.version):
            reflector.cache.deleted(found)
        self._moved.pop(Reference.of(found), None)

    def subscribe(self, notice: Notice) -> None:
        """Tell `notice` of each change of a followed object but our own; what the first list brings is no change."""
        self._notices.append(notice)

    # --- for the caches

    def owner_of(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Namespace and name of the owner that an object's labels name."""
        labels = body["metadata"].get("labels") or {}
        return str(labels.get(f"{self._prefix}/namespace", "")), str(labels.get(f"{self._prefix}/name", ""))

    def tell(self, info: AnyKind, key: Key, owners: set[tuple[str, str]]) -> None:
        """An object has moved."""
        reflector = self._followed.get((info.api_version, info.kind))
        if not self._notices or reflector is None or not reflector.tried.is_set():
            return
        self._moved.setdefault(Reference(info.api_version, info.kind, key.namespace, key.name), set()).update(owners)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later(), name="tell of managed objects", context=Context())

    async def _tell_later(self) -> None:
        while self._moved:
            await self._clock.sleep(NOTICE_DELAY)
            moved, self._moved = self._moved, {}
            for reference, owners in moved.items():
                for notice in self._notices:
                    notice(Touched(reference, frozenset(owners)))

    # --- following

    def _selects(self, found: Object) -> bool:
        return f"{self._prefix}/name" in (found["metadata"].get("labels") or {})

    def _reflector(self, kind: _Kind) -> Reflector[_Marks] | None:
        """What follows a kind, begun now if need be; None when too many are followed already."""
        followed = self._followed.get(kind)
        if followed is not None:
            return followed
        if len(self._followed) >= self._most and not self._make_room():
            if not self._full:
                self._full = True
                log.warning("the objects of further kinds are asked for one by one", followed=self._most, kind=kind[1])
            return None
        info = AnyKind(*kind)
        label = f"managed/{info.label}"
        scope = Scope(self._namespace, f"{self._prefix}/name")
        cache = _Marks(info, label, self)
        reflector = Reflector(self._client, self._places, cache, scope, self._clock, self._metrics, page=self._page)
        self._followed[kind] = reflector
        # It outlives whoever asks for the kind first, and is not to speak in that one's name.
        self._tasks[kind] = asyncio.create_task(reflector.run(), name=f"follow {label}", context=Context())
        return reflector

    def _make_room(self) -> bool:
        """Stop following kinds that could never be followed, or of which no managed object is left."""
        for kind, reflector in list(self._followed.items()):
            hopeless = isinstance(reflector.error, KindMissing | Denied) and not reflector.synced.is_set()
            if hopeless or (reflector.synced.is_set() and not len(reflector.cache)):
                del self._followed[kind]
                self._tasks.pop(kind).cancel()
        return len(self._followed) < self._most
