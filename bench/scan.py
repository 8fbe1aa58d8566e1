"""Cost of scanning: R repositories with T tags each, first time and unchanged. Run: `python -m bench.scan`.

The registry runs in a process of its own, so the CPU and memory printed are the client's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import sys
import time

from imagebot.demo.door import Account
from imagebot.demo.registry import Registry
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.budget import Budget, BudgetPolicy
from reconcile.registry.keychain import Credential
from reconcile.registry.names import parse_repository
from reconcile.registry.pool import ClientPool


class Fixed:
    """The same credential for every repository."""

    async def resolve(self, _repository):
        return Credential("bench", "bench")


async def serve(repositories: int, tags: int, auth: str) -> None:
    """The registry's process: print the host, then a line of request counts for each line read."""
    registry = Registry(account=Account("bench", "bench", scheme=auth, token_life=3600) if auth != "none" else None)
    names = [f"v{number // 400}.{number // 20 % 20}.{number % 20}" for number in range(tags)]
    registry.put_tags("bench/app0", names)
    for number in range(1, repositories):
        registry.repositories[f"bench/app{number}"] = registry.repositories["bench/app0"]
    async with registry:
        print(registry.host, flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            print(json.dumps(dict(registry.requests)), flush=True)
            registry.requests.clear()


@contextlib.asynccontextmanager
async def registry_process(options: argparse.Namespace):
    """Start this file as the registry; gives the host and a function that reads and clears its counts."""
    arguments = [
        "-m",
        "bench.scan",
        "--serve",
        f"--repositories={options.repositories}",
        f"--tags={options.tags}",
        f"--auth={options.auth}",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    host = (await process.stdout.readline()).decode().strip()

    async def counts() -> dict[str, int]:
        process.stdin.write(b"\n")
        return json.loads(await process.stdout.readline())

    try:
        yield host, counts
    finally:
        process.stdin.close()
        await process.wait()


def cpu() -> float:
    """CPU seconds of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory() -> float:
    """Resident memory now, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """One cold pass over all repositories and `--passes` unchanged ones."""
    results = []
    before = memory()
    async with registry_process(options) as (host, counts):
        repositories = [parse_repository(f"{host}/bench/app{number}") for number in range(options.repositories)]
        # A budget without a rate: the cost is asked for, not the politeness.
        pool = ClientPool(environment=ProxyEnvironment(), budget=Budget(BudgetPolicy(rate=1e6, burst=1e6)))
        keychain = Fixed() if options.auth != "none" else None
        known = {}

        async def scan(repository) -> bool:
            client = await pool.client(repository, keychain=keychain)
            pages = known[repository] = await client.list_tags(repository, known.get(repository))
            return pages.unchanged

        for number in range(options.passes + 1):
            started, used = time.perf_counter(), cpu()
            unchanged = await asyncio.gather(*(scan(repository) for repository in repositories))
            results.append(
                {
                    "pass": "first" if number == 0 else f"unchanged {number}",
                    "scans": len(unchanged),
                    "unchanged": sum(unchanged),
                    "seconds": round(time.perf_counter() - started, 3),
                    "cpu_seconds": round(cpu() - used, 3),
                    "requests": await counts(),
                    "resident_mib": round(memory(), 1),
                }
            )
        await pool.close()
    return {
        "bench": "scan",
        "machine": f"{platform.machine()} {os.cpu_count()} cores, Python {platform.python_version()}",
        "work": f"{options.repositories} repositories x {options.tags} tags, auth {options.auth}",
        "resident_mib_before": round(before, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "passes": results,
    }


def main() -> None:
    """Parse arguments, measure, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--auth", choices=("none", "basic", "bearer"), default="none")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.repositories, options.tags, options.auth))
        return
    report = asyncio.run(measure(options))
    if not options.json:
        print(f"{report['machine']}; {report['work']}; peak {report['peak_mib']} MiB (before: {report['resident_mib_before']})")
        for row in report["passes"]:
            requests = ", ".join(f"{count} {kind}" for kind, count in row["requests"].items())
            print(
                f"  {row['pass']:<12} {row['scans']} scans, {row['unchanged']} unchanged: {row['seconds']:.2f} s, "
                f"{row['cpu_seconds']:.2f} CPU s, {row['resident_mib']} MiB; {requests}"
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
