"""A small process that has imported the service and forks one child per start.

Each child is a process like any other: it can be killed, has a group of its own, and shares nothing with the one before. What is
saved is the time that Python takes to import.

The launcher reads a start as a line of JSON from its input, and says what becomes of the children in lines of its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import selectors
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.child import Start, become

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A started service."""

    def __init__(self) -> None:
        self.pid = 0
        self.code: int | None = None
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.stopped = asyncio.Event()
        """Set while it is stopped at a point."""

    async def wait(self, seconds: float) -> int:
        """The exit code; negative for a signal. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self.ended.wait()
        assert self.code is not None
        return self.code

    async def until_stopped(self, seconds: float) -> bool:
        """Wait until it is stopped at its point; False when it has ended without."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.stopped, self.ended)]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return self.stopped.is_set()

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if number == signal.SIGCONT:
            self.stopped.clear()
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Launcher:
    """Our end of the launcher."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._children: dict[int, Child] = {}
        self._next = 0
        self._over = False

    async def start(self, start: Start) -> Child:
        """Start the service; it runs when this returns."""
        if self._over:
            raise RuntimeError("the launcher has ended")
        self._next += 1
        child = self._children[self._next] = Child()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._next, **asdict(start)}).encode() + b"\n")
        await child.started.wait()
        return child

    async def listen(self) -> None:
        """Take in what the launcher says; ends with it."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            child = self._children[said["id"]]
            if "pid" in said:
                child.pid = said["pid"]
                child.started.set()
            elif "stopped" in said:
                child.stopped.set()
            else:
                child.code = said["code"]
                child.ended.set()
                del self._children[said["id"]]
        self._over = True
        for child in self._children.values():
            child.code = 71
            child.started.set()
            child.ended.set()


@asynccontextmanager
async def launching() -> AsyncIterator[Launcher]:
    """A launcher, which ends with the block and takes its children with it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.launcher",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    launcher = Launcher(process)
    listening = asyncio.create_task(launcher.listen(), name="launcher")
    try:
        yield launcher
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await listening


class _Forks:
    """The launcher's own end."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}

    def say(self, **what: Any) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")

    def fork(self, document: dict[str, Any]) -> None:
        identity = document.pop("id")
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                code = become(Start.of(document))
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        self.ids[pid] = identity
        self.say(id=identity, pid=pid)

    def reap(self) -> None:
        while self.ids:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.say(id=self.ids[pid], stopped=True)
            else:
                self.say(id=self.ids.pop(pid), code=os.waitstatus_to_exitcode(status))

    def end(self) -> None:
        for pid in self.ids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Fork until the input ends."""
    import imagebot.wiring  # noqa: F401
    import reconcile.cli.main  # noqa: F401
    from reconcile.app import load_packages

    load_packages()
    gc.collect()
    gc.freeze()
    forks = _Forks()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    waiting = b""
    while True:
        for key, _ in selector.select():
            if key.fd == woken:
                os.read(woken, 4096)
                forks.reap()
                continue
            piece = os.read(0, 1 << 16)
            if not piece:
                forks.end()
                return
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in lines:
                forks.fork(json.loads(line))


if __name__ == "__main__":
    main()
