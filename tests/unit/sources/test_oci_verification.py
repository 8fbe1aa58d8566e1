"""OCIRepository that must be signed: keys, certificates, both places of signatures, and everything that must not pass."""

from __future__ import annotations

import base64
import hashlib

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import Response

from reconcile.registry.manifest import OCI_INDEX, digest_of
from reconcile.sources.cosign_keys import pre_authentication
from tests.support.charted_world import ChartedWorld, conditions, oci_world
from tests.support.oci_artifacts import (
    bundle_image,
    descriptor,
    envelope,
    index_of,
    key_bundle,
    of_files,
    referrers_index,
    signature_image,
    simple_signing,
    statement,
)
from tests.support.pki import private_key, public_pem
from tests.support.registry import TestRegistry
from tests.support.sigstore_lab import EMAIL, ISSUER, Lab

KIND = "application/vnd.in-toto+json"
KEY, OTHER_KEY = private_key(), private_key()
IDENTITY = [{"issuer": f"^{ISSUER}$", "subject": f"^{EMAIL}$"}]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture
async def registry():
    async with TestRegistry() as running:
        yield running


@pytest.fixture
async def world(tmp_path, registry):
    async with oci_world(tmp_path) as made:
        await made.secret("keys", {"cosign.pub": public_pem(KEY), "old.pub": public_pem(private_key())})
        await made.declare(url=f"oci://{registry.host}/acme/app", verify={"provider": "cosign", "secretRef": {"name": "keys"}})
        yield made


@pytest.fixture
async def keyless(world, lab):
    await world.secret("root", {"trusted_root.json": lab.trusted_root()})
    trust = {"provider": "cosign", "matchOIDCIdentity": IDENTITY, "trustedRootSecretRef": {"name": "root"}}
    await world.declare(verify=trust)
    return world


def push(registry: TestRegistry, content: str = "one") -> str:
    return registry.put_image("acme/app", "latest", of_files({"file": content}))


def sign(registry: TestRegistry, digest: str, *, key: ec.EllipticCurvePrivateKey = KEY, about: str = "") -> None:
    """Sign as cosign did it before bundles."""
    payload = simple_signing(about or digest)
    signature = key.sign(payload, ec.ECDSA(hashes.SHA256()))
    image = signature_image([(payload, signature, b"", b"")])
    registry.put_image("acme/app", f"{digest.replace(':', '-')}.sig", image)


def refer(registry: TestRegistry, digest: str, *bundles: bytes) -> None:
    """Let bundles refer to an image, by the tag for registries without an endpoint for referrers."""
    kind, content = registry.repositories["acme/app"].manifests[digest]
    images = [bundle_image(bundle, descriptor(kind, content)) for bundle in bundles]
    registry.put_image("acme/app", digest.replace(":", "-"), referrers_index(images))


