"""Where artifacts are kept: `<root>/<kind>/<namespace>/<name>/<file>`, as Flux source-controller lays them out.

A file appears under its name when it is complete, by a rename; it is written under a name that begins with a dot, while the lock
file `<file>.lock` is held. A killed process leaves such a file at most, and `recover` takes it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, cast
from weakref import WeakValueDictionary

from reconcile.api.meta import Key
from reconcile.api.source import Artifact
from reconcile.artifact.digest import file_digest, hasher, parse_digest, same
from reconcile.artifact.errors import ArtifactMissing, StorageError
from reconcile.artifact.layout import (
    PARTIAL_SUFFIX,
    drop_partial,
    file_path,
    folder_path,
    is_artifact,
    is_partial,
    make_folders,
    point,
    split_path,
)
from reconcile.artifact.ledger import Held, Known, mark_of
from reconcile.artifact.rooted import LOCK_SUFFIX, locked, open_regular
from reconcile.artifact.sink import Foreign, Sink, explained
from reconcile.errors import Invalid
from reconcile.ports.clock import Clock, timestamp
from reconcile.runtime.metrics import Metrics
from reconcile.runtime.threads import Threads

MOST_LOOKED_AT = 1000
"""Files of one object that one collection looks at."""
MOST_SECONDS = 5.0
"""Seconds that one collection takes."""
MOST_BYTES = 4 * 1024**3
"""Bytes of one artifact."""

_WORKERS = 2

State = Literal["intact", "missing", "damaged"]
_Identity = tuple[str, Key]


@dataclass(frozen=True, slots=True)
class _Stored:
    digest: str
    size: int
    at: float


class Storage:
    """The artifacts of one service. Only one call at a time works on one object; all that blocks runs in threads.

    Args:
        root: folder of all artifacts; made when it is not there.
        clock: time for retention and for `lastUpdateTime`.
        host: how others reach the artifact server: `host`, `host:port` or with a scheme before it.
        ttl: seconds after which an artifact that was replaced is garbage.
        records: artifacts of one object that are kept at most, the present one included.
        algorithm: of new digests.
        metrics: where to show what is held and what was collected.
        most_bytes: of one artifact.

    Raises:
        Invalid: the algorithm is unknown or not installed.
    """

    def __init__(
        self,
        root: Path,
        clock: Clock,
        *,
        host: str,
        ttl: float = 60.0,
        records: int = 2,
        algorithm: str = "sha256",
        metrics: Metrics | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        hasher(algorithm)
        self.root = root
        self._clock = clock
        self._base = host.rstrip("/") if "://" in host else f"http://{host.rstrip('/')}"
        self._ttl = ttl
        self._records = max(1, records)
        self._algorithm = algorithm
        self._most_bytes = most_bytes
        self._threads = Threads("artifact-storage", _WORKERS)
        self._writers = Threads(
            "artifact-writer", _WORKERS * 2
        )  # writing may wait for a network; looking may not wait for writing
        self._busy: WeakValueDictionary[_Identity, asyncio.Lock] = WeakValueDictionary()
        self._known = Known()
        self._held = Held(metrics)

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
        self._writers.close()

    async def recover(self) -> int:
        """Take away what a killed process left half written, and count what is there; the number of files removed.

        What another living process is writing is left alone.
        """
        return await self._threads.run(self._recover)

    async def put(
        self,
        kind: str,
        key: Key,
        filename: str,
        revision: str,
        write: Callable[[BinaryIO], None],
        *,
        metadata: Mapping[str, str] | None = None,
        link: str = "",
    ) -> Artifact:
        """Store what `write` writes as the artifact `filename` of an object.

        When the file is there already with the same content, it stays untouched, with its time.

        Args:
            kind: kind of the object, in any case.
            key: namespace and name of the object.
            filename: name of the file, which stands for the revision.
            revision: what the artifact was made from.
            write: called in a thread with a file to write to; what it raises is raised here, and nothing has changed then.
            metadata: annotations of the artifact.
            link: name of a symbolic link to the file, such as `latest.tar.gz`.

        Raises:
            Invalid: a name cannot be a name of a file.
            LimitExceeded: it is larger than `most_bytes`.
            StorageError: the disk cannot be written, is full for instance.
        """
        path = file_path(kind, key, filename)
        if link:
            file_path(kind, key, link)
        async with self._alone(kind, key):
            stored = await self._writers.run(lambda: self._put(path, write, link))
        return Artifact(
            path=path,
            url=self.url_of(path),
            revision=revision,
            digest=f"{self._algorithm}:{stored.digest}",
            last_update_time=timestamp(datetime.fromtimestamp(stored.at, UTC)),
            size=stored.size,
            metadata=dict(metadata) if metadata else None,
        )

    async def inspect(self, artifact: Artifact) -> State:
        """Whether the file of `artifact` is there and is what its digest says; one that is not is removed.

        A file that has not changed since it was written or inspected here is not read again.

        Raises StorageError when it cannot be read: that says nothing about it.
        """
        return await self._threads.run(lambda: self._inspect(artifact))

    async def intact(self, artifact: Artifact) -> bool:
        """Whether `inspect` finds nothing wrong with `artifact`."""
        return await self.inspect(artifact) == "intact"

    async def collect(self, kind: str, key: Key, current: Artifact | None) -> list[str]:
        """Remove artifacts of an object that are garbage by time or number; the paths of those removed.

        The present artifact always stays. Without one nothing is removed: what is there may be what the next pass makes.

        Raises StorageError when the folder cannot be read or written.
        """
        folder = folder_path(kind, key)
        if current is None:
            return []
        async with self._alone(kind, key):
            return await self._threads.run(lambda: self._collect(folder, current.path))

    async def remove(self, kind: str, key: Key) -> int:
        """Remove all artifacts of an object and its folder; the number of artifacts. Raises StorageError."""
        folder = folder_path(kind, key)
        async with self._alone(kind, key):
            return await self._threads.run(lambda: self._remove(folder))

    def path_of(self, artifact: Artifact) -> Path:
        """Where the file of `artifact` is; raises Invalid when its path is none of this storage."""
        return self.root.joinpath(*split_path(artifact.path))

    def url_of(self, path: str) -> str:
        """Address of the file or link at `path` below the root."""
        return f"{self._base}/{path.lstrip('/')}"

    def link_url(self, kind: str, key: Key, link: str) -> str:
        """Address of the link `link` of an object, which stays the same for all its artifacts."""
        return self.url_of(file_path(kind, key, link))

    def addressed(self, artifact: Artifact) -> Artifact:
        """`artifact` with the address that it has now: the host may have changed since it was made."""
        url = self.url_of(artifact.path)
        return artifact if artifact.url == url else artifact.model_copy(update={"url": url})

    def own_path(self, url: str) -> str | None:
        """Path of the file that `url` stands for when it is one of this storage, else None."""
        path = url.removeprefix(f"{self._base}/")
        if path == url:
            return None
        try:
            split_path(path)
        except Invalid:
            return None
        return path

    def open_verified(self, path: str, digest: str) -> BinaryIO:
        """The file at `path`, known to have `digest`. Blocks.

        Raises:
            ArtifactMissing: it is not there, or is not what the digest says.
            StorageError: it cannot be read.
            Invalid: the path or the digest is none.
        """
        parts = split_path(path)
        algorithm, wanted = parse_digest(digest)
        try:
            file = open_regular(self.root, parts)
        except FileNotFoundError:
            raise ArtifactMissing(f"artifact {path!r} is not in storage") from None
        except OSError as error:
            raise StorageError(f"cannot read artifact {path!r}: {error.strerror}") from error
        try:
            found = self._digest(file, path, algorithm)
            if not same(found, wanted):
                raise ArtifactMissing(f"artifact {path!r} in storage has digest {algorithm}:{found}, not {algorithm}:{wanted}")
            file.seek(0)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                raise StorageError(f"cannot read artifact {path!r}: {error.strerror}") from error
            raise
        return file

    @contextlib.asynccontextmanager
    async def _alone(self, kind: str, key: Key) -> AsyncIterator[None]:
        identity = (kind.lower(), key)
        lock = self._busy.get(identity)
        if lock is None:
            lock = self._busy[identity] = asyncio.Lock()
        async with lock:
            yield

    def _digest(self, file: BinaryIO, path: str, algorithm: str) -> str:
        mark = mark_of(os.fstat(file.fileno()))
        known = self._known.get(path, mark, algorithm)
        if known is None:
            known = file_digest(file, algorithm)
            if mark_of(os.fstat(file.fileno())) == mark:
                self._known.put(path, mark, algorithm, known)
        return known

    def _put(self, path: str, write: Callable[[BinaryIO], None], link: str) -> _Stored:
        final = self.root / path
        with explained(path):
            make_folders(self.root, final.parent)
            with locked(final.with_name(final.name + LOCK_SUFFIX)):
                descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=PARTIAL_SUFFIX, dir=final.parent)
                partial = Path(name)
                try:
                    digest, size = self._written(descriptor, path, write)
                    stored = self._settle(partial, path, digest, size)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
                if link:
                    point(final.with_name(link), final.name)
        self._held.add(path, size)
        return stored

    def _written(self, descriptor: int, path: str, write: Callable[[BinaryIO], None]) -> tuple[str, int]:
        with os.fdopen(descriptor, "wb") as file:
            sink = Sink(file, path, self._algorithm, self._most_bytes)
            try:
                write(cast(BinaryIO, sink))
            except OSError as error:
                raise Foreign(error) from error
            sink.flush()
        return sink.digest.hexdigest(), sink.size

    def _settle(self, partial: Path, path: str, digest: str, size: int) -> _Stored:
        """Give the file its name, unless one with the same content has it."""
        final = self.root / path
        try:
            self.open_verified(path, f"{self._algorithm}:{digest}").close()
            at = final.lstat().st_mtime
        except (ArtifactMissing, FileNotFoundError):
            at = float(int(self._clock.now().timestamp()))
            os.utime(partial, (at, at))
            partial.replace(final)
            self._known.put(path, mark_of(final.lstat()), self._algorithm, digest)
        else:
            partial.unlink()
        return _Stored(digest, size, at)

    def _inspect(self, artifact: Artifact) -> State:
        try:
            self.open_verified(artifact.path, artifact.digest).close()
        except Invalid:
            return "missing"
        except ArtifactMissing:
            return self._discard(artifact)
        return "intact"

    def _discard(self, artifact: Artifact) -> State:
        path = self.path_of(artifact)
        with explained(artifact.path):
            try:
                path.unlink()
            except FileNotFoundError:
                return "missing"
        self._held.drop(artifact.path)
        return "damaged"

    def _collect(self, folder: str, current: str) -> list[str]:
        end = self._clock.monotonic() + MOST_SECONDS
        now = self._clock.now().timestamp()
        with explained(folder):
            files = [(at, name) for name, at in self._files(folder, end)]
            others = sorted((at, name) for at, name in files if f"{folder}/{name}" != current)
            expired = [name for at, name in others if now - at > self._ttl]
            fresh = [name for at, name in others if now - at <= self._ttl]
            room = self._records - (len(files) - len(others))
            garbage = expired + fresh[: max(0, len(fresh) - room)]
            removed = [path for name in garbage if (path := self._unlink(folder, name))]
        self._held.collected(len(removed))
        return removed

    def _files(self, folder: str, end: float) -> Iterator[tuple[str, float]]:
        """Name and time of the artifacts of one object, within the bounds of one collection."""
        try:
            found = os.scandir(self.root / folder)
        except FileNotFoundError:
            return
        count = 0
        with found:
            for entry in found:
                if count >= MOST_LOOKED_AT or self._clock.monotonic() > end:
                    return
                if is_partial(entry.name):
                    count += 1
                    drop_partial(Path(entry.path))
                if not entry.is_file(follow_symlinks=False) or not is_artifact(entry.name):
                    continue
                count += 1
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime

    def _unlink(self, folder: str, name: str) -> str | None:
        path = f"{folder}/{name}"
        try:
            (self.root / path).unlink()
        except FileNotFoundError:
            return None
        (self.root / (path + LOCK_SUFFIX)).unlink(missing_ok=True)
        self._held.drop(path)
        self._known.forget(path)
        return path

    def _remove(self, folder: str) -> int:
        place = self.root / folder
        with explained(folder):
            if not place.is_dir() or place.is_symlink():
                return 0
            names = [
                entry.name for entry in place.iterdir() if entry.is_file() and not entry.is_symlink() and is_artifact(entry.name)
            ]
            shutil.rmtree(place)
        for name in names:
            self._held.drop(f"{folder}/{name}")
            self._known.forget(f"{folder}/{name}")
        self._held.collected(len(names))
        return len(names)

    def _recover(self) -> int:
        removed = 0
        with explained(str(self.root)):
            make_folders(self.root, self.root)
            for folder in sorted(self.root.glob("*/*/*")):
                if not folder.is_dir() or folder.is_symlink():
                    continue
                for entry in sorted(folder.iterdir()):
                    if is_partial(entry.name):
                        removed += drop_partial(entry)
                    elif is_artifact(entry.name) and not entry.is_symlink() and entry.is_file():
                        self._held.add(entry.relative_to(self.root).as_posix(), entry.stat().st_size)
        return removed
