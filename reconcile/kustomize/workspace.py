"""The private folder of one build: links to the files it reads, and files of its own in place of those that are changed.

::

    <folder>/lock                  held while sessions are begun and cleaned
            /<session>/lock        held by the process that works there, as long as it lives
                      /<number>/   one build; removed when it ends

What a killed process left is removed when the next one begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconcile.kustomize.failure import BuildFailed

_PRIVATE = 0o700


class Workspace:
    """One build's folder. Files are paths relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: set[str] = {""}
        self._links = True

    def fill(self, source: Path, paths: Iterable[str], *, copy: bool = False) -> None:
        """Show files of `source` here: as hard links, or as copies where links cannot be made or `copy` is set.

        Linked files are those of `source`: they may be replaced here, never written.

        Raises:
            BuildFailed: one of them is no regular file.
            OSError: one of them is gone, or the disk is full.
        """
        for path in paths:
            if not stat.S_ISREG((source / path).lstat().st_mode):
                raise BuildFailed(f"{path} is no regular file")
            self.folder(path.rpartition("/")[0])
            if copy or not self._link(source / path, self.root / path):
                shutil.copyfile(source / path, self.root / path, follow_symlinks=False)

    def _link(self, source: Path, target: Path) -> bool:
        if self._links:
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:
                self._links = False  # another file system, or one without links
        return self._links

    def folder(self, path: str) -> None:
        """Make a folder, and those above it."""
        if path not in self._folders:
            (self.root / path).mkdir(parents=True, exist_ok=True)
            self._folders.add(path)

    def write(self, path: str, content: bytes) -> None:
        """Put a file of our own here; one that is here already is replaced, not written."""
        self.folder(path.rpartition("/")[0])
        target = self.root / path
        target.unlink(missing_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def remove(self) -> None:
        """Remove the folder; what cannot be removed now goes when the next process begins."""
        shutil.rmtree(self.root, ignore_errors=True)


class Workspaces:
    """The folder where one process makes workspaces. For several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._session: Path | None = None
        self._lock = -1
        self._numbers = itertools.count(1)

    def make(self) -> Workspace:
        """A new, empty workspace. The first one removes what killed processes left. Blocks."""
        with self._guard:
            if self._session is None:
                self._session = self._begin()
            root = self._session / str(next(self._numbers))
        root.mkdir(_PRIVATE)
        return Workspace(root)

    def _begin(self) -> Path:
        self._folder.mkdir(_PRIVATE, parents=True, exist_ok=True)
        with _locked(self._folder / "lock"):
            for old in self._folder.iterdir():
                if old.is_dir() and not old.is_symlink():
                    _remove_if_left(old)
            session = self._folder.resolve() / secrets.token_hex(8)
            session.mkdir(_PRIVATE)
            self._lock = os.open(session / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return session

    def close(self) -> None:
        """Remove all of it; workspaces must no longer be used."""
        with self._guard:
            session, self._session = self._session, None
            if session is not None:
                shutil.rmtree(session, ignore_errors=True)
                os.close(self._lock)


def _remove_if_left(session: Path) -> None:
    """Remove a session whose process has ended."""
    with contextlib.suppress(OSError):
        descriptor = os.open(session / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(session, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
