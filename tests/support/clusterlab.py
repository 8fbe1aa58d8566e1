"""A small world for stories in a cluster: a namespace, a registry, a Git server, and the service as processes of their own.

Synchronous, as the test bed is: the registry runs in a thread, and every wait has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from imagebot.demo.gitserver import GitServer
from imagebot.demo.registry import Registry
from tests.support.audit import WRITES, Request
from tests.support.controlplane import Cluster
from tests.support.gitrepo import BareRepository
from tests.support.kubeapi import ApiError, KubeApi, Object, condition
from tests.support.lab import IMAGE, SOURCE, automation, git_repository, image_policy, image_repository, marked
from tests.support.supervisor import Supervisor

T = TypeVar("T")

OURS = ("ImageUpdateAutomation", "ImagePolicy", "ImageRepository")
PATIENCE = 40.0
"""Seconds that something may take on a busy machine; nearly everything takes less than two."""
REQUESTED = "reconcile.fluxcd.io/requestedAt"
SHORT_LEASE = (
    "--enable-leader-election",
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=500ms",
)
ROOT = Path(__file__).resolve().parents[2]


def until(probe: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """The first true value of `probe`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if value := probe():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)


def install_definitions(api: KubeApi) -> None:
    """Our kinds, as the chart ships them."""
    for body in chart_definitions():
        api.install_crd(body)


def chart_definitions() -> list[Object]:
    """Our CustomResourceDefinitions, from the chart."""
    return [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "helm" / "crds").glob("*.yaml"))]


def ready_of(found: Object) -> tuple[str, str, str]:
    """Status, reason and message of Ready; empty texts where there is none."""
    conditions = (found.get("status") or {}).get("conditions") or []
    entry = next((c for c in conditions if c["type"] == "Ready"), {"status": "", "reason": "", "message": ""})
    return entry["status"], entry["reason"], entry["message"]


def is_settled(found: Object | None, bare: BareRepository, tag: str) -> bool:
    """Whether an automation has seen this tag, and its status stands for the present head of the branch."""
    status = (found or {}).get("status") or {}
    seen = [entry.get("tag") for entry in (status.get("observedPolicies") or {}).values()]
    revision = f"main@sha1:{bare.head()}"
    return condition(found, "Ready") == "True" and tag in seen and status.get("observedSourceRevision") == revision


class RegistryThread:
    """The registry on an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="registry", daemon=True)
        self._thread.start()
        self.registry = Registry()
        self._call(self.registry.start())

    def close(self) -> None:
        """Stop the registry and its loop."""
        self._call(self.registry.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


class Replica:
    """One process of the service.

    Attributes:
        name: In logs and for the supervisor.
        user: Who it is for the API server, by which the audit log knows it.
        log_path: Its log: JSON, one object a line; of all its lives.
    """

    def __init__(self, supervisor: Supervisor, name: str, user: str, kubeconfig: Path, folder: Path, env: dict[str, str]) -> None:
        self.name, self.user, self.kubeconfig = name, user, kubeconfig
        self.folder = folder
        self.log_path = folder / "log"
        self._supervisor, self._env = supervisor, env
        self.port = 0
        self.pid = 0

    def start(self, *flags: str, ready: bool = True) -> Replica:
        """Start the process (again), and wait for /readyz unless told not to."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        argv = [
            sys.executable, "-m", "reconcile", "run", "--kubeconfig", str(self.kubeconfig),
            "--storage-path", str(self.folder / "storage"), "--health-addr", f"127.0.0.1:{self.port}", "--metrics-addr", "0",
            # Sources and Kustomizations run where a test asks for them: these count what image automation alone does.
            *(() if any(flag.startswith("--controllers") for flag in flags) else ("--controllers=image,canary",)),
            *flags,
        ]  # fmt: skip
        self.pid = self._supervisor.start(self.name, argv, env=self._env, log=self.log_path)
        if ready:
            self.until_ready()
        return self

    def probe(self, path: str = "/readyz") -> int:
        """The HTTP status of a probe; 0 while nobody answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5.0, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def until_ready(self) -> None:
        """Wait for /readyz."""

        def ready() -> bool:
            if (code := self.exit_code()) is not None:
                raise AssertionError(f"{self.name} ended by itself with exit code {code}")
            return self.probe() == 200

        until(ready, f"{self.name} to be ready")

    def exit_code(self) -> int | None:
        """How it ended by itself, None while it runs."""
        return self._supervisor.exited().get(self.name)

    def ended(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        until(lambda: self.exit_code() is not None, f"{self.name} to end")
        code = self.exit_code()
        assert code is not None
        return code

    def stop(self) -> int:
        """SIGTERM, as a kubelet ends a pod, with the 30 seconds that it gives; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: self.exit_code() is not None, f"{self.name} to end when asked to", seconds=30)
        return self._supervisor.stop(self.name)

    def kill(self) -> int:
        """SIGKILL for the process and its children, as a container ends that is out of memory; the exit code."""
        self.signal(signal.SIGKILL)
        return self._supervisor.stop(self.name, patience=5.0)

    def signal(self, number: signal.Signals) -> None:
        """A signal for the process and its children: SIGSTOP freezes them as a suspended machine does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def log(self) -> list[dict[str, Any]]:
        """The log so far; lines that are no JSON appear as `{"text": …}`."""
        return [_entry(line) for line in self.log_path.read_text(errors="replace").splitlines()] if self.log_path.exists() else []

    def says(self, *parts: str) -> list[str]:
        """The log lines that hold all of these texts."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return [line for line in lines if all(part in line for part in parts)]

    @property
    def leads(self) -> bool:
        """Whether its controllers have been started in this life."""
        return bool(self.says("controllers started"))


