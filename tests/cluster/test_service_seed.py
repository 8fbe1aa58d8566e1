"""The chapter's image manifests, applied with kubectl, lead to a signed commit.

Replaced are the host of the image (a registry that can be here) and the namespace (each test has its own); what they name is
added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.scenario.test_signing_stories import GpgHome, verify
from tests.support.clusterlab import ClusterLab, cluster_lab
from tests.support.controlplane import Cluster
from tests.support.lab import git_repository, marked, secret
from tests.support.pki import Authority

pytestmark = pytest.mark.slow

SEED = Path(__file__).parent.parent / "seed"


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[GpgHome]:
    home = GpgHome(tmp_path / "gpg")
    yield home
    home.close()


@pytest.fixture
def world(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterLab]:
    with cluster_lab(control_plane, namespace, tmp_path) as made:
        yield made


@pytest.mark.needs("gpg")
def test_the_chapter_applied_with_kubectl_leads_to_a_signed_commit(world: ClusterLab, gpg: GpgHome) -> None:
    gpg.make_key()
    for tag in ("v1.2.3", "v1.10.0", "v2.0.0", "staging-0a1b2c"):
        world.registry.push_image("my-app", tag)
    image, space = world.image("my-app"), world.namespace
    bare = world.repository("fleet.git", {"deploy.yaml": marked(image, "my-app", "v1.2.3", space)})
    login = json.dumps({"auths": {image.split("/")[0]: {"username": "robot", "password": "of-the-registry"}}})
    named = [
        secret("registry-credentials", {".dockerconfigjson": login}, "kubernetes.io/dockerconfigjson"),
        secret("ca-cert", {"ca.crt": Authority().certificate.decode()}),
        secret("flux-gpg-signing-key", {"git.asc": gpg.export()}),
        git_repository("flux-system", world.git.url("fleet.git")),
    ]
    for body in named:
        body["metadata"]["namespace"] = space
    texts = [path.read_text() for path in sorted(SEED.glob("image-*.yaml"))]
    written = "\n---\n".join(texts).replace("namespace: flux-system", f"namespace: {space}")
    manifests = written.replace("ghcr.io/company/my-app", image) + "\n---\n" + yaml.safe_dump_all(named)
    applied = world.cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=manifests)
    assert applied.stdout.count("created") == len(texts) + len(named)
    world.start()
    world.until_ready("ImagePolicy", "my-app-staging", "staging-0a1b2c")
    world.until_ready("ImagePolicy", "my-app", "v1.10.0")

    def pushed(found: dict[str, object]) -> bool:
        return found.get("status", {}).get("lastPushCommit") == bare.head()  # type: ignore[attr-defined]

    world.until_object("ImageUpdateAutomation", "flux-system", pushed, "the status with the pushed commit")
    assert bare.file("deploy.yaml").decode() == marked(image, "my-app", "v1.10.0", space)
    message = bare.git("cat-file", "commit", "main").split("\n\n", 1)[1]
    assert message.startswith(f"Automated image update\n\nImages:\n- {image}:v1.10.0\n")
    assert "Good signature" in verify(bare, gpg.env)
