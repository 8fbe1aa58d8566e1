"""Tiny valid OCI images, the same bytes for the same arguments (OCI image specification v1.1). Pure."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from reconcile.registry.manifest import OCI_INDEX, OCI_MANIFEST, digest_of

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """Everything to push for one image.

    Attributes:
        blobs: configurations and layers.
        manifests: media type and bytes; the last one is what a tag points to.
    """

    blobs: tuple[bytes, ...]
    manifests: tuple[tuple[str, bytes], ...]


def make_image(name: str, tag: str, *, labels: Mapping[str, str], platforms: Sequence[str], created: str) -> Image:
    """An image whose one layer holds the file `image` with `name:tag`.

    Args:
        name: repository; part of the content, so that two images differ.
        tag: likewise.
        labels: of the configuration.
        platforms: `os/architecture[/variant]`; one makes an image, several an index of images.
        created: RFC 3339 time of the configuration.
    """
    blobs: list[bytes] = []
    manifests: list[tuple[str, bytes]] = []
    for platform in platforms:
        system, _, rest = platform.partition("/")
        architecture, _, variant = rest.partition("/")
        parts = {"os": system, "architecture": architecture} | ({"variant": variant} if variant else {})
        tar = _tar("image", f"{name}:{tag} {platform}\n".encode())
        layer = gzip.compress(tar, mtime=0)
        config = orjson.dumps(
            {
                "created": created,
                **parts,
                "config": {"Labels": dict(labels)},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
            }
        )
        blobs += [config, layer]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(LAYER_TYPE, layer)],
        }
        manifests.append((OCI_MANIFEST, orjson.dumps(manifest)))
    if len(platforms) > 1:
        images = [
            _descriptor(media_type, content)
            | {"platform": dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))}
            for platform, (media_type, content) in zip(platforms, manifests, strict=True)
        ]
        manifests.append((OCI_INDEX, orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": images})))
    return Image(tuple(blobs), tuple(manifests))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
