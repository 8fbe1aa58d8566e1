"""The file that an artifact is written to, and what errors of the disk are called."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from reconcile.artifact.digest import hasher
from reconcile.artifact.errors import StorageError
from reconcile.errors import LimitExceeded

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


class Foreign(Exception):
    """Carries an OSError of the caller's `write` past the place where those of the storage are explained."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns errors of the disk into ours."""
    try:
        yield
    except Foreign as foreign:
        raise foreign.error from None
    except OSError as error:
        raise StorageError(f"cannot write {path!r} in artifact storage: {error.strerror or error}") from error


class Sink(io.RawIOBase):
    """What an artifact is written to: counts, hashes and bounds what passes."""

    def __init__(self, file: BinaryIO, path: str, algorithm: str, most: int) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._most = most
        self.digest = hasher(algorithm)
        self.size = 0

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Take all of `data`."""
        piece = bytes(memoryview(data))
        self.size += len(piece)
        if self.size > self._most:
            raise LimitExceeded(f"artifact {self._path!r} is larger than the limit of {self._most} bytes")
        self.digest.update(piece)
        with explained(self._path):
            self._file.write(piece)
        return len(piece)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if not self._file.closed:
            with explained(self._path):
                self._file.flush()
