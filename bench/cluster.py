"""Cluster mode on a real API server: many ImageRepositories and policies; cold start, steady CPU, memory, API requests."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from bench.meter import Meter, cpu_seconds, resident
from tests.support.clusterlab import cluster_lab
from tests.support.controlplane import open_cluster
from tests.support.lab import image_policy, image_repository


def measure(repositories: int = 1000, tags: int = 1000, minutes: int = 1) -> dict[str, Any]:
    """Cold start until every policy is Ready, then `minutes` of an unchanged fleet with an interval of one minute."""
    with open_cluster() as cluster, tempfile.TemporaryDirectory(prefix="imagebot-bench-") as folder:
        cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
        with cluster_lab(cluster, "bench", Path(folder)) as lab:
            listing = [f"v{t // 400}.{t // 20 % 20}.{t % 20}" for t in range(tags)]
            names = [f"app-{i:05d}" for i in range(repositories)]
            for name in names:
                lab.registry.put_tags(name, listing)
                lab.create(image_repository(name, lab.image(name), "1m"), image_policy(name))
            began = time.perf_counter()
            mark = cluster.audit.mark() if cluster.audit is not None else 0
            replica = lab.start()
            with Meter(replica.pid) as cold:
                _until_ready(lab, repositories)
            cold_wall = time.perf_counter() - began
            requests = len(lab.requests(mark, replica))
            time.sleep(65)
            mark = cluster.audit.mark() if cluster.audit is not None else 0
            before, started = cpu_seconds(replica.pid), time.perf_counter()
            time.sleep(60 * minutes)
            spent = (time.perf_counter() - started) / 60
            return {
                "repositories": repositories,
                "tags": tags,
                "cold_s": round(cold_wall, 1),
                "cold_cpu_s": round(cold.cpu, 1),
                "cold_api_requests": requests,
                "cpu_s_per_min": round((cpu_seconds(replica.pid) - before) / spent, 2),
                "api_requests_per_min": round(len(lab.requests(mark, replica)) / spent, 1),
                "resident_mib": round(resident(replica.pid), 1),
            }


def _until_ready(lab: Any, count: int, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = lab.cluster.api.list("image.toolkit.fluxcd.io/v1", "ImagePolicy", "bench")
        if sum("latestRef" in body.get("status", {}) for body in found) >= count:
            return
        time.sleep(0.5)
    raise TimeoutError("not every policy was Ready in time")


def run() -> dict[str, Any]:
    """The figures of the usual size."""
    return measure()
