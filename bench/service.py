"""The whole service in local mode: tag to commit, a steady fleet of repositories, a large Git repository, many automations."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.meter import Meter, cpu_seconds, resident
from tests.support.lab import Lab, automation, git_repository, image_policy, image_repository, lab

REQUESTED = "reconcile.fluxcd.io/requestedAt"


class Worker:
    """The service process."""

    def __init__(self, world: Lab) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(world.folder), str(world.state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    async def answer(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        if not line:
            raise RuntimeError("the service ended")

    async def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        await self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@asynccontextmanager
async def world() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="imagebot-bench-") as root:
        async with lab(Path(root)) as made:
            yield made


async def until(probe: Callable[[], Any], seconds: float = 300.0, step: float = 0.005) -> None:
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise TimeoutError("not done in time")
        await asyncio.sleep(step)


def request(lab_: Lab, names: list[str], interval: str = "1h") -> None:
    """Ask for scans, as `flux reconcile image repository` does."""
    for name in names:
        body = image_repository(name, lab_.image(name), interval)
        body["metadata"]["annotations"] = {REQUESTED: str(time.time())}
        lab_.declare(body)


def marked_file(i: int, policies: list[str], image: str, tag: str, padding: int = 12) -> str:
    """A Deployment-like file of some forty lines; one marked line for each policy."""
    lines = [
        "apiVersion: apps/v1", "kind: Deployment", "metadata:", f"  name: app-{i}", f"  namespace: team-{i % 7}",
        "spec:", "  replicas: 2", "  template:", "    spec:", "      containers:",
    ]  # fmt: skip
    for policy in policies:
        lines += [f"        - name: {policy}", f'          image: {image % policy}:{tag} # {{"$imagepolicy": "apps:{policy}"}}']
    if not policies:
        lines += ["        - name: main", "          image: docker.io/library/other:1.0.0"]
    lines += ["          env:"] + [f'            - name: KEY_{n}\n              value: "{i * n}"' for n in range(padding)]
    return "\n".join(lines) + "\n"


async def latency(repeats: int = 5) -> dict[str, Any]:
    """New tag → commit, asked for by annotation."""
    async with world() as w:
        w.registry.push_image("web", "1.0.0")
        bare = w.declare_app()
        worker = Worker(w)
        try:
            await worker.answer()
            await until(lambda: b"web:1.0.0" in bare.file("deploy.yaml"))
            await worker.tell("drain")
            walls, cpus = [], []
            for i in range(repeats):
                w.registry.push_image("web", f"1.{i + 1}.0")
                head = bare.head()
                with Meter(worker.pid) as meter:
                    started = time.perf_counter()
                    request(w, ["web"])
                    await worker.tell("sync")
                    await until(lambda head=head: bare.head() != head)
                    walls.append(time.perf_counter() - started)
                    await worker.tell("drain")
                cpus.append(meter.cpu)
            return {"repeats": repeats, "median_s": round(sorted(walls)[repeats // 2], 3), "cpu_s": round(sum(cpus) / repeats, 3),
                    "peak_mib": round(meter.peak, 1)}  # fmt: skip
        finally:
            worker.close()


async def steady(repositories: int = 1000, tags: int = 1000, minutes: int = 1) -> dict[str, Any]:
    """Nothing changes: what watching costs."""
    async with world() as w:
        names = [f"app-{i:05d}" for i in range(repositories)]
        listing = [f"v{t // 400}.{t // 20 % 20}.{t % 20}" for t in range(tags)]
        for name in names:
            w.registry.put_tags(name, listing)
        w.declare(*(image_repository(n, w.image(n), "1m") for n in names), *(image_policy(n) for n in names))
        w.registry.requests.clear()
        worker = Worker(w)
        try:
            with Meter(worker.pid) as cold:
                await worker.answer()
                await worker.tell("drain")
            await asyncio.sleep(65)
            requests, cpu, started = sum(w.registry.requests.values()), cpu_seconds(worker.pid), time.perf_counter()
            await asyncio.sleep(60 * minutes)
            spent = (time.perf_counter() - started) / 60
            return {
                "repositories": repositories, "tags": tags, "cold": cold.figures(),
                "cpu_s_per_min": round((cpu_seconds(worker.pid) - cpu) / spent, 2),
                "requests_per_min": round((sum(w.registry.requests.values()) - requests) / spent),
                "resident_mib": round(resident(worker.pid), 1),
            }  # fmt: skip
        finally:
            worker.close()


async def bigrepo(files: int = 10_000, markers: int = 1000) -> dict[str, Any]:
    """A repository of many files; one policy moves, then all of them."""
    async with world() as w:
        count = markers // 10
        names, every = [f"p{i:04d}" for i in range(count)], files // markers
        image = w.registry.host + "/%s"
        tree = {
            f"clusters/c{i % 20:02d}/d{i // 20 % 50:02d}/app-{i:05d}.yaml": marked_file(
                i, [names[i // every % count]] if i % every == 0 else [], image, "1.0.0"
            )
            for i in range(files)
        }
        for name in names:
            w.registry.push_image(name, "1.0.0")
        bare = w.repository("big.git", tree)
        w.declare(git_repository("big", w.url("big.git")), automation("big", "big"))
        w.declare(*(image_repository(n, w.image(n)) for n in names), *(image_policy(n) for n in names))
        worker = Worker(w)
        result: dict[str, Any] = {"files": files, "markers": markers, "policies": count}
        try:
            with Meter(worker.pid) as first:
                await worker.answer()
                await worker.tell("drain")
            result["first_run"] = first.figures()
            for phase, chosen, tag in (("one", names[:1], "1.1.0"), ("all", names, "1.2.0")):
                base, wanted = bare.head(), markers * len(chosen) // count
                for name in chosen:
                    w.registry.push_image(name, tag)
                w.git.traffic.clear()
                with Meter(worker.pid) as meter:
                    request(w, chosen)
                    await worker.tell("sync")
                    await until(lambda tag=tag, wanted=wanted: moved(bare, tag) >= wanted, step=0.05)
                    await worker.tell("drain")
                commits = int(bare.git("rev-list", "--count", f"{base}..main"))
                result[phase] = {**meter.figures(), "commits": commits, "git_requests": len(w.git.traffic.requests)}
            return result
        finally:
            worker.close()


def moved(bare: Any, tag: str) -> int:
    """Marked lines that carry the tag."""
    found = bare.git("grep", "-c", f":{tag} # ", "main", check=False)
    return sum(int(line.rsplit(":", 1)[1]) for line in found.splitlines())


async def fleet(automations: int = 20) -> dict[str, Any]:
    """Many automations on one repository; all images are released together."""
    async with world() as w:
        names, image = [f"svc{i:02d}" for i in range(automations)], w.registry.host + "/%s"
        for name in names:
            w.registry.push_image(name, "1.0.0")
        tree = {
            f"apps/{n}/deploy-{k}.yaml": marked_file(i * 10 + k, [n] if k == 0 else [], image, "1.0.0")
            for i, n in enumerate(names)
            for k in range(10)
        }
        bare = w.repository("fleet.git", tree)
        w.declare(git_repository("fleet", w.url("fleet.git")))
        for n in names:
            w.declare(image_repository(n, w.image(n)), image_policy(n, labels={"app": n}))
            w.declare(automation(n, "fleet", update={"path": f"./apps/{n}"}, policySelector={"matchLabels": {"app": n}}))
        worker = Worker(w)
        try:
            await worker.answer()
            await worker.tell("drain")
            base = bare.head()
            for name in names:
                w.registry.push_image(name, "1.1.0")
            w.git.traffic.clear()
            with Meter(worker.pid) as meter:
                request(w, names)
                await worker.tell("sync")
                await until(lambda: moved(bare, "1.1.0") >= automations, step=0.02)
            await worker.tell("drain")
            pushes = sum("git-receive-pack" in r and r.startswith("POST") for r in w.git.traffic.requests)
            commits = int(bare.git("rev-list", "--count", f"{base}..main"))
            work = {"commits": commits, "pushes": pushes, "git_requests": len(w.git.traffic.requests)}
            return {"automations": automations, **meter.figures(), **work}
        finally:
            worker.close()


def run() -> dict[str, Any]:
    """All scenarios."""
    return {
        name: asyncio.run(scenario())
        for name, scenario in (("latency", latency), ("fleet", fleet), ("bigrepo", bigrepo), ("steady", steady))
    }
