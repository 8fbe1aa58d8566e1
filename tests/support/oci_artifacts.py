"""OCI artifacts for tests: layers of files, manifests round them, signatures beside them."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from imagebot.demo.images import Image
from reconcile.registry.manifest import OCI_INDEX, OCI_MANIFEST, digest_of
from reconcile.sources.cosign import BUNDLE_TYPE, CERTIFICATE, PAYLOAD_TYPE, PROMISE, SIGNATURE
from reconcile.sources.oci_resolve import FLUX_CONFIG, FLUX_LAYER

BUNDLE_MEDIA_TYPE = f"{BUNDLE_TYPE}.v0.3+json"
EMPTY = b"{}"


def layer_of(files: Mapping[str, str | bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """A gzip-compressed tar of `files` and symbolic `links`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return gzip.compress(buffer.getvalue(), mtime=0)


def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
    """What points to `content`."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def artifact(
    layers: Sequence[tuple[str, bytes]], *, annotations: Mapping[str, str] | None = None, config: bytes = EMPTY, **more: Any
) -> Image:
    """An image with these layers (media type and content), as the flux command pushes them."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(FLUX_CONFIG, config),
        "layers": [descriptor(kind, content) for kind, content in layers],
        **({"annotations": dict(annotations)} if annotations else {}),
        **more,
    }
    return Image((config, *(content for _, content in layers)), ((OCI_MANIFEST, orjson.dumps(manifest)),))


def of_files(files: Mapping[str, str | bytes], *, annotations: Mapping[str, str] | None = None) -> Image:
    """An image whose one layer has these files."""
    return artifact([(FLUX_LAYER, layer_of(files))], annotations=annotations)


def index_of(images: Mapping[str, Image]) -> Image:
    """A multi-platform image of `os/architecture` → image; an empty platform is left out of the index."""
    entries, blobs, manifests = [], [], []
    for platform, image in images.items():
        media_type, content = image.manifests[-1]
        system, _, architecture = platform.partition("/")
        more = {"platform": {"os": system, "architecture": architecture}} if platform else {}
        entries.append(descriptor(media_type, content, **more))
        blobs += image.blobs
        manifests += image.manifests
    whole = orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return Image(tuple(blobs), (*manifests, (OCI_INDEX, whole)))


def simple_signing(digest: str) -> bytes:
    """What cosign's older signatures are over."""
    return orjson.dumps(
        {
            "critical": {
                "identity": {"docker-reference": "example.com/app"},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def signature_image(signatures: Sequence[tuple[bytes, bytes, bytes, bytes]]) -> Image:
    """The image under `sha256-….sig`: payload, signature, certificate and promise of each signature."""
    layers = []
    for payload, signature, certificate, promise in signatures:
        annotations = {SIGNATURE: base64.b64encode(signature).decode()}
        annotations |= {CERTIFICATE: certificate.decode()} if certificate else {}
        annotations |= {PROMISE: promise.decode()} if promise else {}
        layers.append(descriptor(PAYLOAD_TYPE, payload, annotations=annotations))
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(FLUX_CONFIG, EMPTY), "layers": layers}
    return Image((EMPTY, *(entry[0] for entry in signatures)), ((OCI_MANIFEST, orjson.dumps(manifest)),))


def bundle_image(bundle: bytes, subject: Mapping[str, Any]) -> Image:
    """An image that holds a Sigstore bundle and refers to `subject` (a descriptor)."""
    return artifact([(BUNDLE_MEDIA_TYPE, bundle)], artifactType=BUNDLE_MEDIA_TYPE, subject=dict(subject))


def referrers_index(images: Sequence[Image], artifact_type: str = BUNDLE_MEDIA_TYPE) -> Image:
    """The index under `sha256-…` of images that refer to one, each given as one manifest."""
    entries = [descriptor(image.manifests[-1][0], image.manifests[-1][1], artifactType=artifact_type) for image in images]
    blobs = tuple(blob for image in images for blob in image.blobs)
    manifests = tuple(each for image in images for each in image.manifests)
    whole = orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return Image(blobs, (*manifests, (OCI_INDEX, whole)))


def statement(digest: str) -> bytes:
    """The in-toto statement that cosign signs for an image."""
    algorithm, _, value = digest.partition(":")
    return orjson.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "", "digest": {algorithm: value}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        }
    )


def key_bundle(envelope: Mapping[str, Any] | None = None, message: Mapping[str, Any] | None = None) -> bytes:
    """A Sigstore bundle of a signature made with a key."""
    content = {"dsseEnvelope": dict(envelope)} if envelope is not None else {"messageSignature": dict(message or {})}
    material = {"publicKey": {"hint": "key"}}
    return orjson.dumps({"mediaType": BUNDLE_MEDIA_TYPE, "verificationMaterial": material, **content})


def envelope(payload: bytes, signature: bytes, kind: str = "application/vnd.in-toto+json") -> dict[str, Any]:
    """A DSSE envelope."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
