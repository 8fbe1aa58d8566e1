"""What a process leaves that is killed while a key is on disk, the next one removes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconcile.git.mirrors import Mirrors

KILLED = """\
import os, signal, sys
from reconcile.git import gpghome
with getattr(gpghome, sys.argv[1])() as folder:
    (folder / "key").write_text("secret")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("what", ["gpg_home", "key_folder"])
async def test_keys_of_a_killed_process_are_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, what], env={**os.environ, "TMPDIR": str(tmp)}, check=False)
    assert [path.read_text() for path in tmp.glob("*/key")] == ["secret"]
    (tmp / "somebody-elses").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp))
    await Mirrors(tmp_path / "git").close()
    assert [path.name for path in tmp.iterdir()] == ["somebody-elses"]


async def test_a_folder_that_was_never_locked_is_removed_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = tmp_path / "imagebot-key-old", tmp_path / "imagebot-key-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (1.0, 1.0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await Mirrors(tmp_path / "git").close()
    assert not old.exists()
    assert young.exists()
