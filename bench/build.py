"""Builds of Kustomizations: eight objects, beside kustomize run bare; and a hundred folders of one artifact.

Processor time is that of kustomize and ours together. Our wall time has the workspace, the confinement and the parsing in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from reconcile.api.kustomization import KustomizationSpec
from reconcile.kustomize.build import Builder
from reconcile.kustomize.reach import reach
from tests.support.programs import find_program

ROUNDS = 60
FOLDERS, OBJECTS, OTHERS = 100, 8, 10_000

MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-{number}
  labels: {{app: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: main
        image: ghcr.io/acme/web:1.0.0
        ports: [{{containerPort: 80}}]
"""


def spent() -> float:
    """Seconds of processor time, ours and of processes that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def artifact(root: Path) -> dict[str, str]:
    """A hundred folders with eight objects each, and ten thousand other files; the index."""
    files: dict[str, str] = {}
    for folder in range(FOLDERS):
        names = [f"{number}.yaml" for number in range(OBJECTS)]
        files |= {f"apps/{folder}/{name}": MANIFEST.format(number=number) for number, name in enumerate(names)}
        files[f"apps/{folder}/kustomization.yaml"] = f"resources: [{', '.join(names)}]\n"
    files |= {f"other/{number % 100}/{number}.txt": str(number) for number in range(OTHERS)}
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}


async def measured(what: str, rounds: int, call: Callable[[int], Awaitable[Any]]) -> dict[str, Any]:
    """A row of the table: milliseconds for one of `rounds` calls."""
    await call(0)
    wall, cpu = time.perf_counter(), spent()
    for number in range(rounds):
        await call(number)
    wall, cpu = time.perf_counter() - wall, spent() - cpu
    return {
        "what": what,
        "times": rounds,
        "ms each": round(wall / rounds * 1000, 2),
        "cpu ms each": round(cpu / rounds * 1000, 2),
    }


async def measure() -> dict[str, Any]:
    """All rows."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    program = find_program("kustomize")
    spec = KustomizationSpec.model_validate({"sourceRef": {"kind": "GitRepository", "name": "a"}, "interval": "1h"})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "artifact"
        files = artifact(root)
        builder = Builder(Path(folder) / "work", program=program)

        async def bare(number: int) -> None:
            command = [str(program), "build", str(root / "apps" / str(number % FOLDERS))]
            subprocess.run(command, env={}, check=True, capture_output=True)

        async def ours(number: int) -> None:
            objects = await builder.render(root, files, spec, f"apps/{number % FOLDERS}")
            assert len(objects) == OBJECTS

        async def all_at_once(_: int) -> None:
            await asyncio.gather(*(ours(number) for number in range(FOLDERS)))

        async def digest(number: int) -> None:
            reach(root, files, f"apps/{number % FOLDERS}")

        begun = time.perf_counter()
        reach(root, files, "apps/0")
        first = time.perf_counter() - begun
        rows = [
            await measured(f"bare kustomize, {OBJECTS} objects", ROUNDS, bare),
            await measured(f"ours, {OBJECTS} objects", ROUNDS, ours),
            await measured(f"{FOLDERS} folders of an artifact of {len(files)} files, {os.cpu_count()} at once", 2, all_at_once),
            {"what": f"first reach in {len(files)} files", "times": 1, "ms each": round(first * 1000, 2), "cpu ms each": None},
            await measured("reach again", 500, digest),
        ]
        builder.close()
    return {"rows": rows}


def main() -> int:
    """Print the figures as JSON."""
    print(json.dumps(asyncio.run(measure()), indent=None if "--json" in sys.argv else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
