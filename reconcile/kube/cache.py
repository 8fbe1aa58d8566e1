"""The objects of one kind in memory, typed and trimmed: what a list and a watch say, and what our own writes were answered.

Whatever of an object our model does not have (managed fields, last-applied annotation, unknown fields) is not kept.
Changes go to the watchers of the store. An object that the model cannot read is left out and reported once per version.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Invalid
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.feed import Feed
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MAX_GONE = 4096
"""Ends of objects that are remembered, so that a late message does not bring them back."""
NEVER_OBSERVED = -1
"""`status.observedGeneration` of an object without one, as the default in the schema of kinds that have it."""


class Cache:
    """Objects of one kind by namespace and name."""

    def __init__(self, info: KindInfo, scheme: Scheme, feed: Feed) -> None:
        self.info = info
        self.unreadable: dict[Key, str] = {}
        """Objects that are left out, with the version of which that was said."""
        self._scheme = scheme
        self._feed = feed
        self._objects: dict[str, dict[str, AnyResource]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._listed: set[Key] = set()
        self._written: set[Key] | None = None
        """Objects that we wrote since the list began; None while none is under way."""

    def __len__(self) -> int:
        return sum(len(objects) for objects in self._objects.values())

    def get(self, key: Key) -> AnyResource | None:
        """The object, if it is there."""
        return self._objects.get(key.namespace, {}).get(key.name)

    def all(self, namespace: str | None = None) -> Iterator[AnyResource]:
        """The objects, of one namespace if given, ordered by key."""
        for space in sorted(self._objects) if namespace is None else (namespace,):
            for _, found in sorted(self._objects.get(space, {}).items()):
                yield found

    # --- what the server says

    def begin(self) -> None:
        """A list begins: what it does not name by its end is gone."""
        self._listed, self._written = set(), set()

    def page(self, api_version: str, items: list[dict[str, Any]]) -> None:
        """A page of the list; items of a list do not say their kind."""
        for body in items:
            key = _key(body)
            self._listed.add(key)
            held = self.get(key)
            # Our own write since the list began is newer than what the list has.
            if held is not None and key in (self._written or ()) and not newer(_version(body), held.meta.resource_version):
                continue
            self._take({**body, "apiVersion": api_version})

    def end(self) -> None:
        """The list is complete."""
        for resource in [found for found in self.all() if found.key not in self._listed]:
            self._drop(resource)
        for key in [key for key in self.unreadable if key not in self._listed]:
            del self.unreadable[key]
        self._listed, self._written = set(), None

    def changed(self, body: dict[str, Any]) -> None:
        """An object was added or modified, says the watch."""
        held = self.get(_key(body))
        if held is None or held.meta.uid != _uid(body) or newer(_version(body), held.meta.resource_version):
            self._take(body)

    def deleted(self, body: dict[str, Any]) -> None:
        """An object is gone, or is not selected any more, says the watch."""
        key = _key(body)
        self.unreadable.pop(key, None)
        held = self.get(key)
        if held is not None and held.meta.uid == _uid(body):
            self._drop(held)

    def wrote(self, body: dict[str, Any]) -> AnyResource:
        """The answer to a write or read of ours: only ever replaces an older state of the same object.

        Raises:
            Invalid: The model cannot read it.
        """
        resource = self._decode(body)
        held = self.get(resource.key)
        if self._written is not None:
            self._written.add(resource.key)
        if held is None or held.meta.uid != resource.meta.uid:
            return resource
        if resource.meta.deletion_timestamp and not resource.meta.finalizers:
            self._gone[resource.meta.uid] = None
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
            self._drop(held)
        elif newer(resource.meta.resource_version, held.meta.resource_version):
            self._put(resource, held)
        elif held.meta.resource_version == resource.meta.resource_version:
            return held  # the watch was faster
        return resource

    # --- keeping

    def _take(self, body: dict[str, Any]) -> None:
        key, uid = _key(body), _uid(body)
        held = self.get(key)
        if uid in self._gone or (held is not None and held.meta.uid == uid and held.meta.resource_version == _version(body)):
            return
        try:
            resource = self._decode(body)
        except Invalid as error:
            if self.unreadable.get(key) != _version(body):
                self.unreadable[key] = _version(body)
                log.error("object is not readable and is left out", kind=self.info.kind, object=str(key), error=str(error))
            if held is not None:
                self._drop(held)
            return
        self.unreadable.pop(key, None)
        if held is not None and held.meta.uid != uid:
            self._drop(held)
            held = None
        self._put(resource, held)

    def _put(self, resource: AnyResource, old: AnyResource | None) -> None:
        self._objects.setdefault(resource.meta.namespace, {})[resource.meta.name] = resource
        self._feed.publish(Change(ChangeType.MODIFIED if old else ChangeType.ADDED, old, resource))

    def _drop(self, held: AnyResource) -> None:
        objects = self._objects[held.meta.namespace]
        del objects[held.meta.name]
        if not objects:
            del self._objects[held.meta.namespace]
        self._feed.publish(Change(ChangeType.DELETED, held, held))

    def _decode(self, body: Mapping[str, Any]) -> AnyResource:
        metadata = dict(body.get("metadata") or {})
        annotations = metadata.get("annotations")
        if annotations and LAST_APPLIED in annotations:
            metadata["annotations"] = {name: text for name, text in annotations.items() if name != LAST_APPLIED}
        resource = self._scheme.decode(self.info, {**body, "metadata": metadata}, strict=False)
        if self.info.observes and resource.status.observed_generation is None:
            resource = replace(resource, status=resource.status.model_copy(update={"observed_generation": NEVER_OBSERVED}))
        return resource


def newer(version: str, than: str) -> bool:
    """Whether a resource version is later than another; Kubernetes defines them to be comparable numbers within a resource."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


def _key(body: Mapping[str, Any]) -> Key:
    return Key(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def _uid(body: Mapping[str, Any]) -> str:
    return str(body["metadata"].get("uid", ""))


def _version(body: Mapping[str, Any]) -> str:
    return str(body["metadata"].get("resourceVersion", ""))
