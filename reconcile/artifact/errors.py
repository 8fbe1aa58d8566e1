"""What can go wrong with artifacts.

::

    StorageError                 a ReconcileError: the artifact store cannot be read or written
    ArchiveError                 a ReconcileError: an archive is broken or hostile; the text names the entry
    └── ArchiveTooLarge          also a LimitExceeded: it is over a limit, packed or unpacked
    ArtifactMissing              a NotFound: the server of an artifact does not have it (yet)
    FetchError                   a ReconcileError: an artifact could not be fetched or unpacked, or is not what its digest says
"""

from __future__ import annotations

from reconcile.errors import LimitExceeded, NotFound, ReconcileError


class StorageError(ReconcileError):
    """The artifact store cannot be read or written; the text says what to do where that is known."""


class ArchiveError(ReconcileError):
    """An archive is truncated, damaged or hostile; nothing of it was kept."""


class ArchiveTooLarge(ArchiveError, LimitExceeded):
    """An archive, or what it unpacks to, is over a limit; nothing of it was kept."""


class ArtifactMissing(NotFound):
    """The artifact is not there: its server says so, or our own store does not have it."""


class FetchError(ReconcileError):
    """An artifact could not be fetched, is not what its digest says, or cannot be unpacked.

    Attributes:
        temporary: whether the same request may succeed later without anybody's doing.
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary
