"""The chapter's image manifests do what they say: from a new tag to a signed commit, as written.

Only what the chapter leaves out is added: the Secrets that it names, the GitRepository, and a registry and a Git server that can
be here (so the host of the image is replaced).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagebot.demo.door import Account
from imagebot.demo.gitserver import GitServer
from imagebot.demo.registry import Registry
from tests.scenario.test_signing_stories import GpgHome, verify
from tests.support.lab import Lab, git_repository, secret
from tests.support.pki import Authority

FOLDER = Path(__file__).parent
MANIFESTS = ("image-repository", "image-policy", "image-update-automation")


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[GpgHome]:
    home = GpgHome(tmp_path / "gpg")
    yield home
    home.close()


@pytest.mark.needs("gpg")
async def test_the_chapter_leads_to_a_signed_commit(tmp_path: Path, gpg: GpgHome) -> None:
    authority = Authority()
    certificate, key = authority.server(["127.0.0.1"])
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "git").mkdir()
    gpg.make_key()
    account = Account("robot", "secret-of-the-registry")
    async with Registry(account=account, certificate=(tmp_path / "tls.crt", tmp_path / "tls.key")) as registry:
        with GitServer(tmp_path / "git") as git:
            world = Lab(tmp_path, registry, git)
            image = f"{registry.host}/company/my-app"
            for tag in ("v1.2.3", "v1.10.0", "v2.0.0", "1.99.0", "staging-0a1b2c", "latest"):
                registry.push_image("company/my-app", tag)
            bare = world.repository("fleet.git", {"deploy.yaml": deployment(image)})
            complete(world, image, authority, gpg, registry)
            done = await world.once()
            assert not done.problems
            assert done.ready("ImagePolicy", "my-app", "flux-system") == (
                "True",
                "Succeeded",
                f"Latest image tag for {image} resolved to v1.10.0",
            )
            assert done.ready("ImagePolicy", "my-app-staging", "flux-system")[2].endswith("resolved to staging-0a1b2c")
            assert done.ready("ImageUpdateAutomation", "flux-system", "flux-system")[0] == "True"
    assert bare.file("deploy.yaml").decode() == deployment(image).replace(":v1.2.3", ":v1.10.0")
    assert bare.git("log", "-1", "--format=%an <%ae>").strip() == "Flux Bot <flux@company.com>"
    message = bare.git("cat-file", "commit", "main").split("\n\n", 1)[1]
    assert message.startswith(f"Automated image update\n\nImages:\n- {image}:v1.10.0\n")
    assert "Good signature" in verify(bare, gpg.env)


def deployment(image: str) -> str:
    """The chapter's Deployment with its marker."""
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: my-app\nspec:\n  template:\n    spec:\n      containers:\n"
        f'      - name: app\n        image: {image}:v1.2.3 # {{"$imagepolicy": "flux-system:my-app"}}\n'
    )


def complete(world: Lab, image: str, authority: Authority, gpg: GpgHome, registry: Registry) -> None:
    """The manifests as written but for the host of the image, and the objects that they name."""
    for name in (*MANIFESTS, "image-policy-alphabetical"):
        text = (FOLDER / f"{name}.yaml").read_text().replace("ghcr.io/company/my-app", image)
        (world.folder / f"{name}.yaml").write_text(text)
    login = base64.b64encode(b"robot:secret-of-the-registry").decode()
    config = json.dumps({"auths": {registry.host: {"auth": login}}})
    named = (
        secret("registry-credentials", {".dockerconfigjson": config}, "kubernetes.io/dockerconfigjson"),
        secret("ca-cert", {"ca.crt": authority.certificate.decode()}),
        secret("flux-gpg-signing-key", {"git.asc": gpg.export()}),
        git_repository("flux-system", world.url("fleet.git")),
    )
    for body in named:
        body["metadata"]["namespace"] = "flux-system"
    world.declare(*named)
