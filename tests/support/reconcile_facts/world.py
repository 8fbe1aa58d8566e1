"""What all stories of a run share: a cluster, a Git server, a receiver of events, and the service, once for each set of flags."""

from __future__ import annotations

import json
import queue
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.canary_facts.listeners import in_thread
from tests.support.controlplane import Cluster
from tests.support.gitopslab import GitOpsLab, gitops_lab
from tests.support.gitrepo import ENV
from tests.support.kubeapi import Object
from tests.support.reconcile_facts.compare import Expected
from tests.support.reconcile_facts.observed import namespace_of
from tests.support.reconcile_facts.player import Play
from tests.support.webhooks import Receiver, Reply

SIDE_BY_SIDE = 12
FLAGS = ("--concurrent=12", "--requeue-dependency=3s", "--kube-api-qps=500", "--kube-api-burst=1000")
"""As the facts were recorded, as far as it counts."""


class World:
    """The stage. Services see only objects that have the label with their names."""

    label = "facts.imagebot.test/service"

    def __init__(self, lab: GitOpsLab) -> None:
        self.lab, self.api = lab, lab.api
        self.suffix = f"-{secrets.token_hex(4)}"
        self.git_root = lab.root / "git"
        self.git_url = lab.git.url("").rstrip("/")
        self.sink = Receiver()
        self.sink.default = Reply(202)
        self.closing = threading.Event()
        self.homes = Path(tempfile.mkdtemp(prefix="facts-gpg-"))  # the agents' sockets need short paths
        self._services: dict[str, str] = {}

    def serve(self, flags: str) -> None:
        """Start the service with these flags for the stories that ask for them."""
        name = f"service-{len(self._services)}{self.suffix}"
        self.lab.start(
            *FLAGS, *flags.split(), f"--events-addr={self.sink.url}/", f"--watch-label-selector={self.label}={name}",
            name=name, everywhere=True,
        )  # fmt: skip
        self._services[flags] = name

    def add_namespace(self, name: str) -> None:
        """A new namespace, taken away at the end."""
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.lab.namespaces.append(name)

    def gpg_home(self, name: str) -> Path:
        """A folder for keys."""
        home = self.homes / name
        home.mkdir(mode=0o700)
        return home

    def posted(self, namespaces: list[str]) -> list[Object]:
        """The events that were sent about objects of these namespaces."""
        return [json.loads(r.body) for r in list(self.sink.requests) if namespace_of(r.body) in namespaces]

    def close(self) -> None:
        """Give up stories that are still played, and end the agents of GnuPG."""
        self.closing.set()
        for home in self.homes.iterdir():
            subprocess.run(["gpgconf", "--kill", "all"], env={**ENV, "GNUPGHOME": str(home)}, check=False, capture_output=True)
        shutil.rmtree(self.homes, ignore_errors=True)

    def play(self, entry: Object, flags: str, accepted: Mapping[str, list[str]]) -> Object:
        """Play a story."""
        return Play(self, entry["story"], self._services[flags], Expected(entry["seen"], accepted)).run()


@contextmanager
def facts_world(cluster: Cluster, namespace: str, root: Path) -> Iterator[World]:
    """The stage, without a service yet."""
    with ExitStack() as stack:
        world = World(stack.enter_context(gitops_lab(cluster, namespace, root)))
        stack.enter_context(in_thread(world.sink))
        stack.callback(world.close)
        yield world


@contextmanager
def playing(world: World, entries: Mapping[str, Object], flags: Mapping[str, str],
            accepted: Mapping[str, Mapping[str, list[str]]]) -> Iterator[dict[str, Future[Any]]]:  # fmt: skip
    """Play stories, which begin in this order; the records as they will be. At the end those that are left are given up."""
    for each in sorted({flags[name] for name in entries}):
        world.serve(each)
    records: dict[str, Future[Any]] = {name: Future() for name in entries}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in entries:
        waiting.put(name)

    def work() -> None:
        while not world.closing.is_set():
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                records[name].set_result(world.play(entries[name], flags[name], accepted.get(name, {})))
            except BaseException as failure:
                records[name].set_exception(failure)

    threads = [threading.Thread(target=work, name=f"story {n}", daemon=True) for n in range(min(SIDE_BY_SIDE, len(entries)))]
    for thread in threads:
        thread.start()
    try:
        yield records
    finally:
        world.closing.set()
        for thread in threads:
            thread.join(20)
