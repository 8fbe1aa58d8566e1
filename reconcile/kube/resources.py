"""Which resource of the API a kind is, for kinds of anybody: one request for each group version, remembered for a while."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from reconcile.errors import Invalid
from reconcile.kube.client import Client
from reconcile.kube.errors import KindMissing, Target
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Reference

AGE = 600.0
"""Seconds for which the kinds of a group version are remembered."""
MAX_VERSIONS = 256
"""Group versions that are remembered; a large cluster serves about a hundred."""

# Its parts become parts of a path.
_API_VERSION = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the objects of a kind are."""

    group: str
    version: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone in the core."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def target(self, namespace: str = "", name: str = "") -> Target:
        """An object, or the collection; the namespace does not count where there is none."""
        return Target(self.group, self.version, self.plural, namespace if self.namespaced else "", name)

    def named(self, reference: Reference) -> Target:
        """The target of one object; raises Invalid when a part of its path is missing or would be another path."""
        if self.namespaced and not reference.namespace:
            raise Invalid(f"{reference}: {reference.kind} is namespaced, and there is no namespace")
        for part in (reference.namespace, reference.name):
            if part in {".", ".."} or any(c in "/%?#" for c in part):
                raise Invalid(f"{reference}: {part!r} is not a name")
        if not reference.name:
            raise Invalid(f"{reference}: there is no name")
        return self.target(reference.namespace, reference.name)


@dataclass(frozen=True, slots=True)
class _Known:
    resources: Mapping[str, Resource]
    until: float


class Resources:
    """Finds the resource of an apiVersion and kind.

    A kind that is not in what is remembered is looked for once more, as its definition may be new.
    """

    def __init__(self, client: Client, clock: Clock, *, age: float = AGE, most: int = MAX_VERSIONS) -> None:
        self._client, self._clock = client, clock
        self._age, self._most = age, most
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, api_version: str, kind: str) -> Resource:
        """The resource; raises KindMissing with Kubernetes' words, Invalid when `api_version` cannot be one."""
        group, version = _parsed(api_version)
        before = self._remembered(api_version)
        if before is not None and kind in before.resources:
            return before.resources[kind]
        try:
            return (await self._load(api_version, before)).resources[kind]
        except (KeyError, KindMissing):
            missing = f'no matches for kind "{kind}" in version "{api_version}"'
            raise KindMissing(missing, "get", Target(group, version, "")) from None

    async def elsewhere(self, group: str, kind: str) -> Resource | None:
        """The resource in any version that the server has of a group, its preferred one first; None when it has none."""
        if not group:
            return None  # the core has one version
        try:
            answer = await self._client.get(Target(group, "", ""))
        except KindMissing:
            return None
        preferred = (answer.get("preferredVersion") or {}).get("version")
        versions = [str(entry["version"]) for entry in answer.get("versions") or ()]
        for version in sorted(versions, key=lambda version: version != preferred):
            try:
                return await self.find(f"{group}/{version}", kind)
            except KindMissing:
                continue
        return None

    def forget(self, api_version: str) -> None:
        """Ask again next time: something of it is not served any more."""
        self._known.pop(api_version, None)

    def _remembered(self, api_version: str) -> _Known | None:
        known = self._known.get(api_version)
        return known if known is not None and self._clock.monotonic() < known.until else None

    async def _load(self, api_version: str, before: _Known | None) -> _Known:
        """Ask the server, unless somebody else has since `before`."""
        lock = self._locks.setdefault(api_version, asyncio.Lock())
        async with lock:
            known = self._remembered(api_version)
            if known is not None and known is not before:
                return known
            self.forget(api_version)
            group, version = _parsed(api_version)
            answer = await self._client.get(Target(group, version, ""))
            resources: dict[str, Resource] = {}
            for entry in answer.get("resources") or ():
                if "/" not in entry["name"]:
                    resources.setdefault(entry["kind"], Resource(group, version, entry["name"], bool(entry.get("namespaced"))))
            known = self._known[api_version] = _Known(resources, self._clock.monotonic() + self._age)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return known


def _parsed(api_version: str) -> tuple[str, str]:
    if not _API_VERSION.fullmatch(api_version):
        raise Invalid(f"{api_version!r} is not an apiVersion: write it like v1 or apps/v1")
    group, _, version = api_version.rpartition("/")
    return group, version
