"""One commit for many automations, on real mirrors: what is merged, in whose words, and who has their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagebot.api import ImageRef, ImageUpdateAutomation
from imagebot.bot.job import Job
from imagebot.bot.joint import build_together, due
from imagebot.bot.source import Source
from imagebot.bot.update import MarkerMemory
from imagebot.bot.writer import Built, Ground
from reconcile.app import load_packages
from reconcile.errors import Failed
from reconcile.git.auth import GitCredentials
from reconcile.git.mirrors import Mirrors
from reconcile.git.types import Reference, Resolved
from reconcile.ports.clock import SystemClock
from tests.support.gitrepo import BareRepository
from tests.support.lab import automation

SCHEME = load_packages().scheme
IMAGE = "registry.example.com/"
PATHS = "{{ .AutomationObject }}:{{ range $path, $_ := .Changed.FileChanges }} {{ $path }}{{ end }}"


def line(policy: str, tag: str) -> str:
    return f'{policy}: {IMAGE}{policy}:{tag} # {{"$imagepolicy": "apps:{policy}"}}\n'


class Stage:
    def __init__(self, root: Path, mirrors: Mirrors) -> None:
        self.bare = BareRepository.create(root / "app.git")
        self.mirrors = mirrors
        self.memory = MarkerMemory()

    async def ground(self, files: dict[str, str]) -> Ground:
        head = self.bare.commit({path: text.encode() for path, text in files.items()})
        self.mirror = self.mirrors.mirror(f"file://{self.bare.path}")
        await self.mirror.fetch(Resolved(head, "refs/heads/main"))
        return Ground(Resolved(head, "refs/heads/main"), head, head)

    def job(self, name: str, tags: dict[str, str], path: str = "./", **commit: Any) -> Job:
        body = automation(name, "app", update={"strategy": "Setters", "path": path}, commit={"messageTemplate": PATHS, **commit})
        info = SCHEME.find(body["apiVersion"], body["kind"])
        assert info is not None
        resource: ImageUpdateAutomation = SCHEME.decode(info, body)
        refs = {policy: ImageRef(name=IMAGE + policy, tag=tag) for policy, tag in tags.items()}
        source = Source("x", GitCredentials(), 60.0, Reference(branch="main"), "main", None, (), None)
        return Job(resource, refs, source, self.mirror, self.memory, SystemClock())

    async def text(self, commit: str, path: str) -> str:
        (entry,) = await self.mirror.entries(commit, path)
        return (await self.mirror.read([entry.oid]))[entry.oid].decode()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    mirrors = Mirrors(tmp_path / "state", allow_file=True)
    yield Stage(tmp_path, mirrors)
    await mirrors.close()


async def test_many_folders_are_one_commit_that_names_files_from_the_top(stage: Stage) -> None:
    ground = await stage.ground({"a/app.yaml": line("web", "1"), "b/app.yaml": line("api", "1"), "c/app.yaml": line("web", "2")})
    tags = {"web": "2", "api": "3"}
    jobs = [stage.job(name, tags, path=name) for name in "abc"]
    newest, built = await build_together(jobs, [ground] * 3)
    assert built == [Built(newest, "apps/a: a/app.yaml b/app.yaml"), Built(newest, "apps/a: a/app.yaml b/app.yaml"), Built(None)]
    assert newest is not None
    assert await stage.text(newest, "a/app.yaml") == line("web", "2")
    assert await stage.text(newest, "b/app.yaml") == line("api", "3")
    assert [len(due(job.latest)) for job in jobs] == [1, 1, 0]


async def test_those_that_look_below_one_folder_name_files_from_there(stage: Stage) -> None:
    ground = await stage.ground({"a/app.yaml": line("web", "1") + line("api", "1"), "a/db.yaml": line("db", "1")})
    jobs = [stage.job("x", {"web": "2"}, path="a"), stage.job("y", {"api": "2", "db": "2"}, path="./a")]
    newest, built = await build_together(jobs, [ground] * 2)
    assert built == [Built(newest, "apps/x: app.yaml db.yaml")] * 2
    assert newest is not None
    assert await stage.text(newest, "a/app.yaml") == line("web", "2") + line("api", "2")


async def test_one_alone_says_what_it_says_alone(stage: Stage) -> None:
    ground = await stage.ground({"a/app.yaml": line("web", "1"), "b/app.yaml": line("api", "1")})
    jobs = [stage.job("x", {}, path="a"), stage.job("y", {"api": "2"}, path="b", trailers=True)]
    newest, built = await build_together(jobs, [ground] * 2)
    assert built[1] == Built(newest, f"apps/y: app.yaml\n\nImagebot-Policy: apps/api {IMAGE}api:2\n")
    assert built[0] == Built(None)


async def test_nothing_due_is_no_commit(stage: Stage) -> None:
    ground = await stage.ground({"a.yaml": line("web", "1")})
    assert await build_together([stage.job(name, {"web": "1"}) for name in "xy"], [ground] * 2) == (None, [Built(None)] * 2)


async def test_the_first_by_name_has_its_way_with_a_marker_and_the_other_says_so(stage: Stage) -> None:
    ground = await stage.ground({"a.yaml": line("web", "1") + line("api", "1"), "b.yaml": line("db", "1")})
    first, second = stage.job("x", {"web": "2"}), stage.job("y", {"web": "3", "api": "2", "db": "2"})
    newest, built = await build_together([first, second], [ground] * 2)
    assert built == [Built(newest, "apps/x: a.yaml b.yaml")] * 2
    assert newest is not None
    assert await stage.text(newest, "a.yaml") == line("web", "2") + line("api", "1")
    assert await stage.text(newest, "b.yaml") == line("db", "2")
    assert (first.contested, second.contested) == (False, True)
    (skipped,) = second.latest.skipped
    assert (skipped.path, skipped.line, skipped.marker) == ("a.yaml", 1, "apps:web")
    assert skipped.message.startswith(f"another automation sets {IMAGE}web:2 in the same commit")


async def test_the_same_choice_of_two_is_no_quarrel(stage: Stage) -> None:
    ground = await stage.ground({"a.yaml": line("web", "1")})
    first, second = stage.job("x", {"web": "2"}), stage.job("y", {"web": "2"})
    newest, built = await build_together([first, second], [ground] * 2)
    assert built == [Built(newest, "apps/x: a.yaml"), Built(None)]
    assert not second.contested


@pytest.mark.parametrize(
    "other",
    [
        {"author": {"name": "other", "email": "bot@example.com"}},
        {"author": {"name": "bot", "email": "other@example.com"}},
        {"messageTemplate": "other"},
        {"messageTemplateValues": {"team": "other"}},
        {"trailers": True},
    ],
)
async def test_those_that_speak_or_sign_differently_get_a_commit_each(stage: Stage, other: dict[str, Any]) -> None:
    ground = await stage.ground({f"{n}.yaml": line(n, "1") for n in ("web", "api", "db")})
    jobs = [stage.job("x", {"web": "2"}), stage.job("y", {"api": "2"}, **other), stage.job("z", {"db": "2"})]
    newest, built = await build_together(jobs, [ground] * 3)
    commits = [each.commit for each in built if isinstance(each, Built)]
    assert commits[0] == commits[2] != commits[1] == newest
    assert newest is not None
    for name in ("web", "api", "db"):
        assert await stage.text(newest, f"{name}.yaml") == line(name, "2")


async def test_one_that_fails_does_not_stop_the_others(stage: Stage) -> None:
    ground = await stage.ground({"a.yaml": line("web", "1"), "b.yaml": line("api", "1"), "c.yaml": line("db", "1")})
    jobs = [
        stage.job("v", {"web": "2"}),
        stage.job("w", {"web": "2"}, path="nowhere"),
        stage.job("x", {"db": "2"}, messageTemplate="{{ .Nothing }}"),
        stage.job("y", {"api": "2"}),
    ]
    lost = Failed("GitOperationFailed", "no such branch")
    grounds: Sequence[Ground | Exception] = [lost, ground, ground, ground]
    newest, built = await build_together(jobs, grounds)
    assert built[0] is lost
    assert [getattr(each, "reason", None) for each in built[1:3]] == ["UpdateFailed", "GitOperationFailed"]
    assert built[3] == Built(newest, "apps/y: b.yaml")
    assert newest is not None
    assert await stage.text(newest, "a.yaml") == line("web", "1")
