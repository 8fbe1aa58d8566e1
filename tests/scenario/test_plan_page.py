"""The outputs in docs/plan-explain-check.md are those of the program, on the manifests of examples/commit-bot."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support.commands import program
from tests.support.lab import Lab, lab

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/plan-explain-check.md"
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"
SHOWN = re.compile(r"(?<=^```text\n)\$ imagebot (?P<command>[^\n]*(?<!--help))\n(?P<text>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)
HOST = "images.acme.dev"
"""Stands for the address of the registry; as long as that, so that tables keep their widths."""
FAULTS = (
    ("image-policy.yaml", '">=1.0.0 <2.0.0"', '">=1.0.0<2.0.0"'),
    ("image-repository.yaml", "interval: 1m", "intervall: 1m"),
    ("git-repository.yaml", "name: fleet\n", "name: feet\n"),
)


def stage(world: Lab) -> None:
    """The example, with the registry and the Git server of this machine and without a signature; and a faulty copy of it."""
    for tag in ("1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0", "latest"):
        world.registry.push_image("acme/web", tag)
    for path in (ROOT / "examples/commit-bot/manifests").glob("*.yaml"):
        if path.name == "secrets.yaml":
            continue
        text = path.read_text().replace("registry.example.com", world.registry.host)
        text = text.replace("https://git.example.com/acme/fleet.git", world.url("fleet.git"))
        text = re.sub(r"\n +signingKey:\n.*?name: signing-key\n", "\n", text, flags=re.DOTALL)
        text = re.sub(r"\n +secretRef:\n +name: git-login\n", "\n", text)
        (world.folder / path.name).write_text(text)
    faulty = world.root / "faulty"
    faulty.mkdir()
    for path in world.folder.glob("*.yaml"):
        (faulty / path.name).write_text(path.read_text())
    for name, old, new in FAULTS:
        text = (faulty / name).read_text()
        assert old in text
        (faulty / name).write_text(text.replace(old, new))
    files = {}
    for path in (ROOT / "examples/commit-bot/repository").rglob("*.yaml"):
        name = path.relative_to(ROOT / "examples/commit-bot/repository").as_posix()
        files[name] = path.read_text().replace("registry.example.com", world.registry.host)
    files["apps/sidecar.yaml"] = 'tag: "1.0.0" # {"$imagepolicy": "flux-system:web:tags"}\n'
    files["clusters/web.yaml"] = 'tag: "1.0.0" # {"$imagepolicy": "flux-system:web:tag"}\n'
    world.repository("fleet.git", files)
    for name, text in files.items():
        copy = world.root / "fleet" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)


async def test_outputs_are_those_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
    page = PAGE.read_text()
    async with lab(tmp_path) as world:
        stage(world)
        assert len(world.registry.host) == len(HOST)
        now, end = "", 0
        for match in SHOWN.finditer(page):
            _, out, err = await program(*shlex.split(match["command"]), cwd=str(tmp_path))
            assert err == ""
            text = out.replace(world.registry.host, HOST).replace(
                world.url("fleet.git"), "https://git.example.com/acme/fleet.git"
            )
            text = re.sub(r"(?<= on | at )[0-9a-f]{12}\b", "3f6a0c1e9b52", text)
            now += f"{page[end : match.start()]}$ imagebot {match['command']}\n{text}"
            end = match.end()
        now += page[end:]
    if UPDATE:
        PAGE.write_text(now)
    assert now == page, "run the test once with IMAGEBOT_UPDATE_DOCS=1"
    assert len(SHOWN.findall(page)) >= 5


def test_the_hook_runs_a_command_that_there_is() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    from imagebot.check.command import check

    words = [*shlex.split(hook["entry"]), *hook["args"]]
    assert words[:2] == ["imagebot", "check"]
    assert check.make_context("check", words[2:]).params["directory"] == Path(".")
    assert not hook["pass_filenames"]
    assert [bool(re.search(hook["files"], name)) for name in ("a/b.yaml", "b.yml", "x.json", "apps/Kustomization", "b.txt")] == [
        True, True, True, True, False,
    ]  # fmt: skip


def test_every_rule_is_in_the_page() -> None:
    from imagebot.check.findings import RULES

    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|note) \| ", PAGE.read_text(), re.MULTILINE)
    assert rows == [(rule.id, str(rule.severity)) for rule in RULES.values()]
