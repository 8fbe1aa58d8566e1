"""docs/installation.md as a person would follow it: every command, in order, on a control plane of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.chart import MONITORING, Helm
from tests.support.controlplane import ControlPlane
from tests.support.controlplane_build import REPOSITORY, find_programs

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "installation.md"
BLOCK = re.compile(r"^```(?P<language>shell|yaml)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SOURCES = ("buckets", "externalartifacts", "gitrepositories", "helmrepositories", "ocirepositories")
CONTROLLERS = ("image-reflector-controller", "image-automation-controller")


@pytest.fixture
def fresh_plane(workloads: object, own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane on which nothing was done yet: the page makes and deletes cluster-wide objects."""
    with ControlPlane(find_programs()) as plane:
        for path in sorted(MONITORING.glob("*.yaml")):
            plane.api.install_crd(yaml.safe_load(path.read_text()))
        yield plane


def blocks() -> list[tuple[str, str]]:
    return [(found["language"], found["text"]) for found in BLOCK.finditer(PAGE.read_text())]


def deployment(name: str) -> dict[str, object]:
    labels = {"app": name}
    pod = {"containers": [{"name": "manager", "image": f"example/{name}:1.0.0"}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "flux-system"}, "spec": spec}


def test_every_command_works_in_its_order(fresh_plane: ControlPlane, helm: Helm, tmp_path: Path) -> None:
    for name in ("helm", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    kubectl = find_programs()["kubectl"]
    environment = {
        "PATH": f"{helm.program.parent}:{Path(kubectl).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(fresh_plane.kubeconfig),
    }
    ran = 0
    for language, text in blocks():
        if language == "yaml":
            (tmp_path / re.match(r"# (\S+)\n", text)[1]).write_text(text)  # type: ignore[index]
            continue
        if "scale deployment" in text:
            for name in CONTROLLERS:
                fresh_plane.api.create(deployment(name))
        script = f"set -euo pipefail\n{text}"
        # Ends what the script started, too.
        argv = ["timeout", "--kill-after=5", "60", "bash", "-c", script]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        assert "Warning" not in done.stderr, f"{text}\n{done.stderr}"
        ran += len([line for line in text.splitlines() if line])
    assert ran == 41

    api = fresh_plane.api
    assert [d["metadata"]["name"] for d in api.list("apps/v1", "Deployment")] == sorted(CONTROLLERS)
    left = {d["metadata"]["name"] for d in api.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")}
    sources = {f"{kind}.source.toolkit.fluxcd.io" for kind in SOURCES}
    assert {name for name in left if name.endswith("fluxcd.io")} == {*sources, "kustomizations.kustomize.toolkit.fluxcd.io"}
    kept = [o for kind in ("ClusterRole", "ClusterRoleBinding") for o in api.list("rbac.authorization.k8s.io/v1", kind)]
    assert [o["metadata"]["name"] for o in kept if "imagebot" in o["metadata"]["name"]] == []
