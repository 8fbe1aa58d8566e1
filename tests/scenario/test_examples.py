"""The folders of examples/ do what their pages say: run as they stand, with nothing but addresses replaced."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagebot.markers.find import find_markers
from tests.support import examples
from tests.support.commands import program
from tests.support.examples import EXAMPLES, copy, files, push_images, shell_lines, stage
from tests.support.forges import fake_forge
from tests.support.gitrepo import ENV, BareRepository
from tests.support.lab import Lab, eventually, lab
from tests.support.leapclock import LeapClock

PATIENCE = 60.0
NEWEST_BUILD = "main-5f2c1e0-1704067200"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    for name in ("GIT_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "t0ken")
    async with lab(tmp_path) as made:
        yield made


async def checked(world: Lab, name: str) -> str:
    """The summary of a check with the checkout; it must find nothing at all."""
    code, out, err = await program("check", "manifests", "--repository", f"{name}=repository", "--strict", cwd=str(world.root))
    assert (code, err) == (0, ""), out
    return out


def test_each_folder_is_in_the_list() -> None:
    page = (EXAMPLES / "README.md").read_text()
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert sorted(re.findall(r"^\| \[([a-z-]+)\]\(\1/README\.md\) \|", page, re.MULTILINE)) == folders
    assert folders == ["ci-one-shot", "commit-bot", "monorepo", "pull-request-bot"]


# --- commit-bot


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
async def test_the_commit_bot_pushes_one_signed_commit(world: Lab) -> None:
    (world.root / ".ssh").mkdir(mode=0o700)
    key = world.root / ".ssh/imagebot_signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "imagebot", "-f", key], check=True)
    bare = stage(world, "commit-bot", "acme/fleet.git")
    assert await checked(world, "fleet") == "nothing found: 4 objects in 5 files, 1 marker in repository\n"
    async with world.start() as running:
        await eventually(lambda: len(bare.log()) == 2, "the commit", PATIENCE)
        writer = next(c for c in running.service.controllers if c.kind == "ImageUpdateAutomation")
        await writer.queue.drained()
    shown = bare.git("cat-file", "commit", "main")
    image = world.image("acme/web")
    assert "gpgsig -----BEGIN SSH SIGNATURE-----" in shown
    assert "committer imagebot <imagebot@example.com>" in shown
    assert shown.endswith(f"Update images of acme/fleet\n\n- {image}:1.0.0 -> {image}:1.1.0\n\nAutomation: flux-system/fleet")
    assert changed_lines(bare) == [f'          image: {image}:1.1.0 # {{"$imagepolicy": "flux-system:web"}}']
    assert len(bare.log()) == 2


def changed_lines(bare: BareRepository) -> list[str]:
    """The lines that the last commit of main wrote, without the sign of the diff."""
    diff = bare.git("show", "--format=", "--no-color", "-U0", "main")
    assert len(re.findall(r"^-(?!--)", diff, re.MULTILINE)) == len(re.findall(r"^\+(?!\+\+)", diff, re.MULTILINE))
    return re.findall(r"^\+(?!\+\+)(.*)$", diff, re.MULTILINE)


# --- pull-request-bot


@pytest.mark.slow
async def test_the_pull_request_bot_proposes_each_image_and_never_pushes_to_main(
    world: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "forge"
    folder.mkdir()
    with fake_forge("github", folder) as forge:
        monkeypatch.setenv("GITHUB_TOKEN", forge.secret["token"].decode())
        addresses = {"https://github.com/acme/fleet.git": forge.url, "https://api.github.com": forge.address}
        bare = stage(world, "pull-request-bot", "", addresses, forge.repository)
        first = bare.head()
        assert await checked(world, "fleet") == "nothing found: 6 objects in 4 files, 2 markers in repository\n"
        code, out, err = await program("once", "manifests", "--state", "state", "--no-docker-config", cwd=str(world.root))
        assert code == 2, out + err
        opened = {request.branch: request for request in forge.opened()}
        assert sorted(opened) == ["imagebot/updates/api", "imagebot/updates/web"]
        web, api = opened["imagebot/updates/web"], opened["imagebot/updates/api"]
        assert {(request.base, tuple(request.labels)) for request in opened.values()} == {("main", ("dependencies",))}
        assert web.title == f"Update images: {world.image('acme/web')}:1.1.0"
        assert api.title == f"Update images: {world.image('acme/api')}:{NEWEST_BUILD}"
        assert "Close the request to decline them." in web.body
        assert "Imagebot-Policy: flux-system/web" in bare.git("log", "-1", "--format=%B", web.branch)
        forge.merge(web.number)
        forge.close(api.number)
        for _ in range(2):
            code, out, err = await program("once", "manifests", "--state", "state", "--no-docker-config", cwd=str(world.root))
            assert code in {0, 2}, out + err
        assert forge.opened() == []
        assert b"web:1.1.0 #" in bare.file("apps/web/deployment.yaml")
        assert b"api:main-0a1b2c3-1704060000 #" in bare.file("apps/api/deployment.yaml"), "closing declines"
        assert bare.git("rev-parse", "main^1") == first, "main has what people merged, nothing else"
        assert forge.problems == []


# --- monorepo


@pytest.mark.slow
async def test_the_monorepo_makes_one_commit_of_what_20_automations_write(world: Lab) -> None:
    # What waits is shown by a clock that leaps, so that nothing depends on how fast a machine is.
    longer = {"quietPeriod: 1m": "quietPeriod: 1h", "maxWait: 10m": "maxWait: 10h"}
    bare, clock = stage(world, "monorepo", "acme/mono.git", longer), LeapClock()
    assert await checked(world, "mono") == "nothing found: 61 objects in 21 files, 28 markers in repository\n"
    expected = wanted(files(world.root / "repository"))
    assert len(expected) == 20
    async with world.start(clock=clock) as running:

        async def waiting() -> bool:
            automations = await running.service.store.list("ImageUpdateAutomation")
            return [bool(each.status.pending_until) for each in automations] == [True] * 20

        await eventually(waiting, "20 automations that wait for each other", PATIENCE)
        assert len(bare.log()) == 1
        clock.leap(3700)
        writer = next(c for c in running.service.controllers if c.kind == "ImageUpdateAutomation")
        for automation in await running.service.store.list("ImageUpdateAutomation"):
            writer.add(automation.key)
        await eventually(lambda: written(bare, expected) == expected, "20 services", PATIENCE)
        await writer.queue.drained()
    touched = bare.git("show", "--format=", "--name-only", "main").split()
    assert sorted(touched) == sorted(expected)
    assert len(bare.log()) == 2, "one commit for all"
    pushes = [r for r in world.git.traffic.requests if r.startswith("POST") and "receive-pack" in r]
    assert len(pushes) == 1
    assert bare.git("log", "-n", "1", "--format=%an", "main") == "imagebot"


def wanted(before: dict[str, str]) -> dict[str, str]:
    """What the marked files must be in the end: the best version, the youngest build."""
    after = {path: re.sub(r"main-0a1b2c3-\d+", NEWEST_BUILD, text.replace("1.0.0", "1.1.0")) for path, text in before.items()}
    return {path: text for path, text in after.items() if find_markers(text.encode()).markers}


def written(bare: BareRepository, paths: dict[str, str]) -> dict[str, str]:
    return {path: bare.file(path).decode() for path in paths}


# --- ci-one-shot


def github_steps(job: str) -> list[tuple[str, str, frozenset[int]]]:
    """Name, script and accepted exit codes of the steps that run imagebot; GitHub runs a script with `bash -e`."""
    pipeline = yaml.safe_load((EXAMPLES / "ci-one-shot/.github/workflows/images.yaml").read_text())
    steps = [step for step in pipeline["jobs"][job]["steps"] if "run" in step and step["name"] != "Install"]
    return [(step["name"], step["run"], frozenset({0})) for step in steps]


def gitlab_jobs(*names: str) -> list[tuple[str, str, frozenset[int]]]:
    """The same of jobs of GitLab, which may say what is no failure."""
    pipeline = yaml.safe_load((EXAMPLES / "ci-one-shot/.gitlab-ci.yml").read_text())
    found = []
    for name in names:
        allowed: Any = pipeline[name].get("allow_failure", {})
        found.append((name, "\n".join(pipeline[name]["script"]), frozenset({0, *allowed.get("exit_codes", ())})))
    return found


PIPELINES = {
    "github": (github_steps("check"), github_steps("update")),
    "gitlab": (gitlab_jobs("check", "plan"), gitlab_jobs("update")),
}


class Pipeline:
    """A checkout of the example's repository in which scripts run as a runner would run them."""

    def __init__(self, world: Lab) -> None:
        self.folder = world.root / "checkout"
        copy(EXAMPLES / "ci-one-shot", self.folder, world)
        push_images(world, self.folder / "apps")
        self.bare = world.repository("acme/fleet.git", files(self.folder))
        programs = world.root / "bin"
        programs.mkdir()
        (programs / "imagebot").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconcile "$@"\n')
        (programs / "imagebot").chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def checkout(self) -> None:
        """What a job begins with: a checkout of main."""
        for path in ("apps", "bot"):
            shutil.rmtree(self.folder / path)
        place = ["--git-dir", str(self.bare.path), "--work-tree", str(self.folder)]
        subprocess.run(["git", *place, "checkout", "-q", "-f", "main", "--", "."], env=ENV, check=True)

    async def run(self, script: str) -> tuple[int, str]:
        """Exit code and output of a script."""
        env = {**os.environ, "PATH": self.path}
        process = await asyncio.create_subprocess_exec(
            "bash", "-e", "-o", "pipefail", "-c", script, cwd=self.folder, env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(120):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()


@pytest.mark.slow
@pytest.mark.parametrize("host", PIPELINES)
async def test_the_pipeline_checks_plans_and_commits(world: Lab, host: str) -> None:
    proposed, scheduled = PIPELINES[host]
    pipeline = Pipeline(world)
    for name, script, accepted in proposed:
        code, out = await pipeline.run(script)
        assert code in accepted, (name, code, out)
    assert len(pipeline.bare.log()) == 1, "a change request changes nothing"
    for _ in range(2):
        for name, script, accepted in scheduled:
            code, out = await pipeline.run(script)
            assert code in accepted, (name, code, out)
        assert len(pipeline.bare.log()) == 2, "one commit, and none when there is nothing to do"
        pipeline.checkout()
    assert f"{world.image('acme/web')}:1.1.0 #" in (pipeline.folder / "apps/web/deployment.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("host", PIPELINES)
async def test_the_pipeline_fails_where_something_is_wrong(world: Lab, host: str) -> None:
    proposed, scheduled = PIPELINES[host]
    pipeline = Pipeline(world)
    good = (pipeline.folder / "bot/images.yaml").read_text()
    (pipeline.folder / "bot/images.yaml").write_text(good.replace("name: web", "name: wep"))
    code, _ = await pipeline.run(proposed[0][1])
    assert code == 1, "a marker of a policy that is not there"
    (pipeline.folder / "bot/images.yaml").write_text(good)
    world.registry.repositories.clear()
    for _, script, accepted in (*proposed[1:], *scheduled):
        code, out = await pipeline.run(script)
        assert code == 1, out
        assert 1 not in accepted
    assert len(pipeline.bare.log()) == 1


def test_the_pipelines_use_the_three_commands_and_the_page_names_them() -> None:
    page = shell_lines(EXAMPLES / "ci-one-shot/README.md")
    for proposed, scheduled in PIPELINES.values():
        text = "\n".join(script for _, script, _ in (*proposed, *scheduled))
        assert re.findall(r"\bimagebot (\w+) bot\b", text) == ["check", "plan", "once"]
    assert [line.split()[1] for line in page if line.startswith("imagebot")] == ["check", "plan", "once"]


def test_folders_are_copied_with_addresses_replaced_alone(tmp_path: Path) -> None:
    class Servers:
        class registry:
            host = "127.0.0.1:1"

        @staticmethod
        def url(name: str) -> str:
            return f"http://127.0.0.1:2/{name}"

    copy(EXAMPLES / "monorepo", tmp_path, Servers())  # type: ignore[arg-type]
    for path, text in files(tmp_path).items():
        back = text.replace(Servers.registry.host, examples.REGISTRY).replace(Servers.url(""), examples.GIT_HOSTS[0])
        assert back == (EXAMPLES / "monorepo" / path).read_text()
