"""Lease of local mode: a lock on a file beside the state, given back by the system when the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from reconcile.errors import Conflict, Invalid


class FileLease:
    """Only one process at a time works on a state file. Does not wait: a second process is told who has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold the lock inside; raises Conflict when another process has it, Invalid when the folder cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Invalid(f"cannot keep state in {self._path.parent}: {error.strerror}; give another --state") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 32).decode("ascii", "replace").strip() or "another process"
                raise Conflict(
                    f"process {holder} already works with this state ({self._path.parent}); end it, or give another --state"
                ) from None
            with suppress(OSError):  # on a full disk the lock counts as well; who holds it is only for people
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)
