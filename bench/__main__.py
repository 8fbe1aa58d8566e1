"""`python -m bench [NAME …]`: run benchmarks, print a table of each, and keep all figures as JSON in bench/out.

Names: scan, policy, markers, gitops, latency, fleet, bigrepo, build, steady, artifact, cluster, kustomizations (these two
need Go once); all of them without a name.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import cluster, gitops_cluster, markers, policy, service
from bench.meter import machine

OUT = Path(__file__).parent / "out"


def _module(name: str) -> Callable[[], Any]:
    def call() -> Any:
        command = [sys.executable, "-m", f"bench.{name}", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
        return json.loads(done.stdout)

    return call


BENCHES: dict[str, Callable[[], Any]] = {
    "scan": _module("scan"),
    "policy": policy.run,
    "markers": markers.run,
    "gitops": _module("gitops"),
    "latency": lambda: asyncio.run(service.latency()),
    "fleet": lambda: asyncio.run(service.fleet()),
    "bigrepo": lambda: asyncio.run(service.bigrepo()),
    "build": _module("build"),
    "steady": lambda: asyncio.run(service.steady()),
    "artifact": _module("artifact"),
    "cluster": cluster.run,
    "kustomizations": gitops_cluster.run,
}


def rows_of(figures: Any) -> list[dict[str, Any]]:
    """Figures as rows of one table: lists of rows stay, nested figures are spread out."""
    for key in ("rows", "steps", "passes"):
        if isinstance(figures, dict) and isinstance(figures.get(key), list):
            return [dict(row) for row in figures[key]]
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": found for inner, found in value.items()}
        else:
            flat[key] = value
    return [flat]


def show(console: Console, name: str, figures: Any) -> None:
    """Print one benchmark: wide ones as rows, a single set of figures as two columns."""
    rows = rows_of(figures)
    table = Table(title=name, title_justify="left")
    if len(rows) == 1:
        table.add_column("figure")
        table.add_column("value", justify="right")
        for key, value in rows[0].items():
            table.add_row(key, str(value))
    else:
        for key in rows[0]:
            table.add_column(key, overflow="fold")
        for row in rows:
            table.add_row(*(str(row.get(key, "")) for key in rows[0]))
    console.print(table)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 64
    console = Console() if sys.stdout.isatty() else Console(width=160)
    here = machine()
    console.print(f"machine: {here}")
    results: dict[str, Any] = {"machine": here, "at": time.strftime("%FT%TZ", time.gmtime())}
    for name in names or BENCHES:
        results[name] = BENCHES[name]()
        show(console, name, results[name])
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(results, indent=2))
    console.print(f"figures as JSON: bench/out/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
