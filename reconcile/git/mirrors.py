"""All mirrors of this process: one per remote and credentials, a bounded number of them on disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from reconcile.errors import Invalid
from reconcile.git.auth import ANONYMOUS, GitCredentials, parse_remote
from reconcile.git.depot import TIDY_AFTER, Depot
from reconcile.git.environment import PROTOCOLS
from reconcile.git.folder import Folder
from reconcile.git.gpghome import sweep
from reconcile.git.mirror import Mirror
from reconcile.git.remote import RemoteRunner
from reconcile.git.types import Counters

THREADS = 8
MAX_MIRRORS = 256
MAX_READERS = 8
"""Reading processes that are kept for the next call."""


class Mirrors:
    """Gives out mirrors under `root`, a folder that is ours alone and may be deleted while nobody uses it.

    Folders of killed processes are cleaned at once. Above `max_mirrors`, those used longest ago are deleted.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_mirrors: int = MAX_MIRRORS,
        max_readers: int = MAX_READERS,
        threads: int = THREADS,
        tidy_after: int = TIDY_AFTER,
        allow_file: bool = False,
    ) -> None:
        """`threads` bounds the git processes that run at once; `allow_file` lets tests use `file://` URLs."""
        self.counters = Counters()
        self._root = root
        self._max_mirrors = max_mirrors
        self._max_readers = max_readers
        self._tidy_after = tidy_after
        self._allow_file = allow_file
        self._protocols = PROTOCOLS + ":file" if allow_file else PROTOCOLS
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="git")
        # Known as long as somebody holds a mirror of it; kept alive while it holds a folder.
        self._depots: WeakValueDictionary[str, Depot] = WeakValueDictionary()
        self._open: OrderedDict[str, Depot] = OrderedDict()
        self._guard = threading.Lock()
        self._closed = False
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep()
        for path in self._folders():
            left = Folder.try_take(path)
            if left is not None:
                left.release()
        self._trim()

    def mirror(self, url: str, credentials: GitCredentials = ANONYMOUS, timeout: float = 60.0) -> Mirror:
        """The mirror of `url` as seen with `credentials`; `timeout` in seconds bounds each of its calls.

        Credentials in the URL are used when there are no others. Nothing is started and nobody is asked.
        Raises `Invalid` for a URL that cannot be used.
        """
        remote, user, password = parse_remote(url, allow_file=self._allow_file)
        if remote.scheme == "ssh" and not credentials.ssh_key:
            raise Invalid("invalid 'ssh' auth option: 'identity' is required")
        if user and remote.scheme != "ssh" and not credentials.username and not credentials.bearer_token:
            credentials = replace(credentials, username=user, password=password)
        key = hashlib.sha256(f"{remote.url}\0{credentials.digest()}".encode()).hexdigest()[:32]
        depot = self._depots.get(key)
        if depot is None:
            depot = Depot(partial(self._take, key, remote.url), self._executor, Counters(parent=self.counters), self._tidy_after)
            self._depots[key] = depot
        with self._guard:
            if key in self._open:
                self._open.move_to_end(key)
        self._give_up()
        return Mirror(depot, RemoteRunner(remote, credentials, self._protocols), timeout)

    def _take(self, key: str, url: str) -> Folder:
        """Called by a depot in a worker thread, when it is first used or used again."""
        with self._guard:
            if self._closed:
                raise RuntimeError("the mirrors have been closed")
            self._open[key] = self._depots[key]
        folder = Folder.take(self._root, key, url)
        self._trim()
        return folder

    def _give_up(self) -> None:
        """Close what is open beyond the bounds, the longest unused first; never what is in use."""
        with self._guard:
            idle = {key: depot for key, depot in self._open.items() if depot.users == 0}
            beyond = list(idle)[: max(0, len(self._open) - self._max_mirrors)]
            for key in beyond:
                self._open.pop(key).close()
            readers = [depot for depot in self._open.values() if depot.is_reading]
            for depot in readers[: max(0, len(readers) - self._max_readers)]:
                if depot.users == 0:
                    depot.reader.close()
        if beyond:
            self._trim()

    def _folders(self) -> list[Path]:
        """Folders of mirrors, the longest unused first."""
        found = [
            Path(entry.path)
            for entry in os.scandir(self._root)
            if entry.is_dir(follow_symlinks=False) and (Path(entry.path) / "lock").exists()
        ]
        return sorted(found, key=lambda path: (path / "lock").stat().st_mtime)

    def _trim(self) -> None:
        folders = self._folders()
        for path in folders[: max(0, len(folders) - self._max_mirrors)]:
            old = Folder.try_take(path)
            if old is not None:
                old.remove()

    async def close(self) -> None:
        """End every process and give every folder back; mirrors given out must not be used any more."""
        loop = asyncio.get_running_loop()
        with self._guard:
            self._closed = True
            depots = list(self._open.values())
            self._open.clear()
        for depot in depots:
            await loop.run_in_executor(self._executor, depot.close)
        self._executor.shutdown(wait=True, cancel_futures=True)
