"""What all users of one mirror in this process share: its folder, reader, locks, memory of what is there.

Everything here is blocking and runs in worker threads, except `writing`, which coroutines hold round a fetch or a push.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from reconcile.git.commit import UNPACK_LIMIT, pack
from reconcile.git.errors import GitError, MirrorDamaged, bounded, is_damage
from reconcile.git.folder import Folder
from reconcile.git.objects import TREE_LIMIT, ObjectReader, parse_refs
from reconcile.git.process import Completed, Deadline, Job
from reconcile.git.session import TRACKING
from reconcile.git.types import Counters, Entry, is_oid

KNOWN_LIMIT = 1024
SEARCH_LIMIT = 32
TIDY_AFTER = 100
TIDY_SECONDS = 300.0
KEEP_UNREACHABLE = "1.hour.ago"
"""Objects of a commit that is not pushed yet hang on nothing; this is longer than any push."""


class Depot:
    """Shared state of one (remote, credentials)."""

    def __init__(self, take: Callable[[], Folder], executor: Executor, counters: Counters, tidy_after: int = TIDY_AFTER) -> None:
        """`take` locks the folder on first use; `tidy_after` is the number of fetches and commits between two `gc`."""
        self.executor = executor
        self.counters = counters
        self.writing = asyncio.Lock()
        self.users = 0
        self.generation = 0
        self.searched: OrderedDict[tuple[bytes, str], tuple[str, dict[str, Entry]]] = OrderedDict()
        self._take = take
        self._folder: Folder | None = None
        self._reader: ObjectReader | None = None
        self._guard = threading.RLock()
        self._known: OrderedDict[str, str | None] = OrderedDict()
        self._refs_read = False
        self._tidy_after = tidy_after
        self._writes = 0

    @property
    def folder(self) -> Folder:
        """The folder, which `open` has taken."""
        if self._folder is None:
            raise RuntimeError("the mirror is not open")
        return self._folder

    @property
    def reader(self) -> ObjectReader:
        """Reads objects; `open` has made it."""
        if self._reader is None:
            raise RuntimeError("the mirror is not open")
        return self._reader

    @property
    def is_reading(self) -> bool:
        """Whether a reading process is running."""
        return self._reader is not None and self._reader.running

    def open(self, job: Job) -> None:
        """Take the folder and make the repository, when that has not been done."""
        with self._guard:
            if self._folder is None:
                self._folder = self._take()
                self._writes = self._folder.packs()
            if self._reader is None:
                folder = self._folder
                self._reader = ObjectReader(folder.path, folder.environment)
            job.keep = (self._folder.lock,)
            if self.generation == 0:
                self._folder.prepare(job)
                self.generation = 1

    def close(self) -> None:
        """End the reader and give the folder back; the next use takes it again."""
        with self._guard:
            if self._reader is not None:
                self._reader.close()
            folder, self._folder, self._reader = self._folder, None, None
            self.generation = 0
            self._forget()
            if folder is not None:
                folder.release()

    def _forget(self) -> None:
        self._known.clear()
        self.searched.clear()
        self._refs_read = False

    def rebuild(self, job: Job) -> dict[str, str | None]:
        """Throw the repository away and make an empty one; returns the commits that were there, with their references."""
        with self._guard:
            wanted = dict(self._known)
            self.reader.close()
            self._forget()
            self.folder.discard()
            self.folder.prepare(job)
            self.generation += 1
            return {oid: ref for oid, ref in list(wanted.items())[-16:] if ref is not None}

    # --- local commands ---------------------------------------------------------------------------------------------

    def local(self, job: Job, argv: Sequence[str], stdin: bytes = b"", accept: tuple[int, ...] = (0,)) -> Completed:
        """Run a command that reads the mirror. Its arguments are known to be good, so any failure means damage."""
        done = job.run(argv, self.folder.environment(), self.folder.path, stdin)
        if done.status not in accept:
            raise MirrorDamaged(f"the local mirror is damaged: {bounded(done.stderr.strip())}")
        return done

    def store(self, job: Job, objects: Mapping[str, tuple[str, bytes]]) -> None:
        """Write objects with one process; a killed one leaves nothing that can be reached."""
        unpack = len(objects) < UNPACK_LIMIT
        argv = ["git", "unpack-objects", "-q"] if unpack else ["git", "index-pack", "--stdin"]
        done = job.run(argv, self.folder.environment(), self.folder.path, pack(objects))
        if done.status != 0:
            text = f"cannot write to the local mirror: {bounded(done.stderr.strip())}"
            raise MirrorDamaged(text) if is_damage(done.stderr) else GitError(text)
        self.counters.wrote([kind for kind, _ in objects.values()])
        with self._guard:
            self._writes += 1

    # --- what is there ----------------------------------------------------------------------------------------------

    def has(self, job: Job, commit: str) -> bool:
        """Whether `commit` is there with all its files: fetched or written by us, or held by one of our references."""
        with self._guard:
            if not self._refs_read:
                argv = ["git", "for-each-ref", "--format=%(objectname)%09%(refname)", TRACKING]
                for name, oid in parse_refs(self.local(job, argv).stdout).items():
                    self._know(oid, _source(name))
                self._refs_read = True
            return commit in self._known

    def is_commit(self, job: Job, commit: str) -> bool:
        """Whether a fetch has brought what it should."""
        try:
            self.reader.read(job, [f"{commit}^{{tree}}"], TREE_LIMIT, TREE_LIMIT)
        except MirrorDamaged:
            return False
        return True

    def fetched(self, commit: str, slot: str) -> None:
        """Note that `commit` has arrived for the tracking reference `slot`."""
        self.folder.touch()
        with self._guard:
            self._know(commit, _source(slot))
            self._writes += 1

    def pushed(self, commit: str) -> None:
        """Note a commit of ours."""
        with self._guard:
            self._know(commit, self._known.get(commit))

    def _know(self, commit: str, ref: str | None) -> None:
        if is_oid(commit):
            self._known[commit] = ref
            self._known.move_to_end(commit)
            while len(self._known) > KNOWN_LIMIT:
                self._known.popitem(last=False)

    def remember(self, needle: bytes, path: str, commit: str, found: dict[str, Entry]) -> None:
        """Keep the result of a search for the next one."""
        with self._guard:
            self.searched[needle, path] = (commit, found)
            self.searched.move_to_end((needle, path))
            while len(self.searched) > SEARCH_LIMIT:
                self.searched.popitem(last=False)

    # --- housekeeping -----------------------------------------------------------------------------------------------

    def tidy(self, job: Job) -> None:
        """Repack and drop what nothing needs, once in a while; never fails, a damaged mirror shows when it is read."""
        if self._writes < self._tidy_after:
            return
        self._writes = 0
        own = Job(TIDY_SECONDS, self.counters, job.keep)
        try:
            own.run(["git", "gc", "--quiet", f"--prune={KEEP_UNREACHABLE}"], self.folder.environment(), self.folder.path)
        except Deadline:
            self.folder.clean_repository()
        self.reader.close()
        with self._guard:
            self._known.clear()
            self._refs_read = False


def _source(slot: str) -> str | None:
    """The remote's name for a tracking reference; None for those of bare commits."""
    name = slot.removeprefix(TRACKING)
    return None if name.startswith("oid/") else "refs/" + name
