"""The program as its own process."""

from __future__ import annotations

import asyncio
import os
import sys


async def program(*arguments: str, cwd: str | None = None) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; no colours may be in them, for nobody looks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reconcile", *arguments, cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert b"\x1b" not in out + err
    return process.returncode or 0, out.decode(), err.decode()
