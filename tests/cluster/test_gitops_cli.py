"""The commands for sources and Kustomizations as processes, beside a service that runs on the same cluster."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
import yaml

from reconcile.cli.main import main
from reconcile.runtime.bus import trace_of
from tests.support.clusterlab import ROOT, install_definitions, until
from tests.support.controlplane import Cluster
from tests.support.gitopslab import KUSTOMIZE, GitOpsLab, config_map, gitops_lab, manifests, programs_path
from tests.support.kubeapi import Object
from tests.support.lab import automation, image_policy, image_repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CIPHER = "ENC[AES256_GCM,data:zzz,iv:zzz,tag:zzz,type:str]"
FLUX = "kustomize.toolkit.fluxcd.io"
HUSH, HUSHED = "correct-horse", "battery-staple"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]


class Program:
    """The installed program, with a kubeconfig and a namespace."""

    def __init__(self, world: GitOpsLab, home: Path) -> None:
        self._place = ["--kubeconfig", str(world.cluster.kubeconfig), "-n", world.namespace]
        self._env = {"PATH": programs_path(), "HOME": str(home), "PYTHONPATH": str(ROOT)}

    def __call__(self, *words: str) -> Answer:
        argv = [sys.executable, "-m", "reconcile", *words, *self._place]
        done = subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=180, check=False)
        assert "\x1b" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def several(self, *commands: str) -> list[Answer]:
        """Commands side by side."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda command: self(*command.split()), commands))


@pytest.fixture
def world(workloads: Cluster, namespace: str, tmp_path: Path) -> Iterator[GitOpsLab]:
    with gitops_lab(workloads, namespace, tmp_path) as made:
        yield made


def deployment(image: str, policy: str) -> str:
    labels = {"app": "web"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "IMAGE"}]}}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    }
    return yaml.safe_dump(body).replace("IMAGE", f'{image}:0.9.0 # {{"$imagepolicy": "{policy}"}}')


