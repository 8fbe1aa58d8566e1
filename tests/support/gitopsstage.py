"""Stories of sources and Kustomizations that are told side by side: one process of the service, a namespace for each story."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.support.audit import Request
from tests.support.clusterlab import Replica, until
from tests.support.gitopslab import GitOpsLab
from tests.support.gitrepo import BareRepository
from tests.support.kubeapi import Object

SHARD = "sharding.fluxcd.io/key"
"""Label by which the processes of the service choose their objects, so that they leave those of other tests alone."""
LONGEST = 200.0
"""Seconds that a story may take on a busy machine."""

Story = Callable[["Stage"], None]


class Stage(GitOpsLab):
    """One namespace of the world, with a fleet of its own, and the process that looks after it.

    Attributes:
        notes: What a story wants to tell its test.
    """

    def __init__(self, world: GitOpsLab, namespace: str, served_by: Replica) -> None:
        self.__dict__.update(world.__dict__)
        self.namespace, self.namespaces, self.served_by = namespace, [namespace], served_by
        self.address = f"{namespace}.git"
        self.fleet = BareRepository.create(world.root / "git" / self.address)
        self.notes: dict[str, Any] = {}

    # --- acting

    def create(self, *objects: Object, namespace: str = "") -> None:
        """Make objects, which belong to the process of this stage."""
        for body in objects:
            body["metadata"]["labels"] = {**(body["metadata"].get("labels") or {}), SHARD: self.served_by.name}
        super().create(*objects, namespace=namespace)

    def source(self, name: str = "fleet", **spec: Any) -> Object:
        """A GitRepository of the fleet of this stage, made."""
        return super().source(name, **{"url": self.git.url(self.address), **spec})

    def apply_as(self, manager: str, body: Object) -> Object:
        """Server-side apply by another manager, which takes the fields."""
        placed = {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}
        return self.api.apply(placed, manager=manager)

    def account(self, name: str, *rules: Object) -> None:
        """A ServiceAccount, and a Role of this name with these rules if there are any."""
        if self.find("ServiceAccount", name) is None:
            self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
        if rules:
            self.allow(name, f"system:serviceaccount:{self.namespace}:{name}", *rules)

    def allow(self, name: str, user: str, *rules: Object, namespace: str = "") -> None:
        """A Role of this name, bound to a user."""
        group = "rbac.authorization.k8s.io"
        subject = {"apiGroup": group, "kind": "User", "name": user}
        role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": list(rules)}
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "subjects": [subject],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        }
        self.create(role, binding, namespace=namespace)

    def asked(self, name: str) -> Object:
        """Ask a Kustomization for a pass; the object when that is over."""
        return self.handled("Kustomization", self.request("Kustomization", name), name)

    # --- looking

    @property
    def head(self) -> str:
        """The revision that the fleet is at."""
        return f"main@sha1:{self.fleet.head()}"

    def data(self, name: str, kind: str = "ConfigMap", namespace: str = "") -> dict[str, str] | None:
        """What a ConfigMap or a Secret holds, None when there is none."""
        found = self.find(kind, name, namespace)
        return None if found is None else dict(found.get("data") or {})

    def until_data(self, name: str, **data: str) -> None:
        """Wait until a ConfigMap holds exactly this."""
        until(lambda: self.data(name) == data, f"ConfigMap {name} to hold {data}")

    def texts(self, kind: str, name: str, reason: str = "") -> list[str]:
        """Messages of events about an object, each once, for a reason or for any."""
        found = [e for e in self.events(kind, name) if reason in {"", e["reason"]}]
        return list(dict.fromkeys(e["message"] for e in sorted(found, key=lambda e: e["metadata"]["resourceVersion"])))

    def until_text(self, kind: str, name: str, reason: str, part: str) -> str:
        """Wait for an event with this in its message; the message."""

        def probe() -> str | None:
            return next((text for text in self.texts(kind, name, reason) if part in text), None)

        return until(probe, f"an event {reason} of {kind} {name} with {part!r}")

    def until_told(self, kind: str, name: str, reason: str, times: int) -> None:
        """Wait until an object has had so many events for a reason: those of earlier steps are written then too."""

        def told() -> bool:
            return sum(e.get("count") or 1 for e in self.events(kind, name) if e["reason"] == reason) >= times

        until(told, f"{times} events {reason} of {kind} {name}")

    def inventory(self, name: str) -> list[str]:
        """Names of the entries of the inventory of a Kustomization."""
        status = self.get("Kustomization", name).get("status") or {}
        return [entry["id"] for entry in (status.get("inventory") or {}).get("entries") or []]

    def here(self, mark: int) -> list[Request]:
        """What our process asked for in this namespace after a mark."""
        return [one for one in self.requests(mark, self.served_by) if one.namespace == self.namespace]


class Theatre:
    """Tells stories side by side, each in a namespace and a thread of its own; a context manager."""

    def __init__(self, world: GitOpsLab) -> None:
        self.world = world
        self.stages: dict[str, Stage] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._failures: dict[str, BaseException] = {}

    def start(self, story: Story, served_by: Replica) -> None:
        """Begin a story."""
        name = story.__name__
        namespace = f"{name.replace('_', '-')[:40].strip('-')}-{secrets.token_hex(3)}"
        self.world.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        stage = self.stages[name] = Stage(self.world, namespace, served_by)

        def run() -> None:
            try:
                story(stage)
            except BaseException as error:
                self._failures[name] = error

        self._threads[name] = threading.Thread(target=run, name=f"story {name}", daemon=True)
        self._threads[name].start()

    def told(self, name: str) -> Stage:
        """Wait for the end of a story; raises what it raised."""
        self._threads[name].join(LONGEST)
        assert not self._threads[name].is_alive(), f"story {name} does not end"
        if name in self._failures:
            raise self._failures[name]
        return self.stages[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads.values():
            thread.join(1)
        for stage in self.stages.values():
            # The world strips finalizers when the processes have ended, then its namespaces may go.
            self.world.namespaces += stage.namespaces
