"""Opens files below a folder, never through a link that leads elsewhere, and locks them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from reconcile.artifact.errors import StorageError

LOCK_SUFFIX = ".lock"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_LOCK_TRIES = 600
_LOCK_PAUSE = 0.05


def open_below(root: Path, parts: Sequence[str]) -> int:
    """A descriptor of the file or folder at `parts` below `root`.

    Folders are never entered through a link; the last part may be a link to a name in its own folder.

    Raises:
        FileNotFoundError: it is not there, or is neither file nor folder, or is a link elsewhere.
        OSError: it cannot be read.
    """
    here = os.open(root, _FLAGS | os.O_DIRECTORY)
    try:
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            below = _step(here, part, last=last)
            os.close(here)
            here = below
        if not _plain(here):
            raise FileNotFoundError(errno.ENOENT, "not a file", "/".join(parts))
    except BaseException:
        os.close(here)
        raise
    return here


def open_regular(root: Path, parts: Sequence[str]) -> BinaryIO:
    """The regular file at `parts` below `root`, with the rules and errors of `open_below`."""
    descriptor = open_below(root, parts)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "not a file", "/".join(parts))


def _step(folder: int, name: str, *, last: bool) -> int:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise FileNotFoundError(errno.ENOENT, "not a name", name)
    flags = _FLAGS | (os.O_NONBLOCK if last else os.O_DIRECTORY)
    try:
        if last and (target := _link(folder, name)) is not None:
            name = target
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileNotFoundError(errno.ENOENT, "no such file", name) from error
        raise


def _link(folder: int, name: str) -> str | None:
    """Where a link in `folder` leads; None for what is no link."""
    if not stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return None
    target = os.readlink(name, dir_fd=folder)
    if "/" in target or target in {".", ".."}:
        raise FileNotFoundError(errno.ENOENT, "leads elsewhere", name)
    return target


def _plain(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against other threads and processes; made when it is not there, and left where it is.

    Blocks, for half a minute at most. Raises StorageError when another process keeps the lock longer.
    """
    for _ in range(_LOCK_TRIES):
        descriptor = try_lock(path)
        if descriptor is not None:
            break
        time.sleep(_LOCK_PAUSE)
    else:
        raise StorageError(f"{path.name} is held by another process")
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Take the lock file `path` now: the descriptor that holds it until it is closed, or None when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder may have removed the file while we came: a lock on a file without a name holds nobody off.
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
