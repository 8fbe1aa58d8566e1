"""An artifact of 10,000 small manifests: leave out, pack, unpack, store, ask whether it is intact, open it again.

Memory is the peak above what the process had before; the files are made up one at a time, as a Git object store hands them out.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reconcile.api.meta import Key
from reconcile.artifact.archive import Member, pack, unpack
from reconcile.artifact.fetch import Artifacts
from reconcile.artifact.ignore import tree_ignore
from reconcile.artifact.storage import Storage
from reconcile.ports.clock import SystemClock

OUT = Path(__file__).parent / "out"
FILES = 10_000
PATTERNS = """\
*.md\n*.tmp\n!keep.tmp\ndocs/\n/hack\nbuild/**\n**/test_*.py\n/apps/*/secret.yaml\n*~\nnode_modules/
*.o\n*.pyc\n__pycache__\n/a/b/c\n**/vendor/**\n*.log\ndist/\n[Tt]est\n?.swp\n*.bak
"""
LINES = [
    b"apiVersion: v1\n",
    b"kind: ConfigMap\n",
    b"metadata:\n",
    b"  name: web\n",
    b"data:\n",
    b"  image: ghcr.io/acme/web:1.2.3\n",
]


def paths() -> list[str]:
    """Twenty files to a folder."""
    return [f"apps/team-{n // 400:02d}/app-{n // 20:03d}/manifest-{n % 20:02d}.yaml" for n in range(FILES)]


def members() -> Iterator[Member]:
    luck = random.Random(1)
    for path in paths():
        yield Member(path, b"".join(luck.choices(LINES, k=30)) + luck.randbytes(10).hex().encode())


def peak() -> float:
    """MiB that this process has had at most."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def measured(step: str, call: Callable[[], Any]) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    note = call()
    return {
        "step": step,
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "peak_growth_mib": round(peak() - before, 1),
        "result": note,
    }


def steps(folder: Path) -> Iterator[dict[str, Any]]:
    archive = folder / "archive.tar.gz"

    def ignored() -> str:
        ignore = tree_ignore({".sourceignore": PATTERNS}, None)
        return f"{sum(map(ignore.ignored, paths()))} left out"

    def make_up() -> str:
        return f"{sum(len(member.data) for member in members()) / 2**20:.1f} MiB"

    def packed() -> str:
        with archive.open("wb") as out:
            pack(members(), out)
        return f"{archive.stat().st_size / 2**20:.2f} MiB"

    def unpacked() -> str:
        with archive.open("rb") as source:
            return f"{len(unpack(source, folder / 'into').files)} files"

    yield measured("decide for 10,000 paths, 20 patterns", ignored)
    yield measured("make up 10,000 files (part of each pack)", make_up)
    yield measured("pack 10,000 files", packed)
    yield measured("unpack 10,000 files", unpacked)
    yield from asyncio.run(served(folder))


async def served(folder: Path) -> list[dict[str, Any]]:
    key, clock = Key("default", "bench"), SystemClock()
    storage = Storage(folder / "storage", clock, host="nobody.invalid")
    artifacts = Artifacts(storage, folder / "work", clock)
    rows = []

    async def step(name: str, call: Callable[[], Any], times: int = 1) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            found = await call()
        rows.append(
            {
                "step": name,
                "wall_s": round((time.perf_counter() - wall) / times, 5),
                "cpu_s": round((time.process_time() - cpu) / times, 5),
            }
        )
        return found

    async def opened() -> int:
        async with artifacts.opened(made) as tree:
            return len(tree.files)

    made = await step("store it", lambda: storage.put("GitRepository", key, "1.tar.gz", "r", lambda out: pack(members(), out)))
    await step("intact? (mean of 200)", lambda: storage.intact(made), 200)
    await step("open it the first time", opened)
    await step("open it again (mean of 200)", opened, 200)
    await artifacts.aclose()
    storage.close()
    return rows


def run() -> dict[str, Any]:
    """All steps, one after the other."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        return {"rows": list(steps(Path(folder)))}


if __name__ == "__main__":
    print(json.dumps(run()) if "--json" in sys.argv else json.dumps(run(), indent=2))
