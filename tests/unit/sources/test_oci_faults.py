"""OCIRepository with logins, certificates, and registries that refuse, hurry nobody, lie or cut."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response, StreamingResponse

from imagebot.demo.door import Account
from reconcile.net.retry import RetryPolicy
from reconcile.registry.keychain import Credential
from reconcile.registry.manifest import digest_of
from tests.support.charted_world import NAMESPACE, conditions, oci_world
from tests.support.oci_artifacts import of_files
from tests.support.pki import Authority
from tests.support.registry import FixedKeychain, TestRegistry

FILES = {"file": "content"}
ONCE = {"retry": RetryPolicy(attempts=1)}


@pytest.fixture
async def registry():
    async with TestRegistry() as running:
        yield running


@pytest.fixture
async def closed():
    async with TestRegistry(account=Account("ann", "secret-password")) as running:
        running.put_image("acme/app", "latest", of_files(FILES))
        yield running


@pytest.fixture
async def world(tmp_path):
    async with oci_world(tmp_path, pool=ONCE) as made:
        yield made


def url(registry: TestRegistry) -> str:
    return f"oci://{registry.host}/acme/app"


def ready(found) -> str:
    return next(line for line in conditions(found) if line.startswith("Ready="))


# --- who we are


async def test_the_login_of_a_pull_secret(closed, world):
    await world.declare(url=url(closed))
    text = ready(await world.step())
    assert text.startswith("Ready=False OCIArtifactPullFailed: failed to determine artifact digest: ")
    await world.login("pull", closed.host, "ann", "secret-password")
    await world.declare(secretRef={"name": "pull"})
    assert world.files(await world.step()) == {"file": b"content"}
    await world.login("pull", closed.host, "ann", "wrong-password")
    text = ready(await world.step())
    assert text.startswith("Ready=False OCIArtifactPullFailed")
    assert "wrong-password" not in text


async def test_the_login_of_a_service_account(closed, world):
    await world.login("pull", closed.host, "ann", "secret-password")
    meta = {"name": "puller", "namespace": NAMESPACE}
    await world.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "imagePullSecrets": [{"name": "pull"}]})
    await world.declare(url=url(closed), serviceAccountName="puller")
    assert world.files(await world.step()) == {"file": b"content"}


async def test_pull_secrets_come_before_the_login_of_a_cloud(closed, world):
    await world.login("pull", closed.host, "ann", "secret-password")
    await world.declare(url=url(closed), provider="aws", secretRef={"name": "pull"})
    assert world.files(await world.step()) == {"file": b"content"}


async def test_a_login_of_the_user_where_nothing_is_named(closed, tmp_path):
    async with oci_world(tmp_path, keychain=FixedKeychain(Credential("ann", "secret-password"))) as world:
        await world.declare(url=url(closed))
        assert world.files(await world.step()) == {"file": b"content"}


async def test_objects_that_are_named_but_missing(closed, world):
    start = "Ready=False AuthenticationFailed: failed to "
    await world.declare(url=url(closed), secretRef={"name": "none"})
    assert ready(await world.step()).startswith(f"{start}get credential: ")
    await world.declare(secretRef=None, serviceAccountName="none")
    assert ready(await world.step()) == f"{start}get credential: serviceaccount 'apps/none' not found"
    await world.declare(serviceAccountName=None, certSecretRef={"name": "none"})
    assert ready(await world.step()).startswith(f"{start}generate transport for '{url(closed)}': ")
    await world.declare(certSecretRef=None, proxySecretRef={"name": "none"})
    text = f"{start}generate transport for '{url(closed)}': secret 'apps/none' not found"
    assert ready(await world.step()) == text


async def test_a_cloud_whose_login_does_not_fit_the_host(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    await world.declare(url=url(registry), provider="aws")
    assert ready(await world.step()).startswith("Ready=False AuthenticationFailed: failed to get credential from aws: ")


async def test_an_identity_of_its_own_in_a_cloud_needs_a_gate(registry, world, tmp_path):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "me", "namespace": NAMESPACE}}
    await world.put(account)
    await world.declare(url=url(registry), provider="aws", serviceAccountName="me")
    found = await world.step()
    assert [line.partition(":")[0] for line in conditions(found)] == [
        "Stalled=True FeatureGateDisabled",
        "Ready=False FeatureGateDisabled",
    ]
    (tmp_path / "other").mkdir()
    async with oci_world(tmp_path / "other", gates={"ObjectLevelWorkloadIdentity": True}) as other:
        await other.put(account)
        await other.declare(url=url(registry), provider="aws", serviceAccountName="me")
        assert ready(await other.step()).startswith("Ready=False AuthenticationFailed: failed to get credential from aws: ")


# --- certificates


async def test_a_registry_with_a_certificate_of_our_own(tmp_path, world):
    authority = Authority()
    files = (tmp_path / "tls.crt", tmp_path / "tls.key")
    for file, content in zip(files, authority.server(["127.0.0.1"]), strict=True):
        file.write_bytes(content)
    async with TestRegistry(certificate=files) as registry:
        registry.put_image("acme/app", "latest", of_files(FILES))
        await world.declare(url=url(registry))
        assert "x509: certificate signed by unknown authority" in ready(await world.step())
        await world.secret("trust", {"ca.crt": authority.certificate})
        await world.declare(certSecretRef={"name": "trust"})
        assert world.files(await world.step()) == {"file": b"content"}
        registry.put_image("acme/app", "latest", of_files({"file": "later"}))
        await world.declare(certSecretRef=None, insecure=True)
        assert world.files(await world.step()) == {"file": b"later"}
        await world.secret("stranger", {"ca.crt": Authority("stranger").certificate})
        await world.declare(certSecretRef={"name": "stranger"})
        assert "x509" in ready(await world.step())


# --- registries that misbehave


async def test_too_many_requests(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))
    registry.answers(Response(status_code=429), path="/manifests/", times=2)
    await world.declare(url=url(registry))
    assert "429" in ready(await world.step())
    await world.step()
    assert world.files(await world.step()) == {"file": b"content"}


async def test_a_blob_that_is_another_one(registry, world, tmp_path):
    registry.put_image("acme/app", "latest", of_files(FILES))
    registry.answers(Response(b"something else"), path="/blobs/", times=1)
    await world.declare(url=url(registry))
    found = await world.step()
    assert ready(found).startswith("Ready=False OCIArtifactLayerOperationFailed: failed to fetch the layer of artifact '")
    assert "digest does not match the content" in ready(found)
    assert found.status.artifact is None
    assert world.files(await world.step()) == {"file": b"content"}


async def test_a_blob_that_is_cut(registry, world):
    image = of_files(FILES)
    registry.put_image("acme/app", "latest", image)

    async def half():
        yield image.blobs[-1][:20]

    registry.answers(StreamingResponse(half(), headers={"Content-Length": "100"}), path="/blobs/", times=1)
    await world.declare(url=url(registry))
    found = await world.step()
    assert "unexpected EOF" in ready(found)
    assert found.status.artifact is None
    assert world.files(await world.step()) == {"file": b"content"}


async def test_a_blob_that_is_longer_than_announced_anywhere(registry, tmp_path):
    registry.put_image("acme/app", "latest", of_files(FILES))

    async def long():
        for _ in range(64):
            yield b"x" * 65536
            await asyncio.sleep(0)

    registry.answers(StreamingResponse(long()), path="/blobs/", times=1)
    async with oci_world(tmp_path, pool=ONCE, most_bytes=1024 * 1024) as world:
        await world.declare(url=url(registry))
        assert "larger than the limit of 1048576 bytes" in ready(await world.step())


async def test_a_registry_that_does_not_answer(registry, world):
    registry.put_image("acme/app", "latest", of_files(FILES))

    async def stuck():
        yield b"x"
        await asyncio.sleep(3600)

    registry.answers(StreamingResponse(stuck()), path="/blobs/", times=1)
    await world.declare(url=url(registry), timeout="1s")
    assert ready(await world.step()).endswith("context deadline exceeded")
    assert world.files(await world.step()) == {"file": b"content"}


async def test_a_manifest_that_is_another_one(registry, world):
    digest = registry.put_image("acme/app", "latest", of_files(FILES))
    other = of_files({"file": "other"}).manifests[-1][1]
    registry.answers(Response(other), path=f"/manifests/{digest}", times=1)
    await world.declare(url=url(registry))
    text = ready(await world.step())
    assert text.startswith(f"Ready=False OCIArtifactPullFailed: failed to pull artifact from '{url(registry)}': ")
    assert f"announced {digest}, content is {digest_of(other)}" in text


async def test_a_list_of_tags_that_is_none(registry, world):
    registry.put_image("acme/app", "1.0.0", of_files(FILES))
    registry.answers(Response("<html>busy</html>", media_type="text/html"), path="/tags/list", times=1)
    await world.declare(url=url(registry), ref={"semver": "*"})
    assert "the tag list is not JSON" in ready(await world.step())
    assert world.files(await world.step()) == {"file": b"content"}
