"""What is known about the files in artifact storage without reading them again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from reconcile.artifact.digest import ALGORITHMS
from reconcile.runtime.metrics import Metrics

_REMEMBERED = 20_000

Mark = tuple[int, int, int, int]
"""Tells whether a file is as it was: inode, size, times of its content and of itself."""


def mark_of(status: os.stat_result) -> Mark:
    """The mark of a file with this status."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Known:
    """Digests of files that have not changed since they were read; bounded, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: OrderedDict[tuple[str, str], tuple[Mark, str]] = OrderedDict()

    def get(self, path: str, mark: Mark, algorithm: str) -> str | None:
        """The digest of the file at `path` if it still has `mark`."""
        with self._lock:
            known = self._digests.get((path, algorithm))
            if known is None or known[0] != mark:
                return None
            self._digests.move_to_end((path, algorithm))
            return known[1]

    def put(self, path: str, mark: Mark, algorithm: str, digest: str) -> None:
        """Remember the digest of a file."""
        with self._lock:
            self._digests[path, algorithm] = mark, digest
            if len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)

    def forget(self, path: str) -> None:
        """Forget a file that is gone."""
        with self._lock:
            for algorithm in ALGORITHMS:
                self._digests.pop((path, algorithm), None)


class Held:
    """What is in storage, for the metrics."""

    def __init__(self, metrics: Metrics | None) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._total = 0
        self._bytes = metrics.gauge("imagebot_artifact_storage_bytes", "Bytes of the artifacts in storage.") if metrics else None
        self._files = metrics.gauge("imagebot_artifact_storage_files", "Artifacts in storage.") if metrics else None
        self._gone = metrics.counter("imagebot_artifacts_collected_total", "Artifacts removed from storage.") if metrics else None

    def add(self, path: str, size: int) -> None:
        """A file is there now, or has another size."""
        with self._lock:
            self._total += size - self._sizes.get(path, 0)
            self._sizes[path] = size
            self._show()

    def drop(self, path: str) -> None:
        """A file is gone."""
        with self._lock:
            self._total -= self._sizes.pop(path, 0)
            self._show()

    def collected(self, count: int) -> None:
        """So many files were removed as garbage or with their object."""
        if self._gone is not None and count:
            self._gone.inc(count)

    def _show(self) -> None:
        if self._bytes is not None and self._files is not None:
            self._bytes.set(self._total)
            self._files.set(len(self._sizes))
