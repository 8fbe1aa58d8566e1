"""Blobs on their way to disk, and what refers to an image."""

from __future__ import annotations

import io

import orjson
import pytest
from starlette.responses import Response

from imagebot.demo.door import ApiError, error_response
from reconcile.registry.errors import BadAnswer, DigestMismatch, StatusError, Unreachable
from reconcile.registry.manifest import OCI_INDEX, digest_of
from tests.support.oci_artifacts import BUNDLE_MEDIA_TYPE, bundle_image, descriptor, of_files, referrers_index
from tests.support.registry import TestRegistry, make_pool


@pytest.fixture
async def registry():
    async with TestRegistry() as running:
        yield running


@pytest.fixture
async def client(registry):
    async with make_pool() as pool:
        yield await pool.client(registry.repository("acme/app"))


def keep(registry: TestRegistry, content: bytes) -> str:
    digest = digest_of(content)
    registry.blobs[digest] = content
    return digest


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 3 * 1024 * 1024 + 1])
async def test_a_blob_is_written_as_it_is(registry, client, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    out = io.BytesIO()
    written = await client.download(registry.repository("acme/app"), keep(registry, content), out, limit=size)
    assert (written, out.getvalue()) == (size, content)


async def test_a_blob_over_the_limit_is_refused(registry, client):
    digest = keep(registry, b"x" * 1001)
    with pytest.raises(Unreachable, match="larger than the limit of 1000 bytes"):
        await client.download(registry.repository("acme/app"), digest, io.BytesIO(), limit=1000)


async def test_a_blob_that_is_another_one(registry, client):
    digest = keep(registry, b"wanted")
    registry.blobs[digest] = b"other"
    with pytest.raises(DigestMismatch, match=f"announced {digest}"):
        await client.download(registry.repository("acme/app"), digest, io.BytesIO(), limit=1000)


async def test_a_blob_that_is_not_there_or_has_an_unknown_digest(registry, client):
    repository = registry.repository("acme/app")
    with pytest.raises(StatusError, match="BLOB_UNKNOWN"):
        await client.download(repository, digest_of(b"none"), io.BytesIO(), limit=1000)
    registry.blobs["md5:1"] = b"x"
    with pytest.raises(BadAnswer, match="digests of kind 'md5' are not known"):
        await client.download(repository, "md5:1", io.BytesIO(), limit=1000)


async def test_turns_are_given_back_after_downloads(registry, client):
    digest = keep(registry, b"content")
    for _ in range(40):  # more than a registry gets at once
        await client.download(registry.repository("acme/app"), digest, io.BytesIO(), limit=1000)
    for _ in range(40):
        with pytest.raises(StatusError):
            await client.download(registry.repository("acme/app"), digest_of(b"none"), io.BytesIO(), limit=1000)


# --- referrers


@pytest.fixture
def image(registry):
    image = of_files({"a": "b"})
    return image, registry.put_image("acme/app", "latest", image)


def referrer(image):
    return bundle_image(b"{}", descriptor(*image.manifests[-1]))


async def test_the_endpoint_for_referrers(registry, client, image):
    found = referrer(image[0])
    index = referrers_index([found]).manifests[-1][1]
    registry.answers(Response(index, media_type=OCI_INDEX), path="/referrers/")
    listed = await client.referrers(registry.repository("acme/app"), image[1])
    assert [(each.digest, each.artifact_type) for each in listed] == [(digest_of(found.manifests[-1][1]), BUNDLE_MEDIA_TYPE)]
    assert registry.requests["manifest"] == 0


async def test_a_registry_without_the_endpoint_is_asked_for_a_tag(registry, client, image):
    repository, digest = registry.repository("acme/app"), image[1]
    assert await client.referrers(repository, digest) == ()
    registry.put_image("acme/app", digest.replace(":", "-"), referrers_index([referrer(image[0])]))
    assert len(await client.referrers(repository, digest)) == 1


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_failing_endpoint_is_no_missing_one(registry, client, image, status):
    registry.answers(error_response(ApiError(status, "DENIED", "no")), path="/referrers/")
    with pytest.raises(StatusError, match="DENIED"):
        await client.referrers(registry.repository("acme/app"), image[1])


@pytest.mark.parametrize("body", [b"<html>", orjson.dumps({"manifests": [{"digest": 1}]}), b"[]"])
async def test_lists_of_referrers_that_are_none(registry, client, image, body):
    registry.answers(Response(body, media_type=OCI_INDEX), path="/referrers/")
    with pytest.raises(BadAnswer):
        await client.referrers(registry.repository("acme/app"), image[1])
