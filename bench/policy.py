"""Policies over a large tag list: from all tags to every choice, and from one new tag to every choice.

The tags and policies are those of the reference's load scenario: `main-<sha>-v<version>`, semver ranges on an extracted version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagebot.policy.base import SemVer, TagFilter
from imagebot.policy.choose import build_policy
from imagebot.policy.index import TagIndex

FILTER = TagFilter(r"^main-[0-9a-f]+-v(?P<version>\d+\.\d+\.\d+)$", "$version")
SIZES = ((10_000, 1), (10_000, 20), (100_000, 1), (100_000, 20))
REPEATS = 3


def make_tags(count: int) -> list[str]:
    return [f"main-{i:07x}-v{i // 4000}.{i // 40 % 100}.{i % 40}" for i in range(count)]


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(tags: int, policies: int, distinct: bool = False) -> dict[str, Any]:
    """One size in this process; `distinct` gives each policy a filter of its own, so that nothing is shared."""
    filters = [replace(FILTER, extract=FILTER.extract + (f"+{i}" if distinct else "")) for i in range(policies)]
    built = [build_policy(SemVer(f">=0.{i}.0"), filters[i]) for i in range(policies)]
    listed = make_tags(tags)
    before, started, cpu = resident(), time.perf_counter(), time.process_time()
    index = TagIndex(listed)
    chosen = {policy.choose(index).tag for policy in built}
    cold, cold_cpu, used = time.perf_counter() - started, time.process_time() - cpu, resident() - before
    assert chosen == {max(listed, key=lambda tag: [int(part) for part in tag.rsplit("v", 1)[1].split(".")])}
    warm = []
    for i in range(REPEATS):
        listed = [*listed, f"main-{i:07x}-v{2000 + i}.0.0"]
        started, cpu = time.perf_counter(), time.process_time()
        index.replace(listed)
        replaced = time.perf_counter() - started
        chosen = {policy.choose(index).tag for policy in built}
        warm.append((time.perf_counter() - started, replaced, time.process_time() - cpu))
        assert chosen == {listed[-1]}
    wall, replaced, warm_cpu = sorted(warm)[REPEATS // 2]
    return {
        "tags": tags,
        "policies": policies,
        "filters": policies if distinct else 1,
        "cold_s": round(cold, 3),
        "cold_cpu_s": round(cold_cpu, 3),
        "new_tag_ms": round(wall * 1000, 2),
        "of_it_difference_ms": round(replaced * 1000, 2),
        "new_tag_cpu_ms": round(warm_cpu * 1000, 2),
        "memory_mib": round(used / 2**20, 1),
        "bytes_per_tag": round(used / tags),
        "peak_rss_mib": round(peak() / 2**20, 1),
    }


def peak() -> int:
    """The largest resident size of this process so far, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run() -> dict[str, Any]:
    """Measure every size, each in a fresh process so that memory figures do not mix."""
    rows = []
    for tags, policies in SIZES:
        for distinct in [False, True] if policies > 1 else [False]:
            call = f"import json; from bench.policy import measure; print(json.dumps(measure({tags}, {policies}, {distinct})))"
            done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True, timeout=300)
            rows.append(json.loads(done.stdout))
    return {"rows": rows}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(json.dumps(row))
