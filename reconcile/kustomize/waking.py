"""What wakes a Kustomization besides its own spec and interval: its source, its dependencies, the configuration that it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.selectors import compile_selector, parse_selector
from reconcile.errors import NotFound, ReconcileError
from reconcile.kustomize.dependencies import SourceName, dependency_key
from reconcile.kustomize.inputs import configs
from reconcile.ports.cluster import Reference
from reconcile.ports.objects import Moved, Objects
from reconcile.ports.store import Change, ChangeType, Store
from reconcile.runtime.index import Referrers

SOURCES = ("GitRepository", "OCIRepository", "Bucket", "ExternalArtifact")
KIND = "Kustomization"


class Waking:
    """Who is to be looked at when something else changed, and whose wait for health is over because of it."""

    def __init__(
        self,
        store: Store,
        objects: Objects | None,
        wake: Callable[[Key], None],
        selector: str,
        *,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """`wake` asks for a pass; `selector` says which ConfigMaps and Secrets wake those who read them; `crowded` is whether
        more of them wait for a pass than can be served at once."""
        self._store, self._objects, self._wake, self._crowded = store, objects, wake, crowded
        self._watched = compile_selector(parse_selector(selector))
        self.sources: Referrers[SourceName] = Referrers(lambda resource: [SourceName.of(resource)])
        self.dependants: Referrers[Key] = Referrers(
            lambda resource: [dependency_key(resource, one) for one in resource.spec.depends_on or ()]
        )
        self.readers: Referrers[Reference] = Referrers(configs)
        self._moved_on: dict[Key, asyncio.Event] = {}
        self._by_source: set[Key] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._put_off: dict[Key, str] = {}
        """Revisions that are noted when those who may have more to do have been looked at."""

    def note(self, change: Change) -> None:
        """Take over a change of a Kustomization."""
        for index in (self.sources, self.dependants, self.readers):
            index.note(change)
        if change.type is ChangeType.DELETED:
            self._put_off.pop(change.new.key, None)
        if (
            change.type is ChangeType.DELETED
            or change.new.meta.deletion_timestamp
            or (change.old is not None and change.old.meta.generation != change.new.meta.generation)
        ):
            self._interrupt(change.new.key)

    # --- waiting that may end early

    def begin(self, key: Key) -> asyncio.Event:
        """An event that is set when the source or the spec of this Kustomization has moved on; `end` must be called."""
        self._moved_on[key] = asyncio.Event()
        return self._moved_on[key]

    def end(self, key: Key) -> None:
        """The pass is over."""
        self._moved_on.pop(key, None)
        self._by_source.discard(key)

    def by_source(self, key: Key) -> bool:
        """Whether it is the source that has moved on."""
        return key in self._by_source

    def _interrupt(self, key: Key) -> None:
        waiting = self._moved_on.get(key)
        if waiting is not None:
            waiting.set()

    def put_off(self, key: Key, revision: str) -> bool:
        """Whether a Kustomization for which a revision changes nothing is to note that later, in a pass of its own at the end of
        the queue: so that of a hundred the one that has work to do does not wait for ninety-nine writes.

        Once for each revision, and never where others wait for the note.
        """
        if self._put_off.pop(key, "") == revision or self.dependants.of(key) or not self._crowded():
            return False
        self._put_off[key] = revision
        self._wake(key)
        return True

    # --- whom changes concern

    async def on_source(self, change: Change) -> Iterable[Key]:
        """Those made from a source whose artifact is another one now, in the order in which they depend on one another."""
        new = change.new.status.artifact if change.type is not ChangeType.DELETED else None
        old = change.old.status.artifact if change.old is not None else None
        if new is None or (old is not None and (old.revision, old.digest) == (new.revision, new.digest)):
            return []
        found: dict[Key, AnyResource] = {}
        for key in self.sources.of(SourceName(change.new.kind, change.new.key)):
            try:
                resource = await self._store.get(KIND, key)
            except NotFound:
                continue
            if change.old is None and _has_tried(resource, new.revision):
                continue
            found[key] = resource
            if key in self._moved_on:
                self._by_source.add(key)
            self._interrupt(key)
        return in_order(found)

    async def on_dependency(self, change: Change) -> Iterable[Key]:
        """Those that wait for a Kustomization which has become ready, or has applied another revision."""
        if change.type is ChangeType.DELETED or _state(change.old) == _state(change.new):
            return []
        waiting = []
        for key in self.dependants.of(change.new.key):
            try:
                resource = await self._store.get(KIND, key)
            except NotFound:
                continue
            ready = cond.get(resource.status.conditions, cond.READY)
            if ready is not None and ready.reason == "DependencyNotReady":
                waiting.append(key)
        return waiting

    def on_config(self, moved: Moved) -> None:
        """A ConfigMap or a Secret has changed, or anything else that is followed."""
        if moved.which.api_version != "v1" or not self.readers.of(moved.which):
            return
        task = asyncio.get_running_loop().create_task(self._ask(moved.which))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, which: Reference) -> None:
        """Wake the readers of an object that says by its labels that it wants that."""
        if self._objects is None:
            return
        try:
            stamp = await self._objects.stamp(which)
        except ReconcileError:
            return
        if stamp is None or self._watched(stamp.labels):
            for key in self.readers.of(which):
                self._wake(key)


def _state(resource: AnyResource | None) -> tuple[bool, str | None, int | None] | None:
    if resource is None:
        return None
    status = resource.status
    return cond.is_true(status.conditions, cond.READY), status.last_applied_revision, status.observed_generation


def _has_tried(resource: AnyResource, revision: str) -> bool:
    conditions, status = resource.status.conditions, resource.status
    if status.last_attempted_revision != revision:
        return False
    return cond.is_ready(conditions) or cond.is_true(conditions, cond.RECONCILING)


def in_order(found: Mapping[Key, AnyResource]) -> Sequence[Key]:
    """Keys so that each comes after those it depends on; members of a cycle in the order in which they are met."""
    ordered: dict[Key, None] = {}
    entered: set[Key] = set()
    for first in found:
        stack = [(first, False)]
        while stack:
            key, left = stack.pop()
            if left:
                ordered.setdefault(key)
                continue
            if key in entered:
                continue
            entered.add(key)
            stack.append((key, True))
            needed = (dependency_key(found[key], one) for one in found[key].spec.depends_on or ())
            stack.extend((one, False) for one in needed if one in found and one not in entered)
    return list(ordered)
