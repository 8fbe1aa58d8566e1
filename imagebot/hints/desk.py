"""Takes hints to the ImageRepositories that they are for: paths, tokens, and what a hint leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from imagebot.api import ImageRepository
from imagebot.hints import doors
from imagebot.hints.gate import SPACING, Effect, Known, Memory, effect_of, strongest
from imagebot.hints.payloads import SENDERS, Headers, Pushed, pushed
from imagebot.scan.cache import TagStore
from imagebot.scan.tags import Exclusion, InvalidExclusion
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Invalid, NotFound
from reconcile.ports.clock import Clock
from reconcile.ports.store import Store
from reconcile.registry.names import InvalidImage, Repository, parse_repository
from reconcile.runtime.schedule import Timers

NOT_LISTENING = "nobody listens: start the service with --hints-addr"


@dataclass(frozen=True, slots=True)
class Entry:
    """An ImageRepository that takes hints."""

    key: Key
    kind: str
    """A `HintType`."""
    path: str
    token: bytes = field(repr=False)


@dataclass(slots=True)
class Sinks:
    """Where hints lead to; set when the controllers are there."""

    scan: Callable[[Key], None] = lambda _: None
    """Asks for a pass over an ImageRepository."""
    choose: Callable[[Key], None] = lambda _: None
    """Asks for a pass over an ImagePolicy."""
    policies: Callable[[Key], Collection[Key]] = lambda _: ()
    """The policies of an ImageRepository."""


class Desk:
    """Knows who may send hints for what, and what to do with one.

    Paths and tokens are in memory only, put there by the passes over the objects: a request costs no other request. Bounded by
    the number of objects.
    """

    def __init__(self, store: Store, tags: TagStore, clock: Clock, timers: Timers, *, listening: bool = True) -> None:
        self.sinks = Sinks()
        self.url: str | None = None
        """Where hints are taken, while they are."""
        self._store = store
        self._tags = tags
        self._clock = clock
        self._timers = timers
        self._listening = listening
        self._entries: dict[Key, Entry] = {}
        self._paths: dict[bytes, Entry] = {}
        self._memory: dict[Key, Memory] = {}
        self._due: set[Key] = set()

    # --- what the passes over the objects say and ask

    async def open(self, resource: ImageRepository) -> tuple[str | None, str | None]:
        """Take hints for an object as its spec asks: the path, or why there is none; neither where none is asked for.

        Raises ReconcileError when the Secret could not be read at all, which may be otherwise the next time.
        """
        spec, key = resource.spec.hint, resource.key
        if spec is None:
            self._forget_path(key)
            return None, None
        if not self._listening:
            return None, NOT_LISTENING
        name = Key(key.namespace, spec.secret_ref.name)
        try:
            token = doors.token_of(str(name), (await self._store.secret(name)).data)
        except (NotFound, Invalid) as error:
            self._forget_path(key)
            return None, str(error)
        entry = Entry(key, spec.type, doors.path_of(token, key), token)
        if self._entries.get(key) != entry:
            self._forget_path(key)
            self._entries[key] = entry
            self._paths[_mark(entry.path)] = entry
        return entry.path, None

    def close(self, key: Key) -> None:
        """An object is gone: take no more hints for it, and forget those that were taken."""
        self._forget_path(key)
        self._memory.pop(key, None)
        self._due.discard(key)
        for name in (_next(key), _again(key)):
            self._timers.cancel(name)

    def due(self, key: Key) -> bool:
        """Whether a hint asks for a scan of the object."""
        return key in self._due

    def scanning(self, key: Key) -> None:
        """A scan begins: hints that come from now on ask for another one."""
        self._due.discard(key)

    # --- what comes in

    def find(self, path: str) -> Entry | None:
        """Who takes hints at this path."""
        # By its hash, so that the time of the comparison says nothing of how much of a path was right.
        return self._paths.get(_mark(path))

    async def take(self, entry: Entry, headers: Headers, body: bytes) -> str:
        """Do what an authenticated delivery asks for; says what came of it, for the metric. Raises Unreadable."""
        memory = self._memory.setdefault(entry.key, Memory())
        dated = SENDERS[entry.kind].dated
        if dated and memory.repeated(body):
            return "repeated"
        images = pushed(entry.kind, headers, body)
        if not images:
            return "ignored"
        outcome = await self._heed(entry, images)
        if dated and outcome != "suspended":
            memory.delivered(body)
        return outcome

    async def _heed(self, entry: Entry, images: Sequence[Pushed]) -> str:
        try:
            own: AnyResource = await self._store.get("ImageRepository", entry.key)
            repository = parse_repository(own.spec.image)
        except (NotFound, InvalidImage):
            return "ignored"
        images = [image for image in images if image.is_of(repository)]
        if not images:
            return str(Effect.FOREIGN)
        awake = [each for each in await self._same_image(repository, entry.key.namespace) if not each.spec.suspend]
        if not awake:
            return "suspended"
        return str(strongest({await self._told(each, images) for each in awake}))

    async def _same_image(self, repository: Repository, namespace: str) -> list[AnyResource]:
        """The objects of this image in the namespace: who may read one of them has no say over those of other namespaces."""
        found = []
        for each in await self._store.list("ImageRepository", namespace):
            try:
                if parse_repository(each.spec.image).canonical == repository.canonical:
                    found.append(each)
            except InvalidImage:
                continue
        return found

    async def _told(self, resource: AnyResource, images: Sequence[Pushed]) -> Effect:
        key = resource.key
        memory = self._memory.setdefault(key, Memory())
        known = Known(_excludes(resource), self._lists(key), lambda tag: memory.digests.get(tag, ""))
        effects = {image: effect_of(image, known) for image in images}
        for image, effect in effects.items():
            memory.told(image)
            if effect is Effect.SCAN:
                memory.expect(image.tag)
        effect = strongest(set(effects.values()))
        memory.watchers |= await self._watchers(key, {i.tag for i, each in effects.items() if each is Effect.DIGEST})
        if effect is Effect.DIGEST and not memory.watchers:
            return Effect.KNOWN
        if effect is Effect.SCAN:
            self._due.add(key)
        if effect in (Effect.SCAN, Effect.DIGEST):
            self._ask(key, memory)
        return effect

    def _lists(self, key: Key) -> Callable[[str], bool]:
        scanned = self._tags.get(key)
        if scanned is None:
            return lambda _: False
        index = scanned.tags.index()
        return lambda tag: tag in index

    async def _watchers(self, key: Key, tags: Collection[str]) -> set[Key]:
        """The policies that have chosen one of these tags and care for its digest."""
        found = set()
        for name in self.sinks.policies(key) if tags else ():
            try:
                policy = await self._store.get("ImagePolicy", name)
            except NotFound:
                continue
            spec, latest = policy.spec, policy.status.latest_ref
            watching = spec.digest_reflection_policy == "Always" or spec.on_mutation != "Follow"
            if watching and latest is not None and latest.tag in tags:
                found.add(name)
        return found

    # --- when it is done

    def _ask(self, key: Key, memory: Memory) -> None:
        """Have the work done now, or as soon as the last one is long enough ago."""
        if memory.waiting:
            return
        wait = memory.wait(self._clock.monotonic())
        if wait:
            memory.waiting = True
            self._timers.later(_next(key), wait, lambda: self._work(key, memory))
        else:
            self._work(key, memory)

    def _work(self, key: Key, memory: Memory) -> None:
        memory.waiting, memory.asked = False, self._clock.monotonic()
        if key in self._due:
            self.sinks.scan(key)
        # A scan wakes them only when the list changes, which a new digest does not do.
        for policy in memory.watchers:
            self.sinks.choose(policy)
        memory.watchers.clear()
        self._look_later(key, memory)

    def _look_later(self, key: Key, memory: Memory) -> None:
        after = memory.look_again(self._lists(key))
        if after is not None:
            self._timers.later(_again(key), max(after, SPACING), lambda: self._look(key, memory))

    def _look(self, key: Key, memory: Memory) -> None:
        lists = self._lists(key)
        if any(not lists(tag) for tag in memory.missing):
            self._due.add(key)
            self._ask(key, memory)

    def _forget_path(self, key: Key) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._paths.pop(_mark(old.path), None)


def _mark(path: str) -> bytes:
    return hashlib.sha256(path.encode("utf-8", "replace")).digest()


def _next(key: Key) -> str:
    return f"hint/next/{key}"


def _again(key: Key) -> str:
    return f"hint/again/{key}"


def _excludes(resource: ImageRepository) -> Callable[[str], bool]:
    try:
        return Exclusion(resource.spec.exclusions).drops
    except InvalidExclusion:
        return lambda _: False
