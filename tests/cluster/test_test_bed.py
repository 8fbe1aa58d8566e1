"""The test bed itself: that what the other cluster tests lean on is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import WRITES
from tests.support.controlplane import Cluster, ControlPlane, StartFailed
from tests.support.controlplane_build import REPOSITORY, ROLES, Programs, Unavailable, find_programs
from tests.support.kubeapi import ApiError, KubeApi, condition

pytestmark = pytest.mark.slow

GROUP = "bed.imagebot.test"


@pytest.fixture
def crd(control_plane: Cluster, namespace: str) -> Iterator[str]:
    """A custom resource of this test's own group; yields its apiVersion."""
    group = f"{namespace}.{GROUP}"
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "interval": {"type": "string", "pattern": "^[0-9]+m$"},
                    "low": {"type": "integer"},
                    "high": {"type": "integer"},
                },
                "x-kubernetes-validations": [{"rule": "self.low <= self.high", "message": "low must not exceed high"}],
                "required": ["low", "high"],
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    manifest = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "shortNames": ["wdg"]},
            "versions": [version],
        },
    }
    control_plane.api.install_crd(manifest)
    yield f"{group}/v1"
    control_plane.api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"widgets.{group}")


def widget(crd: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": crd,
        "kind": "Widget",
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {"low": 1, "high": 2, **spec},
    }


