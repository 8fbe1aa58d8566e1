"""What the demonstration plays on: a control plane, Prometheus, an exporter, the service, and two workloads with a Canary each.

Everything but the cluster is in one temporary folder, and every process is a child of one supervisor: all of it goes with this
process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from imagebot.demo.tools import DemoFailed
from tests.support import router_crds
from tests.support.clusterlab import install_definitions
from tests.support.controlplane import Cluster, ControlPlane
from tests.support.controlplane_build import KUBERNETES, find_programs
from tests.support.kubeapi import KubeApi, Object
from tests.support.prometheus_server import PrometheusServer
from tests.support.supervisor import Supervisor
from tests.support.traffic import RATE, Traffic

from .small_prometheus import SmallPrometheus

FLAGGER = "flagger.app/v1beta1"
ISTIO = "networking.istio.io/v1beta1"
APPS = ("shop", "cart")
FIRST, NEXT = "1.0.0", "2.0.0"
STEPS = (10, 30, 60)
INTERVAL = 10
WINDOW = 30
"""Seconds that metrics look back: longer than a step, so that a busy machine may miss some readings."""
THRESHOLD = 2
FAILING = 0.12
"""Share of requests that the broken revision answers with an error."""
PATIENCE = 40.0
"""Seconds that a server may take to come up."""


def image(app: str, tag: str) -> str:
    """The image of a revision; nothing pulls it, as the nodes are fake."""
    return f"example.org/{app}:{tag}"


BROKEN = image("cart", NEXT)
"""The one image that answers with errors."""


def deployment(app: str) -> Object:
    """The workload in its first revision."""
    container = {"name": "app", "image": image(app, FIRST), "ports": [{"containerPort": 8080}]}
    labels = {"app": app}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app}, "spec": spec}


def canary(app: str) -> Object:
    """Its Canary: three steps, judged by success rate and latency."""
    metrics = [
        {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": f"{WINDOW}s"},
        {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": f"{WINDOW}s"},
    ]
    return {
        "apiVersion": FLAGGER,
        "kind": "Canary",
        "metadata": {"name": app},
        "spec": {
            "provider": "istio",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {
                "interval": f"{INTERVAL}s",
                "threshold": THRESHOLD,
                "stepWeights": list(STEPS),
                "metrics": metrics,
            },
        },
    }


@dataclass
class Stage:
    """The built stage.

    Attributes:
        judge: What answers queries, in words.
        programs: Folder with kubectl, if the control plane is ours.
        counted: Whose requests are counted.
    """

    cluster: Cluster
    namespace: str
    traffic: Traffic
    supervisor: Supervisor
    folder: Path
    metrics_url: str
    judge: str
    programs: Path | None
    counted: set[str] = field(default_factory=set)

    @property
    def api(self) -> KubeApi:
        """The API as administrator."""
        return self.cluster.api

    def log(self, name: str) -> Path:
        """The log of `imagebot` or `prometheus`."""
        return self.folder / name / "log"

    def create_apps(self) -> None:
        """Make the workloads and their Canaries."""
        for app in APPS:
            for body in (deployment(app), canary(app)):
                self.api.create({**body, "metadata": {**body["metadata"], "namespace": self.namespace}})

    def release(self, app: str, tag: str) -> None:
        """What a deploy does: another image in the workload."""
        container = {"name": "app", "image": image(app, tag), "ports": [{"containerPort": 8080}]}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        self.api.merge_patch("apps/v1", "Deployment", app, patch, self.namespace)

    def serve(self, app: str, running: str, weight: int) -> None:
        """Let the exporter count requests to a revision, from its first share of the traffic on.

        It never stops, but what is broken counts only while it has a share: the next revision is not to be judged by it.
        """
        if weight or app in self.counted:
            self.counted.add(app)
            self.traffic.set(self.namespace, app, failing=FAILING if weight and running == BROKEN else 0.0)

    def start_service(self) -> None:
        """Start `imagebot run` as a process of its own."""
        health = f"127.0.0.1:{free_port()}"
        argv = [
            sys.executable, "-m", "reconcile", "run", "--controllers", "canary", "--metrics-server", self.metrics_url,
            "--kubeconfig", str(self.cluster.kubeconfig), "--watch-all-namespaces=false", "--storage-path",
            str(self.folder / "storage"), "--health-addr", health, "--metrics-addr", "0", "--log-encoding", "json",
        ]  # fmt: skip
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "RUNTIME_NAMESPACE": self.namespace,
        }
        log = self.log("imagebot")
        log.parent.mkdir()
        self.supervisor.start("imagebot", argv, env=env, log=log)
        self.until(lambda: answers(f"http://{health}/readyz"), "imagebot to be ready", log)

    def until(self, probe: Callable[[], bool], what: str, log: Path, seconds: float = PATIENCE) -> None:
        """Wait for a server.

        Raises:
            DemoFailed: It did not come up, or a process ended; the text has the end of its log.
        """
        end = time.monotonic() + seconds
        while not probe():
            self.check()
            if time.monotonic() > end:
                raise DemoFailed(f"waited {seconds:g} s in vain for {what}\n{tail(log)}")
            time.sleep(0.1)

    def check(self) -> None:
        """Raise `DemoFailed` when a process has ended by itself."""
        for name, code in self.supervisor.exited().items():
            raise DemoFailed(f"{name} ended by itself with {code}; the end of its log:\n{tail(self.log(name))}")

    def imagebot(self, *words: str) -> list[str]:
        """What a command of imagebot prints about this namespace; it reads the cluster as anybody would."""
        argv = [sys.executable, "-m", "reconcile", *words, "--kubeconfig", str(self.cluster.kubeconfig), "-n", self.namespace]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise DemoFailed(f"'imagebot {' '.join(words)}' failed with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.splitlines()


@contextmanager
def built(kubeconfig: Path | None, *, small: bool, say: Callable[[str], None]) -> Iterator[Stage]:
    """The stage with everything running but the service.

    Args:
        kubeconfig: Of a cluster for tests; None starts a control plane.
        small: Use the stand-in also where the real Prometheus is installed.
        say: Told when something takes minutes.

    Raises:
        Unavailable: There is no way to have a control plane on this machine.
        StartFailed: There is, but it did not start.
        DemoFailed: Something else did not.
    """
    with ExitStack() as stack:
        programs = find_programs(say) if kubeconfig is None else None
        if programs is not None:
            cluster: Cluster = ControlPlane(programs)
        else:
            cluster = Cluster(Path(str(kubeconfig)), shutil.which("kubectl"))
        stack.enter_context(cluster)
        if not cluster.runs_workloads:
            raise DemoFailed("KUBEBUILDER_ASSETS has no controller manager, scheduler and kwok: no workload runs there")
        install_kinds(cluster.api)
        namespace = "demo" if programs is not None else f"canary-demo-{secrets.token_hex(3)}"
        cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        if programs is None:
            stack.callback(cluster.api.delete, "v1", "Namespace", namespace, missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="canary-demo-"))
        try:
            supervisor = Supervisor(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        stack.callback(supervisor.close)
        traffic = stack.enter_context(Traffic())
        found = programs.folder if programs is not None else None
        stage = Stage(cluster, namespace, traffic, supervisor, folder, "", "", found)
        if small or shutil.which("prometheus") is None:
            server = stack.enter_context(SmallPrometheus(traffic.text))
            stage.metrics_url = server.url
            stage.judge = "a small stand-in for Prometheus, which knows the two queries used here"
            stage.judge += "" if small else " (there is no prometheus on PATH)"
        else:
            real = PrometheusServer(supervisor, stage.log("prometheus").parent, traffic.address)
            real.start()
            stage.until(real.ready, "Prometheus to be ready", stage.log("prometheus"))
            stage.metrics_url = real.url
            stage.judge = f"{prometheus_version()}, scraping an exporter each second"
        yield stage


def install_kinds(api: KubeApi) -> None:
    """Have the cluster serve our kinds and Istio's routes."""
    install_definitions(api)
    for body in router_crds.published():
        if body["spec"]["group"] == "networking.istio.io":
            api.install_crd(body)


def prometheus_version() -> str:
    """`Prometheus 2.42.0`, as the installed program says."""
    done = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    words = (done.stdout + done.stderr).split()
    return f"Prometheus {words[2]}" if len(words) > 2 else "Prometheus"


def answers(url: str) -> bool:
    """Whether a server says 200."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == 200
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    found = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join(line[:400] for line in found)


def facts(stage: Stage) -> list[tuple[str, str]]:
    """What there is, for people."""
    version: dict[str, Any] = stage.api.request("GET", "/version")
    ours = "without containers; kwok plays the node" if stage.programs else f"at {stage.api.server}"
    return [
        ("cluster", f"Kubernetes {str(version.get('gitVersion', KUBERNETES)).removeprefix('v')}, {ours}"),
        ("router", "Istio VirtualServices; there is no proxy to read them here"),
        ("requests", f"an exporter counts {RATE:g} a second as if they came"),
        ("judge", stage.judge),
        ("steps", f"{', '.join(f'{step} %' for step in STEPS)} of the traffic, one each {INTERVAL} s"),
        ("rule", f"99 % succeed, 99 % within 500 ms; {THRESHOLD} failed checks end the run"),
    ]  # fmt: skip
