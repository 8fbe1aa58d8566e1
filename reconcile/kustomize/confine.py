"""Running kustomize where it can read its work folder and nothing else, reach nobody, and take a bounded share of the machine.

This is one of two fences that do not rely on each other; the other one is `reconcile.kustomize.boundary`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconcile.errors import LimitExceeded, TimedOut
from reconcile.kustomize.landlock import Kernel, kernel, restrict_thread

_CHUNK: Final = 1 << 16
_ERROR_BYTES: Final = 64 * 1024
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_ELF_PROGRAM_INTERPRETER: Final = 3


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one process may take.

    Attributes:
        seconds: wall time; of processor time a little more.
        memory: bytes of memory.
        output: bytes of standard output.
    """

    seconds: float = 600.0
    memory: int = 1024**3
    output: int = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that ended: exit status (negative: the signal that ended it) and what it printed."""

    status: int
    stdout: bytes
    stderr: str


class Cancelled(TimedOut):
    """The caller went away; the process has been killed."""


@dataclass(slots=True)
class Program:
    """One confined program, which can be killed from another thread.

    Attributes:
        argv: the program's absolute path, and arguments.
        cwd: where it runs.
        readable: the folder that it may read.
        allowance: what it may take.
        able: what the kernel is asked to forbid; all it can unless said otherwise.
    """

    argv: Sequence[str]
    cwd: Path
    readable: Path
    allowance: Allowance = field(default_factory=Allowance)
    able: Kernel = field(default_factory=kernel)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _process: subprocess.Popen[bytes] | None = None
    _killed: bool = False

    def kill(self) -> None:
        """End it now, or before it starts."""
        with self._guard:
            self._killed = True
            if self._process is not None:
                _kill(self._process)

    def run(self) -> Completed:
        """Run it to its end. Blocks.

        Raises:
            TimedOut: it took too long (`Cancelled`: somebody called `kill`).
            LimitExceeded: it printed too much.
            OSError: it cannot be started.
        """
        until = time.monotonic() + self.allowance.seconds
        process = self._started()
        try:
            with self._guard:
                self._process = process
                if self._killed:
                    _kill(process)
            stdout, stderr = _read(process, self.allowance.output, until)
            _wait(process, until)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"kustomize took more than {self.allowance.seconds:g} seconds") from None
        finally:
            with self._guard:
                self._process = None
            _close(process)
        if self._killed:
            raise Cancelled("cancelled")
        return Completed(process.returncode, stdout, stderr.decode("utf-8", "replace"))

    def _started(self) -> subprocess.Popen[bytes]:
        """The process, started by a thread that has taken on the restrictions."""
        program = Path(self.argv[0])
        executable = [program, *libraries(program)]
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # the restricted thread could not open it
        result: list[subprocess.Popen[bytes] | BaseException] = []

        def start() -> None:
            try:
                restrict_thread(self.able, [self.readable], executable)
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.cwd,
                    env=environment(self.readable, self.allowance),
                    stdin=nothing,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                try:
                    _limit(process.pid, self.allowance)
                except BaseException:
                    _close(process)
                    raise
                result.append(process)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                result.append(error)

        try:
            with _no_collection():
                thread = threading.Thread(target=start, name="confined", daemon=True)
                thread.start()
                thread.join()
        finally:
            os.close(nothing)
        started = result[0]
        if isinstance(started, BaseException):
            raise started
        return started


_starting = threading.Lock()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The collector runs in whatever thread allocates. Finalizers of others must not run in one that can open no files."""
    with _starting:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


def environment(folder: Path, allowance: Allowance) -> Mapping[str, str]:
    """The whole environment of a confined program: no PATH to find programs on, a home that is its work folder."""
    limit = str(allowance.memory * 3 // 4)
    return {"HOME": str(folder), "PATH": "/nonexistent", "TMPDIR": str(folder), "LANG": "C.UTF-8", "GOMEMLIMIT": limit}


def libraries(program: Path) -> list[Path]:
    """Where the shared libraries are that `program` needs; nothing for a static one."""
    return [Path(place) for place in _LIBRARIES if Path(place).exists()] if _is_dynamic(program) else []


def _is_dynamic(program: Path) -> bool:
    """Whether a program header names an interpreter (ELF, 64 bits, little-endian); what is no such file counts as dynamic."""
    try:
        with program.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return True
    if head[:6] != b"\x7fELF\x02\x01":
        return True
    start, size, count = (int.from_bytes(head[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
    kinds = (int.from_bytes(head[place : place + 4], "little") for place in range(start, start + size * count, size or 1))
    return _ELF_PROGRAM_INTERPRETER in kinds


def _limit(pid: int, allowance: Allowance) -> None:
    """Set limits of a process that has just begun. The number of processes is not among them: it counts all of the user's."""
    limits = {
        resource.RLIMIT_DATA: allowance.memory,
        resource.RLIMIT_CPU: int(allowance.seconds * 4) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 1024,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(pid, kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, kind, (most, most))


def _read(process: subprocess.Popen[bytes], limit: int, until: float) -> tuple[bytes, bytes]:
    """Both outputs; of standard error the first and the last part."""
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            if len(out) > limit:
                raise LimitExceeded(f"kustomize printed more than {limit} bytes")
            if len(err) > 2 * _ERROR_BYTES:
                del err[_ERROR_BYTES // 2 : len(err) - _ERROR_BYTES // 2]
    return bytes(out), bytes(err)


def _wait(process: subprocess.Popen[bytes], until: float) -> None:
    """Wait for the end without asking again and again, as `Popen.wait` does where it has a timeout."""
    descriptor = os.pidfd_open(process.pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        if not ended.poll(max(until - time.monotonic(), 0) * 1000):
            raise subprocess.TimeoutExpired(process.args, 0)
    finally:
        os.close(descriptor)
    process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _close(process: subprocess.Popen[bytes]) -> None:
    """End it however it stands, reap it, close its pipes."""
    _kill(process)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()
