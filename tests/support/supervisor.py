"""Child processes that cannot outlive whoever started them, and a folder that goes with them.

`Supervisor` starts this very file as a small single-threaded program of its own, which starts the children. The two talk by
lines of JSON over the program's standard input and output. When that input ends, because `close` was called or because the test
run was killed outright, the program kills the children and removes the folder; should the program itself be killed, the kernel
kills the children (Linux). A program of its own, because the kernel's signal follows the *thread* that started a child, and a
hook between fork and exec is unsafe in a threaded test run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PATIENCE = 20.0
"""Seconds that one command, or the end, may take."""


class Supervisor:
    """Starts, stops and watches children; all of them end with this object, or with this process.

    Args:
        folder: Removed together with the children, unless `keep`.
        keep: Leave the folder where it is.
    """

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self.pids: dict[str, int] = {}
        self._leftover = None if keep else folder
        argv = [sys.executable, "-I", "-S", __file__, str(folder), "keep" if keep else "remove"]
        # A session of its own: Ctrl-C at the terminal reaches us alone, and we end the children in order.
        self._program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._partial = b""
        self._asking = threading.Lock()

    @property
    def pid(self) -> int:
        """The process that holds the children."""
        return self._program.pid

    def start(self, name: str, argv: list[str], *, env: dict[str, str], log: Path) -> int:
        """Start a child with its output appended to `log`; returns its process id."""
        self.pids[name] = self._ask({"do": "start", "name": name, "argv": argv, "env": env, "log": str(log)})
        return self.pids[name]

    def stop(self, name: str, *, patience: float = 5.0) -> int:
        """Ask a child to end, kill it after `patience` seconds; returns its exit code (negative: the signal)."""
        self.pids.pop(name, None)
        return int(self._ask({"do": "stop", "name": name, "patience": patience}))

    def exited(self) -> dict[str, int]:
        """The children that ended by themselves, with their exit codes."""
        return dict(self._ask({"do": "exited"}))

    def close(self) -> None:
        """Kill the children, remove the folder; returns when both are done. May be called again."""
        if self._program.stdin and not self._program.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._program.stdin.close()
        try:
            self._program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        if self._program.stdout:
            self._program.stdout.close()
        if self._leftover:
            # Its own last act, unless it was killed.
            shutil.rmtree(self._leftover, ignore_errors=True)

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._program.stdin
        with self._asking:
            self._program.stdin.write(json.dumps(command).encode() + b"\n")
            self._program.stdin.flush()
            answer = json.loads(self._read_line())
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["result"]

    def _read_line(self) -> bytes:
        assert self._program.stdout
        end = time.monotonic() + PATIENCE
        while b"\n" not in self._partial:
            ready, _, _ = select.select([self._program.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._program.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise OSError("the supervisor of the control plane did not answer" if not ready else "the supervisor has ended")
            self._partial += data
        line, _, self._partial = self._partial.partition(b"\n")
        return line


class Children:
    """The other side: what the supervising program does with each command."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def obey(self, command: dict[str, Any]) -> Any:
        """Carry out one command; its answer."""
        if command["do"] == "start":
            return self.start(command)
        if command["do"] == "stop":
            return self.stop(command["name"], command["patience"])
        return {name: child.returncode for name, child in self.running.items() if child.poll() is not None}

    def start(self, command: dict[str, Any]) -> int:
        """Start a child in a process group of its own, tied to our life."""
        with open(command["log"], "ab") as log:
            child = subprocess.Popen(
                command["argv"], env=command["env"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                process_group=0, preexec_fn=self.die_with_parent if self.libc else None,
            )  # fmt: skip
        self.running[command["name"]] = child
        return child.pid

    def die_with_parent(self) -> None:
        """Between fork and exec: the kernel is to kill this child when we die."""
        assert self.libc
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def stop(self, name: str, patience: float) -> int:
        """End one child."""
        child = self.running.pop(name)
        child.terminate()
        # A child that a test has frozen does not see the request before it is woken.
        child.send_signal(signal.SIGCONT)
        try:
            return child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def end(self) -> None:
        """Kill all: their data is thrown away anyway, so nothing is gained by asking."""
        for child in reversed(self.running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        for child in self.running.values():
            child.wait()


def main(folder: str, then: str) -> None:
    """Read commands until the input ends, then end the children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    children, parent, partial = Children(), os.getppid(), b""
    try:
        # Besides the end of the input: some forked process may hold a copy of its other end open after our parent's death.
        while os.getppid() == parent:
            if not select.select([0], [], [], 1.0)[0]:
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, partial = (partial + data).split(b"\n")
            for line in lines:
                try:
                    answer = {"result": children.obey(json.loads(line))}
                except OSError as error:
                    answer = {"error": str(error)}
                os.write(1, json.dumps(answer).encode() + b"\n")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children.end()
        if then == "remove":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
