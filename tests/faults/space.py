"""A small disk for the state folder, which can be filled up.

A file system in memory, seen by the processes of one worker only. Where that is not allowed, a disk that is full is played by a
bound on the size of files.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000
SIZE = 24 * 1024 * 1024


class Space:
    """The disk; make it before the process has threads."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self._root = root
        self._number = 0
        self.real = _mount(root)
        """Whether it is a disk of its own."""

    def fresh(self) -> Path:
        """An empty state folder in place of the last one."""
        for old in self._root.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        self._number += 1
        path = self._root / f"state-{self._number}"
        path.mkdir(mode=0o700)
        return path

    def fill(self, left: int) -> int:
        """Let only `left` bytes be free; returns the bound on the size of files that stands for it where there is no disk."""
        if not self.real:
            return max(left, 4096)
        ballast = self._root / "ballast"
        free = os.statvfs(self._root)
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
        return 0

    def free(self) -> None:
        """Let there be room again."""
        (self._root / "ballast").unlink(missing_ok=True)


def _mount(root: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    return bool(libc.mount(b"none", str(root).encode(), b"tmpfs", 0, f"size={SIZE},mode=0700".encode()) == 0)
