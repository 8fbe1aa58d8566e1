"""Names of images, with the texts that users of Flux know."""

from __future__ import annotations

import pytest

from reconcile.registry.names import InvalidImage, is_digest, is_local, is_tag, parse_reference, parse_repository

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alpine", "index.docker.io/library/alpine"),
        ("docker.io/alpine", "index.docker.io/library/alpine"),
        ("index.docker.io/alpine", "index.docker.io/library/alpine"),
        ("docker.io/library/alpine", "index.docker.io/library/alpine"),
        ("acme/app", "index.docker.io/acme/app"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/acme/app", "localhost:5000/acme/app"),
        ("ghcr.io/stefanprodan/podinfo", "ghcr.io/stefanprodan/podinfo"),
        ("REG.example.com/app", "REG.example.com/app"),
        ("[::1]:5000/acme/app", "[::1]:5000/acme/app"),
        ("a.b/" + "x" * 255, "a.b/" + "x" * 255),
        ("host/with/many/parts", "index.docker.io/host/with/many/parts"),
        ("a.b/c_d-e.f/g", "a.b/c_d-e.f/g"),
    ],
)
def test_repositories(text, canonical):
    repository = parse_repository(text)
    assert repository.canonical == canonical
    assert repository.text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://ghcr.io/a/b", "image 'https://ghcr.io/a/b' should not include URL scheme; remove 'https://'"),
        ("oci://ghcr.io/a/b:v1", "image 'oci://ghcr.io/a/b:v1' should not include URL scheme; remove 'oci://'"),
        ("ghcr.io/a/b:v1", "image 'ghcr.io/a/b:v1' should not include a tag; remove ':v1'"),
        ("127.0.0.1:5000/a/b:v1", "image '127.0.0.1:5000/a/b:v1' should not include a tag; remove ':v1'"),
        ("alpine:", "image 'alpine:' should not include a tag; remove ':'"),
        ("localhost:5000", "image 'localhost:5000' should not include a tag; remove ':5000'"),
        (f"ghcr.io/a/b@{DIGEST}", f"image 'ghcr.io/a/b@{DIGEST}' should not include a tag; remove ':{'ab' * 32}'"),
        (f"ghcr.io/a/b:v1@{DIGEST}", f"image 'ghcr.io/a/b:v1@{DIGEST}' should not include a tag; remove ':v1@sha256'"),
        ("", "could not parse reference: "),
        ("x", "could not parse reference: x"),
        ("ghcr.io/x", "could not parse reference: ghcr.io/x"),
        ("Alpine", "could not parse reference: Alpine"),
        ("ghcr.io/Acme/app", "could not parse reference: ghcr.io/Acme/app"),
        ("ghcr.io/acme/app:bad tag", "could not parse reference: ghcr.io/acme/app:bad tag"),
        ("ghcr.io/acme/app:" + "x" * 129, "could not parse reference: ghcr.io/acme/app:" + "x" * 129),
        ("ghcr.io/acme/app@sha256:abc", "could not parse reference: ghcr.io/acme/app@sha256:abc"),
        ("a.b/" + "x" * 256, "could not parse reference: a.b/" + "x" * 256),
        ("user@ghcr.io/acme/app", "could not parse reference: user@ghcr.io/acme/app"),
        ("gh cr.io/acme/app", "could not parse reference: gh cr.io/acme/app"),
        ("ghcr.io:port/acme/app", "could not parse reference: ghcr.io:port/acme/app"),
        ("ghcr.io:99999/acme/app", "could not parse reference: ghcr.io:99999/acme/app"),
        ("ghcr.io/acme/größe", "could not parse reference: ghcr.io/acme/größe"),
        ("ghcr.io/acme/app\n", "could not parse reference: ghcr.io/acme/app\n"),
    ],
)
def test_what_is_no_repository(text, message):
    with pytest.raises(InvalidImage) as caught:
        parse_repository(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "tag", "digest"),
    [
        ("alpine", None, None),
        ("alpine:3.20", "3.20", None),
        (f"ghcr.io/a/b@{DIGEST}", None, DIGEST),
        (f"127.0.0.1:5000/a/b:v1@{DIGEST}", "v1", DIGEST),
    ],
)
def test_references(text, tag, digest):
    reference = parse_reference(text)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert str(reference) == text


@pytest.mark.parametrize(
    "registry",
    [
        "localhost",
        "localhost:5000",
        "a.localhost",
        "a.localhost:5000",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]:5000",
        "10.1.2.3:5000",
        "172.16.0.1",
        "192.168.1.1",
    ],
)
def test_plain_http_is_permitted_near_by(registry):
    assert is_local(registry)
    assert parse_repository(f"{registry}/acme/app").schemes() == ("https", "http")


@pytest.mark.parametrize(
    "registry",
    [
        "ghcr.io",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.1.2.3.evil.example",
        "172.32.0.1",
        "11.0.0.1",
        "192.169.0.1:5000",
        "127.0.0.2",
    ],
)
def test_plain_http_needs_asking_elsewhere(registry):
    repository = parse_repository(f"{registry}/acme/app")
    assert repository.schemes() == ("https",)
    assert repository.schemes(insecure=True) == ("https", "http")


def test_tags_and_digests():
    assert is_tag("v1.2.3-rc_1")
    assert is_tag("x" * 128)
    assert not is_tag("")
    assert not is_tag("a/b")
    assert not is_tag("v1\n")
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST.upper())
    assert not is_digest(DIGEST + "0")
