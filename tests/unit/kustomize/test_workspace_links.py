"""The private folder of a build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconcile.kustomize.workspace import Workspaces


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "x.yaml").write_text("x")
    (folder / "y.yaml").write_text("y")
    return folder


def test_files_are_links_and_written_ones_are_our_own(tmp_path: Path, source: Path) -> None:
    space = Workspaces(tmp_path / "work").make()
    space.fill(source, ["a/b/x.yaml", "y.yaml"])
    assert (space.root / "y.yaml").samefile(source / "y.yaml")
    space.write("y.yaml", b"changed")
    space.write("new/z.yaml", b"z")
    assert (space.root / "y.yaml").read_text() == "changed"
    assert (space.root / "a/b/x.yaml").read_text() == "x"
    assert (source / "y.yaml").read_text() == "y"
    assert sorted(path.name for path in source.rglob("*")) == ["a", "b", "x.yaml", "y.yaml"]
    space.remove()
    assert not space.root.exists()
    assert (source / "a/b/x.yaml").read_text() == "x"


def test_copies_can_be_written(tmp_path: Path, source: Path) -> None:
    space = Workspaces(tmp_path / "work").make()
    space.fill(source, ["y.yaml"], copy=True)
    (space.root / "y.yaml").write_text("changed")
    assert (source / "y.yaml").read_text() == "y"


def test_where_links_cannot_be_made_files_are_copied(tmp_path: Path, source: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    folder = other / f"work-{os.getpid()}"
    spaces = Workspaces(folder)
    try:
        space = spaces.make()
        space.fill(source, ["a/b/x.yaml", "y.yaml"])
        assert (space.root / "a/b/x.yaml").read_text() == "x"
        assert (space.root / "y.yaml").stat().st_nlink == 1
    finally:
        spaces.close()
        (folder / "lock").unlink()
        folder.rmdir()


def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    space = Workspaces(tmp_path / "work").make()
    space.write("secret", b"s")
    assert space.root.stat().st_mode & 0o077 == 0
    assert (space.root / "secret").stat().st_mode & 0o077 == 0


def test_closing_removes_everything(tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path / "work")
    spaces.make()
    spaces.make()
    spaces.close()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["lock"]
    spaces.close()


def test_what_a_killed_process_left_is_removed_and_what_lives_stays(tmp_path: Path) -> None:
    work = tmp_path / "work"
    living = Workspaces(work)
    kept = living.make()
    code = (
        "import sys, os, signal; from pathlib import Path; from reconcile.kustomize.workspace import Workspaces\n"
        f"space = Workspaces(Path({str(work)!r})).make(); space.write('secret', b's'); print(space.root, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(died.stdout.strip())
    assert died.returncode == -signal.SIGKILL
    assert (left / "secret").exists()
    new = Workspaces(work).make()
    assert not left.exists()
    assert kept.root.exists()
    assert new.root.exists()
