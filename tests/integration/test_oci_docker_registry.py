"""OCIRepository against Debian's docker-registry: pull, range, login, signatures, an image for several platforms."""

from __future__ import annotations

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from imagebot.demo.images import Image, make_image
from reconcile.sources.cosign_keys import pre_authentication
from reconcile.sources.oci_resolve import FLUX_LAYER, HELM_LAYER
from tests.integration.test_docker_registry import HTPASSWD, docker_registry
from tests.support.charted_world import conditions, oci_world
from tests.support.oci_artifacts import (
    artifact,
    bundle_image,
    descriptor,
    envelope,
    key_bundle,
    layer_of,
    of_files,
    referrers_index,
    signature_image,
    simple_signing,
    statement,
)
from tests.support.pki import private_key, public_pem
from tests.support.registry import push_over_http

pytestmark = pytest.mark.needs("docker-registry")

ANN = ("ann", "secret-password")


async def push(host: str, name: str, tag: str, image: Image, login: tuple[str, str] | None = None) -> str:
    async with httpx.AsyncClient(auth=login, trust_env=False) as client:
        return await push_over_http(client, f"http://{host}", name, tag, image)


async def test_pull_range_and_an_unchanged_image(tmp_path):
    async with docker_registry(tmp_path) as host, oci_world(tmp_path) as world:
        for version in ("1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1"):
            await push(host, "acme/app", version, of_files({"version": version}, annotations={"version": version}))
        await world.declare(url=f"oci://{host}/acme/app", ref={"semver": "1.x"})
        found = await world.step()
        assert world.files(found) == {"version": b"1.10.0"}
        assert found.status.artifact.metadata == {"version": "1.10.0"}
        assert (await world.step()).status == found.status
        await world.declare(ref={"semver": ">=1.0.0-0", "semverFilter": "rc"})
        assert world.files(await world.step()) == {"version": b"2.0.0-rc.1"}
        await world.declare(ref={"tag": "1.0.0"})
        found = await world.step()
        await world.declare(ref={"digest": found.status.artifact.revision.partition("@")[2]})
        assert (await world.step()).status.artifact.revision == found.status.artifact.revision.partition("@")[2]


async def test_a_layer_of_a_hundred_pieces_and_a_chart(tmp_path):
    files = {f"folder-{n % 100}/file-{n}.yaml": f"number: {n}\n" * 50 for n in range(2000)}
    chart = layer_of({"app/Chart.yaml": "name: app\n"})
    async with docker_registry(tmp_path) as host, oci_world(tmp_path) as world:
        await push(host, "acme/app", "latest", artifact([(FLUX_LAYER, layer_of(files)), (HELM_LAYER, chart)]))
        await world.declare(url=f"oci://{host}/acme/app")
        assert world.files(await world.step()) == {path: text.encode() for path, text in files.items()}
        await world.declare(layerSelector={"mediaType": HELM_LAYER, "operation": "copy"})
        assert world.content(await world.step()) == chart


async def test_an_image_for_several_platforms(tmp_path):
    image = make_image("acme/app", "1", labels={}, platforms=("linux/arm64", "linux/amd64"), created="2024-01-01T00:00:00Z")
    async with docker_registry(tmp_path) as host, oci_world(tmp_path) as world:
        digest = await push(host, "acme/app", "latest", image)
        await world.declare(url=f"oci://{host}/acme/app")
        found = await world.step()
        assert found.status.artifact.revision == f"latest@{digest}"
        assert world.files(found) == {"image": b"acme/app:1 linux/amd64\n"}


async def test_login(tmp_path):
    async with docker_registry(tmp_path, htpasswd=HTPASSWD) as host, oci_world(tmp_path) as world:
        await push(host, "acme/app", "latest", of_files({"file": "content"}), ANN)
        await world.declare(url=f"oci://{host}/acme/app")
        found = await world.step()
        assert any("OCIArtifactPullFailed" in line for line in conditions(found))
        await world.login("pull", host, *ANN)
        await world.declare(secretRef={"name": "pull"})
        assert world.files(await world.step()) == {"file": b"content"}


@pytest.mark.parametrize("form", ["older", "bundle"])
async def test_signatures_beside_the_image(tmp_path, form):
    key = private_key()

    def sign(message: bytes) -> bytes:
        return key.sign(message, ec.ECDSA(hashes.SHA256()))

    image = of_files({"file": "content"})
    async with docker_registry(tmp_path) as host, oci_world(tmp_path) as world:
        digest = await push(host, "acme/app", "latest", image)
        await world.secret("keys", {"cosign.pub": public_pem(key)})
        await world.declare(url=f"oci://{host}/acme/app", verify={"provider": "cosign", "secretRef": {"name": "keys"}})
        assert any("the image has no signature" in line for line in conditions(await world.step()))
        tag = digest.replace(":", "-")
        if form == "older":
            payload = simple_signing(digest)
            await push(host, "acme/app", f"{tag}.sig", signature_image([(payload, sign(payload), b"", b"")]))
        else:  # this registry has no endpoint for referrers: their index is under a tag
            claim = statement(digest)
            bundle = key_bundle(envelope(claim, sign(pre_authentication("application/vnd.in-toto+json", claim))))
            referrer = bundle_image(bundle, descriptor(*image.manifests[-1]))
            await push(host, "acme/app", "referrer", referrer)
            await push(host, "acme/app", tag, referrers_index([referrer]))
        found = await world.step()
        assert world.files(found) == {"file": b"content"}
        assert any(line.startswith("SourceVerified=True") for line in conditions(found))
