"""The objects of one kind in memory: what a list and a watch say of them, and what our own writes were answered.

Messages come late, doubled and out of order: an object is only ever replaced by a newer state of itself or by a later object of
its name. What is kept of an object, and who is told of a change, is a subclass's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from reconcile.api.meta import Key
from reconcile.errors import Invalid
from reconcile.runtime.logs import get_logger

log = get_logger("kube")

MAX_GONE = 4096
"""Ends of objects that are remembered, so that a late message does not bring them back."""

T = TypeVar("T")


class KindCache(ABC, Generic[T]):
    """What is kept of the objects of one kind, by namespace and name.

    Attributes:
        info: Which kind it is.
        label: Its name in logs and metrics.
        unreadable: Objects that are left out, with the version of which that was said.
        metadata_only: Whether the server is to be asked for metadata only.
    """

    info: Any
    metadata_only = False

    def __init__(self, label: str) -> None:
        self.label = label
        self.unreadable: dict[Key, str] = {}
        self._objects: dict[str, dict[str, T]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._listed: set[Key] = set()
        self._written: set[Key] | None = None
        """Objects that we wrote since the list began; None while none is under way."""

    @abstractmethod
    def _decode(self, body: Mapping[str, Any]) -> T:
        """What is kept of an object; raises Invalid when it cannot be read."""

    @abstractmethod
    def _state(self, held: T) -> tuple[str, str]:
        """Its uid and its resource version."""

    @abstractmethod
    def _publish(self, key: Key, old: T | None, new: T | None, /) -> None:
        """Tell of a change; `new` is None when the object is gone."""

    def __len__(self) -> int:
        return sum(len(objects) for objects in self._objects.values())

    def get(self, key: Key) -> T | None:
        """The object, if it is there."""
        return self._objects.get(key.namespace, {}).get(key.name)

    def all(self, namespace: str | None = None) -> Iterator[T]:
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
            key = key_of(body)
            self._listed.add(key)
            held = self.get(key)
            # Our own write since the list began is newer than what the list has.
            if held is not None and key in (self._written or ()) and not newer(version_of(body), self._version(held)):
                continue
            self._take({**body, "apiVersion": api_version})

    def end(self, version: str = "") -> None:
        """The list is complete; it is of this version. What we made later than that, it cannot have named."""
        for key in [key for key in self._keys() if key not in self._listed]:
            held = self._objects[key.namespace][key.name]
            if not (version and key in (self._written or ()) and newer(self._version(held), version)):
                self._drop(key, held)
        for key in [key for key in self.unreadable if key not in self._listed]:
            del self.unreadable[key]
        self._listed, self._written = set(), None

    def changed(self, body: dict[str, Any]) -> None:
        """An object was added or modified, says the watch."""
        held = self.get(key_of(body))
        if held is None or self._uid(held) != uid_of(body) or newer(version_of(body), self._version(held)):
            self._take(body)

    def deleted(self, body: dict[str, Any]) -> None:
        """An object is gone, or is not selected any more, says the watch."""
        key = key_of(body)
        self.unreadable.pop(key, None)
        held = self.get(key)
        if held is not None and self._uid(held) == uid_of(body):
            self._drop(key, held)

    # --- what we did

    def wrote(self, body: dict[str, Any], *, known: str | None = None) -> T:
        """The answer to a write or read of ours: only ever replaces an older state of the same object.

        Args:
            body: The object as answered.
            known: The version up to which the watch has told everything. An object that is not held is taken in if it is newer
                than that, as the watch will still speak of it; an older one is gone again. Without it no object is taken in.

        Raises:
            Invalid: The object cannot be read.
        """
        decoded, key = self._decode(body), key_of(body)
        held = self.get(key)
        if self._written is not None:
            self._written.add(key)
        if held is None or self._uid(held) != uid_of(body):
            unknown = known is not None and newer(version_of(body), known)
            if unknown and not _ends(body) and (held is None or newer(version_of(body), self._version(held))):
                self._take(body)
        elif _ends(body):
            self.ended(key, uid_of(body))
        elif newer(version_of(body), self._version(held)):
            self._put(key, decoded, held)
        elif self._version(held) == version_of(body):
            return held  # the watch was faster
        return decoded

    def ended(self, key: Key, uid: str = "") -> None:
        """An object, of this uid if given, is gone by our doing: what the watch still tells of it does not bring it back."""
        held = self.get(key)
        if held is None or uid not in {"", self._uid(held)}:
            return
        self._gone[self._uid(held)] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        self._drop(key, held)

    # --- keeping

    def _take(self, body: dict[str, Any]) -> None:
        key, uid = key_of(body), uid_of(body)
        held = self.get(key)
        if uid in self._gone or (held is not None and self._state(held) == (uid, version_of(body))):
            return
        try:
            decoded = self._decode(body)
        except Invalid as error:
            if self.unreadable.get(key) != version_of(body):
                self.unreadable[key] = version_of(body)
                log.error("object is not readable and is left out", kind=self.label, object=str(key), error=str(error))
            if held is not None:
                self._drop(key, held)
            return
        self.unreadable.pop(key, None)
        if held is not None and self._uid(held) != uid:
            self._drop(key, held)
            held = None
        self._put(key, decoded, held)

    def _put(self, key: Key, new: T, old: T | None) -> None:
        self._objects.setdefault(key.namespace, {})[key.name] = new
        self._publish(key, old, new)

    def _drop(self, key: Key, held: T) -> None:
        objects = self._objects[key.namespace]
        del objects[key.name]
        if not objects:
            del self._objects[key.namespace]
        self._publish(key, held, None)

    def _keys(self) -> Iterator[Key]:
        for space, objects in sorted(self._objects.items()):
            for name in sorted(objects):
                yield Key(space, name)

    def _uid(self, held: T) -> str:
        return self._state(held)[0]

    def _version(self, held: T) -> str:
        return self._state(held)[1]


def newer(version: str, than: str) -> bool:
    """Whether a resource version is later than another; Kubernetes defines them to be comparable numbers within a resource."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


def key_of(body: Mapping[str, Any]) -> Key:
    """Namespace and name of an object."""
    return Key(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def uid_of(body: Mapping[str, Any]) -> str:
    """The uid of an object; empty when it has none."""
    return str(body["metadata"].get("uid", ""))


def version_of(body: Mapping[str, Any]) -> str:
    """The resource version of an object; empty when it has none."""
    return str(body["metadata"].get("resourceVersion", ""))


def _ends(body: Mapping[str, Any]) -> bool:
    """Whether this was the last write to an object: it is being deleted, and nothing holds it."""
    return bool(body["metadata"].get("deletionTimestamp")) and not body["metadata"].get("finalizers")
