"""The outputs in docs/examples.md are those of the program on the folders of examples/."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.examples import EXAMPLES, REGISTRY, copy, files, push_images, stage
from tests.support.lab import Lab, lab

PAGE = Path(__file__).parents[2] / "docs/examples.md"
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"
SHOWN = re.compile(r"(?<=^```text\n)\$ (?P<command>imagebot [^\n]*)\n(?P<text>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## (?P<name>[a-z-]+)\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
NAMES = [match["name"] for match in SECTION.finditer(PAGE.read_text())]
HOST = "images.acme.dev"
"""Stands for the address of the registry; as long as that, so that tables keep their widths."""
GIT = {"pull-request-bot": "https://github.com/"}


def prepare(world: Lab, name: str) -> Path:
    """The example with a repository; the folder that commands run in."""
    if name != "ci-one-shot":
        stage(world, name, {"pull-request-bot": "acme/fleet.git", "monorepo": "acme/mono.git"}[name])
        return world.root
    folder = world.root / "checkout"
    copy(EXAMPLES / name, folder, world)
    push_images(world, folder / "apps")
    world.repository("acme/fleet.git", files(folder))
    return folder


def printed(command: str, folder: Path, programs: Path) -> str:
    """What a line of a shell prints."""
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    argv = ["bash", "-c", command]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_outputs_are_those_of_the_program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GIT_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.setenv(variable, "t0ken")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "imagebot").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconcile "$@"\n')
    (programs / "imagebot").chmod(0o755)
    section = next(match for match in SECTION.finditer(PAGE.read_text()) if match["name"] == name)[0]
    async with lab(tmp_path) as world:
        assert len(world.registry.host) == len(HOST)
        folder = prepare(world, name)
        now, end = "", 0
        for match in SHOWN.finditer(section):
            text = await asyncio.to_thread(printed, match["command"], folder, programs)
            text = text.replace(world.registry.host, HOST).replace(world.url(""), GIT.get(name, "https://git.example.com/"))
            text = re.sub(r"(?<= on | at )[0-9a-f]{12}\b", "3f6a0c1e9b52", text)
            now += f"{section[end : match.start()]}$ {match['command']}\n{text}"
            end = match.end()
        now += section[end:]
    if UPDATE:
        PAGE.write_text(PAGE.read_text().replace(section, now))
    assert now == section, "run the test once with IMAGEBOT_UPDATE_DOCS=1"


def test_every_example_is_in_a_page_with_the_three_commands() -> None:
    assert sorted([*NAMES, "commit-bot"]) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    for match in SECTION.finditer(PAGE.read_text()):
        commands = {shown["command"].split()[1] for shown in SHOWN.finditer(match[0])}
        assert commands == {"check", "plan", "explain"}, match["name"]
    assert REGISTRY not in PAGE.read_text()
