"""Manifests and indexes: media types, platforms, digests. Pure; the original bytes stay beside the parsed view."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from reconcile.registry.errors import BadAnswer, DigestMismatch

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))
"""The `Accept` header for manifests: a multi-platform image answers with its index."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image in an index runs on.

    Attributes:
        os: for instance `linux`.
        architecture: for instance `arm64`.
        variant: for instance `v8`; empty when there is none.
    """

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content (OCI image specification, descriptor).

    Attributes:
        media_type: type of the content.
        digest: its digest.
        size: its bytes.
        platform: what it runs on, for images of an index that say so.
        annotations: free texts.
        artifact_type: what the content is for, where an index of referrers says so.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, as served.

    Attributes:
        raw: the bytes that `digest` is of.
        media_type: of the whole.
        digest: `sha256:…`, computed from `raw`.
        images: of an index, its images; else empty.
        config: of an image, its configuration; else None.
        layers: of an image, its layers; else empty.
        annotations: free texts.
    """

    raw: bytes
    media_type: str
    digest: str
    images: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether this is an index of several images."""
        return self.media_type in {OCI_INDEX, DOCKER_LIST}

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms an index has images for; attestations, whose platform is unknown, are left out."""
        found = (image.platform for image in self.images if image.platform is not None)
        return tuple(platform for platform in found if platform.os != "unknown")


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """`<algorithm>:<hex>` of `content`; sha256 or sha512."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def check_digest(content: bytes, wanted: str, what: str) -> None:
    """Raise `DigestMismatch`, naming both digests, unless `content` has the digest `wanted`."""
    algorithm = wanted.partition(":")[0]
    found = digest_of(content, algorithm if algorithm in {"sha256", "sha512"} else "sha256")
    if found != wanted:
        raise DigestMismatch(f"{what}: digest does not match the content: announced {wanted}, content is {found}")


def parse_manifest(raw: bytes, media_type: str, where: str) -> Manifest:
    """The manifest in `raw`; `where` names it in errors.

    Raises:
        BadAnswer: not JSON, or not shaped like a manifest or an index.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"{where}: the manifest is not JSON") from error
    if not isinstance(document, dict):
        raise BadAnswer(f"{where}: the manifest is not a JSON object")
    inner = document.get("mediaType")
    media_type = media_type.partition(";")[0].strip() or (inner if isinstance(inner, str) else "")
    config = document.get("config")
    return Manifest(
        raw=raw,
        media_type=media_type,
        digest=digest_of(raw),
        images=_descriptors(document.get("manifests"), where),
        config=_descriptor(config, where) if config is not None else None,
        layers=_descriptors(document.get("layers"), where),
        annotations=_texts(document.get("annotations")),
    )


def _descriptors(value: Any, where: str) -> tuple[Descriptor, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadAnswer(f"{where}: the manifest holds a list that is none")
    return tuple(_descriptor(entry, where) for entry in value)


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise BadAnswer(f"{where}: a descriptor is not an object")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not (isinstance(media_type, str) and isinstance(digest, str) and isinstance(size, int)):
        raise BadAnswer(f"{where}: a descriptor lacks mediaType, digest or size")
    platform, artifact_type = value.get("platform"), value.get("artifactType")
    return Descriptor(
        media_type,
        digest,
        size,
        _platform(platform),
        _texts(value.get("annotations")),
        artifact_type if isinstance(artifact_type, str) else "",
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    texts = (value.get(name) for name in ("os", "architecture", "variant"))
    return Platform(*(text if isinstance(text, str) else "" for text in texts))


def _texts(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
