"""Programs on the event loop: nothing of them is left behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from reconcile.runtime.processes import end, start


def command(mark: Path, then: str = "wait") -> tuple[str, ...]:
    """A shell that starts a child, notes it in `mark`, and waits."""
    return ("/bin/sh", "-c", f'sleep 1000 & echo $! > "{mark}.part"; mv "{mark}.part" "{mark}"; {then}')


async def gone(mark: Path) -> None:
    """Wait until the child has ended."""
    child = int(mark.read_text())
    until = time.monotonic() + 40
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the child is still there")


async def test_who_is_cancelled_in_the_moment_of_the_start_leaves_no_child(tmp_path: Path) -> None:
    for number in range(20):
        mark = tmp_path / str(number)
        starting = asyncio.create_task(start(*command(mark), stdout=asyncio.subprocess.PIPE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the program runs, and its pipes are not connected yet
        time.sleep(0.02)  # the loop is busy meanwhile: the shell has its child by now
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        if mark.exists():
            await gone(mark)


async def test_the_end_takes_the_children_too(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = await start(*command(mark))
    while not mark.exists():
        await asyncio.sleep(0.01)
    await end(process)
    assert process.returncode == -9
    await gone(mark)


async def test_what_is_left_in_the_background_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = await start(*command(mark, then="exit 3"))
    assert await process.wait() == 3
    await end(process)
    await gone(mark)


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await start(str(tmp_path / "nothing"))
