"""The folder of one mirror on disk: whose it is, what a killed process left in it, and how it is made.

::

    <root>/<key>.<slot>/lock        flock'ed by the one process that uses the slot, and by all it started
                       /url         for people; without credentials
                       /gitconfig   configuration of local commands
                       /tmp/        credentials and keys of running processes; wiped when the slot is taken
                       /repo.git/   the bare repository

A second process with the same remote takes the next slot. Because git processes inherit the lock, a push that outlives its
killed parent keeps the slot until it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from reconcile.git.environment import configuration, environment, write_private
from reconcile.git.errors import GitError, MirrorDamaged
from reconcile.git.process import Job

SLOTS = 8
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02


class Folder:
    """One slot, taken by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        """`lock` is the descriptor that holds the flock."""
        self.path = path
        self.lock = lock
        self.repository = path / "repo.git"
        self.scratch = path / "tmp"
        self.config = path / "gitconfig"

    @classmethod
    def take(cls, root: Path, key: str, url: str) -> Folder:
        """Lock the first free slot of `key`, clean it of what a killed process left. `url` is the redacted one.

        The first slot is waited for a little: whoever holds it may be a git process about to end.
        """
        until = time.monotonic() + WAIT_SECONDS
        for slot in range(SLOTS):
            path = root / f"{key}.{slot}"
            if _foreign(path):
                raise GitError(f"the folder {path} was made by somebody else; remove it, or give another --state")
            while True:
                taken = cls.try_take(path)
                if taken is not None:
                    with contextlib.suppress(FileExistsError):
                        write_private(path / "url", url.encode() + b"\n")
                    return taken
                if slot > 0 or time.monotonic() > until:
                    break
                time.sleep(_POLL_SECONDS)
        raise GitError(f"all {SLOTS} mirrors of this repository are in use by other processes")

    @classmethod
    def try_take(cls, path: Path) -> Folder | None:
        """Take the slot at `path`, None when another process has it."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _foreign(path):
            return None
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the slot between open and lock.
            if not (path / "lock").exists() or os.fstat(lock).st_ino != (path / "lock").stat().st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            os.close(lock)
            return None
        folder = cls(path, lock)
        folder.clean()
        folder.touch()
        return folder

    def clean(self) -> None:
        """Remove what a killed process leaves: credentials, lock files, half-written objects."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700, exist_ok=True)
        self.config.unlink(missing_ok=True)
        write_private(self.config, configuration().encode())
        self.clean_repository()

    def clean_repository(self) -> None:
        """Remove lock files and half-written objects; nobody may be writing."""
        for pattern in (
            "*.lock",
            "refs/**/*.lock",
            "gc.pid",
            "objects/**/tmp_*",
            "objects/**/*.lock",
            "objects/info/commit-graphs/*.lock",
        ):
            for left in list(self.repository.glob(pattern)):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def touch(self) -> None:
        """Note that the mirror is in use, for the choice of which to give up."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path / "lock")

    def environment(self) -> dict[str, str]:
        """Variables for a command that talks to nobody."""
        return {**environment(self.path, self.config), **self.location()}

    def location(self) -> dict[str, str]:
        """Where the repository is; given to every process so that none looks for another one above."""
        return {"GIT_DIR": str(self.repository)}

    def sound(self) -> bool:
        """Whether the repository has its parts; says nothing about its objects."""
        return all((self.repository / part).exists() for part in ("HEAD", "config", "objects", "refs"))

    def prepare(self, job: Job) -> bool:
        """Make the repository unless it is there; True when it was made."""
        if self.sound():
            return False
        self.discard()
        fresh = self.scratch / "new.git"
        shutil.rmtree(fresh, ignore_errors=True)
        argv = ["git", "init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main", str(fresh)]
        done = job.run(argv, environment(self.path, self.config), self.path)
        if done.status != 0:
            raise MirrorDamaged(f"cannot make a mirror: {done.stderr.strip()}")
        fresh.rename(self.repository)
        return True

    def discard(self) -> None:
        """Remove the repository; at no time is there a half of one under its name."""
        if self.repository.exists():
            trash = self.scratch / f"old-{time.monotonic_ns()}"
            self.repository.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def packs(self) -> int:
        """Number of packs, a measure of what `gc` would gain."""
        return sum(1 for _ in self.repository.glob("objects/pack/*.pack"))

    def release(self) -> None:
        """Give the slot back."""
        os.close(self.lock)

    def remove(self) -> None:
        """Delete the slot, then give it back."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


def _foreign(path: Path) -> bool:
    """Whether `path` is there and not a folder of our own: the configuration of a repository in it could have git run programs.

    Ours is what has the owner of a new file: some file systems give all files one owner, whoever makes them.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    with tempfile.TemporaryFile(dir=path.parent) as own:
        return not stat.S_ISDIR(found.st_mode) or found.st_uid != os.fstat(own.fileno()).st_uid