class ClusterLab:
    """The world. `create` makes objects, `replica` prepares a process of the service."""

    def __init__(self, cluster: Cluster, namespace: str, root: Path, registry: Registry, git: GitServer) -> None:
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace
        self.registry, self.git, self.root = registry, git, root
        self.namespaces = [namespace]
        self.replicas: list[Replica] = []
        (root / "run").mkdir()
        self.supervisor = Supervisor(root / "run")
        self._bindings: list[str] = []

    # --- the world

    def image(self, name: str) -> str:
        """Full name of an image in the registry."""
        return f"{self.registry.host}/{name}"

    def repository(self, name: str, files: Mapping[str, str]) -> BareRepository:
        """A bare repository behind the Git server, with a first commit."""
        bare = BareRepository.create(self.root / "git" / name)
        bare.commit({path: text.encode() for path, text in files.items()})
        return bare

    def add_namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """One more namespace, with these labels."""
        name = f"{self.namespace[:50]}-{secrets.token_hex(2)}"
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
        self.namespaces.append(name)
        return name

    def create(self, *objects: Object, namespace: str = "") -> None:
        """Make objects in the namespace of the test, or in another."""
        for body in objects:
            body["metadata"]["namespace"] = namespace or self.namespace
            self.api.create(body)

    def create_app(self, name: str = "web", *, tag: str = "1.0.0", interval: str = "1h", labels: Mapping[str, str] | None = None,
                   **more: Any) -> BareRepository:  # fmt: skip
        """An image with one tag, a repository with one marked file, and the four objects that keep it up to date."""
        self.registry.push_image(name, tag)
        bare = self.repository(f"{name}.git", {"deploy.yaml": marked(self.image(name), name, "0.9.0", self.namespace)})
        objects = [
            git_repository(name, self.git.url(f"{name}.git")),
            image_repository(name, self.image(name), interval=interval),
            image_policy(name),
            automation(name, name, interval=interval, **more),
        ]
        for body in objects:
            body["metadata"]["labels"] = dict(labels or {})
        self.create(*objects)
        return bare

    # --- objects

    def find(self, kind: str, name: str = "web", namespace: str = "") -> Object | None:
        """An object, None when there is none."""
        api = SOURCE if kind == "GitRepository" else IMAGE
        return self.api.find(api, kind, name, namespace or self.namespace)

    def get(self, kind: str, name: str = "web", namespace: str = "") -> Object:
        """An object, which must exist."""
        found = self.find(kind, name, namespace)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def until_object(self, kind: str, name: str, holds: Callable[[Object], Any], what: str, namespace: str = "") -> Object:
        """Wait until something holds for an object; a failure shows its status."""
        last: list[Object | None] = [None]

        def probe() -> Object | None:
            last[0] = self.find(kind, name, namespace)
            return last[0] if last[0] is not None and holds(last[0]) else None

        try:
            return until(probe, f"{kind} {name}: {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its status: {json.dumps((last[0] or {}).get('status'), indent=1)}") from None

    def until_ready(self, kind: str, name: str = "web", message: str = "", namespace: str = "") -> Object:
        """Wait until an object is Ready for its present generation, with this text in the message."""

        def ready(found: Object) -> bool:
            current = (found.get("status") or {}).get("observedGeneration") == found["metadata"]["generation"]
            return current and condition(found, "Ready") == "True" and message in ready_of(found)[2]

        return self.until_object(kind, name, ready, f"Ready {message}", namespace)

    def until_settled(self, bare: BareRepository, tag: str, name: str = "web") -> Object:
        """Wait until the automation has seen this tag, and its status stands for the present head of the branch."""

        def settled(found: Object) -> bool:
            return is_settled(found, bare, tag)

        return self.until_object("ImageUpdateAutomation", name, settled, f"settled on {tag}")

    def patch(self, kind: str, name: str, patch: Object, namespace: str = "") -> Object:
        """Merge patch of an object."""
        return self.api.merge_patch(IMAGE, kind, name, patch, namespace or self.namespace)

    def request(self, kind: str, name: str = "web", token: str = "", namespace: str = "") -> str:
        """Ask for a pass now; returns the token, which the status repeats."""
        token = token or secrets.token_hex(4)
        self.patch(kind, name, {"metadata": {"annotations": {REQUESTED: token}}}, namespace)
        return token

    def handled(self, kind: str, token: str, name: str = "web", namespace: str = "") -> Object:
        """Wait until a request was answered."""

        def answered(found: Object) -> bool:
            return bool((found.get("status") or {}).get("lastHandledReconcileAt") == token)

        return self.until_object(kind, name, answered, f"request {token} handled", namespace)

    def events(self, kind: str = "", name: str = "") -> list[Object]:
        """The events of the namespace, about these objects."""
        found = self.api.list("v1", "Event", self.namespace)
        about = [(e, e["involvedObject"]) for e in found]
        return [e for e, o in about if (not kind or o["kind"] == kind) and (not name or o["name"] == name)]

    # --- the service

    def kubeconfig(self, user: str) -> tuple[Path, str]:
        """A kubeconfig of a ServiceAccount that may do anything, and the name under which the audit log has it."""
        meta = {"name": user, "namespace": self.namespace}
        self.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        binding = f"{self.namespace}-{user}"
        rbac = "rbac.authorization.k8s.io"
        self.api.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": binding},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", **meta}],
            }
        )
        self._bindings.append(binding)
        path = self.cluster.service_account_kubeconfig(self.namespace, user, self.root / f"{user}.kubeconfig")
        return path, f"system:serviceaccount:{self.namespace}:{user}"

    def replica(self, name: str = "replica", *, kubeconfig: Path | None = None, user: str = "", **env: str) -> Replica:
        """A process of the service, not started yet; without `kubeconfig` as a ServiceAccount of its own that may do anything."""
        if kubeconfig is None:
            kubeconfig, user = self.kubeconfig(name)
        folder = self.root / "run" / name
        folder.mkdir()
        surroundings = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "RUNTIME_NAMESPACE": self.namespace,
            **env,
        }
        self.replicas.append(Replica(self.supervisor, name, user, kubeconfig, folder, surroundings))
        return self.replicas[-1]

    def start(self, *flags: str, name: str = "replica", everywhere: bool = False) -> Replica:
        """The service on the namespace of the test (or everywhere), running and ready."""
        scope = () if everywhere else ("--watch-all-namespaces=false",)
        return self.replica(name).start(*scope, *flags)

    def requests(self, mark: int, replica: Replica) -> list[Request]:
        """What a replica asked the API server after a mark, without its lease."""
        assert self.cluster.audit is not None
        return [r for r in self.cluster.audit.select(mark, user=replica.user) if r.resource != "leases"]

    def writes(self, mark: int, replica: Replica) -> list[str]:
        """What a replica wrote after a mark, as `verb resource name`, without its lease."""
        return [f"{r.verb} {r.resource} {r.name}" for r in self.requests(mark, replica) if r.verb in WRITES]

    # --- the end

    def tails(self, lines: int = 25) -> str:
        """The ends of the logs of all replicas."""
        found = [line for r in self.replicas for line in (f"--- {r.name}", *r.says()[-lines:])]
        return "\n".join(line[:600] for line in found)

    def close(self) -> None:
        """End the processes, then take away what would keep the namespaces from going."""
        for replica in self.replicas:
            if replica.pid and replica.name in self.supervisor.pids:
                replica.signal(signal.SIGKILL)
        self.supervisor.close()
        for namespace in self.namespaces:
            for kind in OURS:
                self._strip(kind, namespace)
        for name in self.namespaces[1:]:
            self.api.delete("v1", "Namespace", name, missing_ok=True)
        for name in self._bindings:
            self.api.delete("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name, missing_ok=True)

    def _strip(self, kind: str, namespace: str) -> None:
        try:
            left: Sequence[Object] = self.api.list(IMAGE, kind, namespace)
        except (ApiError, LookupError):
            return  # the kind is not installed
        for body in left:
            name = body["metadata"]["name"]
            with contextlib.suppress(ApiError):
                self.api.delete(IMAGE, kind, name, namespace, missing_ok=True)
                self.api.merge_patch(IMAGE, kind, name, {"metadata": {"finalizers": None}}, namespace)


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"text": line}


@contextmanager
def cluster_lab(cluster: Cluster, namespace: str, root: Path, *, definitions: bool = True) -> Iterator[ClusterLab]:
    """The world, started; the ends of the service's logs are printed at the end."""
    if definitions:
        install_definitions(cluster.api)
    (root / "git").mkdir()
    registry = RegistryThread()
    try:
        with GitServer(root / "git") as git:
            made = ClusterLab(cluster, namespace, root, registry.registry, git)
            try:
                yield made
            finally:
                # A fixture does not see the failure of its test; pytest shows what was printed when there is one.
                print(made.tails())
                git.intercept = None
                made.close()
    finally:
        registry.close()