def deployment(namespace: str, name: str, replicas: int = 3, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    labels = {"app": name}
    containers = [{"name": "app", "image": "example/app:1.0.0"}]
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def job(namespace: str, name: str, annotations: dict[str, str]) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "run", "image": "example/job:1.0.0"}]}
    spec = {"backoffLimit": 0, "template": {"metadata": {"annotations": annotations}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_custom_resource_is_validated_and_applied_server_side(control_plane: Cluster, namespace: str, crd: str) -> None:
    api = control_plane.api
    with pytest.raises(ApiError, match="low must not exceed high") as refused:
        api.apply(widget(crd, namespace, low=3))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")

    first = api.apply(widget(crd, namespace, interval="5m"), manager="first")
    assert (
        api.apply(widget(crd, namespace, interval="5m"), manager="first")["metadata"]["resourceVersion"]
        == first["metadata"]["resourceVersion"]
    )
    with pytest.raises(ApiError, match='conflict with "first"') as conflict:
        api.apply(widget(crd, namespace, interval="6m"), manager="second", force=False)
    assert conflict.value.code == 409

    api.merge_patch(crd, "Widget", "one", {"status": {"seen": 1}, "spec": {"interval": "7m"}}, namespace, subresource="status")
    stored = api.get(crd, "Widget", "one", namespace)
    assert stored["status"] == {"seen": 1}
    assert stored["spec"]["interval"] == "5m"
    assert [item["metadata"]["name"] for item in api.list(crd, "Widget", namespace)] == ["one"]


def test_watch_tells_of_every_change(control_plane: Cluster, namespace: str, crd: str) -> None:
    api = control_plane.api
    before = api.apply(widget(crd, namespace))["metadata"]["resourceVersion"]
    api.apply(widget(crd, namespace, interval="9m"))
    api.delete(crd, "Widget", "one", namespace)
    seen = []
    for kind, found in api.watch(crd, "Widget", namespace, since=before):
        seen.append((kind, found["spec"].get("interval")))
        if kind == "DELETED":
            break
    assert seen == [("MODIFIED", "9m"), ("DELETED", "9m")]


def test_deployment_of_three_becomes_available(workloads: Cluster, namespace: str) -> None:
    workloads.api.apply(deployment(namespace, "web"))
    workloads.api.wait("apps/v1", "Deployment", "web", lambda found: condition(found, "Available") == "True", namespace)
    pods = workloads.api.list("v1", "Pod", namespace, labels="app=web")
    assert len({pod["status"]["podIP"] for pod in pods}) == 3
    assert {pod["status"]["containerStatuses"][0]["image"] for pod in pods} == {"example/app:1.0.0"}
    workloads.api.delete("apps/v1", "Deployment", "web", namespace)
    for pod in pods:
        workloads.api.wait("v1", "Pod", pod["metadata"]["name"], lambda found: found is None, namespace)


def test_pods_break_and_recover_by_annotation(workloads: Cluster, namespace: str) -> None:
    api = workloads.api
    api.apply(deployment(namespace, "web", 1, {"imagebot.test/broken": "ImagePullBackOff"}))

    def waiting(found: Any) -> list[str]:
        pods = api.list("v1", "Pod", namespace, labels="app=web")
        return [status["state"]["waiting"]["reason"] for pod in pods for status in pod["status"].get("containerStatuses", [])]

    api.wait("apps/v1", "Deployment", "web", waiting, namespace)
    (pod,) = api.list("v1", "Pod", namespace, labels="app=web")
    assert (pod["status"]["phase"], waiting(None)) == ("Pending", ["ImagePullBackOff"])
    assert condition(api.get("apps/v1", "Deployment", "web", namespace), "Available") == "False"

    name = pod["metadata"]["name"]
    api.merge_patch("v1", "Pod", name, {"metadata": {"annotations": {"imagebot.test/broken": None}}}, namespace)
    api.wait("apps/v1", "Deployment", "web", lambda found: condition(found, "Available") == "True", namespace)
    api.merge_patch("v1", "Pod", name, {"metadata": {"annotations": {"imagebot.test/broken": "CrashLoopBackOff"}}}, namespace)
    api.wait("apps/v1", "Deployment", "web", lambda found: condition(found, "Available") == "False", namespace)
    assert api.get("v1", "Pod", name, namespace)["status"]["containerStatuses"][0]["restartCount"] == 3


def test_readiness_can_be_late(workloads: Cluster, namespace: str) -> None:
    api = workloads.api
    api.apply(deployment(namespace, "late", 1, {"imagebot.test/ready-after": "2h"}))
    api.apply(deployment(namespace, "soon", 1, {"imagebot.test/ready-after": "1s"}))
    api.wait("apps/v1", "Deployment", "soon", lambda found: condition(found, "Available") == "True", namespace)
    assert condition(api.get("apps/v1", "Deployment", "late", namespace), "Available") == "False"
    (pod,) = api.list("v1", "Pod", namespace, labels="app=late")
    assert pod["spec"]["nodeName"]


def test_jobs_complete_or_fail(workloads: Cluster, namespace: str) -> None:
    workloads.api.apply(job(namespace, "good", {}))
    workloads.api.apply(job(namespace, "bad", {"imagebot.test/exit-code": "3"}))
    workloads.api.wait("batch/v1", "Job", "good", lambda found: condition(found, "Complete") == "True", namespace)
    workloads.api.wait("batch/v1", "Job", "bad", lambda found: condition(found, "Failed") == "True", namespace)


def test_a_deleted_namespace_takes_its_content_along(workloads: Cluster, namespace: str) -> None:
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": namespace},
        "data": {"a": "b"},
    }
    workloads.api.create(settings)
    workloads.api.delete("v1", "Namespace", namespace)
    workloads.api.wait("v1", "Namespace", namespace, lambda found: found is None, seconds=60)
    assert workloads.api.find("v1", "ConfigMap", "settings", namespace) is None


def test_fresh_service_account_may_do_nothing_until_it_has_a_role(control_plane: Cluster, namespace: str) -> None:
    api, meta = control_plane.api, {"name": "app", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    with control_plane.as_service_account(namespace, "app") as user:
        path = f"/api/v1/namespaces/{namespace}/secrets"
        with pytest.raises(ApiError) as refused:
            user.request("GET", path)
        assert (refused.value.code, refused.value.reason) == (403, "Forbidden")
        assert f'User "system:serviceaccount:{namespace}:app" cannot list resource "secrets"' in refused.value.message

        rbac = "rbac.authorization.k8s.io"
        api.create(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "Role",
                "metadata": meta,
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
            }
        )
        subjects = [{"kind": "ServiceAccount", "name": "app", "namespace": namespace}]
        role = {"apiGroup": rbac, "kind": "Role", "name": "app"}
        api.create({"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": role})
        assert _retry(lambda: user.request("GET", path))["items"] == []
        with pytest.raises(ApiError, match='cannot create resource "secrets"'):
            user.request("POST", path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})


