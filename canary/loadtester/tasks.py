"""Runs tasks: so many at a time, so many that wait, each with an end, the same one for the same Canary only once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from canary.loadtester.measures import DONE, DUPLICATE, ENDED, FAILED, REFUSED, Measures
from canary.loadtester.payload import Refused
from reconcile.api.duration import format_duration
from reconcile.api.meta import Key
from reconcile.errors import ReconcileError
from reconcile.ports.clock import Clock
from reconcile.runtime.logs import get_logger

RUNNING, WAITING = 64, 128
"""Tasks that run at a time, and that wait for their turn; together they stay below the connections that the server takes."""
MAX_SHOWN = 200
"""Characters of a command in a line of the log."""

log = get_logger("loadtester")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        ok: Whether it did what it was asked for.
        output: What it printed or found, for who wants to see it.
        error: Why it is not ok; empty if it is.
        status: Of the HTTP answer to a caller who waited and it is not ok.
    """

    ok: bool
    output: str = ""
    error: str = ""
    status: int = 500


Work = Callable[[], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do for a Canary.

    Attributes:
        kind: Its type, as the metadata names it.
        canary: Whose it is.
        command: What is done, in words: a task of the same type with the same words for the same Canary is the same task.
        title: The same for the log, without secrets.
        work: Does it.
        background: Whether the caller is answered before it is done.
        shows_output: Whether a caller who waits is given the output.
        logs_output: Whether the output goes to the log.
    """

    kind: str
    canary: Key
    command: str
    title: str
    work: Work
    background: bool = False
    shows_output: bool = False
    logs_output: bool = False

    @property
    def identity(self) -> tuple[str, Key, str]:
        """What makes it this task."""
        return self.kind, self.canary, self.command


class Tasks:
    """All tasks of the load tester; closed with `aclose()`, which ends those that run."""

    def __init__(
        self, clock: Clock, measures: Measures, longest: float, *, running: int = RUNNING, waiting: int = WAITING
    ) -> None:
        """`longest` is the seconds that one task may take once it has begun."""
        self._clock, self._measures, self._longest = clock, measures, longest
        self._turns = asyncio.Semaphore(running)
        self._room = running + waiting
        self._admitted = 0
        self._background: dict[tuple[str, Key, str], asyncio.Task[Outcome]] = {}

    @property
    def active(self) -> int:
        """Tasks that run or wait for their turn."""
        return self._admitted

    def start(self, task: Task) -> None:
        """Do a task in the background, unless it is being done already; raises Refused when too many wait."""
        if task.identity in self._background:
            self._measures.task(task.kind, DUPLICATE)
            return
        self._admit(task)
        running = asyncio.create_task(self._in_turn(task), name=f"{task.kind} for {task.canary}")
        self._background[task.identity] = running
        # A callback, because a task that is cancelled before its first step does nothing at all.
        running.add_done_callback(lambda _: self._left(task))

    async def run(self, task: Task) -> Outcome:
        """Do a task now; raises Refused when too many wait. Cancelling the caller ends the task."""
        self._admit(task)
        try:
            return await self._in_turn(task)
        finally:
            self._admitted -= 1

    async def aclose(self) -> None:
        """End all background tasks and wait until nothing is left of them."""
        ended = list(self._background.values())
        for running in ended:
            running.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    def _admit(self, task: Task) -> None:
        if self._admitted >= self._room:
            self._measures.task(task.kind, REFUSED)
            raise Refused(429, f"{self._admitted} tasks run or wait already: try again later")
        self._admitted += 1

    def _left(self, task: Task) -> None:
        del self._background[task.identity]
        self._admitted -= 1

    async def _in_turn(self, task: Task) -> Outcome:
        self._measures.waiting.inc()
        try:
            await self._turns.acquire()
        finally:
            self._measures.waiting.dec()
        self._measures.running.inc()
        try:
            return await self._timed(task)
        finally:
            self._measures.running.dec()
            self._turns.release()

    async def _timed(self, task: Task) -> Outcome:
        began, result = self._clock.monotonic(), ENDED
        fields = {"type": task.kind, "canary": str(task.canary), "task": task.title[:MAX_SHOWN]}
        log.info("task started", **fields)
        try:
            outcome, result = await self._bounded(task)
            output = {"output": outcome.output} if task.logs_output else {}
            if outcome.ok:
                log.info("task done", **fields, **output)
            else:
                log.error("task failed", **fields, error=outcome.error, **output)
            return outcome
        finally:
            self._measures.task(task.kind, result, self._clock.monotonic() - began)

    async def _bounded(self, task: Task) -> tuple[Outcome, str]:
        """The outcome of a task, and the value of the label `result`; no error of the task gets out."""
        try:
            async with asyncio.timeout(self._longest):
                outcome = await task.work()
        except TimeoutError:
            return Outcome(ok=False, error=f"the task was ended after {format_duration(self._longest)}"), ENDED
        except Refused as error:
            return Outcome(ok=False, error=str(error), status=error.status), FAILED
        except ReconcileError as error:
            return Outcome(ok=False, error=str(error)), FAILED
        except Exception:
            log.exception("task crashed", type=task.kind, canary=str(task.canary))
            return Outcome(ok=False, error="the task failed in a way that nobody foresaw; see the log"), FAILED
        return outcome, DONE if outcome.ok else FAILED
