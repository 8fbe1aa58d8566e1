"""The demonstration: it ends with verified commits, says what is wrong when it cannot, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from imagebot.demo import keys, run, stage
from imagebot.demo.run import Options, perform
from imagebot.demo.tools import DemoFailed, Tools
from reconcile.errors import MissingProgram

PROGRAM = [sys.executable, "-c", "import sys; from reconcile.cli.main import main; main(sys.argv[1:])", "demo"]
ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, with a short name for the sockets of gpg, and empty again at the end."""
    folder = Path(tempfile.mkdtemp(prefix="d"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the example that a test may spoil."""
    copy = tmp_path / "example"
    shutil.copytree(stage.EXAMPLE, copy)
    monkeypatch.setattr(stage, "EXAMPLE", copy)
    return copy


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- to the end


@pytest.mark.parametrize(
    ("signing", "said", "signatures"),
    [
        pytest.param("ssh", 'Good "git" signature for imagebot@example.com', 2, marks=pytest.mark.needs("ssh-keygen")),
        pytest.param("gpg", 'Good signature from "imagebot <imagebot@example.com>"', 2, marks=pytest.mark.needs("gpg")),
        pytest.param("none", "none, as asked", 0),
    ],
)
async def test_two_tags_become_two_commits(
    signing: keys.Kind, said: str, signatures: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await perform(Options(signing=signing)) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("✓ verified") == signatures
    assert shown.out.count(said) >= 2
    commits = re.findall(r"^   commit +([0-9a-f]{40})$", shown.out, re.MULTILINE)
    assert len(set(commits)) == 2
    removed = re.findall(r"^   -  .*acme/web:(\S+) ", shown.out, re.MULTILINE)
    added = re.findall(r"^   \+  .*acme/web:(\S+) ", shown.out, re.MULTILINE)
    assert (removed, added) == (["1.0.0", "1.1.0"], ["1.1.0", "1.2.0"])
    assert re.search(r"^   1\.1\.0 +chosen: highest of 2 versions in >=1\.0\.0 <2\.0\.0$", shown.out, re.MULTILINE)
    assert re.search(r"^   latest +not a version$", shown.out, re.MULTILINE)
    assert ESCAPE not in shown.out


async def test_a_proxy_of_the_environment_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    assert await perform(Options(signing="none")) == 0
    assert os.environ["NO_PROXY"] == "intern.example"
    assert "no_proxy" not in os.environ


def test_without_a_terminal_the_program_prints_plain_text_and_no_log() -> None:
    done = subprocess.run([*PROGRAM, "--signing", "none"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ESCAPE not in done.stdout
    assert done.stdout.count("Automation: flux-system/fleet") == 2


def test_on_a_terminal_it_prints_colours() -> None:
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen([*PROGRAM, "--signing", "none", "--speed", "fast"], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = _read_all(master)
    assert process.wait(60) == 0
    assert "\x1b[32m" in shown
    assert shown.count("Automation: flux-system/fleet") == 2


def _read_all(master: int) -> str:
    pieces = []
    end = time.monotonic() + 60
    while select.select([master], [], [], max(end - time.monotonic(), 0))[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(master)
    return b"".join(pieces).decode()


# --- stopped


@pytest.mark.parametrize(
    ("number", "after", "options", "code"),
    [
        (signal.SIGINT, "1  The stage", [], 130),
        (signal.SIGTERM, "3  The commit", [], 143),
        (signal.SIGINT, "5  Everything keeps running", ["--keep"], 0),
    ],
)
def test_it_cleans_up_when_it_is_stopped(number: signal.Signals, after: str, options: list[str], code: int) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "--signing", "none", "--speed", "slow", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(after):
            break
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
    assert rest.endswith("Stopped; the servers have ended and the temporary folder is gone.\n")


@pytest.mark.needs("curl")
def test_kept_running_it_takes_another_tag_as_it_says() -> None:
    process = subprocess.Popen([*PROGRAM, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = []
    pushed = False
    for line in process.stdout:
        seen.append(line)
        if "/manifests/1.3.0" in line:
            subprocess.run(line.strip(), shell=True, check=True, capture_output=True, timeout=30)
            pushed = True
        if pushed and line.startswith("   +  "):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.search(r"acme/web:1\.3\.0 ", seen[-1])


def test_output_that_nobody_reads_ends_it() -> None:
    process = subprocess.Popen([*PROGRAM, "--signing", "none"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1


# --- what can be wrong


async def test_a_rule_that_nobody_can_follow_is_told(example: Path) -> None:
    spoil(example / "manifests/image-policy.yaml", ">=1.0.0 <2.0.0", "new please")
    with pytest.raises(DemoFailed, match=r"ImagePolicy flux-system/web: invalid policy: .*new please"):
        await perform(Options(signing="none"))


async def test_a_manifest_with_a_wrong_field_is_told(example: Path) -> None:
    spoil(example / "manifests/image-policy.yaml", "imageRepositoryRef:", "imageRepoRef:")
    with pytest.raises(DemoFailed, match=r"image-policy.yaml.*unknown field spec.imageRepoRef"):
        await perform(Options(signing="none"))


async def test_an_example_that_lacks_something_is_told(example: Path) -> None:
    (example / "manifests/git-repository.yaml").unlink()
    with pytest.raises(DemoFailed, match="the example has no GitRepository"):
        await perform(Options(signing="none"))


async def test_what_does_not_come_is_told(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run._wait, "__defaults__", (1.0,))
    spoil(example / "manifests/image-policy.yaml", ">=1.0.0 <2.0.0", ">=7.0.0")
    with pytest.raises(DemoFailed, match=r"within 1 s:\n  ImageRepository .* found 3 .*\n  ImagePolicy .* unable to determine"):
        await perform(Options(signing="none"))


async def test_a_commit_without_signature_is_not_good() -> None:
    async with stage.built(None) as ready:
        assert ready.key.kind != "none"
        with pytest.raises(DemoFailed, match="is not good"):
            await ready.key.verify(ready.tools, ready.bare, await ready.head())


async def test_a_signature_by_another_key_is_not_good(tmp_path: Path) -> None:
    async with stage.built("ssh") as ready:
        other = tmp_path / "other"
        other.mkdir()
        stranger = await keys._ssh_key("imagebot@example.com", other, ready.tools)
        config = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={stranger.files['identity']}"]
        tree = f"{await ready.head()}^{{tree}}"
        made = await ready.tools.run(
            "git", *config, "commit-tree", "-S", "-m", "Theirs", tree, cwd=ready.bare, env=stage._DEVELOPER
        )
        with pytest.raises(DemoFailed, match="is not good"):
            await ready.key.verify(ready.tools, ready.bare, made.strip())
        assert "Good" in await stranger.verify(ready.tools, ready.bare, made.strip())


# --- the parts


@pytest.mark.parametrize(
    ("wanted", "there", "version", "kind"),
    [
        (None, {"ssh-keygen", "gpg"}, (2, 34), "ssh"),
        (None, {"ssh-keygen", "gpg"}, (2, 33), "gpg"),
        (None, {"gpg"}, (2, 39), "gpg"),
        (None, {"ssh-keygen"}, (2, 20), "none"),
        (None, set(), (2, 39), "none"),
        ("none", {"ssh-keygen"}, (2, 39), "none"),
        ("gpg", {"ssh-keygen", "gpg"}, (2, 39), "gpg"),
        ("ssh", {"gpg"}, (2, 39), MissingProgram),
        ("gpg", {"ssh-keygen"}, (2, 39), MissingProgram),
        ("ssh", {"ssh-keygen"}, (2, 33), DemoFailed),
    ],
)
async def test_it_signs_with_what_is_there(
    wanted: keys.Kind | None,
    there: set[str],
    version: tuple[int, int],
    kind: str | type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tools = Tools(tmp_path)

    async def git_version() -> tuple[int, int]:
        return version

    monkeypatch.setattr(keys.shutil, "which", lambda program: program if program in there else None)
    monkeypatch.setattr(tools, "git_version", git_version)
    try:
        if isinstance(kind, str):
            chosen, remark = await keys.choose_kind(wanted, tools)
            assert chosen == kind
            assert remark.startswith("none") == (kind == "none")
        else:
            with pytest.raises(kind):
                await keys.choose_kind(wanted, tools)
    finally:
        tools.close()


async def test_a_program_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    try:
        with pytest.raises(DemoFailed, match=r"'git rev-parse' failed with status 128: .*not a git repository"):
            await tools.run(
                "git", "-c", "core.bare=true", "rev-parse", "HEAD", cwd=tmp_path, env={"GIT_CEILING_DIRECTORIES": "/"}
            )
    finally:
        tools.close()


def test_what_the_stage_writes_is_the_example_but_for_addresses_and_secrets() -> None:
    documents = [d for path in (stage.EXAMPLE / "manifests").glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    kinds = sorted(d["kind"] for d in documents)
    assert kinds == ["GitRepository", "ImagePolicy", "ImageRepository", "ImageUpdateAutomation", "Secret", "Secret"]
    assert stage.EXAMPLE.resolve() == Path(__file__).parents[2] / "examples/commit-bot"


@pytest.mark.parametrize(
    ("tag", "verdict"),
    [
        ("1.1.0", "in the range, lower"),
        ("2.0.0", "outside of the range"),
        ("1.2.0-rc.1", "outside of the range"),
        ("latest", "not a version"),
        ("1.2", "not a version"),
        ("a.b.c", "not a version"),
    ],
)
def test_why_a_tag_was_not_chosen(tag: str, verdict: str) -> None:
    assert run._verdict(tag, ">=1.0.0 <2.0.0") == verdict