def test_kubectl_gets_waits_describes_and_applies(control_plane: Cluster, namespace: str, crd: str, tmp_path: Path) -> None:
    manifest = tmp_path / "widget.yaml"
    manifest.write_text(json.dumps(widget(crd, namespace, interval="1m")))
    assert control_plane.kubectl("apply", "--server-side", "-f", str(manifest)).stdout.endswith("/one serverside-applied\n")
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Fine",
        "message": "all is well",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    control_plane.api.merge_patch(crd, "Widget", "one", {"status": {"conditions": [ready]}}, namespace, subresource="status")
    assert (
        "condition met"
        in control_plane.kubectl("-n", namespace, "wait", "--for=condition=Ready", "wdg/one", "--timeout=20s").stdout
    )
    assert control_plane.kubectl("-n", namespace, "get", "wdg", "-o", "name").stdout == f"widget.{namespace}.{GROUP}/one\n"
    assert "all is well" in control_plane.kubectl("-n", namespace, "describe", "wdg", "one").stdout
    missing = control_plane.kubectl("-n", namespace, "get", "wdg", "two", check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error from server (NotFound)")


def test_audit_counts_requests_since_a_mark(own_control_plane: ControlPlane, namespace: str, crd: str) -> None:
    audit = own_control_plane.audit
    with KubeApi.from_kubeconfig(own_control_plane.kubeconfig, user_agent="counted/1.0") as api:
        api.list(crd, "Widget", namespace)
        mark = audit.mark()
        assert audit.count(mark, user_agent="counted/") == 0
        api.apply(widget(crd, namespace))
        api.get(crd, "Widget", "one", namespace)
        api.merge_patch(crd, "Widget", "one", {"status": {"a": 1}}, namespace, subresource="status")
        assert audit.tally(mark, user_agent="counted/") == {"patch widgets": 1, "get widgets": 1, "patch widgets/status": 1}
        assert audit.count(mark, user_agent="counted/", verb=WRITES, resource="widgets") == 1
        assert audit.count(mark, user="admin", namespace=namespace) == 3

        # A watch is counted while it is still open, and once.
        events = api.watch(crd, "Widget", namespace)
        assert next(events)[0] == "ADDED"
        assert audit.count(mark, user_agent="counted/", verb="watch") == 1
        events.close()
        assert audit.count(mark, user_agent="counted/", verb="watch") == 1
    assert {request.user for request in audit.since()}.isdisjoint({"kwok", "kube-scheduler", "kube-controller-manager"})


def test_api_server_can_be_frozen_stopped_and_started_again(own_control_plane: ControlPlane, namespace: str) -> None:
    plane, meta = own_control_plane, {"name": "before", "namespace": namespace}
    plane.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    old = plane.pids["kube-apiserver"]
    plane.send("kube-apiserver", signal.SIGSTOP)
    assert _state(old) == "T"
    plane.stop("kube-apiserver")
    assert _gone(old)
    assert plane.exited() == {}
    plane.start("kube-apiserver")
    assert plane.pids["kube-apiserver"] != old
    assert plane.api.get("v1", "ConfigMap", "before", namespace)["metadata"]["name"] == "before"


@pytest.fixture
def programs(own_control_plane: ControlPlane) -> Programs:
    return find_programs()


def test_close_leaves_nothing(programs: Programs) -> None:
    with ControlPlane(programs) as plane:
        pids, folder = plane.pids, plane.folder
        assert len(pids) == len(plane.components) + 1
        assert not any(_gone(pid) for pid in pids.values())
    assert [name for name, pid in pids.items() if not _gone(pid)] == []
    assert not folder.exists()
    plane.close()


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "SIGKILL", "SIGKILL to the supervisor"])
def test_nothing_is_left_when_the_run_is(ending: str, programs: Programs) -> None:
    argv = [sys.executable, "-m", "tests.support.controlplane"]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as person:
        assert person.stdout
        told: dict[str, str] = {}
        for line in person.stdout:
            first, _, rest = line.strip().partition(" ")
            told[first] = rest
            if first == "Ctrl-C":
                break
        pids = {name: int(pid) for name, _, pid in (word.partition("=") for word in told["Processes:"].split())}
        folder = Path(told["Logs:"]).parent
        assert not any(_gone(pid) for pid in pids.values())
        if ending.endswith("supervisor"):
            os.kill(pids["supervisor"], signal.SIGKILL)
        else:
            person.send_signal(signal.Signals[ending])
        _, errors = person.communicate(timeout=30)
    _retry(lambda: _must(all(_gone(pid) for pid in pids.values())))
    _retry(lambda: _must(not folder.exists()))
    assert "Traceback" not in errors


