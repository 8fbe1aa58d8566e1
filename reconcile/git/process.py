"""Running git: a bounded pool of threads, a deadline, an output limit, and nothing left behind.

Processes are started by GitPython's command layer. It can start one with our pipes and in its own session (`as_process`), but not
feed its input with a deadline, bound its output, or end the helpers it started (`git-remote-https`, `ssh`), so talking
to the process is done here, and only here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, TypeVar, cast

from reconcile.errors import LimitExceeded, MissingProgram, TimedOut
from reconcile.git.environment import without_foreign
from reconcile.git.types import Counters

# isort: split
# After reconcile.git.environment, which tells GitPython not to run git while it is imported.
from git.cmd import Git

T = TypeVar("T")

OUTPUT_LIMIT = 512 * 1024 * 1024
"""Bytes of standard output one process may print before it is ended; an `ls-tree` of a million files has 100 MB."""

ERROR_LIMIT = 64 * 1024
"""Bytes of standard error that are kept, the first and the last half each; the rest is read and dropped."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that ended: exit status and what it printed."""

    status: int
    stdout: bytes
    stderr: str


class Deadline(TimedOut):
    """The job's deadline passed; its processes have been killed."""


class Cancelled(TimedOut):
    """The caller went away; the job's processes have been killed."""


class Job:
    """One blocking piece of work in a thread, with a deadline and at most one process at a time."""

    def __init__(self, seconds: float, counters: Counters, keep: tuple[int, ...] = ()) -> None:
        """`seconds` from now is the deadline; `keep` are file descriptors that processes inherit (locks)."""
        self.deadline = time.monotonic() + seconds
        self.counters = counters
        self.keep = keep
        self._guard = threading.Lock()
        self._cancelled = False
        self._process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End the job: its process group now, each later process before it starts. From any thread."""
        with self._guard:
            self._cancelled = True
            if self._process is not None:
                kill_group(self._process)

    def remaining(self) -> float:
        """Seconds until the deadline; raises when it has passed or the job was cancelled."""
        if self._cancelled:
            raise Cancelled("cancelled")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Deadline("context deadline exceeded")
        return left

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
        """Start a process in its own group, with pipes; the caller ends it."""
        self.remaining()
        if shutil.which(argv[0], path=env.get("PATH")) is None:
            raise MissingProgram(f"'{argv[0]}' is not installed: install the package that provides it and put it on PATH")
        verb = next((word for word in argv[1:] if not word.startswith("-")), "") if argv[0] == "git" else Path(argv[0]).name
        started = Git(str(cwd)).execute(
            without_foreign(list(argv), env),
            istream=cast(Any, subprocess.PIPE),
            as_process=True,
            env=dict(env),
            start_new_session=True,
            pass_fds=self.keep,
        )
        process = cast("subprocess.Popen[bytes]", started.proc)
        # Ours from here: GitPython's wrapper would terminate the process when it is collected.
        started.proc = None
        self.counters.process(verb)
        return process

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: bytes = b"", limit: int = OUTPUT_LIMIT
    ) -> Completed:
        """Run a process to its end. Raises `Deadline`, `Cancelled`, `LimitExceeded` or `MissingProgram`, never for its status."""
        process = self.start(argv, env, cwd)
        try:
            with self.owning(process):
                stdout, stderr = _communicate(process, stdin, limit, self.remaining)
                process.wait(self.remaining())
        except subprocess.TimeoutExpired:
            raise Deadline("context deadline exceeded") from None
        finally:
            close(process)
        return Completed(process.returncode, stdout, stderr.decode("utf-8", "replace"))

    @contextlib.contextmanager
    def owning(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """While inside, `kill` ends this process; raises `Cancelled` at the end when that happened."""
        with self._guard:
            self._process = process
            if self._cancelled:
                kill_group(process)
        try:
            yield
        finally:
            with self._guard:
                self._process = None
        if self._cancelled:
            raise Cancelled("cancelled")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started in its own session, with all it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def pipes(process: subprocess.Popen[bytes]) -> tuple[BufferedWriter, BufferedReader, BufferedReader]:
    """Standard input, output and error of a process that `Job.start` has started."""
    return cast("BufferedWriter", process.stdin), cast("BufferedReader", process.stdout), cast("BufferedReader", process.stderr)


def close(process: subprocess.Popen[bytes]) -> None:
    """End a process however it stands, reap it, close its pipes."""
    kill_group(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes, limit: int, remaining: Callable[[], float]
) -> tuple[bytes, bytes]:
    """Feed `stdin`, collect both outputs, within what `remaining` allows."""
    pipe, stdout, stderr = pipes(process)
    out = bytearray()
    err = bytearray()
    view = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ, out)
        selector.register(stderr, selectors.EVENT_READ, err)
        if view:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE)
        else:
            pipe.close()
        while selector.get_map():
            for key, _ in selector.select(remaining()):
                if key.data is None:
                    view = _feed(selector, pipe, view)
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            if len(out) > limit:
                raise LimitExceeded(f"git printed more than {limit} bytes")
            if len(err) > 2 * ERROR_LIMIT:
                del err[ERROR_LIMIT // 2 : len(err) - ERROR_LIMIT // 2]
    return bytes(out), bytes(err)


def _feed(selector: selectors.BaseSelector, pipe: Any, view: memoryview) -> memoryview:
    """Write a piece to the process; close the pipe at the end, or when the process no longer listens."""
    try:
        view = view[os.write(pipe.fileno(), view[:_CHUNK]) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        view = view[:0]
    if not view:
        selector.unregister(pipe)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return view


async def submit(executor: Executor, job: Job, work: Callable[[Job], T]) -> T:
    """Run `work(job)` in the pool. When the awaiting task is cancelled, the job is killed and its end awaited."""
    future = asyncio.get_running_loop().run_in_executor(executor, work, job)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        job.kill()
        with contextlib.suppress(Exception):
            await future
        raise
