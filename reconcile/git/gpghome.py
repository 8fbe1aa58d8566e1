"""Private folders outside the state folder, for keys of programs; each exists only while it is used."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

_GPG, _KEY = "imagebot-gpg-", "imagebot-key-"
_UNLOCKED_SECONDS = 60.0
"""Age at which a folder without a lock is one whose maker was killed before it locked it."""


def gpg_home() -> AbstractContextManager[Path]:
    """A private GNUPGHOME, removed at the end; those of killed processes are removed at the start.

    Not in the state folder: the path of the agent's socket may have 107 bytes at most.
    """
    return _private_folder(_GPG, Path(tempfile.gettempdir()))


def key_folder(parent: Path | None = None) -> AbstractContextManager[Path]:
    """As `gpg_home`, for a key that `ssh-keygen` takes the passphrase from; in `parent` where there is one."""
    return _private_folder(_KEY, parent if parent is not None else Path(tempfile.gettempdir()))


def sweep() -> None:
    """Remove what killed processes have left in the folder for temporary files."""
    for prefix in (_GPG, _KEY):
        for left in Path(tempfile.gettempdir()).glob(prefix + "*"):
            _sweep(left)


@contextmanager
def _private_folder(prefix: str, parent: Path) -> Iterator[Path]:
    for left in parent.glob(prefix + "*"):
        _sweep(left)
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
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
        facts = left.lstat()
        if left.is_symlink() or facts.st_uid != os.getuid():
            return
        if not (left / "lock").exists():
            if time.time() - facts.st_mtime > _UNLOCKED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
            return
        with (left / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
