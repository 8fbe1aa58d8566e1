"""Which image an OCIRepository means, and which of its layers. Pure; rules and texts are those of the Flux source-controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconcile.api.source import LayerSelector, OCIReference
from reconcile.errors import Invalid, ReconcileError
from reconcile.regexp import Regexp, RegexpError
from reconcile.registry.manifest import Descriptor, Manifest, Platform
from reconcile.registry.names import InvalidImage, Reference, Repository, is_digest, is_tag, parse_reference
from reconcile.versions import parse_constraint, version_key

SCHEME = "oci://"
LATEST = "latest"
PLATFORM = Platform("linux", "amd64")
"""Whose image is taken out of an index; the files of an artifact are the same for all."""

HELM_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
FLUX_CONFIG = "application/vnd.cncf.flux.config.v1+json"
FLUX_LAYER = "application/vnd.cncf.flux.content.v1.tar+gzip"

SOURCE_ANNOTATION = "org.opencontainers.image.source"
REVISION_ANNOTATION = "org.opencontainers.image.revision"


class InvalidUrl(Invalid):
    """`spec.url` names no repository; no retry helps."""


class NoSuchTag(ReconcileError):
    """No tag fits `spec.ref`, or `spec.ref` cannot be read."""


class LayerError(ReconcileError):
    """The image has not the layer that was asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be pulled.

    Attributes:
        repository: where.
        tag: the tag, or None if only a digest was given.
        digest: the digest; None until the registry said where the tag points.
    """

    repository: Repository
    tag: str | None
    digest: str | None = None

    @property
    def revision(self) -> str:
        """`<tag>@<digest>`, or the digest alone; only where the digest is known."""
        assert self.digest is not None  # noqa: S101 - callers resolve first
        return f"{self.tag}@{self.digest}" if self.tag is not None else self.digest

    @property
    def pinned(self) -> str:
        """`host/path@sha256:…`, which names the bytes."""
        return f"{self.repository.canonical}@{self.digest}"

    def __str__(self) -> str:
        """`host/path:tag` or `host/path@digest`, as the reference was given."""
        name = self.repository.canonical
        return f"{name}:{self.tag}" if self.tag is not None else f"{name}@{self.digest}"


def repository_of(url: str) -> Repository:
    """The repository behind `spec.url`; raises InvalidUrl."""
    if not url.startswith(SCHEME):
        raise InvalidUrl("URL must be in format 'oci://<domain>/<org>/<repo>'")
    text = url.removeprefix(SCHEME)
    try:
        reference: Reference = parse_reference(text)
    except InvalidImage as error:
        raise InvalidUrl(str(error)) from error
    rest = text.removeprefix(reference.repository.registry)
    if ":" in rest:
        raise InvalidUrl(f"URL must not contain a tag; remove ':{rest.split(':')[1]}'")
    return reference.repository


def fixed_target(repository: Repository, reference: OCIReference | None) -> Target | None:
    """The target where no tag list is needed (digest, tag or `latest`), None where a range chooses; raises NoSuchTag."""
    if reference is None:
        return Target(repository, LATEST)
    if reference.digest:
        if not is_digest(reference.digest):
            raise NoSuchTag(f"could not parse reference: {repository.canonical}@{reference.digest}")
        return Target(repository, None, reference.digest)
    if reference.semver:
        return None
    tag = reference.tag or LATEST
    if not is_tag(tag):
        raise NoSuchTag(f"could not parse reference: {repository.canonical}:{tag}")
    return Target(repository, tag)


def newest_tag(tags: Iterable[str], reference: OCIReference, media_type: str | None) -> str:
    """The tag with the highest version in the range `reference.semver`.

    A version needs three parts. For the layer type of Helm charts `_` in a tag stands for the `+` of a version. Of tags that are
    equal as versions the last in byte order wins, so that the choice does not depend on the registry's order.

    Raises:
        NoSuchTag: nothing matches, or filter or range cannot be read.
    """
    wanted = reference.semver or ""
    try:
        constraint = parse_constraint(wanted)
        pattern = Regexp(reference.semver_filter) if reference.semver_filter else None
    except (Invalid, RegexpError) as error:
        raise NoSuchTag(str(error)) from error
    best: tuple[bytes, str] | None = None
    for tag in tags:
        if tag.count(".") < 2 or (pattern is not None and not pattern.matches(tag)):
            continue
        key = version_key(tag.replace("_", "+") if media_type == HELM_LAYER else tag)
        if key is not None and constraint.accepts(key) and (best is None or (key, tag) > best):
            best = (key, tag)
    if best is None:
        raise NoSuchTag(f"no match found for semver: {wanted}")
    return best[1]


def image_for_platform(index: Manifest, reference: str) -> Descriptor:
    """The image of an index that is for linux/amd64; one that names no platform counts as such. Raises LayerError."""
    for image in index.images:
        platform = image.platform
        if platform is None or (platform.os, platform.architecture) == (PLATFORM.os, PLATFORM.architecture):
            return image
    raise LayerError(f"no child with platform {PLATFORM} in index {reference}")


def choose_layer(layers: Sequence[Descriptor], selector: LayerSelector | None) -> Descriptor:
    """The first layer, or the first with the media type that is asked for; raises LayerError."""
    if not layers:
        raise LayerError("no layers found in artifact")
    wanted = selector.media_type if selector is not None else None
    if not wanted:
        return layers[0]
    for layer in layers:
        if layer.media_type == wanted:
            return layer
    raise LayerError(f"failed to find layer with media type '{wanted}' in artifact")


def stored_message(revision: str, url: str, annotations: dict[str, str] | None) -> str:
    """The text of the event for a stored artifact, with the origin where the annotations tell source and revision."""
    text = f"stored artifact with revision '{revision}' from '{url}'"
    source, origin = ((annotations or {}).get(name, "") for name in (SOURCE_ANNOTATION, REVISION_ANNOTATION))
    return f"{text}, origin source '{source}', origin revision '{origin}'" if source and origin else text