def signed_bundle(digest: str, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    claim = statement(digest)
    return key_bundle(envelope(claim, key.sign(pre_authentication(KIND, claim), ec.ECDSA(hashes.SHA256()))))


def verified(world: ChartedWorld, found, digest: str) -> None:
    message = f"verified signature of revision latest@{digest}"
    assert f"SourceVerified=True Succeeded: {message}" in conditions(found)
    assert conditions(found)[0].startswith("Ready=True")
    assert ("Trace", "Succeeded", message) in world.sink.take()


def refused(found, why: str, how: str = "cosign") -> None:
    """Nothing was stored, and Ready says why."""
    lines = {line.partition("=")[0]: line for line in conditions(found)}
    start = f"VerificationError: failed to verify the signature using provider '{how}': "
    assert lines["SourceVerified"].startswith(f"SourceVerified=False {start}")
    assert lines["Ready"].startswith(f"Ready=False {start}")
    assert why in lines["Ready"]
    assert found.status.artifact is None


# --- keys


async def test_an_image_signed_with_one_of_the_keys(registry, world):
    digest = push(registry)
    sign(registry, digest)
    found = await world.step()
    verified(world, found, digest)
    assert world.files(found) == {"file": b"one"}


async def test_what_was_verified_is_not_verified_again(registry, world):
    sign(registry, push(registry))
    await world.step()
    registry.quiet()
    world.sink.take()
    await world.step()
    assert list(registry.log) == ["HEAD /v2/acme/app/manifests/latest"]
    assert world.sink.take() == []
    await world.declare(interval="20m")  # a new generation: the signature is looked at once more, the layer is not
    await world.step()
    assert registry.requests["blob"] == 1
    assert any(line.endswith(".sig") for line in registry.log)


async def test_a_new_image_without_signature_does_not_replace_the_old_one(registry, world):
    digest = push(registry)
    sign(registry, digest)
    before = await world.step()
    later = push(registry, "two")
    found = await world.step()
    lines = conditions(found)
    assert found.status.artifact == before.status.artifact
    assert any(line.startswith("SourceVerified=False VerificationError") for line in lines)
    text = f"no matching signatures were found for '{registry.host}/acme/app:latest': the image has no signature"
    assert any(line.startswith("Ready=False VerificationError") and line.endswith(text) for line in lines)
    sign(registry, later)
    found = await world.step()
    verified(world, found, later)
    assert world.files(found) == {"file": b"two"}


async def test_an_image_without_signature(registry, world):
    push(registry)
    found = await world.step()
    refused(found, f"no matching signatures were found for '{registry.host}/acme/app:latest': the image has no signature")
    assert found.status.observed_generation != found.meta.generation


async def test_an_image_signed_with_another_key(registry, world):
    digest = push(registry)
    sign(registry, digest, key=OTHER_KEY)
    refused(await world.step(), "signed with none of the given keys")


async def test_the_signature_of_another_image(registry, world):
    digest = push(registry)
    sign(registry, digest, about=f"sha256:{'0' * 64}")
    refused(await world.step(), f"not about {digest}")


async def test_bundles_by_the_endpoint_for_referrers(registry, world):
    digest = push(registry)
    kind, content = registry.repositories["acme/app"].manifests[digest]
    image = bundle_image(signed_bundle(digest), descriptor(kind, content))
    registry.put_image("acme/app", "somewhere", image)
    registry.answers(Response(referrers_index([image]).manifests[-1][1], media_type=OCI_INDEX), path=f"/referrers/{digest}")
    verified(world, await world.step(), digest)


async def test_one_good_bundle_among_those_of_others(registry, world):
    digest = push(registry)
    refer(registry, digest, signed_bundle(digest, OTHER_KEY), b"{}", signed_bundle(digest))
    verified(world, await world.step(), digest)


async def test_bundles_of_others_do_not_hide_an_older_signature_of_ours(registry, world):
    digest = push(registry)
    refer(registry, digest, signed_bundle(digest, OTHER_KEY))
    sign(registry, digest)
    verified(world, await world.step(), digest)


async def test_bundles_that_do_not_count(registry, world):
    digest = push(registry)
    refer(registry, digest, signed_bundle(f"sha256:{'0' * 64}"), signed_bundle(digest, OTHER_KEY))
    refused(await world.step(), f"the signed statement is not about {digest}; signed with none of the given keys")


async def test_a_bundle_over_the_manifest_itself(registry, world):
    digest = push(registry)
    _, content = registry.repositories["acme/app"].manifests[digest]
    signature = base64.b64encode(KEY.sign(content, ec.ECDSA(hashes.SHA256()))).decode()
    digested = base64.b64encode(hashlib.sha256(content).digest()).decode()
    refer(registry, digest, key_bundle(message={"messageDigest": {"digest": digested}, "signature": signature}))
    verified(world, await world.step(), digest)


async def test_secrets_that_hold_no_key(registry, world):
    sign(registry, push(registry))
    await world.secret("keys", {"cosign.key": "private"})
    refused(await world.step(), "the secret 'apps/keys' has no key whose name ends in .pub")
    await world.secret("keys", {"cosign.pub": "nonsense"})
    refused(await world.step(), "'cosign.pub' is not a PEM public key")
    await world.declare(verify={"provider": "cosign", "secretRef": {"name": "nowhere"}})
    refused(await world.step(), "nowhere")


async def test_a_registry_that_fails_while_signatures_are_looked_for(registry, world):
    sign(registry, push(registry))
    registry.answers(Response(status_code=403), path=".sig")
    refused(await world.step(), "403")


async def test_verification_that_is_no_longer_asked_for_leaves_no_condition(registry, world):
    sign(registry, push(registry))
    await world.step()
    await world.declare(verify=None)
    found = await world.step()
    assert [line.partition("=")[0] for line in conditions(found)] == ["Ready", "ArtifactInStorage"]


async def test_many_signatures_of_others_end_the_search(registry, world):
    digest = push(registry)
    payload = simple_signing(digest)
    entries = [(payload, OTHER_KEY.sign(payload, ec.ECDSA(hashes.SHA256())), b"", b"") for _ in range(65)]
    registry.put_image("acme/app", f"{digest.replace(':', '-')}.sig", signature_image(entries))
    refused(await world.step(), "only 64 of 65 signatures were looked at")


# --- certificates


@pytest.mark.parametrize("form", ["legacy", "bundle"])
async def test_an_image_signed_by_the_identity(registry, keyless, lab, form):
    digest = push(registry)
    signer = lab.signer()
    if form == "bundle":
        refer(registry, digest, orjson.dumps(lab.bundle(signer, digest)))
    else:
        one = lab.legacy(signer, digest)
        entry = (one.payload, one.signature, one.certificate, one.promise)
        registry.put_image("acme/app", f"{digest.replace(':', '-')}.sig", signature_image([entry]))
    verified(keyless, await keyless.step(), digest)


async def test_an_image_signed_by_somebody_else(registry, keyless, lab):
    digest = push(registry)
    refer(registry, digest, orjson.dumps(lab.bundle(lab.signer(email="bob@example.com"), digest)))
    why = "none of the expected identities matched what was in the certificate, got subjects [bob@example.com]"
    refused(await keyless.step(), why, "cosign keyless")


async def test_the_public_root_does_not_know_our_laboratory(registry, keyless, lab):
    digest = push(registry)
    refer(registry, digest, orjson.dumps(lab.bundle(lab.signer(), digest)))
    await keyless.declare(verify={"provider": "cosign", "matchOIDCIdentity": IDENTITY})
    refused(await keyless.step(), "chain", "cosign keyless")


async def test_a_key_signature_is_none_of_an_identity(registry, keyless):
    sign(registry, push(registry))
    refused(await keyless.step(), "signed with a key, not with a certificate", "cosign keyless")


async def test_roots_that_cannot_be_used(registry, keyless):
    push(registry)
    await keyless.secret("root", {"trusted_root.json": "{}"})
    refused(await keyless.step(), "the trusted root cannot be read", "cosign keyless")
    await keyless.secret("root", {"other": "x"})
    refused(await keyless.step(), "secret 'apps/root': key 'trusted_root.json' not found", "cosign keyless")


# --- what we cannot do


async def test_notation_fails_loudly_and_says_what_to_do(registry, world):
    sign(registry, push(registry))
    await world.declare(verify={"provider": "notation", "secretRef": {"name": "keys"}})
    refused(await world.step(), "signatures of notation cannot be checked here", "notation")
    assert world.sink.take()[-1][:2] == ("Warning", "VerificationError")


async def test_the_signature_of_one_image_does_not_count_for_the_index_it_is_in(registry, world):
    image = of_files({"file": "one"})
    index = index_of({"linux/amd64": image})
    digest = registry.put_image("acme/app", "latest", index)
    sign(registry, digest_of(image.manifests[-1][1]))
    refused(await world.step(), "the image has no signature")
    sign(registry, digest)
    verified(world, await world.step(), digest)
