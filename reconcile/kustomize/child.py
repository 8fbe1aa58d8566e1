"""Running a helper program to its end: a deadline, bounded outputs, an environment of our own, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconcile.errors import LimitExceeded, MissingProgram, TimedOut
from reconcile.runtime.processes import end, start

_ERROR_BYTES: Final = 64 * 1024
_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended: exit status and what it printed; of standard error at most the first 64 KiB."""

    status: int
    stdout: bytes
    stderr: str


async def run_child(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, stdin: bytes = b"", seconds: float, most_bytes: int
) -> Ended:
    """Run `argv` with exactly `env`; when it takes too long or the caller goes away, its whole group is killed.

    Args:
        argv: The program's absolute path, and arguments; never secrets.
        env: The whole environment.
        cwd: Where it runs.
        stdin: What it is fed.
        seconds: How long it may take.
        most_bytes: How much it may print.

    Raises:
        TimedOut: It took longer than `seconds`.
        LimitExceeded: It printed more than `most_bytes`.
        MissingProgram: It cannot be started.
    """
    name = Path(argv[0]).name
    pipe = asyncio.subprocess.PIPE
    try:
        process = await start(
            *argv,
            stdin=pipe if stdin else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=dict(env),
            cwd=cwd,
        )
    except OSError as error:
        raise MissingProgram(f"'{name}' cannot be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            out = tasks.create_task(_collected(process.stdout, most_bytes))
            err = tasks.create_task(_collected(process.stderr, _ERROR_BYTES))
            tasks.create_task(_fed(process.stdin, stdin))
            await process.wait()
    except TimeoutError:
        raise TimedOut(f"{name} took more than {seconds:g} seconds") from None
    finally:
        await end(process)
    if len(out.result()) > most_bytes:
        raise LimitExceeded(f"{name} printed more than {most_bytes} bytes")
    return Ended(process.returncode or 0, out.result(), err.result()[:_ERROR_BYTES].decode("utf-8", "replace"))


async def _fed(pipe: asyncio.StreamWriter | None, data: bytes) -> None:
    if pipe is not None:
        with contextlib.suppress(ConnectionError):  # it may answer without reading
            pipe.write(data)
            await pipe.drain()
            pipe.close()


async def _collected(pipe: asyncio.StreamReader | None, most: int) -> bytes:
    """What comes, up to one chunk more than `most`; the rest is read and forgotten."""
    found = bytearray()
    while pipe is not None and (chunk := await pipe.read(_CHUNK)):
        if len(found) <= most:
            found += chunk
    return bytes(found)
