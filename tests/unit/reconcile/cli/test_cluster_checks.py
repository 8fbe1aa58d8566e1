"""What makes a check of a cluster fail."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.source import BUCKET, GIT_REPOSITORY
from reconcile.cli.check import definition_findings, deployment_findings, program_finding, version_finding

INFOS = (GIT_REPOSITORY, BUCKET, KUSTOMIZATION)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("v1.33.0", "ok", "Kubernetes 1.33.0 >=1.33.0-0"),
        ("v1.35.4+k3s1", "ok", "Kubernetes 1.35.4 >=1.33.0-0"),
        ("v1.33.0-rc.1", "ok", "Kubernetes 1.33.0 >=1.33.0-0"),
        ("v2.0.0", "ok", "Kubernetes 2.0.0 >=1.33.0-0"),
        ("v1.32.9", "bad", "Kubernetes 1.32.9 is older than 1.33: update the cluster"),
        ("", "bad", "the API server does not say its version (''): Kubernetes 1.33 or newer is needed"),
    ],
)
def test_versions(text: str, kind: str, said: str) -> None:
    found = version_finding(text)
    assert (found.kind, found.text) == (kind, said)


def test_a_group_with_gaps_is_broken_and_one_that_nobody_wants_is_not() -> None:
    found = definition_findings(INFOS, {"GitRepository": "v1", "Bucket": "", "Kustomization": ""})
    assert [each.kind for each in found] == ["ok", "bad", "note"]
    assert found[0].text == "gitrepositories.source.toolkit.fluxcd.io/v1"
    assert found[1].text.startswith("buckets.source.toolkit.fluxcd.io is not served as v1 or v1beta2 or v1beta1: install")
    assert found[2].text == "kustomize.toolkit.fluxcd.io: not installed"
    none = definition_findings(INFOS, dict.fromkeys(("GitRepository", "Bucket", "Kustomization"), ""))
    assert [each.kind for each in none] == ["bad"]


def deployment(available: str, *, replicas: int = 1, generation: int = 2, message: str = "") -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "manager", "image": "imagebot:1.0"}]}}
    return {
        "metadata": {"name": "imagebot", "namespace": "flux", "generation": generation},
        "spec": {"replicas": replicas, "template": template},
        "status": {
            "observedGeneration": 2,
            "readyReplicas": 0 if available == "False" else 1,
            "conditions": [{"type": "Available", "status": available, "message": message}],
        },
    }


def test_deployments() -> None:
    ready, image = deployment_findings(deployment("True"))
    assert (ready.kind, ready.text, image.text) == ("ok", "flux/imagebot: deployment ready", "imagebot:1.0")
    late = deployment_findings(deployment("False", message="no minimum availability"))[0]
    assert (late.kind, late.text) == ("bad", "flux/imagebot: 0 of 1 pods ready: no minimum availability")
    assert deployment_findings(deployment("True", generation=3))[0].kind == "bad"
    assert deployment_findings(deployment("False", replicas=0))[0].kind == "note"


async def test_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await program_finding("git")
    assert (found.kind, found.text.split(":")[0]) == ("ok", "git")
    monkeypatch.setenv("PATH", "/nonexistent")
    for name in ("git", "kustomize"):
        found = await program_finding(name)
        assert found.kind == "bad"
        assert found.text.startswith(f"{name} is not installed")
