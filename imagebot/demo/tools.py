"""Programs that the demonstration runs beside the service: git, ssh-keygen, gpg. Each has a deadline and our environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reconcile.errors import ReconcileError
from reconcile.git.environment import environment
from reconcile.git.process import Job, submit
from reconcile.git.types import Counters

SECONDS = 30.0


class DemoFailed(ReconcileError):
    """The demonstration cannot go on; the message says why and what helps."""


class Tools:
    """Runs programs in a folder of their own; nothing of the user's configuration is read."""

    def __init__(self, home: Path) -> None:
        """`home` is an empty folder that becomes HOME of every program."""
        self.home = home
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="demo")

    def close(self) -> None:
        """End the thread."""
        self._threads.shutdown()

    async def try_run(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run to the end: status, and standard output followed by standard error. Raises `MissingProgram` or `TimedOut`."""
        variables = environment(self.home, Path(os.devnull), protocols="file", extra=env)
        done = await submit(self._threads, Job(SECONDS, Counters()), lambda job: job.run(argv, variables, cwd or self.home))
        return done.status, done.stdout.decode("utf-8", "replace") + done.stderr

    async def run(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run to the end and return what was printed; raises `DemoFailed` when the program fails."""
        status, output = await self.try_run(*argv, cwd=cwd, env=env)
        if status != 0:
            raise DemoFailed(f"'{' '.join(_named(argv))}' failed with status {status}: {output.strip() or 'it said nothing'}")
        return output

    async def git_version(self) -> tuple[int, int]:
        """Version of the installed git; raises `MissingProgram` when there is none."""
        found = re.search(r"(\d+)\.(\d+)", await self.run("git", "version"))
        return (int(found[1]), int(found[2])) if found else (0, 0)


def _named(argv: Sequence[str]) -> Sequence[str]:
    """What is worth quoting of a command line: the program and its verb."""
    return [argv[0], *[word for word in argv[1:] if not word.startswith("-") and "=" not in word][:1]]
