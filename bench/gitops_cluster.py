"""Sources and Kustomizations on a real API server: first apply, nothing to do, one change, a restart; and a large repository.

Every row is one step: wall and CPU seconds and peak memory of the service with its children, and its API requests and writes. The
service may send 500 requests a second, as the systems that it is compared with are measured.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.meter import Meter, cpu_seconds
from tests.support.audit import WRITES
from tests.support.clusterlab import REQUESTED, Replica
from tests.support.controlplane import open_cluster
from tests.support.gitopslab import KUSTOMIZE, SOURCE_V1, GitOpsLab, gitops_lab
from tests.support.kubeapi import Object, condition

NAMESPACE = "bench"
FLAGS = ("--kube-api-qps=500", "--kube-api-burst=1000")
PATIENCE = 900.0
"""Seconds that one step may take."""
LOOK = 0.25
"""Seconds between two looks at everything."""


def config_map(name: str, value: str = "0") -> str:
    """A small ConfigMap, the end of a document included."""
    return f'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: "{value}"\n---\n'


class Bench:
    """A world, the service in it, and the rows so far."""

    def __init__(self, lab: GitOpsLab, label: str) -> None:
        self.lab, self._label = lab, label
        self.replica: Replica = lab.start(*FLAGS)
        self.rows: list[dict[str, Any]] = []
        self._token = 0

    @contextmanager
    def step(self, name: str, *, anew: bool = False) -> Iterator[dict[str, Any]]:
        """Measure what happens inside as one row, which the block may add to; `anew` with a start of the service before."""
        audit = self.lab.cluster.audit
        assert audit is not None
        mark, more, began = audit.mark(), dict[str, Any](), time.perf_counter()
        if anew:
            self.lab.start(*FLAGS)
        with Meter(self.replica.pid) as meter:
            yield more
            if anew:
                more |= {"wall_s": round(time.perf_counter() - began, 3), "cpu_s": round(cpu_seconds(self.replica.pid), 2)}
        asked = self.lab.requests(mark, self.replica)
        writes = sum(each.verb in WRITES and "dryRun" not in each.uri for each in asked)
        row = {"what": self._label, "step": name, **meter.figures(), "api_requests": len(asked), "api_writes": writes, **more}
        self.rows.append(row)

    def source(self, revision: str, **spec: Any) -> None:
        """Make the GitRepository and wait for its artifact."""
        self.lab.source(**spec)
        self.until("GitRepository", _fetched(revision))

    def create(self, names: Sequence[str]) -> None:
        """Make Kustomizations of the folders with these names."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: self.lab.kustomization(name, f"./apps/{name}"), names))

    def request(self, kind: str, names: Sequence[str]) -> str:
        """Ask for passes over these objects; the token."""
        self._token += 1
        token = f"round-{self._token}"
        patch = {"metadata": {"annotations": {REQUESTED: token}}}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: self.lab.patch(kind, name, patch), names))
        return token

    def until(self, kind: str, holds: Callable[[Object], bool]) -> None:
        """Wait until something holds for all objects of a kind."""
        api = KUSTOMIZE if kind == "Kustomization" else SOURCE_V1
        end = time.monotonic() + PATIENCE
        while not all(holds(found) for found in self.lab.api.list(api, kind, NAMESPACE)):
            if time.monotonic() > end:
                raise TimeoutError(f"{kind}: not done after {PATIENCE:.0f} s")
            time.sleep(LOOK)

    def until_value(self, name: str, value: str) -> None:
        """Wait until a ConfigMap has a value."""
        end = time.monotonic() + PATIENCE
        while (self.lab.find("ConfigMap", name) or {}).get("data", {}).get("value") != value:
            if time.monotonic() > end:
                raise TimeoutError(f"ConfigMap {name}: not {value} after {PATIENCE:.0f} s")
            time.sleep(0.01)


def ready(found: Object) -> bool:
    """Whether an object is Ready for its present generation."""
    return condition(found, "Ready") == "True" and found["status"].get("observedGeneration") == found["metadata"]["generation"]


