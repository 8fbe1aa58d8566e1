"""A real Kubernetes control plane for tests, without containers; see tests/controlplane/README.md.

`python -m tests.support.controlplane` starts one for a person.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from .audit import POLICY, Audit
from .controlplane_build import SOURCE, Programs, Unavailable, cache_folder, find_programs
from .kubeapi import ApiError, KubeApi
from .pki import Authority, private_key, private_pem, public_pem
from .supervisor import Supervisor

START_SECONDS = 90.0
"""A start takes three to six seconds; this is for a machine that is busy with something else."""
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
NODE = "node-0"


class StartFailed(Exception):
    """The control plane did not come up; the text has the ends of the logs."""


class Cluster:
    """A cluster as tests see it: its API as administrator, kubectl, users.

    Args:
        kubeconfig: The administrator's.
        kubectl: The program to run for `kubectl`, if there is one.
    """

    audit: Audit | None = None
    """What was asked of the API server; only of a control plane of our own."""

    def __init__(self, kubeconfig: Path, kubectl: str | None) -> None:
        self.kubeconfig = kubeconfig
        self.api = KubeApi.from_kubeconfig(kubeconfig)
        self._kubectl = kubectl

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def runs_workloads(self) -> bool:
        """Whether Deployments become Available and deleted namespaces vanish: false with a bare API server."""
        return True

    def close(self) -> None:
        """Close the connections and, where it is ours, end the cluster."""
        self.api.close()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = 60.0,
                kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run kubectl, as administrator or with the given kubeconfig.

        Raises:
            Unavailable: There is no kubectl.
            AssertionError: It failed, and `check` is set; the text is what it printed.
        """
        if self._kubectl is None:
            raise Unavailable("there is no kubectl on this machine")
        config = kubeconfig or self.kubeconfig
        # Discovery is cached beside the kubeconfig: kubectl's usual place is shared by everything on the machine.
        argv = [self._kubectl, "--kubeconfig", str(config), "--cache-dir", str(config.parent / "kubectl-cache"), *arguments]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=seconds, env=_environment(config.parent), check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def as_service_account(self, namespace: str, name: str, *, user_agent: str = "imagebot-tests") -> KubeApi:
        """The API as a ServiceAccount, which must exist, sees it; close it after use."""
        config = self.service_account_kubeconfig(namespace, name, Path(tempfile.mkdtemp()) / "kubeconfig")
        try:
            return KubeApi.from_kubeconfig(config, user_agent=user_agent)
        finally:
            shutil.rmtree(config.parent)

    def service_account_kubeconfig(self, namespace: str, name: str, path: Path, *, seconds: int = 3600) -> Path:
        """Write a kubeconfig for a ServiceAccount, which must exist: so a program can run under its own role."""
        return self.write_kubeconfig(path, {"token": self.api.token(namespace, name, seconds=seconds)}, namespace=namespace)

    def write_kubeconfig(self, path: Path, user: dict[str, str], *, namespace: str = "default") -> Path:
        """Write a kubeconfig for this cluster with another `user` entry."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        current = next(entry["context"] for entry in config["contexts"] if entry["name"] == config["current-context"])
        cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == current["cluster"])
        _write_kubeconfig(path, cluster, user, namespace)
        return path


class ControlPlane(Cluster):
    """A control plane of our own, on free loopback ports, in one temporary folder.

    Whatever happens to this process, the programs end and the folder goes with it. A test may stop a program, start it again and
    send it signals, and then has to leave all running and answering.

    Args:
        programs: Where etcd, kube-apiserver and, if they are there, the others are.
        keep: Leave the folder with the logs where it is at the end.

    Raises:
        StartFailed: It did not come up in `START_SECONDS`.
    """

    audit: Audit

    def __init__(self, programs: Programs, *, keep: bool = False) -> None:
        began = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix="controlplane-"))
        self.authority = Authority("control plane for tests")
        self.components = [name for name in COMPONENTS if programs.find(name)]
        self._supervisor = Supervisor(self.folder, keep=keep)
        self._admin_token = secrets.token_hex(16)
        try:
            self._argv = self._write_configuration(programs)
            found = programs.find("kubectl")
            super().__init__(self.folder / "kubeconfig", str(found) if found else shutil.which("kubectl"))
            self.audit = Audit(self.folder / "audit.log", lambda path: self.api.request("GET", path))
            self._bring_up()
        except BaseException as error:
            text = f"the control plane did not start: {error}\n{self.log_tails()}\nAll logs: {self.keep_logs()}"
            self._supervisor.close()
            if isinstance(error, Exception):
                raise StartFailed(text) from error
            raise
        self.start_seconds = time.monotonic() - began

    @property
    def runs_workloads(self) -> bool:
        """Whether controller manager, scheduler and nodes are there."""
        return len(self.components) == len(COMPONENTS)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running programs, and of the supervisor that holds them."""
        return {"supervisor": self._supervisor.pid, **self._supervisor.pids}

    def start(self, name: str) -> None:
        """Start a program, again after `stop`; for the API server, wait until it answers."""
        env = _environment(self.folder, KWOK_WORKDIR=str(self.folder / "kwok"))
        self._supervisor.start(name, self._argv[name], env=env, log=self.folder / f"{name}.log")
        if name == "kube-apiserver":
            self._wait("the API server to be ready", lambda: self.api.request("GET", "/readyz"))

    def stop(self, name: str, *, patience: float = 2.0) -> int:
        """Ask a program to end, kill it after `patience` seconds; returns its exit code, negative for a signal."""
        return self._supervisor.stop(name, patience=patience)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a program a signal: SIGSTOP freezes it, SIGCONT wakes it."""
        os.kill(self._supervisor.pids[name], number)

    def exited(self) -> dict[str, int]:
        """Programs that ended although nobody asked them to, with their exit codes."""
        return self._supervisor.exited()

    def close(self) -> None:
        """End all programs and remove the folder."""
        if hasattr(self, "api"):
            super().close()
        self._supervisor.close()

    def log_tails(self, lines: int = 15) -> str:
        """The last lines of each program's log."""
        tails = []
        for name in self.components:
            path = self.folder / f"{name}.log"
            if path.exists():
                tails += [f"--- {name}", *(line[:400] for line in path.read_text(errors="replace").splitlines()[-lines:])]
        return "\n".join(tails)

    def keep_logs(self) -> Path:
        """Copy the logs into the cache folder, over those of last time: the control plane's own folder goes with it."""
        kept = cache_folder() / "logs"
        kept.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.log"):
            shutil.copy(path, kept / path.name)
        return kept

    def _bring_up(self) -> None:
        self.start("etcd")
        self.start("kube-apiserver")
        for name in self.components[2:]:
            self.start(name)
        if self.runs_workloads:
            capacity = {"cpu": "64", "memory": "256Gi", "pods": "5000", "ephemeral-storage": "1Ti"}
            status = {"capacity": capacity, "allocatable": capacity}
            # The labels that a kubelet gives its node, by which workloads choose one.
            meta = {"name": NODE, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}
            self.api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": status})
            # The taint of a node that is not ready goes a moment after it is: before that nothing is scheduled.
            self._wait("the node to be ready", lambda: self._must(not self.api.get("v1", "Node", NODE)["spec"].get("taints")))
            self._wait("the controllers to work", lambda: self.api.get("v1", "ServiceAccount", "default", "default"))

    def _wait(self, what: str, probe: Callable[[], object]) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                probe()
            except (ApiError, httpx.TransportError, LookupError) as error:
                if dead := self.exited():
                    raise StartFailed(f"ended by itself while waiting for {what}: {dead}") from error
                if time.monotonic() > end:
                    raise StartFailed(f"waited {START_SECONDS:g} seconds for {what}: {error}") from error
                time.sleep(0.05)
            else:
                return

    @staticmethod
    def _must(holds: bool) -> None:
        if not holds:
            raise LookupError("not yet")

    def _write_configuration(self, programs: Programs) -> dict[str, list[str]]:
        """All files that the programs read; returns their command lines."""
        folder, (client, peer, api) = self.folder, _free_ports(3)
        certificate, key = self.authority.server(["127.0.0.1", "localhost"])
        accounts = private_key()
        tokens = {name: secrets.token_hex(16) for name in COMPONENTS[2:]} | {"admin": self._admin_token}
        for name, content in {
            "ca.crt": self.authority.certificate, "server.crt": certificate, "server.key": key,
            "accounts.key": private_pem(accounts), "accounts.pub": public_pem(accounts),
            "tokens.csv": "".join(f"{token},{user},{user},system:masters\n" for user, token in tokens.items()).encode(),
            "audit-policy.yaml": yaml.safe_dump(POLICY).encode(),
        }.items():  # fmt: skip
            (folder / name).write_bytes(content)
        authority = base64.b64encode(self.authority.certificate).decode()
        cluster = {"server": f"https://127.0.0.1:{api}", "certificate-authority-data": authority}
        _write_kubeconfig(folder / "kubeconfig", cluster, {"token": tokens["admin"]}, "default")
        for name in COMPONENTS[2:]:
            _write_kubeconfig(folder / f"{name}.kubeconfig", cluster, {"token": tokens[name]}, "default")
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        # Port 0 of controller manager and scheduler is no port at all; nobody needs theirs.
        own = {name: ["--kubeconfig", str(folder / f"{name}.kubeconfig")] for name in COMPONENTS[2:]}
        lone = ["--leader-elect=false", "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000"]
        flags = {
            "etcd": [
                "--data-dir", str(folder / "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
                "--initial-cluster", f"default={peer_url}", "--unsafe-no-fsync", "--log-level", "warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={url}", "--bind-address=127.0.0.1", f"--secure-port={api}",
                # Named, because otherwise a machine without a default route has none to choose; no Endpoints object is kept.
                "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
                f"--cert-dir={folder}", f"--tls-cert-file={folder}/server.crt", f"--tls-private-key-file={folder}/server.key",
                f"--client-ca-file={folder}/ca.crt", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
                f"--service-account-key-file={folder}/accounts.pub", f"--service-account-signing-key-file={folder}/accounts.key",
                "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
                "--disable-admission-plugins=ServiceAccount", "--allow-privileged=true",
                f"--audit-policy-file={folder}/audit-policy.yaml", f"--audit-log-path={folder}/audit.log",
                "--audit-log-maxsize=4096",
            ],
            "kube-controller-manager": [
                *own["kube-controller-manager"], *lone, "--controllers=*,-nodeipam,-node-route-controller",
                f"--service-account-private-key-file={folder}/accounts.key", f"--root-ca-file={folder}/ca.crt",
                # A machine that stalls for a minute has not lost its node.
                "--node-monitor-grace-period=30m",
            ],
            "kube-scheduler": [*own["kube-scheduler"], *lone],
            "kwok": [
                *own["kwok"], "--config", str(SOURCE / "stages.yaml"), "--manage-all-nodes=true",
                "--node-ip=127.0.0.1", "--cidr=10.0.0.1/16",
            ],
        }  # fmt: skip
        return {name: [programs[name], *flags[name]] for name in self.components}


def open_cluster(say: Callable[[str], None] = lambda _: None) -> Cluster:
    """The cluster that the environment asks for: `IMAGEBOT_TEST_KUBECONFIG`, or else a control plane of our own.

    Raises:
        Unavailable: There is no way to have one on this machine.
        StartFailed: There is, but it did not start.
    """
    if path := os.environ.get("IMAGEBOT_TEST_KUBECONFIG"):
        return Cluster(Path(path), shutil.which("kubectl"))
    return ControlPlane(find_programs(say), keep=bool(os.environ.get("IMAGEBOT_TEST_KEEP")))


def _free_ports(count: int) -> list[int]:
    # All held until the last is known, so that they differ.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _environment(home: Path, **more: str) -> dict[str, str]:
    # No proxies, no cloud credentials, nobody's home: only what finds a program.
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), **more}


def _write_kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, str], namespace: str) -> None:
    context = {"cluster": "tests", "user": "tests", "namespace": namespace}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{"name": "tests", "context": context}],
    }  # fmt: skip
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def main(arguments: list[str] | None = None) -> int:
    """Start a control plane for a person, say how to use it, end it on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.controlplane", description=main.__doc__)
    parser.add_argument("--build-only", action="store_true", help="build the programs, if that was not done yet, and stop")
    parser.add_argument("--keep", action="store_true", help="leave the folder with data and logs at the end")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        programs = find_programs(lambda text: print(text, flush=True))
        if options.build_only:
            print(f"programs: {programs.folder}")
            return 0
        with ControlPlane(programs, keep=options.keep) as plane:
            print(f"A Kubernetes control plane is ready, after {plane.start_seconds:.1f} seconds. In another terminal:\n")
            print(f"  export KUBECONFIG={plane.kubeconfig}")
            print(f"  export PATH={programs.folder}:$PATH")
            print("  kubectl get nodes\n")
            print(f"Logs: {plane.folder}/*.log\nProcesses: {' '.join(f'{name}={pid}' for name, pid in plane.pids.items())}")
            print("Ctrl-C ends it.", flush=True)
            while not (dead := plane.exited()):
                time.sleep(1)
            print(f"ended by itself: {dead}\n{plane.log_tails()}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (Unavailable, StartFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
