"""Store = a folder of manifests (what is wanted, never written) + a SQLite file (status, generation, finalizers).

Objects that the service makes itself are in the SQLite file alone; a manifest of the same name takes their place. `poll` notices
changes of the folder within a second; what is read is kept in memory, every write goes through to the database before it is seen
by anybody.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import orjson

from reconcile.api.meta import CommonStatus, Key, ObjectMeta
from reconcile.api.resource import AnyResource, Resource, dump
from reconcile.api.scheme import Scheme
from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.local.database import MADE, Database, EventRow, Row
from reconcile.local.files import Declared, Folder, Identity, Snapshot, encoded
from reconcile.local.secrets import SecretSource
from reconcile.local.walk import Problem
from reconcile.ports.clock import Clock, timestamp
from reconcile.ports.events import Event, EventType
from reconcile.ports.store import Change, ChangeType, Secret, ServiceAccount
from reconcile.runtime.feed import Feed
from reconcile.runtime.logs import get_logger
from reconcile.runtime.threads import Threads

log = get_logger("local")

T = TypeVar("T")

POLL_INTERVAL = 0.75
"""Seconds between two looks at the folder. A change takes one, a deletion two, so that both are noticed within two seconds."""
MAX_EVENTS_WAITING = 1000
"""Events on their way to the database; more are dropped, with a line in the log."""

INITIAL_STATUS = {"observedGeneration": -1}


class LocalStore:
    """The Store of local mode; also keeps events. Use as an async context manager."""

    def __init__(self, folder: Folder, database: Database, scheme: Scheme, clock: Clock) -> None:
        self.problems: tuple[Problem, ...] = ()
        self.ignored = 0
        self._found: tuple[Problem, ...] = ()
        self._folder = folder
        self._database = database
        self._scheme = scheme
        self._clock = clock
        self._threads = Threads("store", 1)  # one thread: SQLite writes and folder scans are in order
        self._rows: dict[Identity, Row] = {}
        self._resources: dict[Identity, AnyResource] = {}
        self._ordered: dict[str, list[AnyResource]] = {}
        self._secrets: dict[Key, SecretSource] = {}
        self._accounts: dict[Key, dict[str, Any]] = {}
        self._namespaces: dict[str, dict[str, str]] = {}
        self._feed = Feed()
        self._lock = asyncio.Lock()
        self._sync_lock = asyncio.Lock()
        self._missing: set[Identity] = set()
        self._trouble: tuple[Problem, ...] = ()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        try:
            await self._load()
            await self.sync()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    def _has_own(self) -> bool:
        return any(row.source == MADE for row in self._rows.values())

    async def _load(self) -> None:
        await self._threads.run(self._database.written_elsewhere)  # from here on
        for row in await self._threads.run(self._database.objects):
            if row.kind not in self._scheme.kinds:
                continue
            try:
                self._resources[row.kind, row.key] = self._resource(row)
                self._rows[row.kind, row.key] = row
            except Invalid as error:  # written by another version: the file will say it again
                log.error("stored object is not readable", kind=row.kind, object=str(row.key), error=str(error))
                await self._threads.run(lambda row=row: self._database.delete(row.kind, row.key))  # type: ignore[misc]

    async def __aexit__(self, *_: object) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        self._threads.close()
        self._database.close()

    # --- the folder

    async def poll(self) -> None:
        """Look at the folder again and again; never ends, whatever happens to the folder."""
        while True:
            await self._clock.sleep(POLL_INTERVAL)
            try:
                await self._sync(patient=True)
            except ReconcileError as error:
                self._note_trouble(str(error))
            except Exception as error:
                log.exception("could not look at the folder")
                self._note_trouble(f"internal error: {type(error).__name__}: {error}")

    async def sync(self) -> None:
        """Take over what the folder says now. Raises ReconcileError when the folder is gone or the state cannot be written."""
        await self._sync(patient=False)

    async def _sync(self, *, patient: bool) -> None:
        async with self._sync_lock:
            try:
                snapshot = await self._threads.run(self._folder.scan)
                if snapshot is not None:
                    await self._whole(self._apply(snapshot, patient=patient))
                if self._has_own() and await self._threads.run(self._database.written_elsewhere):
                    await self._whole(self._follow_deletions())
            except BaseException:
                self._folder.forget()  # what was read and not taken over must be read again
                raise
            self._trouble = ()
            self._note_problems(self._found if snapshot is None else snapshot.problems, self.ignored)

    async def _apply(self, snapshot: Snapshot, *, patient: bool) -> None:
        """Make the objects what `snapshot` says. With `patient`, one is taken for deleted when it is missing for the second time:
        many programs write a file by removing or emptying it first."""
        async with self._lock:
            self._secrets, self._accounts = snapshot.secrets, snapshot.service_accounts
            self._namespaces, self.ignored = snapshot.namespaces, snapshot.ignored
            for identity, declared in snapshot.objects.items():
                await self._declare(identity, declared)
            declared_before = ((i, row) for i, row in self._rows.items() if row.source != MADE)
            missing = {i for i, row in declared_before if i not in snapshot.objects and not snapshot.keeps(i, row.source)}
            gone = missing & self._missing if patient else missing
            for identity in sorted(gone):
                await self._withdraw(identity)
            self._missing = missing - gone
            if self._missing:
                self._folder.forget()

    async def _follow_deletions(self) -> None:
        """Let go of objects of ours that somebody deleted from the file by command."""
        async with self._lock:
            kept = {(row.kind, row.key) for row in await self._threads.run(self._database.objects)}
            for identity in [i for i, row in self._rows.items() if row.source == MADE and i not in kept]:
                await self._remove(identity)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end even if the caller is cancelled meanwhile: memory and database must not part."""
        task = asyncio.get_running_loop().create_task(work, name="store")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _note_trouble(self, message: str) -> None:
        self._trouble = (Problem(str(self._folder.root), None, message),)
        self._note_problems(self._found, self.ignored)

    def _note_problems(self, found: tuple[Problem, ...], ignored: int) -> None:
        problems = self._trouble + found
        for problem in problems:
            if problem not in self.problems:
                log.error("manifest problem", file=problem.path, line=problem.line, error=problem.message)
        wrong = {problem.path for problem in problems}
        for path in sorted({problem.path for problem in self.problems} - wrong):
            log.info("manifest is in order again", file=path)
        self._found, self.problems, self.ignored = found, problems, ignored

    async def _declare(self, identity: Identity, declared: Declared) -> None:
        kind, key = identity
        row = self._rows.get(identity)
        if row is None:
            await self._save(self._new(kind, key, declared.path, declared.manifest, declared.digest), None)
            return
        if row.deleted is not None or (row.manifest == declared.manifest and row.source == declared.path):
            return  # one that is being deleted comes back when its finalizers are gone
        raised = row.spec_digest != declared.digest
        await self._save(
            replace(
                row,
                manifest=declared.manifest,
                source=declared.path,
                spec_digest=declared.digest,
                generation=row.generation + raised,
            ),
            row.version,
        )

    async def _withdraw(self, identity: Identity) -> None:
        row = self._rows[identity]
        if row.finalizers == "[]":
            await self._remove(identity)
        elif row.deleted is None:
            await self._save(replace(row, deleted=timestamp(self._clock.now())), row.version)

    # --- rows

    def _new(self, kind: str, key: Key, source: str, manifest: bytes, digest: str) -> Row:
        return Row(
            kind=kind,
            key=key,
            uid=str(uuid.uuid4()),
            version=0,
            generation=1,
            created=timestamp(self._clock.now()),
            deleted=None,
            finalizers="[]",
            source=source,
            spec_digest=digest,
            manifest=manifest,
            status=orjson.dumps(INITIAL_STATUS),
        )

    async def _save(self, row: Row, expected: int | None) -> AnyResource:
        new = self._resource(row)  # before anything is written: what cannot be read again must not be kept
        saved = await self._threads.run(lambda: self._database.save(row, expected))
        new = replace(new, meta=new.meta.model_copy(update={"resource_version": str(saved.version)}))
        identity = (row.kind, row.key)
        old = self._resources.get(identity)
        self._rows[identity], self._resources[identity] = saved, new
        self._ordered.pop(row.kind, None)
        self._feed.publish(Change(ChangeType.MODIFIED if old else ChangeType.ADDED, old, new))
        return new

    async def _remove(self, identity: Identity) -> None:
        await self._threads.run(lambda: self._database.delete(*identity))
        del self._rows[identity]
        old = self._resources.pop(identity)
        self._ordered.pop(identity[0], None)
        self._feed.publish(Change(ChangeType.DELETED, old, old))

    def _resource(self, row: Row) -> AnyResource:
        return decode_row(self._scheme, row)

    def _current(self, resource: AnyResource) -> Row:
        row = self._rows.get((resource.kind, resource.key))
        if row is None or row.uid != resource.meta.uid:
            raise NotFound(f"{resource.kind} {resource.key} is gone")
        if str(row.version) != resource.meta.resource_version:
            raise Conflict(f"{resource.kind} {resource.key} has changed since it was read")
        return row

    # --- the port

    async def get(self, kind: str, key: Key) -> AnyResource:
        """The object; raises NotFound."""
        found = self._resources.get((kind, key))
        if found is None:
            info = self._scheme.kinds.get(kind)
            raise NotFound(f'{kind}{"." + info.group if info else ""} "{key.name}" not found')
        return found

    async def list(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        """All objects of a kind, of one namespace if given, ordered by key."""
        ordered = self._ordered.get(kind)
        if ordered is None:
            ordered = sorted((r for (found, _), r in self._resources.items() if found == kind), key=lambda r: r.key)
            self._ordered[kind] = ordered
        return [r for r in ordered if namespace in (None, r.key.namespace)]

    def watch(self, kinds: Sequence[str]) -> AsyncIterator[Change]:
        """What exists now as ADDED, then every change; never ends."""
        return self._feed.watch(kinds, self._existing(frozenset(kinds)))

    def _existing(self, kinds: frozenset[str]) -> Iterator[AnyResource]:
        """A generator, so that it looks when the watch begins and not when it is made."""
        yield from [resource for (kind, _), resource in sorted(self._resources.items()) if kind in kinds]

    async def write_status(self, resource: AnyResource, status: CommonStatus) -> AnyResource:
        """Replace the status of the object as read. Raises Conflict or NotFound."""
        return await self._whole(self._write_status(resource, status))

    async def _write_status(self, resource: AnyResource, status: CommonStatus) -> AnyResource:
        async with self._lock:
            row = self._current(resource)
            data = orjson.dumps(dump(status))
            if data == row.status:
                return resource
            return await self._save(replace(row, status=data), row.version)

    async def write_finalizers(self, resource: AnyResource, finalizers: Sequence[str]) -> AnyResource:
        """Replace the finalizers of the object as read; the last one to go lets a deleted object go.

        Raises Conflict or NotFound.
        """
        return await self._whole(self._write_finalizers(resource, finalizers))

    async def _write_finalizers(self, resource: AnyResource, finalizers: Sequence[str]) -> AnyResource:
        async with self._lock:
            row = self._current(resource)
            if row.deleted is not None and not finalizers:
                await self._remove((resource.kind, resource.key))
                # The folder may have declared it again meanwhile.
                self._folder.forget()
                return resource
            data = orjson.dumps(list(finalizers)).decode()
            return resource if data == row.finalizers else await self._save(replace(row, finalizers=data), row.version)

    async def create(self, resource: AnyResource) -> AnyResource:
        """Make an object that no file declares; raises Conflict when there is one of this name."""
        return await self._whole(self._create(resource))

    async def _create(self, resource: AnyResource) -> AnyResource:
        async with self._lock:
            if (resource.kind, resource.key) in self._rows:
                raise Conflict(f"{resource.kind} {resource.key} exists already")
            return await self._save(self._new(resource.kind, resource.key, MADE, *encoded(_manifest(resource))), None)

    async def update(self, resource: AnyResource) -> AnyResource:
        """Replace labels, annotations and spec of an object that no file declares.

        Raises Conflict or NotFound, and Invalid for one that a file declares.
        """
        return await self._whole(self._update(resource))

    async def _update(self, resource: AnyResource) -> AnyResource:
        async with self._lock:
            row = self._made(resource)
            manifest, digest = encoded(_manifest(resource))
            if manifest == row.manifest:
                return self._resources[row.kind, row.key]
            raised = digest != row.spec_digest
            new = replace(row, manifest=manifest, spec_digest=digest, generation=row.generation + raised)
            return await self._save(new, row.version)

    async def delete(self, resource: AnyResource) -> None:
        """Delete an object that no file declares; raises as `update`."""
        await self._whole(self._delete(resource))

    async def _delete(self, resource: AnyResource) -> None:
        async with self._lock:
            self._made(resource)
            await self._withdraw((resource.kind, resource.key))

    def _made(self, resource: AnyResource) -> Row:
        row = self._current(resource)
        if row.source != MADE:
            raise Invalid(f"{resource.kind} {resource.key} is declared in {row.source}, which is never written: edit it there")
        return row

    async def secret(self, key: Key) -> Secret:
        """A Secret; raises NotFound with Kubernetes' text, Invalid when a value cannot be had."""
        source = self._secrets.get(key)
        if source is None:
            raise NotFound(f'secrets "{key.name}" not found')
        return await self._threads.run(source.read)

    async def service_account(self, key: Key) -> ServiceAccount:
        """A ServiceAccount; raises NotFound."""
        body = self._accounts.get(key)
        if body is None:
            raise NotFound(f'serviceaccounts "{key.name}" not found')
        names = tuple(str(s["name"]) for s in body.get("imagePullSecrets") or () if isinstance(s, dict) and "name" in s)
        return ServiceAccount(key, names, dict((body.get("metadata") or {}).get("annotations") or {}))

    async def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace that the folder describes, and the label with its name that every namespace has."""
        return {"kubernetes.io/metadata.name": name, **self._namespaces.get(name, {})}

    # --- events

    def emit(self, event: Event) -> None:
        """Keep an event beside the objects; never blocks and never raises."""
        if event.type is EventType.POSTED:
            return
        if len(self._tasks) >= MAX_EVENTS_WAITING:
            log.error("too many events at once: one is dropped", kind=event.resource.kind, reason=event.reason)
            return
        row = EventRow(
            timestamp(self._clock.now()),
            event.resource.kind,
            event.resource.key,
            "Warning" if event.type is EventType.WARNING else "Normal",
            event.reason,
            event.message,
        )

        async def keep() -> None:
            try:
                await self._threads.run(lambda: self._database.add_event(row))
            except ReconcileError as error:
                log.error("could not keep an event", error=str(error))

        task = asyncio.get_running_loop().create_task(keep(), name="keep event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _manifest(resource: AnyResource) -> dict[str, Any]:
    meta = {"name": resource.key.name, "namespace": resource.key.namespace}
    texts = {"labels": resource.meta.labels, "annotations": resource.meta.annotations}
    given = {name: dict(value) for name, value in texts.items() if value}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta | given, "spec": dump(resource.spec)}


def decode_row(scheme: Scheme, row: Row) -> AnyResource:
    """The Resource that a stored row holds; raises Invalid when this version cannot read it."""
    info = scheme.kinds[row.kind]
    body = orjson.loads(row.manifest)
    body["status"] = orjson.loads(row.status)
    typed = scheme.decode(info, body, strict=False)
    meta = ObjectMeta(
        name=row.key.name,
        namespace=row.key.namespace,
        uid=row.uid,
        resource_version=str(row.version),
        generation=row.generation,
        creation_timestamp=row.created,
        deletion_timestamp=row.deleted,
        labels=typed.meta.labels,
        annotations=typed.meta.annotations,
        finalizers=orjson.loads(row.finalizers),
    )
    return Resource(typed.api_version, typed.kind, meta, typed.spec, typed.status)
