"""Which version of a kind the server serves; asked once, and again when something was not there."""

from __future__ import annotations

import asyncio

from reconcile.api.scheme import KindInfo
from reconcile.kube.client import Client
from reconcile.kube.errors import KindMissing, Target


class Discovery:
    """Finds the version of each kind that is used on the wire: the first of ours that the server has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._versions: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def target(self, info: KindInfo, namespace: str = "", name: str = "", subresource: str = "") -> Target:
        """Where objects of a kind are; raises KindMissing with the words of Kubernetes when the server does not have it."""
        return Target(info.group, await self.version(info), info.plural, namespace, name, subresource)

    async def version(self, info: KindInfo) -> str:
        """The version used for a kind; raises KindMissing."""
        found = self._versions.get(info.kind)
        if found is not None:
            return found
        async with self._lock:
            if info.kind not in self._versions:
                self._versions[info.kind] = await self._ask(info)
        return self._versions[info.kind]

    def forget(self, info: KindInfo) -> None:
        """Ask again next time: the version is not served any more."""
        self._versions.pop(info.kind, None)

    async def _ask(self, info: KindInfo) -> str:
        try:
            group = await self._client.get(Target(info.group, "", ""))
            served = {entry["version"] for entry in group.get("versions") or ()}
            for version in info.versions:
                if version in served and await self._has(info, version):
                    return version
        except KindMissing:
            pass
        raise KindMissing(
            f'no matches for kind "{info.kind}" in version "{info.api_version}"', "get", Target(info.group, "", info.plural)
        )

    async def _has(self, info: KindInfo, version: str) -> bool:
        resources = await self._client.get(Target(info.group, version, ""))
        return any(entry["name"] == info.plural for entry in resources.get("resources") or ())