def test_a_folder_without_programs_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(Unavailable, match="has no program etcd"):
        find_programs()


def test_without_go_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("IMAGEBOT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"^needs go: "):
        find_programs()


FAKE_GO = """#!/bin/sh
echo "$1" >> "$LOG"
case "$1" in
build) while [ "$1" != -o ]; do shift; done; sleep 0.3; cp "$0" "$2" ;;
install) [ -z "$BROKEN" ] || { echo "no such module"; exit 1; }; mkdir -p "$GOBIN"; cp "$0" "$GOBIN/kwok" ;;
esac
"""


@pytest.fixture
def fake_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Go that builds at once; yields the file in which it notes what it was asked to do."""
    (tmp_path / "go").write_text(FAKE_GO)
    (tmp_path / "go").chmod(0o755)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("IMAGEBOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_a_start_that_fails_shows_the_logs_and_leaves_nothing(fake_go: Path, tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver"):
        end = "exec sleep 600" if name == "etcd" else "exit 4"
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} cannot\necho $$ >> {tmp_path}/pids\n{end}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(StartFailed, match=r"ended by itself.*'kube-apiserver': 4") as failed:
        ControlPlane(Programs(tmp_path))
    assert "--- etcd\netcd cannot\n--- kube-apiserver\nkube-apiserver cannot\n" in str(failed.value)
    assert (tmp_path / "cache" / "controlplane" / "logs" / "etcd.log").read_text() == "etcd cannot\n"
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert all(_gone(int(pid)) for pid in pids)


def test_programs_are_built_once_however_many_ask(fake_go: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: find_programs(said.append), range(3)))
    assert len(set(found)) == 1
    assert fake_go.read_text().split() == ["build", "install"]
    assert len(said) == 2
    assert {path.name for path in found[0].folder.iterdir()} == {*ROLES, "controlplane", "kwok"}


def test_a_build_that_fails_says_why_and_is_taken_up_where_it_stopped(fake_go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(Unavailable, match="no such module"):
        find_programs()
    monkeypatch.delenv("BROKEN")
    find_programs()
    assert fake_go.read_text().split() == ["build", "install", "install"]


def _state(pid: int) -> str | None:
    """The kernel's letter for a process's state; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _gone(pid: int) -> bool:
    # A zombie has ended: whoever inherited it has only not looked yet.
    return _state(pid) in {None, "Z", "X"}


def _must(holds: bool) -> None:
    assert holds


def _retry(probe: Callable[[], Any]) -> Any:
    """The probe's result, once it has one; a role takes a moment to become known to the API server, a signal to arrive."""
    end = time.monotonic() + 20
    while True:
        try:
            return probe()
        except (AssertionError, ApiError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
