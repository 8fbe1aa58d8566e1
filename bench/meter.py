"""CPU and memory of a process and its children, read from /proc."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Self

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def family(root: int) -> list[int]:
    """A process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the family, ended children included."""
    total = 0
    for pid in family(root):
        try:
            fields = _stat(pid)
        except OSError:
            continue
        total += sum(int(fields[i]) for i in (11, 12, 13, 14))
    return total / TICK


def resident(root: int) -> float:
    """MiB of the family."""
    total = 0
    for pid in family(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        except OSError:
            continue
    return total / 2**20


class Meter:
    """Wall, CPU and peak memory between entering and leaving."""

    def __init__(self, root: int) -> None:
        self.root = root

    def __enter__(self) -> Self:
        self._cpu, self._wall, self.peak = cpu_seconds(self.root), time.perf_counter(), 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.is_set():
            self.peak = max(self.peak, resident(self.root))
            self._done.wait(0.05)

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = cpu_seconds(self.root) - self._cpu
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, resident(self.root))

    def figures(self) -> dict[str, Any]:
        return {"wall_s": round(self.wall, 3), "cpu_s": round(self.cpu, 2), "peak_mib": round(self.peak, 1)}


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    return {"cpu": model, "cores": os.cpu_count(), "memory_mib": memory, "load": os.getloadavg()[0]}