def _handled(token: str) -> Callable[[Object], bool]:
    return lambda found: ready(found) and found["status"].get("lastHandledReconcileAt") == token


def _applied(revision: str) -> Callable[[Object], bool]:
    return lambda found: ready(found) and found["status"].get("lastAppliedRevision") == revision


def _fetched(revision: str) -> Callable[[Object], bool]:
    return lambda found: ready(found) and (found["status"].get("artifact") or {}).get("revision") == revision


@contextmanager
def bench(label: str) -> Iterator[Bench]:
    """A control plane of its own with the service running."""
    with open_cluster() as cluster, tempfile.TemporaryDirectory(prefix="imagebot-bench-") as folder:
        cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        with gitops_lab(cluster, NAMESPACE, Path(folder)) as lab:
            yield Bench(lab, label)


def fleet(count: int = 1000, objects: int = 10) -> list[dict[str, Any]]:
    """Many Kustomizations of one repository: cold, asked for without a change, one object changed, the service started again."""
    names = [f"app-{index:04d}" for index in range(count)]
    with bench(f"{count:,} Kustomizations x {objects} objects") as made:
        files = {f"apps/{name}/{index}.yaml": config_map(f"{name}-{index}") for name in names for index in range(objects)}
        made.source(made.lab.commit(files))
        with made.step("first apply"):
            made.create(names)
            made.until("Kustomization", ready)
        with made.step("nothing to do"):
            made.until("Kustomization", _handled(made.request("Kustomization", names)))
        changed = names[count // 2]
        with made.step("one object changed") as more:
            began = time.perf_counter()
            revision = made.lab.commit({f"apps/{changed}/1.yaml": config_map(f"{changed}-1", "new")})
            made.request("GitRepository", ["fleet"])
            made.until_value(f"{changed}-1", "new")
            more["object_s"] = round(time.perf_counter() - began, 3)
            made.until("Kustomization", _applied(revision))
        made.replica.stop()
        token = made.request("Kustomization", names)
        with made.step("restart", anew=True):
            made.until("Kustomization", _handled(token))
        return made.rows


def large(objects: int = 1000, per_file: int = 10) -> list[dict[str, Any]]:
    """One Kustomization with many objects."""

    def file(index: int, value: str = "0") -> str:
        return "".join(config_map(f"object-{index * per_file + inner:05d}", value) for inner in range(per_file))

    with bench(f"1 Kustomization x {objects:,} objects") as made:
        made.source(made.lab.commit({f"apps/large/{index:04d}.yaml": file(index) for index in range(objects // per_file)}))
        with made.step("first apply"):
            made.create(["large"])
            made.until("Kustomization", ready)
        with made.step("nothing to do"):
            made.until("Kustomization", _handled(made.request("Kustomization", ["large"])))
        one = file(3).replace('"0"', '"new"', 1)
        with made.step("one object changed"):
            revision = made.lab.commit({"apps/large/0003.yaml": one})
            made.request("GitRepository", ["fleet"])
            made.until("Kustomization", _applied(revision))
        return made.rows


def repository(count: int = 10_000) -> list[dict[str, Any]]:
    """One repository with many files of text that does not compress to nothing."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(2000)]
    texts = ("\n".join(" ".join(chance.choices(words, k=8)) for _ in range(chance.randint(5, 25))) for _ in range(count))
    with bench(f"repository of {count:,} files") as made:
        revision = made.lab.commit({f"d{index % 100:02d}/f{index:05d}.txt": text for index, text in enumerate(texts)})
        with made.step("first artifact"):
            made.source(revision)
        with made.step("nothing to do"):
            made.until("GitRepository", _handled(made.request("GitRepository", ["fleet"])))
        with made.step("one file changed"):
            revision = made.lab.commit({"d00/f00000.txt": "changed\n"})
            made.request("GitRepository", ["fleet"])
            made.until("GitRepository", _fetched(revision))
        return made.rows


def run() -> dict[str, Any]:
    """The figures of the usual sizes."""
    return {"rows": [*fleet(), *large(), *repository()]}
