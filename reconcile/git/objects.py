"""Reading Git objects: one long-lived `cat-file --batch`, and the formats of trees and listings."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from reconcile.git.errors import MirrorDamaged, ObjectTooLarge
from reconcile.git.process import Cancelled, Deadline, Job, close, kill_group, pipes
from reconcile.git.types import Entry

WINDOW = 256
"""Questions in flight; their text always fits the pipe, so that neither side waits for the other."""

TREE_LIMIT = 64 * 1024 * 1024
_PIECE = 1 << 20


class ObjectReader:
    """A `git cat-file --batch` that is started on first use and again after it failed. Blocking; one user at a time."""

    def __init__(self, folder: Path, env: Callable[[], Mapping[str, str]]) -> None:
        """`folder` is the bare repository; `env` gives the variables of the process when it is started."""
        self._folder = folder
        self._env = env
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, job: Job, names: Sequence[str], max_bytes: int, max_total: int) -> dict[str, bytes]:
        """Contents by name (`<oid>`, `<oid>^{tree}`).

        Raises `ObjectTooLarge` naming the first object over `max_bytes`, or when all together are over `max_total` bytes,
        and `MirrorDamaged` when one is missing or broken.
        """
        found: dict[str, bytes] = {}
        total = 0
        with self._asking(job) as ask:
            for name, size, stream in ask(names):
                total += size
                if size > max_bytes:
                    raise ObjectTooLarge(f"object {name} has {size} bytes, more than the limit of {max_bytes}")
                if total > max_total:
                    raise ObjectTooLarge(f"the objects have more than {max_total} bytes together")
                found[name] = _exactly(stream, size)
                _exactly(stream, 1)
        return found

    def containing(self, job: Job, names: Sequence[str], needle: bytes) -> set[str]:
        """Those of `names` whose content has `needle`; any size, read in pieces."""
        found = set()
        with self._asking(job) as ask:
            for name, size, stream in ask(names):
                tail = b""
                while size:
                    piece = _exactly(stream, min(size, _PIECE))
                    size -= len(piece)
                    if needle in tail + piece:
                        found.add(name)
                    tail = (tail + piece)[-len(needle) + 1 :] if len(needle) > 1 else b""
                _exactly(stream, 1)
        return found

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None

    def close(self) -> None:
        """End the process; the next question starts a new one."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            close(process)

    @contextmanager
    def _asking(self, job: Job) -> Iterator[Callable[[Sequence[str]], Iterator[tuple[str, int, IO[bytes]]]]]:
        """Sole use of the process until the block ends; whatever goes wrong inside ends the process with it."""
        if not self._lock.acquire(timeout=job.remaining()):
            raise Deadline("context deadline exceeded")
        try:
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._process = job.start(["git", "cat-file", "--batch"], self._env(), self._folder)
            process = self._process
            watchdog = threading.Timer(job.remaining(), kill_group, (process,))
            watchdog.daemon = True
            watchdog.start()
            try:
                with job.owning(process):
                    yield lambda names: _answers(process, names)
            except BaseException:
                self._stop()
                raise
            finally:
                watchdog.cancel()
        except (EOFError, BrokenPipeError):
            job.remaining()
            raise MirrorDamaged("the local mirror is damaged: git cat-file ended early") from None
        except (Cancelled, Deadline):
            self._stop()
            raise
        finally:
            self._lock.release()


def _answers(process: subprocess.Popen[bytes], names: Sequence[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Ask in windows; after each yield the caller has read the content and its newline."""
    stdin, stdout, _ = pipes(process)
    for start in range(0, len(names), WINDOW):
        window = names[start : start + WINDOW]
        stdin.write("".join(f"{name}\n" for name in window).encode())
        stdin.flush()
        for name in window:
            words = stdout.readline(4096).split()
            if not words:
                raise EOFError
            if len(words) != 3 or words[1] not in (b"blob", b"tree", b"commit", b"tag"):
                raise MirrorDamaged(f"the local mirror is damaged: object {name} is missing")
            yield name, int(words[2]), stdout


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


TreeEntry = tuple[bytes, bytes, bytes]
"""Mode, name, raw object id, as they stand in a tree object."""


def parse_tree(data: bytes) -> list[TreeEntry]:
    """The entries of a raw tree object, in its order."""
    entries = []
    at = 0
    while at < len(data):
        blank = data.index(b" ", at)
        end = data.index(b"\0", blank)
        entries.append((data[at:blank], data[blank + 1 : end], data[end + 1 : end + 21]))
        at = end + 21
    return entries


def format_tree(entries: Sequence[TreeEntry]) -> bytes:
    """The raw tree object of `entries`."""
    return b"".join(mode + b" " + name + b"\0" + oid for mode, name, oid in entries)


def parse_listing(output: bytes) -> list[Entry]:
    """Entries of `git ls-tree -r -z`, with or without `-l`."""
    entries = []
    for line in output.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, oid, *size = head.decode("ascii").split()
            entries.append(
                Entry(path.decode("utf-8", "surrogateescape"), mode, oid, int(size[0]) if size and size[0] != "-" else None)
            )
    return entries


def parse_changes(output: bytes) -> list[Entry]:
    """Entries of `git diff-tree -r -z --raw --no-renames --no-abbrev` after the change; deleted ones have mode `000000`."""
    words = output.split(b"\0")
    entries = []
    for head, path in zip(words[0::2], words[1::2], strict=False):
        _, mode, _, oid, _ = head.decode("ascii").split(" ")
        entries.append(Entry(path.decode("utf-8", "surrogateescape"), mode, oid))
    return entries


def parse_refs(output: bytes) -> dict[str, str]:
    """Full names to object ids of `git ls-remote` or `for-each-ref`."""
    refs = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        oid, _, name = line.partition("\t")
        if name:
            refs[name] = oid
    return refs
