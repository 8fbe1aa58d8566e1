"""A private home for gpg, that exists only while it is used."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HOME = "imagebot-gpg-"


@contextmanager
def gpg_home() -> Iterator[Path]:
    """A private GNUPGHOME, removed at the end; those of killed processes are removed at the start.

    Not in the state folder: the path of the agent's socket may have 107 bytes at most.
    """
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(_HOME + "*"):
        _sweep(left)
    home = Path(tempfile.mkdtemp(prefix=_HOME, dir=parent))
    try:
        with (home / "lock.new").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Under its name only once it is held, so that nobody sweeps it in between.
            (home / "lock.new").rename(home / "lock")
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _sweep(left: Path) -> None:
    with suppress(OSError):
        if left.is_symlink() or left.stat().st_uid != os.getuid():
            return
        with (left / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
