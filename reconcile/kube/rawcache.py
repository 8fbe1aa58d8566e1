"""The objects of one kind of anybody's in memory: whole as compact bytes, or only what metadata says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from reconcile.api.meta import Key
from reconcile.kube.cache import LAST_APPLIED
from reconcile.kube.errors import Target
from reconcile.kube.kindcache import KindCache, uid_of, version_of
from reconcile.kube.resources import Resources
from reconcile.ports.cluster import Object
from reconcile.ports.objects import Stamp

Told = Callable[["AnyKind", Key, bool], None]
"""Told whenever an object was added, changed or deleted, and whether nothing of it but the status is another one."""


@dataclass
class AnyKind:
    """A kind of anybody's."""

    api_version: str
    kind: str
    resource: str = ""
    """`plural[.group]`, as messages have it; empty until it was found."""

    @property
    def label(self) -> str:
        """Its name in logs and metrics: with the group, as kinds of several groups have one name."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.kind}.{group}" if group else self.kind


class AnyPlaces:
    """The places of such kinds, for reflectors."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def target(self, info: AnyKind, namespace: str = "") -> Target:
        """The collection; raises KindMissing."""
        target = (await self._resources.find(info.api_version, info.kind)).target(namespace)
        info.resource = target.resource
        return target

    def forget(self, info: AnyKind) -> None:
        """Ask again next time."""
        self._resources.forget(info.api_version)


@dataclass(frozen=True, slots=True)
class Packed:
    """A whole object."""

    uid: str
    version: str
    text: bytes
    """Its JSON."""
    wanted: int
    """Hash of all of it but the status: two states with the same differ in what was reported only."""


class Bodies(KindCache[Packed]):
    """Whole objects, without the bookkeeping of field managers."""

    def __init__(self, info: AnyKind, label: str, told: Told) -> None:
        super().__init__(label)
        self.info: AnyKind = info
        self._told = told

    def _decode(self, body: Mapping[str, Any]) -> Packed:
        whole = trimmed(body, self.info.api_version, self.info.kind)
        return Packed(uid_of(body), version_of(body), orjson.dumps(whole), _hash_without_status(whole))

    def _state(self, held: Packed) -> tuple[str, str]:
        return held.uid, held.version

    def _publish(self, key: Key, old: Packed | None, new: Packed | None) -> None:
        status_only = old is not None and new is not None and old.wanted == new.wanted
        self._told(self.info, key, status_only)


class Stamps(KindCache[Stamp]):
    """Metadata of objects. The annotation that kubectl keeps the content in is content: it is left out."""

    metadata_only = True

    def __init__(self, info: AnyKind, label: str, told: Told) -> None:
        super().__init__(label)
        self.info: AnyKind = info
        self._told = told

    def _decode(self, body: Mapping[str, Any]) -> Stamp:
        return stamp_of(body)

    def _state(self, held: Stamp) -> tuple[str, str]:
        return held.uid, held.version

    def _publish(self, key: Key, *_: Stamp | None) -> None:
        self._told(self.info, key, False)


AnyCache: TypeAlias = Bodies | Stamps


def stamp_of(body: Mapping[str, Any]) -> Stamp:
    """What the metadata of an object says."""
    metadata = body["metadata"]
    annotations = {name: text for name, text in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    return Stamp(uid_of(body), version_of(body), dict(metadata.get("labels") or {}), annotations)


def _hash_without_status(body: Mapping[str, Any]) -> int:
    metadata = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
    rest = {name: value for name, value in body.items() if name not in {"metadata", "status"}}
    return hash(orjson.dumps((rest, metadata)))


def trimmed(body: Mapping[str, Any], api_version: str, kind: str) -> Object:
    """An object that says its kind, also as an item of a list, without the bookkeeping of field managers."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "apiVersion": api_version, "kind": kind, "metadata": metadata}
