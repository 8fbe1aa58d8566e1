"""A push that fails concerns those whose commits were in it, and nobody who came later."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from imagebot.bot.source import Source
from imagebot.bot.writer import Built, Ground, Writers, Written
from reconcile.git.auth import ANONYMOUS
from reconcile.git.errors import PushRejected
from reconcile.git.types import Reference, RemoteRefs, Resolved

BASE = "0" * 40


@dataclass
class Refusing:
    """A mirror whose first push is refused, slowly enough for somebody else to come."""

    pushed: list[str] = field(default_factory=list)
    pushing: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def ls_remote(self) -> RemoteRefs:
        return RemoteRefs({"refs/heads/main": BASE})

    async def resolve(self, *_: Any) -> Resolved:
        return Resolved(BASE, "refs/heads/main")

    async def fetch(self, *_: Any) -> None:
        return None

    async def push(self, updates: Any, _: Any) -> None:
        if not self.pushing.is_set():
            self.pushing.set()
            await self.go.wait()
            raise PushRejected("declined")
        self.pushed.append(updates[0].src)


async def test_who_comes_during_a_push_that_is_refused_is_not_refused() -> None:
    mirror, writers = Refusing(), Writers(lambda: None)
    source = Source("http://git.example/a.git", ANONYMOUS, 1.0, Reference(branch="main"), "main", None, (), None)

    async def write(commit: str) -> Written:
        async def build(_: Ground) -> Built:
            return Built(commit, "m")

        return await writers.write(mirror, source, build)  # type: ignore[arg-type]

    first = asyncio.create_task(write("a" * 40))
    await mirror.pushing.wait()
    second = asyncio.create_task(write("b" * 40))
    await asyncio.sleep(0)
    mirror.go.set()
    with pytest.raises(PushRejected):
        await first
    assert (await second).commit == "b" * 40
    assert mirror.pushed == ["b" * 40]


async def test_commits_that_go_out_together_know_where_the_branch_ended_up() -> None:
    mirror, writers = Refusing(), Writers(lambda: None)
    mirror.pushing.set()
    source = Source("http://git.example/a.git", ANONYMOUS, 1.0, Reference(branch="main"), "main", None, (), None)

    async def write(commit: str | None) -> Written:
        async def build(_: Ground) -> Built:
            return Built(commit, "m")

        return await writers.write(mirror, source, build)  # type: ignore[arg-type]

    first, second, idle = await asyncio.gather(write("a" * 40), write("b" * 40), write(None))
    assert (first.commit, second.commit, idle.commit) == ("a" * 40, "b" * 40, None)
    assert {each.head for each in (first, second, idle)} == {"b" * 40}
    assert mirror.pushed == ["b" * 40]
