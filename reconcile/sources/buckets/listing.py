"""What a bucket has now: its objects, without those that its `.sourceignore` and `spec.ignore` leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconcile.artifact.ignore import bucket_ignore
from reconcile.errors import LimitExceeded, ReconcileError
from reconcile.registry.errors import CredentialError
from reconcile.sources.buckets.client import BucketClient, BucketError, BucketMissing, Entry, ObjectMissing, Text
from reconcile.sources.buckets.keys import IGNORE_FILE, takes_part

MAX_IGNORE = 1024 * 1024
"""Bytes of `.sourceignore`."""


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """Bounds of one Bucket, where upstream has none.

    Attributes:
        objects: objects that a list may have, ignored ones included.
        object: bytes of one object; one at a time is held in memory while the artifact is packed.
        total: bytes of all objects that become files.
    """

    objects: int = 100_000
    object: int = 128 * 1024**2
    total: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Listing:
    """What counts of a bucket.

    Attributes:
        entries: the objects by key.
        ignore: the bucket's `.sourceignore`, None when it has none.
    """

    entries: Mapping[str, Entry]
    ignore: Text | None = None

    @property
    def etags(self) -> dict[str, str]:
        """The version of each object, by key."""
        return {key: entry.etag for key, entry in self.entries.items()}


async def look(
    client: BucketClient, bucket: str, prefix: str, ignore: str | None, *, known: Text | None, limits: BucketLimits
) -> Listing:
    """The objects under `prefix`; costs one request for each page, and one for `.sourceignore` where `known` is not its version.

    Whether the bucket exists is not asked for itself: the first page says it.

    Args:
        client: the bucket.
        bucket: its name, for messages.
        prefix: beginning of all keys.
        ignore: `spec.ignore`.
        known: `.sourceignore` as it was at an earlier look.
        limits: bounds.

    Raises:
        CredentialError: no credential could be made.
        ReconcileError: texts as Flux source-controller has them.
    """
    found = await _list(client, bucket, prefix, limits)
    try:
        patterns = await _ignore_file(client, prefix, found, known)
    except CredentialError:
        raise
    except ReconcileError as error:
        raise BucketError(f"failed to get Etag for '{IGNORE_FILE}' object: {error}") from error
    text = patterns.content.decode("utf-8", "replace") if patterns is not None else None
    rules = bucket_ignore(text, ignore)
    chosen = {entry.key: entry for entry in found if takes_part(entry.key) and not rules.ignored(entry.key)}
    check_limits(chosen.values(), limits)
    return Listing(chosen, patterns)


def check_limits(entries: Iterable[Entry], limits: BucketLimits) -> None:
    """Raises LimitExceeded when an object, or all together, are larger than they may be."""
    total = 0
    for entry in entries:
        total += entry.size
        if entry.size > limits.object:
            raise LimitExceeded(f"object '{entry.key}' has {entry.size} bytes; the limit is {limits.object}")
    if total > limits.total:
        raise LimitExceeded(f"the objects have {total} bytes together; the limit is {limits.total}")


async def _list(client: BucketClient, bucket: str, prefix: str, limits: BucketLimits) -> Sequence[Entry]:
    found: list[Entry] = []
    pages = 0
    try:
        async for page in client.pages(prefix):
            found += page
            pages += 1
            if len(found) > limits.objects:
                raise LimitExceeded(f"there are more than the limit of {limits.objects} objects; a prefix makes them fewer")
    except BucketMissing:
        raise BucketMissing(f"bucket '{bucket}' not found") from None
    except (CredentialError, LimitExceeded):
        raise
    except ReconcileError as error:
        what = f"failed to confirm existence of '{bucket}' bucket"
        if pages:
            what = f"indexation of objects from bucket '{bucket}' failed: listing objects from bucket '{bucket}' failed"
        raise BucketError(f"{what}: {error}") from error
    return found


async def _ignore_file(client: BucketClient, prefix: str, found: Sequence[Entry], known: Text | None) -> Text | None:
    if not IGNORE_FILE.startswith(prefix):
        try:  # it is not below the prefix, so that the list says nothing of it
            return await client.read(IGNORE_FILE, MAX_IGNORE, known)
        except ObjectMissing:
            return None
    entry = next((entry for entry in found if entry.key == IGNORE_FILE), None)
    if entry is None:
        return None
    if known is not None and known.etag == entry.etag:
        return known
    try:
        return await client.read(IGNORE_FILE, MAX_IGNORE)
    except ObjectMissing:
        return None
