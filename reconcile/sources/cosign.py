"""Finds cosign's signatures of an image in its registry and says whether one of them counts.

First the Sigstore bundles that refer to the image (OCI distribution specification 1.1), then cosign's older form, an image under
the tag `sha256-<hex>.sig`. The first signature that counts ends the search. Each costs a request or two, and their number is
bounded, so that a registry full of signatures of others cannot keep us busy.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping

from reconcile.errors import ReconcileError
from reconcile.registry.client import RegistryClient
from reconcile.registry.errors import StatusError
from reconcile.registry.manifest import Descriptor
from reconcile.registry.names import Repository
from reconcile.sources.cosign_keyless import Identities, Keyless, LegacySignature
from reconcile.sources.cosign_keys import BadSignature, PublicKey, check_bundle, check_payload, reasons
from reconcile.sources.oci_resolve import Target

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
PROMISE = "dev.sigstore.cosign/bundle"

MAX_SIGNATURES = 64
"""Signatures of each form that are looked at."""
BUNDLE_LIMIT = 2 * 1024 * 1024
PAYLOAD_LIMIT = 256 * 1024

Check = Callable[[bytes | LegacySignature], None]
"""Raises BadSignature; gets a bundle as bytes, or one of the older signatures. Called in a thread."""


class NotVerified(ReconcileError):
    """No signature of the image counts; the message says why each one does not."""


async def verify_with_keys(client: RegistryClient, target: Target, keys: Mapping[str, PublicKey]) -> None:
    """Return if one of `keys` signed the image.

    Raises:
        NotVerified: none did.
        RegistryError: the registry failed.
    """
    digest = _digest(target)

    def check(signature: bytes | LegacySignature) -> None:
        if isinstance(signature, bytes):
            check_bundle(keys, signature, digest)
        else:
            check_payload(keys, signature.payload, signature.signature, digest)

    await _search(client, target, check)


async def verify_keyless(client: RegistryClient, target: Target, checker: Keyless, identities: Identities) -> None:
    """Return if one of `identities` signed the image, by what `checker` trusts; raises as `verify_with_keys`."""
    digest = _digest(target)
    manifest = (await client.manifest(target.repository, digest)).raw

    def check(signature: bytes | LegacySignature) -> None:
        if isinstance(signature, bytes):
            checker.check_bundle(signature, manifest, digest, identities)
        else:
            checker.check_legacy(signature, digest, identities)

    await _search(client, target, check)


async def _search(client: RegistryClient, target: Target, check: Check) -> None:
    errors: list[ReconcileError] = []
    for find in (_bundles, _legacy):
        async for signature in find(client, target.repository, _digest(target)):
            try:
                if isinstance(signature, BadSignature):
                    raise signature
                await asyncio.to_thread(check, signature)
            except BadSignature as error:
                errors.append(error)
            else:
                return
    why = reasons(errors) or "the image has no signature"
    raise NotVerified(f"no matching signatures were found for '{target}': {why}")


async def _bundles(client: RegistryClient, repository: Repository, digest: str) -> AsyncIterator[bytes | BadSignature]:
    """The Sigstore bundles about an image."""
    referrers = await client.referrers(repository, digest)
    wanted = [each for each in referrers if not each.artifact_type or each.artifact_type.startswith(BUNDLE_TYPE)]
    for referrer in wanted[:MAX_SIGNATURES]:
        manifest = await client.manifest(repository, referrer.digest)
        layer = next((layer for layer in manifest.layers if layer.media_type.startswith(BUNDLE_TYPE)), None)
        if layer is not None:
            yield await client.blob(repository, layer.digest, limit=BUNDLE_LIMIT)
    if len(wanted) > MAX_SIGNATURES:
        yield BadSignature(f"only {MAX_SIGNATURES} of {len(wanted)} bundles were looked at")


async def _legacy(client: RegistryClient, repository: Repository, digest: str) -> AsyncIterator[LegacySignature | BadSignature]:
    """The signatures under the tag that cosign makes of the digest."""
    try:
        manifest = await client.manifest(repository, f"{digest.replace(':', '-')}.sig")
    except StatusError as error:
        if error.status == 404:
            return
        raise
    layers = [layer for layer in manifest.layers if layer.media_type == PAYLOAD_TYPE]
    for layer in layers[:MAX_SIGNATURES]:
        try:
            signature = base64.b64decode(layer.annotations.get(SIGNATURE, ""), validate=True)
        except binascii.Error:
            yield BadSignature("a signature is not base64")
            continue
        payload = await client.blob(repository, layer.digest, limit=PAYLOAD_LIMIT)
        yield LegacySignature(payload, signature, _annotation(layer, CERTIFICATE), _annotation(layer, PROMISE))
    if len(layers) > MAX_SIGNATURES:
        yield BadSignature(f"only {MAX_SIGNATURES} of {len(layers)} signatures were looked at")


def _annotation(layer: Descriptor, name: str) -> bytes:
    return layer.annotations.get(name, "").encode()


def _digest(target: Target) -> str:
    assert target.digest is not None  # noqa: S101 - what is verified has been resolved
    return target.digest