def secret(value: str) -> Object:
    data = {"password": base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": data}


def inner(namespace: str) -> str:
    spec = {
        "interval": "1h",
        "prune": True,
        "path": "./inner",
        "targetNamespace": namespace,
        "sourceRef": {"kind": "GitRepository", "name": "fleet"},
    }
    return yaml.safe_dump({"apiVersion": KUSTOMIZE, "kind": "Kustomization", "metadata": {"name": "inner"}, "spec": spec})


def delivered(world: GitOpsLab, image: str) -> bool:
    """Whether the image runs, and the Kustomizations stand at the present head of the branch."""
    web = world.find("Deployment")
    if web is None or web["spec"]["template"]["spec"]["containers"][0]["image"] != image:
        return False
    head = f"main@sha1:{world.fleet.head()}"
    found = [world.find("Kustomization", name) for name in ("app", "inner")]
    applied = [(each or {}).get("status", {}).get("lastAppliedRevision") for each in found]
    return applied == [head, head] and web["status"].get("readyReplicas") == 1


def test_commands_beside_a_running_service(world: GitOpsLab, tmp_path: Path) -> None:
    namespace, image = world.namespace, world.image("web")
    world.registry.push_image("web", "1.0.0")
    world.commit(
        {
            "app/deploy.yaml": deployment(image, f"{namespace}:web"),
            "app/settings.yaml": config_map("settings", {"tier": "${tier}"}),
            "app/old.yaml": config_map("old"),
            "app/login.yaml": manifests(secret(HUSH)),
            "app/inner.yaml": inner(namespace),
            "inner/leaf.yaml": config_map("leaf"),
        }
    )
    world.create(config_map_object("vars", {"tier": "gold"}))
    world.source()
    variables = [{"kind": "ConfigMap", "name": "vars"}]
    world.kustomization(wait=True, postBuild={"substituteFrom": variables}, timeout="1m")
    world.create(
        image_repository("web", image),
        image_policy("web"),
        automation("web", "fleet", update={"path": "./app", "strategy": "Setters"}),
    )
    world.start("--controllers=image,source,kustomize")
    until(lambda: delivered(world, f"{image}:1.0.0"), "the image to run")
    program = Program(world, tmp_path)

    look(world, program, image)
    compare(world, program, tmp_path)
    steer(world, program)


def config_map_object(name: str, data: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def look(world: GitOpsLab, program: Program, image: str) -> None:
    namespace, head = world.namespace, world.fleet.head()
    sources, kustomizations, drawn, web, way, nothing, absent = program.several(
        "get sources",
        "get kustomizations -o wide",
        "tree kustomization app",
        "trace deployment/web",
        f"trace {image}:1.0.0 -o json",
        f"trace {image}:7.7.7",
        "check-cluster -l app.kubernetes.io/name=not-there",
    )
    assert (sources.code, sources.err) == (0, "")
    assert sources.rows[0] == ["NAME", "REVISION", "SUSPENDED", "READY", "MESSAGE"]
    assert sources.rows[1][:4] == ["gitrepository/fleet", f"main@sha1:{head[:8]}", "False", "True"]
    assert head not in sources.out
    assert kustomizations.rows[0] == ["NAME", "REVISION", "SUSPENDED", "READY", "SOURCE", "AGE", "MESSAGE"]
    assert kustomizations.rows[1][:5] == ["app", f"main@sha1:{head}", "False", "True", f"GitRepository/{namespace}/fleet"]

    lines = drawn.out.splitlines()
    assert lines[0] == f"Kustomization/{namespace}/app"
    at = lines.index(f"└── Kustomization/{namespace}/inner")
    assert lines[at + 1] == f"    └── ConfigMap/{namespace}/leaf"
    assert f"├── Deployment/{namespace}/web" in lines

    assert web.code == 0
    assert [part.split()[1] for part in web.out.split("---\n")] == ["Deployment/web", "app", "fleet"]
    assert f"Revision:       main@sha1:{head}" in web.out

    assert way.code == 0, way.err
    told = json.loads(way.out)
    assert told["trace"] == trace_of(image, "1.0.0")
    steps = [(step["step"], step["object"]) for step in told["steps"] if step["done"]]
    assert steps == [
        ("scanned", f"ImageRepository/{namespace}/web"),
        ("chosen", f"ImagePolicy/{namespace}/web"),
        ("committed", f"ImageUpdateAutomation/{namespace}/web"),
        ("fetched", f"GitRepository/{namespace}/fleet"),
        ("applied", f"Kustomization/{namespace}/app"),
        ("running", f"Deployment/{namespace}/web"),
        ("applied", f"Kustomization/{namespace}/inner"),
    ]
    assert nothing.code == 1
    assert nothing.out.splitlines()[0] == f"{image}:7.7.7  trace {trace_of(image, '7.7.7')}"
    assert f"nothing is seen to run {image}:7.7.7: it is not chosen by ImagePolicy/{namespace}/web" in nothing.err

    assert (absent.code, absent.out.splitlines()[-1]) == (1, "✗ check failed")
    assert "✔ gitrepositories.source.toolkit.fluxcd.io/v1" in absent.out
    assert "✗ no Deployment with the labels app.kubernetes.io/name=not-there" in absent.out


def compare(world: GitOpsLab, program: Program, folder: Path) -> None:
    namespace = world.namespace
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "-q", "--branch", "main", str(world.fleet.path), str(checkout)], check=True)
    app = checkout / "app"
    built, same = program.several(f"build kustomization app --path {app}", f"diff kustomization app --path {app}")
    assert built.code == 0, built.err
    objects = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built.out)}
    assert objects[("ConfigMap", "settings")]["data"] == {"tier": "gold"}
    assert objects[("ConfigMap", "settings")]["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] == "app"
    assert (same.code, same.out, same.err) == (0, "", "")

    (app / "settings.yaml").write_text(config_map("settings", {"tier": "silver"}))
    (app / "login.yaml").write_text(manifests(secret(HUSHED)))
    (app / "old.yaml").unlink()
    (app / "new.yaml").write_text(config_map("new"))
    before = {kind: world.find(kind, name) for kind, name in (("ConfigMap", "settings"), ("Secret", "login"))}
    other = program("diff", "kustomization", "app", "--path", str(app))
    assert other.code == 1, other.err
    said = other.out.splitlines()
    assert sorted(line for line in said if line.startswith("►")) == [
        f"► ConfigMap/{namespace}/new created",
        f"► ConfigMap/{namespace}/old deleted",
        f"► ConfigMap/{namespace}/settings drifted",
        f"► Secret/{namespace}/login drifted",
    ]
    assert {"-  tier: gold", "+  tier: silver"} <= set(said)
    assert any("(before)" in line for line in said)
    for value in (HUSH, HUSHED):
        assert base64.b64encode(value.encode()).decode() not in other.out
    assert {kind: world.find(kind, name) for kind, name in (("ConfigMap", "settings"), ("Secret", "login"))} == before

    (app / "broken.yaml").write_text("kind: [\n")
    failed = program("diff", "kustomization", "app", "--path", str(app))
    assert (failed.code, failed.out) == (2, "")
    assert "broken.yaml" in failed.err


def steer(world: GitOpsLab, program: Program) -> None:
    namespace = world.namespace
    revision = world.commit({"app/settings.yaml": config_map("settings", {"tier": "bronze"})})
    done = program("reconcile", "kustomization", "app", "--with-source")
    assert done.code == 0, done.err
    said = done.err.splitlines()
    assert said.index(f"✔ fetched revision {revision}") < said.index(f"► annotating Kustomization app in {namespace} namespace")
    assert said[-1] == f"✔ applied revision {revision}"
    settings = world.find("ConfigMap", "settings")
    assert settings is not None
    assert settings["data"] == {"tier": "bronze"}

    held = program("suspend", "source", "git", "fleet")
    assert (held.code, held.err.splitlines()[-1]) == (0, "✔ GitRepository suspended")
    refused, listed = program.several("reconcile kustomization app --with-source", "get sources --status-selector ready=true")
    assert refused.code == 1
    assert "resource is suspended; end that with: imagebot resume gitrepository fleet" in refused.err
    assert [row[0] for row in listed.rows] == ["NAME", "gitrepository/fleet"]
    assert listed.rows[1][2] == "True"
    revision = world.commit({"app/broken.yaml": "kind: [\n"})
    resumed = program("resume", "source", "git", "fleet")
    assert (resumed.code, resumed.err.splitlines()[-1]) == (0, f"✔ fetched revision {revision}"), resumed.err
    failed, events = program.several("reconcile ks app", "events --for kustomization/app --types Warning")
    assert failed.code == 1
    assert failed.err.splitlines()[-1].startswith(f"✗ Kustomization {namespace}/app: ")
    assert "broken.yaml" in failed.err
    assert "BuildFailed" in events.out


def crd(group: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_a_diff_of_what_needs_what_is_not_there_yet(
    control_plane: Cluster, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs_path())
    install_definitions(control_plane.api)
    other, group = f"{namespace[:40]}-more", f"{namespace[:40]}.test"
    left_alone = {"labels": {f"{FLUX}/ssa": "Ignore"}}
    sops = {"mac": CIPHER, "version": "3.9.0"}
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inside", "namespace": other}},
        crd(group),
        {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "first", "namespace": namespace}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "alone", "namespace": namespace, **left_alone}},
        {**secret(""), "metadata": {"name": "login", "namespace": namespace}, "data": {"password": CIPHER}, "sops": sops},
    ]
    spec = {"interval": "1h", "prune": True, "path": "./app", "sourceRef": {"kind": "GitRepository", "name": "fleet"}}
    web: Object = {"apiVersion": KUSTOMIZE, "kind": "Kustomization", "metadata": {"name": "web"}, "spec": spec}
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "all.yaml").write_text(manifests(*objects))
    (tmp_path / "web.yaml").write_text(manifests(web))
    kubeconfig = ["--kubeconfig", str(control_plane.kubeconfig), "-n", namespace]
    words = ["diff", "ks/web", "--path", str(tmp_path / "app"), "--kustomization-file", str(tmp_path / "web.yaml"), *kubeconfig]

    def compared(*more: str) -> tuple[int, list[str], str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        structlog.reset_defaults()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), sorted(out.splitlines()), err

    code, _, err = compared()
    assert (code, err.endswith("compare with the file alone by --ignore-not-found\n")) == (2, True)
    expected = [
        f"► ConfigMap/{namespace}/alone skipped",
        f"► ConfigMap/{other}/inside created",
        f"► CustomResourceDefinition/gadgets.{group} created",
        f"► Gadget/{namespace}/first created",
        f"► Namespace/{other} created",
    ]
    assert compared("--ignore-not-found")[:2] == (1, sorted([*expected, f"► Secret/{namespace}/login created"]))
    labels = {f"{FLUX}/name": "web", f"{FLUX}/namespace": namespace}
    live = secret(HUSH)
    live["metadata"] |= {"namespace": namespace, "labels": labels}
    control_plane.api.apply(live, manager="kustomize-controller")
    assert compared("--ignore-not-found")[:2] == (1, sorted(expected))
