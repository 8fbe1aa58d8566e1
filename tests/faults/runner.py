"""Carries out many schedules in several workers, each with its own servers, launcher and disk."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from imagebot.demo.door import Account
from imagebot.demo.gitserver import GitServer
from tests.faults.judge import Facts, Finding, Judgement
from tests.faults.launcher import launching
from tests.faults.schedule import Schedule
from tests.faults.servers import FaultyRegistry, GitFaults
from tests.faults.space import Space
from tests.faults.world import GIT_PASSWORD, KEY_PASSWORD, REGISTRY_PASSWORD, Result, Servers, perform

LIMIT = 240.0
"""Seconds after which a schedule counts as stuck."""


@asynccontextmanager
async def serving(root: Path, space: Space) -> AsyncIterator[Servers]:
    """The servers of one worker."""
    (root / "git").mkdir(parents=True)
    account = Account("bot", REGISTRY_PASSWORD, scheme="bearer")
    faults = GitFaults()
    async with FaultyRegistry(account=account) as registry, launching() as launcher:
        with GitServer(root / "git", username="bot", password=GIT_PASSWORD, intercept=faults.intercept) as git:
            yield Servers(root, registry, git, faults, launcher, space, _key(root / "key"))


def _key(path: Path) -> str:
    # One round, since the service derives the key from the passphrase in each start.
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", KEY_PASSWORD, "-C", "bot", "-f", str(path)]
    subprocess.run(argv, check=True)
    return path.read_text()


class _Worker:
    """One worker process: its loop runs while a schedule is carried out."""

    def __init__(self, root: Path) -> None:
        self._space = Space(root / "disk")  # first: it needs a process without threads
        self._runner = asyncio.Runner()
        self._root = root
        self._entered = serving(root, self._space)
        self.servers: Servers = self._runner.run(self._entered.__aenter__())

    def perform(self, schedule: Schedule, *, keep: bool) -> Result:
        folder = self._root / "worlds" / schedule.name.replace(":", "-").replace(" ", "-")
        return self._runner.run(asyncio.wait_for(perform(schedule, self.servers, folder, keep=keep), LIMIT))


_worker: _Worker | None = None


def _begin(root: str) -> None:
    global _worker
    _worker = _Worker(Path(tempfile.mkdtemp(prefix="worker-", dir=root)))


def _perform(schedule: Schedule, keep: bool) -> Result:
    assert _worker is not None
    begin = time.monotonic()
    try:
        return _worker.perform(schedule, keep=keep)
    except Exception:
        empty: dict[str, Any] = {}
        finding = Finding("crash", f"the schedule could not be carried out: {traceback.format_exc()}")
        facts = Facts(empty, empty, empty, (), empty, settled=False)
        return Result(schedule, facts, Judgement((finding,), 0, 0), Counter(), 0, Counter(), time.monotonic() - begin)


def carry_out(schedules: Sequence[Schedule], workers: int = 4, *, keep: bool = False) -> Iterator[Result]:
    """The results as they come. With `keep` the worlds stay on disk, and each result says where."""
    root = tempfile.mkdtemp(prefix="imagebot-faults-")
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(schedules)), context, _begin, (root,)) as pool:
            waiting: list[Future[Result]] = [pool.submit(_perform, schedule, keep) for schedule in schedules]
            for future in as_completed(waiting):
                yield future.result()
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
