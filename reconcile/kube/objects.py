"""Objects at an API server: a kind is listed and watched from its first read on, so that reads cost no request.

What a write was answered is in memory before the caller has it. Kinds whose content nobody should hold (Secret, ConfigMap) are
listed and watched by metadata only: their content never comes unless it is read by name.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from copy import deepcopy
from typing import Any, Self, TypeAlias

import orjson

from reconcile.api.meta import Key
from reconcile.errors import Conflict, Invalid, LimitExceeded, NotFound, ReconcileError
from reconcile.kube.client import PAGE, Client
from reconcile.kube.errors import Denied, KindMissing, ObjectMissing, Outdated, Target
from reconcile.kube.kindcache import newer, uid_of, version_of
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.rawcache import AnyCache, AnyKind, AnyPlaces, Bodies, Stamps, stamp_of, trimmed
from reconcile.kube.reflector import Reflector, Scope
from reconcile.kube.resources import Resources
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Moved, Notice, Stamp
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

METADATA_ONLY = frozenset({("v1", "Secret"), ("v1", "ConfigMap")})
"""Kinds, with their apiVersion, whose content is not held in memory."""
MAX_KINDS = 64
"""Kinds that are followed at once: each holds a connection."""
SYNC_TIMEOUT = 30.0
"""Seconds for which a read waits for the first list of its kind."""

_Kind: TypeAlias = tuple[str, str]
_Reflector: TypeAlias = Reflector[Bodies] | Reflector[Stamps]


class KubeObjects:
    """The Objects of cluster mode. Use as an async context manager: what follows kinds ends with it.

    Args:
        client: Who we are at which server. Its fence is asked before each write.
        clock: Time.
        resources: Where kinds are, to share what is remembered.
        namespace: Follow this namespace only; empty: all. Kinds without namespaces are followed either way.
        metrics: Where to count.
        cluster: Name of the cluster in logs and metrics where there are several.
        page: Objects of one page of a list.
        most: Kinds that are followed at once.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        resources: Resources | None = None,
        namespace: str = "",
        metrics: KubeMetrics | None = None,
        cluster: str = "",
        page: int = PAGE,
        most: int = MAX_KINDS,
    ) -> None:
        self._client, self._clock, self._metrics = client, clock, metrics
        self._resources = resources or Resources(client, clock)
        self._places = AnyPlaces(self._resources)
        self._namespace, self._cluster, self._page, self._most = namespace, cluster, page, most
        self._followed: dict[_Kind, _Reflector] = {}
        self._tasks: dict[_Kind, asyncio.Task[None]] = {}
        self._notices: list[Notice] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()
        self._followed.clear()

    # --- the port: reading

    async def get(self, which: Reference) -> Object:
        """A copy of the object as it is known.

        Raises:
            NotFound: There is none, in Kubernetes' words.
            KindMissing: The server does not serve this kind.
            Denied: We may not list or watch this kind; the text has the missing rule.
            LimitExceeded: Too many kinds are followed.
            Invalid: Content of this kind is not held: see `read`.
        """
        cache = (await self._ready(which)).cache
        if not isinstance(cache, Bodies):
            raise Invalid(f"{which.kind} is followed by metadata only: its content is read from the server")
        found = cache.get(_key(which))
        if found is None:
            raise NotFound(f'{cache.info.resource} "{which.name}" not found')
        body: Object = orjson.loads(found.text)
        return body

    async def find(self, which: Reference) -> Object | None:
        """As `get`; None when there is no such object."""
        try:
            return await self.get(which)
        except NotFound:
            return None

    async def stamp(self, which: Reference) -> Stamp | None:
        """What the metadata of an object says; None when there is no such object. Raises as `get`."""
        cache = (await self._ready(which)).cache
        if isinstance(cache, Stamps):
            return cache.get(_key(which))
        found = cache.get(_key(which))
        return None if found is None else stamp_of(orjson.loads(found.text))

    async def read(self, which: Reference) -> Object:
        """The object as the server has it now: one request, and nothing remembered. Raises NotFound, KindMissing or Denied."""
        target = await self._target(which)
        try:
            return trimmed(await self._client.get(target), which.api_version, which.kind)
        except KindMissing:
            self._resources.forget(which.api_version)
            raise

    # --- the port: writing

    async def create(self, wanted: Object, *, manager: str) -> Object:
        """Make an object; raises Conflict when there is one of this name."""
        which = Reference.of(wanted)
        named = await self._target(which)
        collection = Target(named.group, named.version, named.plural, named.namespace)
        try:
            answer = await self._client.create(collection, wanted, manager=manager)
        except Outdated:
            await self._refresh(which, named)
            raise
        except KindMissing:
            self._resources.forget(which.api_version)
            raise
        return self._wrote(which, answer)

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        """Merge patch (RFC 7386); the object as it is then. Raises Conflict when the object has changed since it was read."""
        reference = which if isinstance(which, Reference) else Reference.of(which)
        if not patch:
            return await self.get(reference) if isinstance(which, Reference) else deepcopy(which)
        if not isinstance(which, Reference):
            self._refuse_outdated(reference, which)
            patch = {**patch, "metadata": {"resourceVersion": version_of(which), **(patch.get("metadata") or {})}}
        target = await self._target(reference)
        try:
            answer = await self._client.merge_patch(target, patch, manager=manager)
        except Outdated:
            await self._refresh(reference, target)
            raise
        except KindMissing:
            self._resources.forget(reference.api_version)
            raise
        return self._wrote(reference, answer)

    async def delete(self, which: Object | Reference) -> bool:
        """Ask for an object's end; False when there was none. What it owns goes afterwards.

        Raises Conflict when an object was given and there is another one of its name by now.
        """
        reference = which if isinstance(which, Reference) else Reference.of(which)
        uid = "" if isinstance(which, Reference) else uid_of(which)
        target = await self._target(reference)
        try:
            answer = await self._client.delete(target, uid=uid)
        except ObjectMissing:
            return False
        except KindMissing:
            self._resources.forget(reference.api_version)
            raise
        if answer.get("kind") != "Status":
            self._wrote(reference, answer)  # it stays for a while: somebody has a finalizer on it
        elif (reflector := self._followed.get(_kind(reference))) is not None:
            reflector.cache.ended(_key(reference), str((answer.get("details") or {}).get("uid") or uid))
        return True

    def subscribe(self, notice: Notice) -> None:
        """Tell `notice` of every change of a followed kind, when reads have it. What the first list brings is no change."""
        self._notices.append(notice)

    # --- memory

    def _wrote(self, which: Reference, answer: Object) -> Object:
        """Have the answer in memory; the answer as callers know objects."""
        body = trimmed(answer, which.api_version, which.kind)
        reflector = self._followed.get(_kind(which))
        if reflector is not None and self._in_scope(which):
            reflector.cache.wrote(body, known=reflector.version)
        return body

    def _refuse_outdated(self, which: Reference, given: Object) -> None:
        """Spare the server a write that it would refuse."""
        reflector = self._followed.get(_kind(which))
        if reflector is None:
            return
        held = reflector.cache.get(_key(which))
        if held is not None and held.uid == uid_of(given) and newer(held.version, version_of(given)):
            raise Conflict(f'{reflector.cache.info.resource} "{which.name}": the object has been modified')

    async def _refresh(self, which: Reference, target: Target) -> None:
        """Have what the server has, before the watch brings it: whoever met a conflict reads the object again at once."""
        if _kind(which) in METADATA_ONLY or _kind(which) not in self._followed:
            return
        with suppress(ReconcileError):  # the watch will tell
            self._wrote(which, await self._client.get(target))

    # --- following

    async def _ready(self, which: Reference) -> _Reflector:
        """What follows the kind, once it was listed and while it can be followed."""
        if not self._in_scope(which):
            raise ReconcileError(f'{which}: only namespace "{self._namespace}" is watched')
        reflector = self._followed.get(_kind(which)) or self._follow(_kind(which))
        if not reflector.synced.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SYNC_TIMEOUT):
                    await reflector.tried.wait()
                    _refuse_unserved(reflector)
                    await reflector.synced.wait()
        _refuse_unserved(reflector)
        if not reflector.synced.is_set():
            raise ReconcileError(f"{reflector.cache.label}: {reflector.error or 'the list of objects is not complete yet'}")
        return reflector

    def _follow(self, kind: _Kind) -> _Reflector:
        if len(self._followed) >= self._most:
            self._make_room()
        info = AnyKind(*kind)
        label = f"{self._cluster}/{info.label}" if self._cluster else info.label
        scope = Scope(self._namespace)
        cache: AnyCache = Stamps(info, label, self._tell) if kind in METADATA_ONLY else Bodies(info, label, self._tell)
        reflector: Any = Reflector(self._client, self._places, cache, scope, self._clock, self._metrics, page=self._page)
        self._followed[kind] = reflector
        # It outlives whoever reads the kind first, and is not to speak in that one's name.
        self._tasks[kind] = asyncio.create_task(reflector.run(), name=f"follow {label}", context=Context())
        followed: _Reflector = reflector
        return followed

    def _make_room(self) -> None:
        """Stop following kinds that could never be followed, so that names that people made up take nobody's place."""
        for kind, reflector in list(self._followed.items()):
            if reflector.error is not None and not reflector.synced.is_set():
                del self._followed[kind]
                self._tasks.pop(kind).cancel()
        if len(self._followed) >= self._most:
            raise LimitExceeded(f"{self._most} kinds of objects are watched already")

    def _tell(self, info: AnyKind, key: Key, status_only: bool) -> None:
        reflector = self._followed.get((info.api_version, info.kind))
        if reflector is None or not reflector.tried.is_set():
            return
        moved = Moved(Reference(info.api_version, info.kind, key.namespace, key.name), status_only)
        for notice in self._notices:
            notice(moved)

    def _in_scope(self, which: Reference) -> bool:
        return not self._namespace or which.namespace in {"", self._namespace}

    async def _target(self, which: Reference) -> Target:
        return (await self._resources.find(which.api_version, which.kind)).named(which)


def _refuse_unserved(reflector: _Reflector) -> None:
    """Raise what nothing but somebody's action will end; whatever else is wrong, what is in memory is the best there is."""
    error = reflector.error
    if isinstance(error, KindMissing | Denied | Invalid):
        raise error.with_traceback(None)  # the same one is raised again and again


def _kind(which: Reference) -> _Kind:
    return which.api_version, which.kind


def _key(which: Reference) -> Key:
    return Key(which.namespace, which.name)
