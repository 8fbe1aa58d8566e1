"""BucketClient: one bucket as its service shows it. What makes clients honest is one contract suite that runs on each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconcile.errors import ReconcileError


class BucketError(ReconcileError):
    """The service refused, or its answer makes no sense; the text has no secret and names no credential."""


class BucketMissing(BucketError):
    """There is no such bucket."""


class ObjectMissing(BucketError):
    """There is no such object (any more)."""


class BadAnswer(BucketError):
    """The answer is not what the documentation of the service says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a list names it.

    Attributes:
        key: its name, as the service has it, decoded.
        etag: its version in the form in which it enters revisions: the same in lists and in downloads.
        size: bytes as stored.
        generation: the service's own number of this very content (Google), else empty.
    """

    key: str
    etag: str
    size: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object as it was downloaded, which may be a later version than that of the list.

    Attributes:
        etag: the version whose content this is.
        size: bytes of the content.
    """

    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Text:
    """A small object read into memory: its version and its content."""

    etag: str
    content: bytes


class BucketClient(Protocol):
    """Lists and reads one bucket. Nothing here writes, and nothing is asked twice for one answer.

    Laws (`tests/unit/sources/test_bucket_contract.py`): a list names every object under the prefix once, in pages of a bounded
    size, one request each; the etag of an entry is the etag of a download of it that nobody has changed between; a bucket that
    is not there raises BucketMissing, an object that is not there ObjectMissing; what arrives is complete or an error.
    """

    def pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        """The objects whose key starts with `prefix`, page by page as they come.

        Raises BucketMissing, BucketError, NetworkError.
        """
        ...

    async def fetch(self, entry: Entry, into: Path, most: int) -> Fetched:
        """Write an object's content to the new file `into`, piece by piece.

        Raises:
            ObjectMissing: it is gone; `into` is not there then.
            LimitExceeded: it has more than `most` bytes.
            BucketError, NetworkError: it did not come, or not whole.
        """
        ...

    async def read(self, key: str, most: int, unless: Text | None = None) -> Text:
        """A small object; with `unless` its content is only sent if it has another version, and else `unless` is given back.

        Raises:
            ObjectMissing: there is none.
            LimitExceeded: it has more than `most` bytes.
            BucketError, NetworkError: it did not come, or not whole.
        """
        ...
