"""From a pushed image to running pods, in one process: every step wakes the next, and one trace id goes all the way.

All intervals are an hour: what happens within seconds happened because somebody was woken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.runtime.bus import TRACE, trace_of
from tests.support.clusterlab import Replica, until
from tests.support.controlplane import Cluster
from tests.support.gitopslab import GitOpsLab, gitops_lab
from tests.support.kubeapi import Object
from tests.support.lab import automation, image_policy, image_repository

pytestmark = pytest.mark.slow

FLAGS = ("--controllers=image,source,kustomize",)


@pytest.fixture
def world(workloads: Cluster, namespace: str, tmp_path: Path) -> Iterator[GitOpsLab]:
    with gitops_lab(workloads, namespace, tmp_path) as made:
        yield made


def deployment(image: str, tag: str, policy: str) -> str:
    """A Deployment with a marked image, as YAML."""
    labels = {"app": "web"}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "IMAGE"}]}},
        },
    }
    return yaml.safe_dump(body).replace("IMAGE", f'{image}:{tag} # {{"$imagepolicy": "{policy}"}}')


def running(world: GitOpsLab, image: str) -> bool:
    """Whether there are pods, and all of them run this image on a node."""
    pods = [pod for pod in world.api.list("v1", "Pod", world.namespace) if not pod["metadata"].get("deletionTimestamp")]
    return len(pods) == 2 and all(
        pod["spec"]["containers"][0]["image"] == image and pod["spec"].get("nodeName") and pod["status"]["phase"] == "Running"
        for pod in pods
    )


def traced(found: Object, trace: str) -> bool:
    """Whether an event carries a trace."""
    return trace in (found["metadata"].get("annotations") or {}).get(TRACE, "").split(",")


def lines(replica: Replica, trace: str) -> list[dict[str, Any]]:
    """The lines of the log that have a trace, in order."""
    return [line for line in replica.log() if trace in (line.get("trace") or ())]


def changed(said: list[dict[str, Any]]) -> list[str]:
    """What lines of the log say of objects that were changed."""
    return [line["objects"] for line in said if "objects" in line]


def test_a_pushed_image_runs_and_its_trace_leads_from_the_tag_to_the_pods(world: GitOpsLab) -> None:
    image = world.image("web")
    first = world.commit({"app/web.yaml": deployment(image, "1.0.0", f"{world.namespace}:web")})
    world.registry.push_image("web", "1.0.0")
    world.source()
    world.kustomization(wait=True, timeout="2m")
    world.create(image_repository("web", image), image_policy("web"), automation("web", "fleet"))
    replica = world.start(*FLAGS)
    world.until_applied("app", first)
    world.until_settled(world.fleet, "1.0.0")
    assert running(world, f"{image}:1.0.0")

    world.registry.push_image("web", "1.1.0")
    world.request("ImageRepository")
    until(lambda: running(world, f"{image}:1.1.0"), "the new image to run")
    world.until_settled(world.fleet, "1.1.0")
    applied = world.until_applied("app", f"main@sha1:{world.fleet.head()}")
    assert len(world.fleet.log()) == 2
    assert "lastHandledReconcileAt" not in applied["status"]
    assert "lastHandledReconcileAt" not in world.get("GitRepository", "fleet")["status"]

    trace = trace_of(image, "1.1.0")
    until(lambda: any("finished" in line["msg"] for line in lines(replica, trace)), "the last line about the trace")
    said = lines(replica, trace)
    for line in said:
        print(trace, line["ts"], line["controller"], line["msg"], line.get("objects", ""))
    steps = [(line["controller"], line["msg"].partition(" '")[0].partition(" in ")[0]) for line in said]
    assert list(dict.fromkeys(steps)) == [
        ("imagepolicy", "chose tag"),
        ("imageupdateautomation", "pushed"),
        ("gitrepository", "stored artifact for commit"),
        ("kustomization", "objects changed"),
        ("kustomization", "Reconciliation finished"),
    ]
    assert changed(said) == [f"Deployment/{world.namespace}/web configured"]
    until(lambda: any(traced(each, trace) for each in world.events("GitRepository", "fleet")), "the trace of the artifact")
    until(
        lambda: (
            {"Progressing", "ReconciliationSucceeded"}
            <= {each["reason"] for each in world.events("Kustomization", "app") if traced(each, trace)}
        ),
        "the trace of what was applied",
    )

    # Killed between the commit and its arrival in the cluster: the next process still knows what the commit brought.
    world.patch("Kustomization", "app", {"spec": {"suspend": True}})
    world.until_ready("Kustomization", "app")  # it says so by its generation
    world.registry.push_image("web", "1.2.0")
    world.request("ImageRepository")
    world.until_settled(world.fleet, "1.2.0")
    last = f"main@sha1:{world.fleet.head()}"
    world.until_object("GitRepository", "fleet", lambda found: found["status"]["artifact"]["revision"] == last, "the commit")
    replica.kill()
    assert running(world, f"{image}:1.1.0")
    world.patch("Kustomization", "app", {"spec": {"suspend": False}})
    before = len(replica.log())
    world.start(*FLAGS)
    until(lambda: running(world, f"{image}:1.2.0"), "the last image to run")
    world.until_applied("app", last)
    trace = trace_of(image, "1.2.0")
    again = [line for line in replica.log()[before:] if trace in (line.get("trace") or ())]
    assert changed(again) == [f"Deployment/{world.namespace}/web configured"]
    until(lambda: any(traced(each, trace) for each in world.events("Kustomization", "app")), "the trace after a restart")
    assert len(world.fleet.log()) == 3
