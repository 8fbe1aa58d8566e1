"""Which image and which layer an OCIRepository means."""

from __future__ import annotations

import pytest

from reconcile.api.source import LayerSelector, OCIReference
from reconcile.registry.manifest import Descriptor, Manifest, Platform
from reconcile.registry.names import parse_repository
from reconcile.sources.oci_resolve import (
    HELM_LAYER,
    InvalidUrl,
    LayerError,
    NoSuchTag,
    Target,
    choose_layer,
    fixed_target,
    image_for_platform,
    newest_tag,
    repository_of,
    stored_message,
)

DIGEST = f"sha256:{'a' * 64}"
REPOSITORY = parse_repository("ghcr.io/acme/app")


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("oci://ghcr.io/acme/app", "ghcr.io/acme/app"),
        ("oci://localhost:5000/app", "localhost:5000/app"),
        ("oci://docker.io/app", "index.docker.io/library/app"),
        ("oci://registry.example:8443/a/b/c", "registry.example:8443/a/b/c"),
    ],
)
def test_addresses(url, canonical):
    assert repository_of(url).canonical == canonical


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://ghcr.io/acme/app", "URL must be in format 'oci://<domain>/<org>/<repo>'"),
        ("oci://ghcr.io/acme/app:1.0", "URL must not contain a tag; remove ':1.0'"),
        ("oci://localhost:5000/app:1.0", "URL must not contain a tag; remove ':1.0'"),
        (f"oci://ghcr.io/acme/app@{DIGEST}", f"URL must not contain a tag; remove ':{'a' * 64}'"),
        ("oci://", "could not parse reference: "),
        ("oci://ghcr.io/", "could not parse reference: ghcr.io/"),
        ("oci://ghcr.io/ACME/app", "could not parse reference: ghcr.io/ACME/app"),
    ],
)
def test_addresses_that_are_none(url, message):
    with pytest.raises(InvalidUrl) as caught:
        repository_of(url)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (None, "ghcr.io/acme/app:latest"),
        (OCIReference(), "ghcr.io/acme/app:latest"),
        (OCIReference(tag="v1"), "ghcr.io/acme/app:v1"),
        (OCIReference(tag="v1", digest=DIGEST, semver="*"), f"ghcr.io/acme/app@{DIGEST}"),
        (OCIReference(tag="v1", semver="*"), None),
    ],
)
def test_digest_before_range_before_tag(reference, expected):
    target = fixed_target(REPOSITORY, reference)
    assert (None if target is None else str(target)) == expected


@pytest.mark.parametrize("reference", [OCIReference(tag="a b"), OCIReference(digest="sha256:1"), OCIReference(digest="latest")])
def test_references_that_are_none(reference):
    with pytest.raises(NoSuchTag, match="could not parse reference"):
        fixed_target(REPOSITORY, reference)


def test_what_a_target_is_called():
    by_tag = Target(REPOSITORY, "1.0", DIGEST)
    assert (by_tag.revision, str(by_tag), by_tag.pinned) == (
        f"1.0@{DIGEST}",
        "ghcr.io/acme/app:1.0",
        f"ghcr.io/acme/app@{DIGEST}",
    )
    by_digest = Target(REPOSITORY, None, DIGEST)
    assert (by_digest.revision, str(by_digest)) == (DIGEST, f"ghcr.io/acme/app@{DIGEST}")


@pytest.mark.parametrize(
    ("tags", "reference", "expected"),
    [
        (["1.0.0", "1.10.0", "1.9.0", "latest"], OCIReference(semver="*"), "1.10.0"),
        (["1.0", "1", "0.1.0"], OCIReference(semver="*"), "0.1.0"),
        (["1.0.0", "2.0.0-rc.1"], OCIReference(semver=">=1"), "1.0.0"),
        (["1.0.0", "2.0.0-rc.1"], OCIReference(semver=">=1.0.0-0"), "2.0.0-rc.1"),
        (["1.0.0", "1.1.0-dev", "1.2.0-rc"], OCIReference(semver=">=1.0.0-0", semver_filter="-dev$"), "1.1.0-dev"),
        (["1.0.0+a", "v1.0.0", "1.0.0"], OCIReference(semver="1.x"), "v1.0.0"),
    ],
)
def test_the_newest_tag_in_a_range(tags, reference, expected):
    assert newest_tag(tags, reference, None) == newest_tag(reversed(tags), reference, None) == expected


def test_underscores_stand_for_plus_in_tags_of_charts_alone():
    tags, reference = ["1.0.0", "1.1.0_build.7"], OCIReference(semver="1.x")
    assert newest_tag(tags, reference, HELM_LAYER) == "1.1.0_build.7"
    assert newest_tag(tags, reference, None) == "1.0.0"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (OCIReference(semver=">=2"), "no match found for semver: >=2"),
        (OCIReference(semver="a.b"), 'improper constraint: "a.b"'),
        (OCIReference(semver="*", semver_filter="(?<x>"), "error parsing regexp"),
        (OCIReference(semver="*", semver_filter="^nothing$"), r"no match found for semver: \*"),
    ],
)
def test_no_tag_in_a_range(reference, message):
    with pytest.raises(NoSuchTag, match=message):
        newest_tag(["1.0.0"], reference, None)


def entry(platform: str = "", media_type: str = "x") -> Descriptor:
    system, _, machine = platform.partition("/")
    return Descriptor(media_type, DIGEST, 1, Platform(system, machine) if platform else None, {"name": platform})


def test_an_image_without_platform_counts_as_ours():
    index = Manifest(b"", "", DIGEST, (entry("linux/arm64"), entry(), entry("linux/amd64")))
    assert image_for_platform(index, "x").platform is None
    with pytest.raises(LayerError, match="no child with platform linux/amd64 in index x"):
        image_for_platform(Manifest(b"", "", DIGEST, (entry("windows/amd64"),)), "x")


def test_layers():
    layers = [entry(media_type="a"), entry(media_type="b"), entry(media_type="b")]
    assert choose_layer(layers, None) is layers[0]
    assert choose_layer(layers, LayerSelector(operation="copy")) is layers[0]
    assert choose_layer(layers, LayerSelector(media_type="b")) is layers[1]
    with pytest.raises(LayerError, match="failed to find layer with media type 'c' in artifact"):
        choose_layer(layers, LayerSelector(media_type="c"))
    with pytest.raises(LayerError, match="no layers found in artifact"):
        choose_layer([], None)


def test_the_origin_is_told_only_when_source_and_revision_are_known():
    source, revision = "org.opencontainers.image.source", "org.opencontainers.image.revision"
    text = "stored artifact with revision 'r' from 'u'"
    assert stored_message("r", "u", None) == stored_message("r", "u", {source: "s"}) == text
    assert stored_message("r", "u", {source: "s", revision: "c"}) == f"{text}, origin source 's', origin revision 'c'"
