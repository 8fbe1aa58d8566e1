"""Store on custom resources: reads come from memory, kept up to date by watches; each write is one request, or none.

What a write was answered is in memory before the caller has it, so that nobody reads an older state than they wrote. Status and
finalizers are written as merge patches with the resource version as the condition: only what differs is sent, what is
taken away is sent as null, and fields that our model does not know stay as they are.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self

from reconcile.api.mergepatch import difference
from reconcile.api.meta import CommonStatus, Key
from reconcile.api.resource import AnyResource, dump
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.kube.cache import Cache
from reconcile.kube.client import PAGE, Client, Object
from reconcile.kube.discovery import Discovery
from reconcile.kube.errors import KindMissing, ObjectMissing, Outdated, Target
from reconcile.kube.kindcache import newer
from reconcile.kube.metrics import KubeMetrics
from reconcile.kube.recent import Recent
from reconcile.kube.reflector import Reflector, Scope
from reconcile.ports.clock import Clock
from reconcile.ports.store import Change, Secret, ServiceAccount
from reconcile.runtime.feed import Feed

SYNC_TIMEOUT = 30.0
"""Seconds for which a read waits for the first list of its kind."""
SECRET_AGE = 2.0
"""Seconds for which a Secret or ServiceAccount is remembered: a cold start of many objects asks once."""
NAMESPACE_AGE = 10.0
"""Seconds for which the labels of a namespace are remembered."""
MANAGER = "imagebot"
"""Field manager of kinds that name no controller."""


class KubeStore:
    """The Store of cluster mode. Use as an async context manager: watches run inside.

    Args:
        client: Who we are at which server.
        scheme: Our kinds.
        clock: Time.
        kinds: Kinds to follow; all of the scheme if not given.
        namespace: Follow this namespace only; empty: all.
        selectors: Label selectors by kind, for shards.
        metrics: Where to count.
        page: Objects of one page of a list.
    """

    def __init__(
        self,
        client: Client,
        scheme: Scheme,
        clock: Clock,
        *,
        kinds: Sequence[str] | None = None,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
        metrics: KubeMetrics | None = None,
        page: int = PAGE,
    ) -> None:
        self._client, self._scheme, self._clock = client, scheme, clock
        self._feed = Feed()
        self._discovery = Discovery(client)
        self.reflectors: dict[str, Reflector[Cache]] = {}
        for info in scheme:
            if kinds is None or info.kind in kinds:
                scope = Scope(namespace, (selectors or {}).get(info.kind, ""))
                cache = Cache(info, scheme, self._feed)
                self.reflectors[info.kind] = Reflector(client, self._discovery, cache, scope, clock, metrics, page=page)
        self._secrets: Recent[Key, Secret] = Recent(SECRET_AGE)
        self._accounts: Recent[Key, ServiceAccount] = Recent(SECRET_AGE)
        self._namespaces: Recent[str, Mapping[str, str]] = Recent(NAMESPACE_AGE)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for kind, reflector in self.reflectors.items():
            task = asyncio.create_task(reflector.run(), name=f"follow {kind}")
            self._stack.push_async_callback(_end, task)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for recent in (self._secrets, self._accounts, self._namespaces):
            recent.clear()

    def problem(self) -> str | None:
        """Why the store cannot be used yet, None when it can: every kind that is installed was listed once."""
        waiting = [
            f"{kind}: {reflector.error or 'not listed yet'}"
            for kind, reflector in self.reflectors.items()
            if not reflector.synced.is_set() and not isinstance(reflector.error, KindMissing)
        ]
        return "; ".join(waiting) or None

    # --- the port: reading

    async def get(self, kind: str, key: Key) -> AnyResource:
        """The object; raises NotFound, or what keeps this kind from being read."""
        reflector = await self._ready(kind)
        found = reflector.cache.get(key)
        if found is None:
            if isinstance(reflector.error, KindMissing):
                raise NotFound(str(reflector.error))
            raise NotFound(f'{kind}.{reflector.cache.info.group} "{key.name}" not found')
        return found

    async def list(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        """All objects of a kind, of one namespace if given, ordered by key; none of a kind that is not installed."""
        return list((await self._ready(kind)).cache.all(namespace))

    def watch(self, kinds: Sequence[str]) -> AsyncIterator[Change]:
        """What exists now as ADDED, then every change; never ends. A kind that is not listed yet follows when it is."""

        def existing() -> Iterator[AnyResource]:
            for kind in kinds:
                yield from self._reflector(kind).cache.all()

        return self._feed.watch(kinds, existing())

    async def secret(self, key: Key) -> Secret:
        """A Secret, not older than two seconds; raises NotFound with Kubernetes' text, Invalid when it cannot be decoded."""

        async def load() -> Secret:
            return _secret(key, await self._client.get(Target("", "v1", "secrets", key.namespace, key.name)))

        return await self._secrets.get(key, load)

    async def service_account(self, key: Key) -> ServiceAccount:
        """A ServiceAccount, not older than two seconds; raises NotFound."""

        async def load() -> ServiceAccount:
            body = await self._client.get(Target("", "v1", "serviceaccounts", key.namespace, key.name))
            names = tuple(str(entry["name"]) for entry in body.get("imagePullSecrets") or () if entry.get("name"))
            return ServiceAccount(key, names, dict(body["metadata"].get("annotations") or {}))

        return await self._accounts.get(key, load)

    async def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace, not older than ten seconds; none when there is no such namespace."""

        async def load() -> Mapping[str, str]:
            try:
                body = await self._client.get(Target("", "v1", "namespaces", name=name))
            except ObjectMissing:
                return {}
            return dict(body["metadata"].get("labels") or {})

        return await self._namespaces.get(name, load)

    # --- the port: writing

    async def write_status(self, resource: AnyResource, status: CommonStatus) -> AnyResource:
        """Replace the status of the object as read: one request, none when it is equal. Raises Conflict or NotFound."""
        patch = difference(dump(resource.status), dump(status))
        self._refuse_outdated(resource)
        return await self._write(resource, "status", {"status": patch}) if patch else resource

    async def write_finalizers(self, resource: AnyResource, finalizers: Sequence[str]) -> AnyResource:
        """Replace the finalizers of the object as read: one request, none when they are equal. Raises Conflict or NotFound."""
        self._refuse_outdated(resource)
        if list(finalizers) == resource.meta.finalizers:
            return resource
        return await self._write(resource, "", {"metadata": {"finalizers": list(finalizers)}})

    async def create(self, resource: AnyResource) -> AnyResource:
        """Make an object; raises Conflict when there is one of this name."""
        reflector = self._reflector(resource.kind)
        info = reflector.cache.info
        target = await self._target(info, Key(resource.key.namespace, ""))
        meta: Object = {"name": resource.key.name, "namespace": resource.key.namespace, **_texts(resource)}
        body = {
            "apiVersion": f"{target.group}/{target.version}",
            "kind": info.kind,
            "metadata": meta,
            "spec": dump(resource.spec),
        }
        try:
            answer = await self._client.create(target, body, manager=_manager(info))
        except Outdated:
            await self._refresh(info, resource.key)
            raise
        except KindMissing:
            self._discovery.forget(info)
            raise
        return reflector.cache.wrote(answer, known=reflector.version)

    async def update(self, resource: AnyResource) -> AnyResource:
        """Replace labels, annotations and spec of the object as read: one request, none when they are equal.

        Raises Conflict or NotFound.
        """
        self._refuse_outdated(resource)
        held = await self.get(resource.kind, resource.key)
        patch: Object = {}
        if meta := difference(_texts(held), _texts(resource)):
            patch["metadata"] = meta
        if spec := difference(dump(held.spec), dump(resource.spec)):
            patch["spec"] = spec
        return await self._write(resource, "", patch) if patch else held

    async def delete(self, resource: AnyResource) -> None:
        """Delete the object as read; raises Conflict or NotFound."""
        self._refuse_outdated(resource)
        reflector = self._reflector(resource.kind)
        info, meta = reflector.cache.info, resource.meta
        target = await self._target(info, resource.key)
        try:
            await self._client.delete(target, uid=meta.uid, version=meta.resource_version)
        except Outdated:
            await self._refresh(info, resource.key)
            raise
        if not meta.finalizers:
            reflector.cache.ended(resource.key, meta.uid)

    async def _write(self, resource: AnyResource, subresource: str, patch: Object) -> AnyResource:
        info = self._reflector(resource.kind).cache.info
        target = await self._target(info, resource.key, subresource)
        patch["metadata"] = {"resourceVersion": resource.meta.resource_version, **patch.get("metadata", {})}
        try:
            answer = await self._client.merge_patch(target, patch, manager=_manager(info))
        except Outdated:
            await self._refresh(info, resource.key)
            raise
        except KindMissing:
            self._discovery.forget(info)
            raise
        return self._reflector(resource.kind).cache.wrote(answer)

    def _refuse_outdated(self, resource: AnyResource) -> None:
        """Spare the server a write that it would refuse."""
        held = self._reflector(resource.kind).cache.get(resource.key)
        if held is None or held.meta.uid != resource.meta.uid:
            return
        if newer(held.meta.resource_version, resource.meta.resource_version):
            raise Conflict(f"{resource.kind} {resource.key} has changed since it was read")

    async def _refresh(self, info: KindInfo, key: Key) -> None:
        """Have what the server has, before the watch brings it: whoever met a conflict reads the object again at once."""
        try:
            body = await self._client.get(await self._target(info, key))
            reflector = self._reflector(info.kind)
            reflector.cache.wrote(body, known=reflector.version)
        except ReconcileError:
            return  # the watch will tell

    async def _target(self, info: KindInfo, key: Key, subresource: str = "") -> Target:
        return await self._discovery.target(info, key.namespace, key.name, subresource)

    # --- waiting

    def _reflector(self, kind: str) -> Reflector[Cache]:
        try:
            return self.reflectors[kind]
        except KeyError:
            raise Invalid(f"kind {kind} is not followed") from None

    async def _ready(self, kind: str) -> Reflector[Cache]:
        """The reflector of a kind that was listed once, or that is known not to be installed."""
        reflector = self._reflector(kind)
        if reflector.synced.is_set():
            return reflector
        try:
            async with asyncio.timeout(SYNC_TIMEOUT):
                await reflector.tried.wait()
                if isinstance(reflector.error, KindMissing):
                    return reflector
                await reflector.synced.wait()
        except TimeoutError:
            raise reflector.error or ReconcileError(f"{kind}: the list of objects is not complete yet") from None
        return reflector


def _manager(info: KindInfo) -> str:
    return info.field_manager or info.controller or MANAGER


def _texts(resource: AnyResource) -> Object:
    """Labels and annotations, those of them that there are."""
    texts = {"labels": resource.meta.labels, "annotations": resource.meta.annotations}
    return {name: dict(value) for name, value in texts.items() if value}


def _secret(key: Key, body: Object) -> Secret:
    data = {}
    for name, text in (body.get("data") or {}).items():
        try:
            data[name] = base64.b64decode(text or "", validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(f"key '{name}' of secret '{key}' is not base64") from None
    return Secret(key, str(body.get("type") or "Opaque"), data)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
