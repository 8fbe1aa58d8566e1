"""What Git costs: list, fetch, tree, search, read, commit and push on a repository of many files, over HTTP on loopback.

    python bench/gitops.py [--files 10000] [--marked 1000] [--json]

Prints the work done, wall seconds, CPU seconds of this process and of all git processes, the server's included (but for the
one long-lived reader), the processes that were started and the objects that were written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imagebot.demo.gitserver import GitServer
from reconcile.git.mirror import Mirror
from reconcile.git.mirrors import Mirrors
from reconcile.git.types import Author, Edit, Reference, RefUpdate, Resolved
from tests.support.gitrepo import BareRepository, manifests

AUTHOR = Author("Bench", "bench@example.com")


def cpu() -> float:
    """CPU seconds of this process and of its finished children, the server's among them."""
    return sum(
        usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class Bench:
    """Steps on one mirror, each measured."""

    def __init__(self, mirrors: Mirrors, server: GitServer, repository: BareRepository) -> None:
        self.mirrors = mirrors
        self.server = server
        self.repository = repository
        self.rows: list[dict[str, Any]] = []

    @property
    def mirror(self) -> Mirror:
        return self.mirrors.mirror(self.server.url("app.git"))

    async def step(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        counters = self.mirrors.counters
        counters.processes.clear()
        counters.objects.clear()
        self.server.traffic.clear()
        used, start = cpu(), time.perf_counter()
        result = await work()
        wall = time.perf_counter() - start
        self.rows.append(
            {
                "step": name,
                "wall_s": round(wall, 4),
                "cpu_s": round(cpu() - used, 4),
                "processes": dict(counters.processes),
                "objects": dict(counters.objects),
                "requests": len(self.server.traffic.requests),
                "bytes": self.server.traffic.sent + self.server.traffic.received,
            }
        )
        return result

    async def run_once(self, change: Callable[[int, bytes], bytes | None]) -> int:
        """A whole run of an automation: list, fetch, search, read, commit, push; files changed."""
        mirror = self.mirror
        found = await mirror.resolve(Reference(branch="main"), await mirror.ls_remote())
        await mirror.fetch(found)
        entries = await mirror.grep(found.commit, b"$imagepolicy")
        texts = await mirror.read([entry.oid for entry in entries])
        edits = []
        for index, entry in enumerate(entries):
            data = change(index, texts[entry.oid])
            if data is not None:
                edits.append(Edit(entry.path, data))
        made = await mirror.write_commit(found.commit, edits, "bench\n", AUTHOR, datetime.now(UTC))
        await mirror.push([RefUpdate(made, "refs/heads/main", found.commit)])
        return len(edits)


async def measure(files: int, marked: int, folder: Path) -> list[dict[str, Any]]:
    """All steps, on a fresh repository."""
    repository = BareRepository.create(folder / "srv" / "app.git")
    head = repository.commit(manifests(files, range(0, files, max(1, files // marked))))
    mirrors = Mirrors(folder / "state")
    with GitServer(folder / "srv") as server:
        bench = Bench(mirrors, server, repository)
        mirror = bench.mirror
        await bench.step("ls-remote, first (makes the mirror)", mirror.ls_remote)
        await bench.step("ls-remote, idle", mirror.ls_remote)
        await bench.step("fetch, first", lambda: mirror.fetch(Resolved(head, "refs/heads/main")))
        await bench.step("tree", lambda: mirror.entries(head))
        entries = await bench.step("search, first", lambda: mirror.grep(head, b"$imagepolicy"))
        await bench.step(f"read {len(entries)} files", lambda: mirror.read([entry.oid for entry in entries]))
        await bench.step(
            f"run, {marked // 10} files changed", lambda: bench.run_once(lambda i, t: t + b"#\n" if i % 10 == 0 else None)
        )
        await bench.step(f"run, {marked} files changed", lambda: bench.run_once(lambda _, t: t + b"#\n"))
        one = min(entry.path for entry in entries)
        await bench.step("run, 1 file changed", lambda: bench.run_once(lambda i, t: t + b"#\n" if i == 0 else None))
        human = repository.commit({one: b"human\n"})
        await bench.step("fetch, 1 file changed by others", lambda: mirror.fetch(Resolved(human, "refs/heads/main")))
        await bench.step("search, 1 file changed", lambda: mirror.grep(human, b"$imagepolicy"))
    await mirrors.close()
    return bench.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--marked", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows = asyncio.run(measure(options.files, options.marked, Path(folder)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "files": options.files, "peak_mib": round(peak), "steps": rows}, indent=2))
        return
    print(f"{options.files} files, {options.marked} marked; {machine}; peak {peak:.0f} MiB")
    print(f"{'step':38} {'wall s':>8} {'CPU s':>8} {'requests':>8} {'KiB':>8}  processes; objects")
    for row in rows:
        work = " ".join(f"{k}:{v}" for k, v in {**row["processes"], **row["objects"]}.items())
        print(f"{row['step']:38} {row['wall_s']:8.3f} {row['cpu_s']:8.3f} {row['requests']:8} {row['bytes'] / 1024:8.0f}  {work}")


if __name__ == "__main__":
    main()
