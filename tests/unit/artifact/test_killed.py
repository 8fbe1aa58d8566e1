"""kill -9 in the middle of storing and of unpacking: the next start finds no half file under a name, and cleans up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconcile.api.source import Artifact
from reconcile.artifact.fetch import Artifacts
from reconcile.artifact.storage import Storage
from tests.support.artifacts import FILES, stored, tree
from tests.support.clock import VirtualClock

STORING = """
import asyncio, sys, time
from pathlib import Path
from reconcile.api.meta import Key
from reconcile.artifact.storage import Storage
from reconcile.ports.clock import SystemClock

def write(out):
    out.write(b"half" * 100_000)
    out.flush()
    print("writing", flush=True)
    time.sleep(300)

async def main():
    storage = Storage(Path(sys.argv[1]), SystemClock(), host="h")
    await storage.put("GitRepository", Key("flux-system", "podinfo"), "1.tar.gz", "r", write, link="latest.tar.gz")

asyncio.run(main())
"""

UNPACKING = """
import io, os, sys, time
from pathlib import Path
from reconcile.artifact.archive import unpack
from reconcile.artifact.fetch import _move_in
from tests.support.artifacts import packed

class Slow(io.BytesIO):
    def read(self, size=-1):
        found = super().read(min(size, 65536))
        if self.tell() > 200_000:
            print("unpacking", flush=True)
            time.sleep(300)
        return found

home = _move_in(Path(sys.argv[1]))
unpack(Slow(packed({f"{n}": os.urandom(50_000) for n in range(20)})), home.next())
"""


def killed(program: str, folder: Path) -> None:
    """Run a program until it says something, and kill it then."""
    command = [sys.executable, "-c", program, str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert child.stdout is not None
    with child.stdout:
        said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    assert said.endswith(b"ing\n")


@pytest.mark.parametrize("before", [False, True])
async def test_killed_while_storing(tmp_path: Path, before: bool) -> None:
    storage = Storage(tmp_path, VirtualClock(), host="h")
    made: Artifact | None = await stored(storage, link="latest.tar.gz") if before else None
    await asyncio.to_thread(killed, STORING, tmp_path)
    folder = tmp_path / "gitrepository/flux-system/podinfo"
    assert len(list(folder.glob(".1.tar.gz.*.part"))) == 1
    assert (folder / "1.tar.gz").exists() == before
    fresh = Storage(tmp_path, VirtualClock(), host="h")
    assert await fresh.recover() == 1
    kept = ["1.tar.gz", "1.tar.gz.lock", "latest.tar.gz"] if before else []
    assert sorted(os.listdir(folder)) == kept
    if made is not None:
        assert await fresh.intact(made)
    again = await stored(fresh, link="latest.tar.gz")
    assert await fresh.intact(again)
    assert made is None or again == made
    storage.close()
    fresh.close()


async def test_killed_while_unpacking(tmp_path: Path) -> None:
    work = tmp_path / "work"
    await asyncio.to_thread(killed, UNPACKING, work)
    (home,) = (path for path in work.iterdir() if path.is_dir())
    (partial,) = home.iterdir()
    assert partial.name.startswith(".unpacking-")
    assert any(partial.iterdir())
    storage = Storage(tmp_path / "data", VirtualClock(), host="h")
    artifacts = Artifacts(storage, work, VirtualClock())
    async with artifacts.opened(await stored(storage)) as opened:
        assert tree(opened.root) == FILES
        assert not home.exists()
        assert len([path for path in work.iterdir() if path.is_dir()]) == 1
    await artifacts.aclose()
    assert list(work.iterdir()) == []
    storage.close()
