"""From the listing of a tree to the bytes of an artifact, streamed: only a batch of files is in memory at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import BinaryIO

from reconcile.artifact.archive import Member, pack
from reconcile.artifact.ignore import Ignore
from reconcile.errors import Failed, ReconcileError
from reconcile.sources.git_includes import UNREADABLE, Grafted, read_grafted
from reconcile.sources.git_tree import File, Limits, Tree

BATCH_BYTES = 8 * 1024 * 1024
BATCH_FILES = 2048
_PATIENCE = 600.0
"""Seconds after which a thread gives up on an event loop that does not answer; far above every timeout of a read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes into an artifact, in the order in which it is written."""

    files: Sequence[File]
    grafted: Sequence[Grafted]
    folders: Sequence[str]
    ignore: Ignore = field(repr=False)


def plan(tree: Tree, grafted: Sequence[Grafted], ignore: Ignore, limits: Limits) -> Plan:
    """Leave out what is ignored, bring the rest into a fixed order. Pure.

    Raises Failed ArchiveOperationFailed when a file, all files or their number are over a limit.
    """
    files = sorted((file for file in tree.files.values() if not ignore.ignored(file.path)), key=_order)
    others = sorted((file for file in grafted if not ignore.ignored(file.path)), key=_order)
    everything: list[File | Grafted] = [*files, *others]
    if len(everything) > limits.files:
        raise _refused(f"it has {len(everything)} files, more than the limit of {limits.files}")
    total = 0
    for file in everything:
        if file.size > limits.file:
            raise _refused(f"the file {file.path!r} has {file.size} bytes, more than the limit of {limits.file}; ignore it")
        total += file.size
    if total > limits.total:
        raise _refused(f"its files have {total} bytes together, more than the limit of {limits.total}; ignore what is not needed")
    return Plan(files, others, sorted(tree.folders, key=_bytes), ignore)


def _refused(why: str) -> Failed:
    return Failed("ArchiveOperationFailed", f"unable to archive artifact to storage: {why}")


def _order(file: File | Grafted) -> list[bytes]:
    return _bytes(file.path)


def _bytes(path: str) -> list[bytes]:
    return [part.encode("utf-8", "surrogateescape") for part in path.split("/")]


class Writer:
    """Writes the archive of a plan, called in a thread while this event loop runs on. `cancel` ends it early."""

    def __init__(self, made: Plan, limits: Limits) -> None:
        self._plan, self._limits = made, limits
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        self._reading: Future[dict[str, bytes]] | None = None

    def __call__(self, out: BinaryIO) -> None:
        """Write the archive to `out`. Raises Failed: GitOperationFailed or CopyFailure; or what `pack` raises."""
        pack(self._members(), out, directories=self._plan.folders, ignore=self._plan.ignore)

    def cancel(self) -> None:
        """Nobody waits for the archive any more: the thread is not to wait for an event loop that may be about to end."""
        self._cancelled = True
        if self._reading is not None:
            self._reading.cancel()

    def _members(self) -> Iterator[Member]:
        for batch in batches(self._plan.files):
            contents = self._contents(batch)
            for file in batch:
                yield Member(file.path, contents[file.oid], file.executable)
        try:
            for grafted, data in read_grafted(self._plan.grafted):
                yield Member(grafted.path, data, grafted.executable)
        except UNREADABLE as error:
            raise Failed("CopyFailure", f"failed to copy an included artifact: {error}") from error

    def _contents(self, batch: Sequence[File]) -> dict[str, bytes]:
        if self._cancelled:
            raise Failed("GitOperationFailed", "cancelled")
        reading = self._reading = asyncio.run_coroutine_threadsafe(_read(batch, self._limits), self._loop)
        if self._cancelled:
            reading.cancel()
        try:
            return reading.result(_PATIENCE)
        except CancelledError:
            raise Failed("GitOperationFailed", "cancelled") from None
        except ReconcileError as error:
            raise Failed("GitOperationFailed", f"failed to checkout and determine revision: {error}") from error


async def _read(batch: Sequence[File], limits: Limits) -> dict[str, bytes]:
    return await batch[0].mirror.read([file.oid for file in batch], limits.file, limits.file + BATCH_BYTES)


def batches(files: Sequence[File]) -> Iterator[list[File]]:
    """`files` in runs of one mirror, each of at most `BATCH_FILES`, and of `BATCH_BYTES` unless one file alone has more. Pure."""
    batch: list[File] = []
    size = 0
    for file in files:
        full = len(batch) >= BATCH_FILES or size + file.size > BATCH_BYTES
        if batch and (full or file.mirror is not batch[0].mirror):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch
