"""A world for stories of sources and Kustomizations: what `clusterlab` has, a fleet repository, and the programs of builds."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from imagebot.demo.gitserver import GitServer
from tests.support.clusterlab import ClusterLab, RegistryThread, Replica, install_definitions, until
from tests.support.controlplane import Cluster
from tests.support.gitrepo import BareRepository
from tests.support.kubeapi import ApiError, Object
from tests.support.lab import IMAGE, SOURCE
from tests.support.programs import find_program

KUSTOMIZE = "kustomize.toolkit.fluxcd.io/v1"
SOURCE_V1 = "source.toolkit.fluxcd.io/v1"
PLACES = {
    "Kustomization": KUSTOMIZE,
    **dict.fromkeys(("GitRepository", "OCIRepository", "HelmRepository", "Bucket", "ExternalArtifact"), SOURCE_V1),
    **dict.fromkeys(("ImageRepository", "ImagePolicy", "ImageUpdateAutomation"), IMAGE),
    **dict.fromkeys(("ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace", "Pod"), "v1"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet"), "apps/v1"),
    **dict.fromkeys(("Role", "RoleBinding", "ClusterRole"), "rbac.authorization.k8s.io/v1"),
}
OWNED = ("Kustomization", "GitRepository", "OCIRepository", "HelmRepository", "Bucket")
"""Kinds of ours that carry a finalizer."""


class GitOpsLab(ClusterLab):
    """The world. `fleet` is the repository that manifests are committed to."""

    fleet: BareRepository

    def find(self, kind: str, name: str = "web", namespace: str = "") -> Object | None:
        """An object of any kind that stories are about, None when there is none."""
        return self.api.find(PLACES[kind], kind, name, namespace or self.namespace)

    def patch(self, kind: str, name: str, patch: Object, namespace: str = "") -> Object:
        """Merge patch of an object."""
        return self.api.merge_patch(PLACES[kind], kind, name, patch, namespace or self.namespace)

    # --- manifests

    def commit(self, files: Mapping[str, str | None], message: str = "change", branch: str = "main") -> str:
        """A commit to the fleet; its revision."""
        made = self.fleet.commit(
            {path: None if text is None else text.encode() for path, text in files.items()}, message=message, branch=branch
        )
        return f"{branch}@sha1:{made}"

    def source(self, name: str = "fleet", **spec: Any) -> Object:
        """A GitRepository of the fleet, made."""
        body = {"url": self.git.url("fleet.git"), "interval": "1h", "ref": {"branch": "main"}, **spec}
        made: Object = {"apiVersion": SOURCE_V1, "kind": "GitRepository", "metadata": {"name": name}, "spec": body}
        self.create(made)
        return made

    def kustomization(self, name: str = "app", path: str = "./app", source: str = "fleet", **spec: Any) -> Object:
        """A Kustomization of the fleet, made."""
        body = {
            "interval": "1h",
            "prune": True,
            "path": path,
            "targetNamespace": self.namespace,
            "sourceRef": {"kind": "GitRepository", "name": source},
            **spec,
        }
        made: Object = {"apiVersion": KUSTOMIZE, "kind": "Kustomization", "metadata": {"name": name}, "spec": body}
        self.create(made)
        return made

    def publish(self, files: Mapping[str, str | None], *names: str) -> str:
        """Commit, ask for it, and wait until these Kustomizations have applied it."""
        revision = self.commit(files)
        self.request("GitRepository", "fleet")
        for name in names or ("app",):
            self.until_applied(name, revision)
        return revision

    def until_applied(self, name: str, revision: str) -> Object:
        """Wait until a Kustomization has applied a revision and is ready."""
        return self.until_ready("Kustomization", name, f"Applied revision: {revision}")

    def until_failed(self, name: str, reason: str, text: str = "", kind: str = "Kustomization") -> Object:
        """Wait until an object is not ready for this reason, with this text in its message."""

        def failed(found: Object) -> bool:
            conditions = (found.get("status") or {}).get("conditions") or []
            return any(
                c["type"] == "Ready" and c["status"] == "False" and c["reason"] == reason and text in c["message"]
                for c in conditions
            )

        return self.until_object(kind, name, failed, f"not ready: {reason} {text}")

    def until_gone(self, kind: str, name: str, namespace: str = "") -> None:
        """Wait until an object does not exist any more."""
        until(lambda: self.find(kind, name, namespace) is None, f"{kind} {name} to go")

    # --- the service

    def start(self, *flags: str, name: str = "replica", everywhere: bool = False) -> Replica:
        """Sources and Kustomizations on the namespace of the test (or everywhere), running and ready."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"127.0.0.1:{listening.getsockname()[1]}"
        chosen = () if any(flag.startswith("--controllers") for flag in flags) else ("--controllers=source,kustomize",)
        served = ("--storage-addr", address, "--storage-adv-addr", address, "--requeue-dependency=1s")
        scope = () if everywhere else ("--watch-all-namespaces=false",)
        replica = next((each for each in self.replicas if each.name == name), None)
        replica = replica or self.replica(name, PATH=programs_path())
        return replica.start(*scope, *chosen, *served, *flags)

    def close(self) -> None:
        """End the processes, then take away what would keep the namespaces from going."""
        super().close()
        for namespace in self.namespaces:
            for kind in OWNED:
                self._strip_all(kind, namespace)

    def _strip_all(self, kind: str, namespace: str) -> None:
        with contextlib.suppress(ApiError, LookupError):
            for body in self.api.list(PLACES[kind], kind, namespace):
                name = body["metadata"]["name"]
                with contextlib.suppress(ApiError):
                    self.api.delete(PLACES[kind], kind, name, namespace, missing_ok=True)
                    self.api.merge_patch(PLACES[kind], kind, name, {"metadata": {"finalizers": None}}, namespace)


def programs_path() -> str:
    """A PATH with kustomize, sops and age before everything else."""
    found = [str(find_program(name).parent) for name in ("kustomize", "sops", "age", "age-keygen")]
    return os.pathsep.join([*dict.fromkeys(found), os.environ.get("PATH", os.defpath)])


def config_map(name: str, data: Mapping[str, str] | None = None, **metadata: Any) -> str:
    """A ConfigMap as YAML."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": dict(data or {"key": name})}
    return yaml.safe_dump(body)


def manifests(*objects: Object) -> str:
    """Objects as one YAML text."""
    return "---\n".join(yaml.safe_dump(body) for body in objects)


@contextmanager
def gitops_lab(cluster: Cluster, namespace: str, root: Path) -> Iterator[GitOpsLab]:
    """The world, with an empty fleet; the ends of the service's logs are printed at the end."""
    install_definitions(cluster.api)
    (root / "git").mkdir()
    registry = RegistryThread()
    try:
        with GitServer(root / "git") as git:
            made = GitOpsLab(cluster, namespace, root, registry.registry, git)
            made.fleet = BareRepository.create(root / "git" / "fleet.git")
            try:
                yield made
            finally:
                print(made.tails())
                made.close()
    finally:
        registry.close()


__all__ = ["KUSTOMIZE", "SOURCE", "SOURCE_V1", "GitOpsLab", "config_map", "gitops_lab", "manifests", "programs_path"]
