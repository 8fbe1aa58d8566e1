"""Objects on their way to disk: many at once, bounded in number and size; those that are there already are not asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconcile.errors import LimitExceeded, ReconcileError
from reconcile.registry.errors import CredentialError
from reconcile.sources.buckets.client import BucketClient, BucketError, Entry, ObjectMissing
from reconcile.sources.buckets.listing import BucketLimits


@dataclass(frozen=True, slots=True)
class File:
    """An object on disk.

    Attributes:
        etag: the version whose content this is.
        place: where its content is.
    """

    etag: str
    place: Path


async def download(
    client: BucketClient, wanted: Sequence[Entry], folder: Path, *, limits: BucketLimits, concurrent: int
) -> Mapping[str, File]:
    """Fetch the objects into files of `folder`, by key; those that have vanished since they were listed are left out.

    Files are named by number: a key is no name that a disk should see.

    Raises:
        CredentialError: no credential could be made.
        ReconcileError: an object did not come; the text names it.
    """
    work = _Work(client, folder, limits, iter(enumerate(wanted)))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrent, len(wanted))):
                group.create_task(work.run())
    except BaseExceptionGroup as several:
        raise _first(several) from several
    return work.done


class _Work:
    def __init__(self, client: BucketClient, folder: Path, limits: BucketLimits, entries: Iterator[tuple[int, Entry]]) -> None:
        self._client = client
        self._folder = folder
        self._limits = limits
        self._entries = entries
        self._total = 0
        self.done: dict[str, File] = {}

    async def run(self) -> None:
        for number, entry in self._entries:
            place = self._folder / str(number)
            try:
                fetched = await self._client.fetch(entry, place, self._limits.object)
            except ObjectMissing:
                continue
            except CredentialError:
                raise
            except ReconcileError as error:
                raise BucketError(f"failed to get '{entry.key}' object: {error}") from error
            except OSError as error:
                raise BucketError(f"failed to get '{entry.key}' object: {error.strerror or type(error).__name__}") from error
            self._total += fetched.size
            if self._total > self._limits.total:
                raise LimitExceeded(f"the objects have more than the limit of {self._limits.total} bytes together")
            self.done[entry.key] = File(fetched.etag, place)


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that stopped the others, which were cancelled and say nothing."""
    found = several.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
