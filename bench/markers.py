"""Markers in a large checkout held in memory: 10,000 YAML files, 1,000 of them marked; search, rewrite, search again.

Memory is the peak above what the files themselves take.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

from imagebot.markers.files import is_candidate
from imagebot.markers.find import FileMarkers, find_markers
from imagebot.markers.rewrite import rewrite

FILES, MARKED = 10_000, 1_000
OLD, NEW = "ghcr.io/acme/web:1.0.0", "ghcr.io/acme/web:1.0.1"
VALUES = {"apps:web": NEW}
CONTAINER = """      - name: container-{number}
        image: {image}
        env:
        - name: LEVEL
          value: "info"  # quoted on purpose
        ports:
        - containerPort: 80{number}
"""


def manifest(number: int, marked: bool) -> bytes:
    """A Deployment of about 40 lines; the first of its four containers is marked or not."""
    marker = ' # {"$imagepolicy": "apps:web"}'
    head = (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web-{number}\n  namespace: prod\n  labels:\n    app: web\n"
        "spec:\n  replicas: 3\n  template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      containers:\n"
    )
    images = (OLD + marker * (marked and first == 0) for first in range(4))
    return (head + "".join(CONTAINER.format(number=n, image=image) for n, image in enumerate(images))).encode()


def peak() -> int:
    """The largest resident size of this process so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def find(files: dict[str, bytes]) -> dict[str, FileMarkers]:
    found = ((path, find_markers(data)) for path, data in files.items() if is_candidate(path))
    return {path: markers for path, markers in found if markers.markers}


def timed(results: dict[str, Any], name: str, started: tuple[float, float]) -> None:
    results[f"{name}_s"] = round(time.perf_counter() - started[0], 3)
    results[f"{name}_cpu_s"] = round(time.process_time() - started[1], 3)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def measure(count: int = FILES, marked: int = MARKED) -> dict[str, Any]:
    """One run over `count` files of which `marked` hold a marker."""
    every = max(count // marked, 1)
    files = {f"apps/{n // 100}/deployment-{n}.yaml": manifest(n, n % every == 0) for n in range(count)}
    results: dict[str, Any] = {"files": count, "marked": marked, "megabytes": round(sum(map(len, files.values())) / 1e6, 1)}
    before = peak()
    started = now()
    found = find(files)
    timed(results, "find", started)
    started = now()
    written = {path: rewrite(files[path], markers, VALUES) for path, markers in found.items()}
    timed(results, "rewrite", started)
    files |= {path: done.data for path, done in written.items()}
    started = now()
    again = {path: rewrite(files[path], markers, VALUES) for path, markers in find(files).items()}
    timed(results, "nothing_to_do", started)
    results["peak_mib"] = round((peak() - before) / 1024, 1)
    assert sum(len(done.changes) for done in written.values()) == marked
    assert sum(len(done.changes) for done in again.values()) == 0
    assert all(data.count(NEW.encode()) == (path in found) for path, data in files.items())
    return results


def run() -> dict[str, Any]:
    """Measure in a fresh process, so that the peak is ours."""
    call = "import json; from bench.markers import measure; print(json.dumps(measure()))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True, timeout=300)
    return {"rows": [json.loads(done.stdout)]}


if __name__ == "__main__":
    for row in run()["rows"]:
        print(json.dumps(row))
