"""Threat: somebody else on the machine reads or prepares the state of local mode; names that are more than names."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from reconcile.api.meta import Key
from reconcile.local.database import Database, EventRow
from tests.support.gitrepo import BareRepository
from tests.support.lab import image_policy
from tests.support.neighbours import Street, street

NOBODY = 65534
UPDATE = "ImageUpdateAutomation"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


async def test_a_state_folder_that_all_may_enter_holds_files_that_nobody_else_may_read(world: Street) -> None:
    world.files({})
    world.state.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        await world.once()
    finally:
        os.umask(old)
    top = list(world.state.iterdir())
    assert {path.name for path in top} >= {"state.db", "lock"}
    for path in top:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


@root_only
@pytest.mark.parametrize(("command", "closed"), [("once", "state"), ("plan", "manifests")])
def test_the_folder_of_another_user_is_refused_with_words(command: str, closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # not below the folder of this run, which nobody else may enter
        top = Path(name)
        for path, mode in ((top, 0o755), (top / "manifests", 0o755), (top / "state", 0o777), (top / closed, 0o700)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        script = (
            "import os; from reconcile.app import load_packages; from reconcile.cli.main import main; load_packages(); "
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); main()"
        )
        argv = [sys.executable, "-c", script, command, str(top / "manifests"), "--state", str(top / "state")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        left = list((top / "state").iterdir())
    assert done.returncode in {1, 64}
    assert str(top / closed) in done.stderr
    assert "Traceback" not in done.stderr
    assert closed == "manifests" or left == []


@root_only
@pytest.mark.parametrize("planted", ["folder", "link"])
async def test_a_mirror_that_somebody_else_has_prepared_is_not_used(world: Street, tmp_path: Path, planted: str) -> None:
    """The configuration of a repository may name programs; a folder that others may write could hold one that waits for us."""
    bare = world.files({})
    await world.once()
    mine = next(path.parent for path in world.state.rglob("url") if path.read_text().strip() == world.url("app.git"))
    repository = BareRepository(mine / "repo.git")
    repository.git("config", "core.sshCommand", f"touch {tmp_path}/pwned")
    repository.git("config", "remote.origin.uploadpack", f"touch {tmp_path}/pwned")
    if planted == "folder":
        for path in [mine, *mine.rglob("*")]:
            os.lchown(path, NOBODY, NOBODY)
    else:
        target = tmp_path / "elsewhere"
        mine.rename(target)
        mine.symlink_to(target)
    bare.commit({"new.yaml": b"a: 1\n"})
    status, reason, message = (await world.once()).ready(UPDATE, "web")
    assert (status, reason) == ("False", "GitOperationFailed")
    assert message.endswith("was made by somebody else; remove it, or give another --state")
    assert not (tmp_path / "pwned").exists()


NAMES = ["x'; DROP TABLE objects; --", 'x" OR ""="', "a/../../b", "a\nb", "A", "-a", "a" * 300, "é", "x\0y", "${HOME}", "%s%n"]


@pytest.mark.parametrize("field", ["name", "namespace"])
async def test_names_that_are_more_than_names_are_refused(world: Street, field: str) -> None:
    for number, name in enumerate(NAMES):
        body = image_policy("web")
        body["metadata"][field] = name
        (world.folder / f"evil-{number}.yaml").write_bytes(orjson.dumps(body))
    done = await world.once()
    assert len(done.problems) == len(NAMES)
    assert all("is not a valid name" in problem.message for problem in done.problems)


def test_texts_with_sql_in_them_are_texts(tmp_path: Path) -> None:
    """What reaches the database without being a name: reasons and messages with what registries and Git servers say."""
    path = tmp_path / "state.db"
    database = Database(path)
    evil = "'); DROP TABLE objects; INSERT INTO events VALUES ('\0\"--"
    for _ in range(3):
        database.add_event(EventRow("2026-01-01T00:00:00Z", evil, Key(evil, evil), "Normal", evil, evil))
    assert [event.message for event in database.events()] == [evil] * 3
    database.delete(evil, Key(evil, evil))
    database.close()
    with sqlite3.connect(path) as raw:
        assert {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type='table'")} >= {"objects", "events"}
    raw.close()
