"""The objects of a cluster, for commands: every failure is one sentence that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reconcile.api.meta import Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.cli.place import Object, Place, UnknownKind
from reconcile.errors import LimitExceeded, NotFound
from reconcile.kube.client import Client, open_client
from reconcile.kube.cluster import KubeCluster
from reconcile.kube.connect import KubeSettings
from reconcile.kube.discovery import Discovery
from reconcile.kube.errors import KindMissing, Target
from reconcile.kube.objects import KubeObjects
from reconcile.kube.store import KubeStore
from reconcile.ports.clock import SystemClock

MANAGER = "imagebot-cli"
"""Field manager of what commands write."""
MAX_PAGES = 200
"""Pages of 500 objects that one list may have."""
CLI_QPS, CLI_BURST = 50.0, 300


class ClusterObjects:
    """See `Objects`; also reads one object and patches it."""

    def __init__(self, client: Client, scheme: Scheme, namespace: str, *, everywhere: bool) -> None:
        self.client = client
        self.namespaced = not everywhere
        self.namespace = namespace
        """The namespace in use; that of the context if none was given."""
        self.where = "in any namespace" if everywhere else f'in namespace "{namespace}"'
        self.anything = KubeCluster(client, SystemClock())
        """Objects of any kind."""
        self._scheme = scheme
        self._discovery = Discovery(client)

    async def all_of(self, info: KindInfo, selector: str = "", *, namespace: str | None = None) -> list[Object]:
        """See `Objects`; of another namespace if that is given. Raises UnknownKind."""
        wanted = namespace if namespace is not None else self.namespace if self.namespaced else ""
        version = await self.version(info)
        items = await self._pages(Target(info.group, version, info.plural, wanted), selector)
        return [_tidy(item, f"{info.group}/{version}", info.kind) for item in items]

    async def find(self, info: KindInfo, name: str) -> list[Object]:
        """See `Objects`. Raises UnknownKind."""
        if self.namespaced:
            return [await self.read(info, Key(self.namespace, name))]
        found = [item for item in await self.all_of(info) if item["metadata"]["name"] == name]
        if not found:
            raise NotFound(f'{info.plural}.{info.group} "{name}" not found {self.where}')
        return found

    async def read(self, info: KindInfo, key: Key) -> Object:
        """One object; raises NotFound in the words of Kubernetes, UnknownKind."""
        version = await self.version(info)
        found = await self.client.get(Target(info.group, version, info.plural, key.namespace, key.name))
        return _tidy(found, f"{info.group}/{version}", info.kind)

    def readers(self) -> tuple[KubeStore, KubeObjects]:
        """What reads single Secrets and single objects of any kind; nothing is followed."""
        clock = SystemClock()
        return KubeStore(self.client, self._scheme, clock, kinds=()), KubeObjects(self.client, clock)

    async def patch(self, info: KindInfo, key: Key, patch: Object) -> Object:
        """Merge patch of one object; raises as `read`."""
        target = Target(info.group, await self.version(info), info.plural, key.namespace, key.name)
        return _tidy(await self.client.merge_patch(target, patch, manager=MANAGER), info.api_version, info.kind)

    async def delete(self, info: KindInfo, key: Key, uid: str) -> None:
        """Delete one object, if it still is that one; raises as `read`, and Conflict."""
        target = Target(info.group, await self.version(info), info.plural, key.namespace, key.name)
        await self.client.delete(target, uid=uid)

    async def events(self) -> list[Object]:
        """See `Objects`."""
        items = await self._pages(Target("", "v1", "events", self.namespace if self.namespaced else ""), "")
        return [_tidy(item, "v1", "Event") for item in items if self._is_ours(item.get("involvedObject") or {})]

    def _is_ours(self, involved: Object) -> bool:
        info = self._scheme.kinds.get(str(involved.get("kind")))
        return info is not None and str(involved.get("apiVersion", "")).startswith(f"{info.group}/")

    async def version(self, info: KindInfo) -> str:
        """The version in which a kind is used; raises UnknownKind."""
        try:
            return await self._discovery.version(info)
        except KindMissing as error:
            raise UnknownKind(
                f"{error}: the definitions are not installed; install them with: imagebot crds | kubectl apply --server-side -f -"
            ) from error

    async def _pages(self, target: Target, selector: str) -> list[Object]:
        found: list[Object] = []
        more = ""
        for _ in range(MAX_PAGES):
            page = await self.client.page(target, selector=selector, more=more)
            found += page.items
            more = page.more
            if not more:
                return found
        raise LimitExceeded(f"there are more than {len(found)} {target.resource}: look at one namespace with -n")


@asynccontextmanager
async def open_cluster(place: Place, scheme: Scheme) -> AsyncIterator[ClusterObjects]:
    """The objects of the cluster that a place names; raises Invalid without a usable configuration."""
    settings = KubeSettings(kubeconfig=place.kubeconfig, context=place.context, qps=CLI_QPS, burst=CLI_BURST, timeout=20.0)
    async with open_client(settings, SystemClock()) as client:
        namespace = place.namespace or client.connection.namespace
        yield ClusterObjects(client, scheme, namespace, everywhere=place.everywhere)


def _tidy(item: Object, api_version: str, kind: str) -> Object:
    """An object as people want it: named even as part of a list, without the bookkeeping of field managers."""
    meta: dict[str, Any] = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    return {"apiVersion": api_version, "kind": kind, **item, "metadata": meta}
