"""Starts and ends programs on the event loop: who is cancelled leaves nothing running, not even in the moment of the start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from typing import Any


async def start(*argv: str, **options: Any) -> Process:
    """Start a program in a session of its own, so that it can be ended with all that it starts.

    `asyncio.create_subprocess_exec`, cancelled while it waits for the pipes, ends the program only and not its children.

    Args:
        argv: Program and arguments; never secrets.
        options: As for `asyncio.create_subprocess_exec`.

    Raises:
        OSError: It cannot be started.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, start_new_session=True, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_abandon)
        await asyncio.wait([starting])
        raise


async def end(process: Process) -> None:
    """Kill a program that `start` has started, and wait for it; also what it left in the background when it ended by itself."""
    _kill(process)
    if process.returncode is None:
        await asyncio.shield(process.wait())


def _abandon(starting: asyncio.Future[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _kill(starting.result())


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
