"""Artifacts unpacked, for those who read them: each is fetched and unpacked once, however many ask, and shared while it is used.

Unpacked trees lie in a folder of this process alone, which a lock file marks as in use; what a killed process left is taken away
by the next one. Trees that nobody has open are kept within a bound, those used last the longest.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from reconcile.api.source import Artifact
from reconcile.artifact.archive import Index, Limits, unpack
from reconcile.artifact.digest import parse_digest
from reconcile.artifact.download import Downloader, Rewrite
from reconcile.artifact.errors import ArchiveError, ArtifactMissing, FetchError, StorageError
from reconcile.artifact.rooted import LOCK_SUFFIX, try_lock
from reconcile.artifact.storage import Storage
from reconcile.errors import Invalid
from reconcile.ports.clock import Clock
from reconcile.runtime.threads import Threads

MOST_BYTES = 1024**3
"""Bytes of one packed artifact."""
MOST_KEPT = 32
"""Unpacked trees that are kept although nobody has them open."""
MOST_KEPT_BYTES = 2 * 1024**3
"""Bytes of their files."""

_AT_ONCE = 4
_WORKERS = 2
_PREFIX = "run-"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """An unpacked artifact: nobody may write below `root`.

    Attributes:
        root: folder of its files.
        files: digest of each file by its path, as `archive.Index` has it.
    """

    root: Path
    files: Mapping[str, str]


@dataclass
class _Tree:
    """An unpacked artifact and how many have it open."""

    key: str
    opened: Opened
    size: int
    users: int = 0


@dataclass
class _Flight:
    """A fetch under way and how many wait for it."""

    task: asyncio.Task[_Tree]
    waiting: int = 0


@dataclass
class _Home:
    """The folder of this process, and the descriptor that holds its lock."""

    path: Path
    lock: int
    count: int = 0

    def next(self) -> Path:
        """A path that nothing has yet."""
        self.count += 1
        return self.path / str(self.count)


class Artifacts:
    """Opens artifacts; one for all consumers of a process. Close it with `aclose`.

    Args:
        storage: our own storage: what it holds is read from the disk, not by HTTP.
        folder: where to unpack; may be shared with other processes.
        clock: time between attempts.
        retries: attempts of a download after the first one (`--http-retry`).
        most_bytes: of one packed artifact.
        most_kept: unpacked trees that are kept although nobody has them open.
        most_kept_bytes: bytes of their files.
        limits: bounds of what is unpacked.
        rewrite: changes addresses before a download.
    """

    def __init__(
        self,
        storage: Storage | None,
        folder: Path,
        clock: Clock,
        *,
        retries: int = 9,
        most_bytes: int = MOST_BYTES,
        most_kept: int = MOST_KEPT,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        limits: Limits | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._limits = limits
        self._most_kept = most_kept
        self._most_kept_bytes = most_kept_bytes
        self._threads = Threads("artifact-fetch", _WORKERS)
        self._downloader = Downloader(clock, self._threads, retries=retries, most_bytes=most_bytes, rewrite=rewrite)
        self._home: _Home | None = None
        self._moving = asyncio.Lock()
        self._trees: OrderedDict[str, _Tree] = OrderedDict()
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._works: set[asyncio.Future[Any]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def opened(self, artifact: Artifact) -> AsyncIterator[Opened]:
        """The unpacked `artifact`, which stays as it is while it is open.

        Raises:
            ArtifactMissing: its server does not have it, perhaps not yet.
            FetchError: it cannot be had or unpacked, or is not what its digest says.
        """
        tree = await self._get(artifact)
        try:
            yield tree.opened
        finally:
            self._release(tree)

    async def aclose(self) -> None:
        """End what is under way and remove all unpacked trees."""
        flights = [flight.task for flight in self._flights.values()]
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        while self._works:
            await asyncio.gather(*self._works, return_exceptions=True)
        await self._downloader.aclose()
        home = self._home
        if home is not None:
            await self._threads.run(lambda: _move_out(home))
        self._threads.close()

    async def _get(self, artifact: Artifact) -> _Tree:
        """The tree of an artifact, counted as used once more."""
        try:
            key = ":".join(parse_digest(artifact.digest))
        except Invalid as error:
            raise FetchError(f"artifact {artifact.path!r} cannot be verified: {error}") from error
        tree = self._trees.get(key)
        if tree is None:
            return await self._wait(key, artifact)
        self._trees.move_to_end(key)
        tree.users += 1
        return tree

    async def _wait(self, key: str, artifact: Artifact) -> _Tree:
        """Take part in the fetch of an artifact; the last who gives up ends it.

        Only those with the same address share: an address that hangs must not hold up those who know a better one.
        """
        name = (key, artifact.url)
        flight = self._flights.get(name)
        if flight is None:
            task = asyncio.create_task(self._fetch(key, artifact), name=f"fetch {artifact.path}")
            flight = self._flights[name] = _Flight(task)
        flight.waiting += 1
        try:
            tree = await asyncio.shield(flight.task)
            tree.users += 1
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                del self._flights[name]
                self._land(flight.task)
        return tree

    def _land(self, task: asyncio.Task[_Tree]) -> None:
        """Nobody waits any more: end the flight if it is under way, and give up its own use of the tree."""
        if task.done():
            self._landed(task)
        else:
            task.cancel()
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[_Tree]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._release(task.result())

    async def _fetch(self, key: str, artifact: Artifact) -> _Tree:
        """Fetch and unpack; the tree comes with one use, which keeps it until those who wait have theirs.

        Only the unpacking waits for its turn: a server that sends next to nothing holds up nobody but those who ask it.
        """
        try:
            home = await self._settled()
            place = home.next()
            file = await self._source(artifact, home)
            index = await self._unpacked(file, place)
        except (OSError, StorageError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            raise FetchError(f"cannot unpack artifact {artifact.path!r}: {what}", temporary=True) from error
        except ArchiveError as error:
            raise FetchError(f"cannot unpack artifact {artifact.path!r}: {error}") from error
        tree = self._trees.get(key)
        if tree is None:
            tree = self._trees[key] = _Tree(key, Opened(place, index.files), index.size)
        else:  # it came from another address meanwhile
            self._discard(place)
        tree.users += 1
        return tree

    async def _unpacked(self, file: BinaryIO, place: Path) -> Index:
        """Unpack a file, which is closed then."""
        try:
            await self._slots.acquire()
        except BaseException:
            file.close()
            raise
        try:
            work = self._tracked(self._threads.run(lambda: _unpack(file, place, self._limits)))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                work.add_done_callback(lambda done: self._abandon(done, place))  # the thread goes on for now
                raise
        finally:
            self._slots.release()

    async def _source(self, artifact: Artifact, home: _Home) -> BinaryIO:
        """The file of an artifact, verified: from our storage or from its server."""
        storage = self._storage
        path = storage.own_path(artifact.url) if storage is not None else None
        if storage is not None and path is not None:
            return await self._threads.run(lambda: storage.open_verified(path, artifact.digest))
        if storage is not None:
            # After a restart under another address its object may still name the one before, where nobody answers any more.
            with suppress(ArtifactMissing, StorageError, Invalid):
                return await self._threads.run(lambda: storage.open_verified(artifact.path, artifact.digest))
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=home.path))  # noqa: SIM115 - the caller closes it; it never has a name
        try:
            await self._downloader.download(artifact, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    async def _settled(self) -> _Home:
        async with self._moving:
            if self._home is None:
                await asyncio.shield(self._tracked(self._settle()))
            assert self._home is not None  # noqa: S101 - it has just been set
            return self._home

    async def _settle(self) -> None:
        self._home = await self._threads.run(lambda: _move_in(self._folder))

    def _release(self, tree: _Tree) -> None:
        tree.users -= 1
        unused = [tree for tree in self._trees.values() if not tree.users]
        size = sum(tree.size for tree in unused)
        for count, oldest in zip(range(len(unused), 0, -1), unused, strict=True):
            if count <= self._most_kept and size <= self._most_kept_bytes:
                return
            size -= oldest.size
            del self._trees[oldest.key]
            self._discard(oldest.opened.root)

    def _abandon(self, work: asyncio.Task[Index], place: Path) -> None:
        if not work.cancelled() and work.exception() is None:
            self._discard(place)

    def _discard(self, place: Path) -> None:
        self._tracked(self._threads.run(lambda: shutil.rmtree(place, ignore_errors=True)))

    def _tracked(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of its own, which `aclose` waits for."""
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task


def _unpack(file: BinaryIO, place: Path, limits: Limits | None) -> Index:
    with file:
        return unpack(file, place, limits)


def _move_in(folder: Path) -> _Home:
    """A folder for this process below `folder`; those that dead processes left are removed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(f"{_PREFIX}*{LOCK_SUFFIX}"):
        lock = try_lock(left)
        if lock is not None:
            _move_out(_Home(left.with_suffix(""), lock))
    while True:
        lock_path = folder / f"{_PREFIX}{secrets.token_hex(6)}{LOCK_SUFFIX}"
        lock = try_lock(lock_path)
        if lock is not None:
            break
    home = _Home(lock_path.with_suffix(""), lock)
    home.path.mkdir(mode=0o700)
    return home


def _move_out(home: _Home) -> None:
    shutil.rmtree(home.path, ignore_errors=True)
    home.path.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)
    os.close(home.lock)
