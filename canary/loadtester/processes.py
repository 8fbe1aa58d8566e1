"""Runs a program for a task: with a cleaned environment, in its own process group, which ends with it or with the task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconcile.errors import MissingProgram
from reconcile.runtime.processes import end, start

MAX_OUTPUT = 64 * 1024
"""Bytes of output that are kept; the rest is read and dropped."""
GRACE = 1.0
"""Seconds for the last output once a program has ended."""

_TAKEN = (
    "PATH",
    "TZ",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBECONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What programs see of our own environment: how to find other programs, the cluster and whom to trust, and no secret."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended: its exit status (negative: the signal that ended it), and both outputs as they came."""

    status: int
    output: str


def environment(home: str, ours: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a program with this home folder."""
    return {**{name: ours[name] for name in _TAKEN if name in ours}, "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"}


async def run_program(argv: Sequence[str]) -> Completed:
    """Run a program to its end; when the caller is cancelled, it is killed with all that is in its process group.

    Raises:
        MissingProgram: It is not installed.
    """
    if shutil.which(argv[0]) is None:
        raise MissingProgram(f"'{argv[0]}' is not installed: use an image of the load tester that has it on its PATH")
    with tempfile.TemporaryDirectory(prefix="loadtester-", ignore_cleanup_errors=True) as home:
        readable, writable = os.pipe()
        try:
            process = await start(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writable,
                stderr=writable,
                env=environment(home),
                cwd=home,
            )
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        return await _to_the_end(process, readable)


async def _to_the_end(process: asyncio.subprocess.Process, readable: int) -> Completed:
    """Read what a process prints until it has ended, whatever becomes of those it started."""
    reader, output = asyncio.StreamReader(), bytearray()
    stream = os.fdopen(readable, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    reading = asyncio.create_task(_read(reader, output), name="output of a task")
    try:
        status = await process.wait()
    finally:
        # Also when it ended by itself: what it left running in the background would run for ever.
        await end(process)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, GRACE)
        transport.close()
    return Completed(status, bytes(output).decode("utf-8", "replace"))


async def _read(reader: asyncio.StreamReader, output: bytearray) -> None:
    while piece := await reader.read(1 << 16):
        output += piece[: MAX_OUTPUT - len(output)]
