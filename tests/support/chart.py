"""The Helm chart as tests use it: rendered, checked, and its rights given to a ServiceAccount."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .chart_values import CHART
from .controlplane import Cluster
from .controlplane_build import REPOSITORY

Object = dict[str, Any]

VALUE_SETS = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
NAMESPACE = "imagebot-system"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
MONITORING = REPOSITORY / "tests" / "facts" / "schemas" / "monitoring"


class Refused(Exception):
    """Helm refused; the text is what it printed."""


@dataclass(frozen=True)
class Helm:
    """The program, with a home of its own.

    Attributes:
        program: The binary.
        home: A folder for what it keeps; nothing of the user's is read.
    """

    program: Path
    home: Path

    def run(self, *arguments: str) -> str:
        """What it prints.

        Raises:
            Refused: It failed.
        """
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        done = subprocess.run([str(self.program), *arguments], capture_output=True, text=True, timeout=60, env=env, check=False)
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template(self, *arguments: str, namespace: str = NAMESPACE, release: str = "imagebot") -> str:
        """The rendered manifests, as one text."""
        return self.run("template", release, str(CHART), "--namespace", namespace, *arguments)

    def objects(self, *arguments: str, namespace: str = NAMESPACE, release: str = "imagebot") -> list[Object]:
        """The rendered objects."""
        return parse(self.template(*arguments, namespace=namespace, release=release))

    def notes(self, kubeconfig: Path, *arguments: str) -> str:
        """What an installation would say at its end; nothing is made. Needs a server to talk to, as Helm does."""
        place = ("--namespace", NAMESPACE, "--dry-run=client", "--kubeconfig", str(kubeconfig))
        return self.run("install", "imagebot", str(CHART), *place, *arguments).partition("\nNOTES:\n")[2]


def parse(text: str) -> list[Object]:
    """The objects in manifests."""
    return [found for found in yaml.safe_load_all(text) if found]


def value_set(name: str) -> tuple[str, str]:
    """The arguments that choose one of `VALUE_SETS`."""
    return ("--values", str(CHART / "ci" / f"{name}.yaml"))


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    """The objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def container(deployment: Object) -> Object:
    """The container of the service."""
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def grant(cluster: Cluster, helm: Helm, namespace: str, *arguments: str) -> list[Object]:
    """Make the chart's ServiceAccount, roles and bindings in a cluster, for a release in this namespace.

    Returns:
        What was made. The cluster-wide ones are the caller's to delete: see `revoke`.
    """
    made = [found for found in helm.objects(*arguments, namespace=namespace) if found["kind"] in RIGHTS]
    for found in made:
        cluster.api.apply(found, manager="helm")
    return made


def revoke(cluster: Cluster, made: Sequence[Object]) -> None:
    """Delete what `grant` made."""
    for found in made:
        meta = found["metadata"]
        cluster.api.delete(found["apiVersion"], found["kind"], meta["name"], meta.get("namespace"), missing_ok=True)
