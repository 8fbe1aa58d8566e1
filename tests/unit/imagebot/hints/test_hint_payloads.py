"""What registries send: the payloads of their own documents, and what is no payload at all."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest

from imagebot.hints.payloads import MOST_IMAGES, SENDERS, Pushed, Unreadable, pushed
from reconcile.registry.names import parse_repository

DIGEST = "sha256:" + "ab" * 32

GHCR, HUB = "ghcr.io/octocat/hello-docker", "hub.harbor.com/test-webhook/debian"
CHINA = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"

DOCKERHUB = {
    "callback_url": "https://registry.hub.docker.com/u/svendowideit/testhook/hook/2141b5bi5i5b02bec211i4eeih0242eg11000a/",
    "push_data": {"pushed_at": 1417566161, "pusher": "trustedbuilder", "tag": "latest"},
    "repository": {
        "comment_count": 0,
        "date_created": 1417494799,
        "is_private": False,
        "name": "testhook",
        "namespace": "svendowideit",
        "repo_name": "svendowideit/testhook",
        "repo_url": "https://registry.hub.docker.com/u/svendowideit/testhook/",
        "star_count": 0,
        "status": "Active",
    },
}
PACKAGE = {
    "id": 10696,
    "name": "hello-docker",
    "namespace": "Octocat",
    "ecosystem": "CONTAINER",
    "package_type": "CONTAINER",
    "package_version": {
        "id": 2814597,
        "version": DIGEST,
        "name": DIGEST,
        "body": {},
        "container_metadata": {"labels": {}, "manifest": {}, "tag": {"digest": DIGEST, "name": "1.0-RC1"}},
        "package_url": "ghcr.io/Octocat/hello-docker:1.0-RC1",
    },
    "registry": {"name": "GitHub CONTAINER registry", "type": "CONTAINER"},
}
REGISTRY_PACKAGE = {"x_github_event": "registry_package"}
HARBOR = {
    "type": "PUSH_ARTIFACT",
    "occur_at": 1586922308,
    "operator": "admin",
    "event_data": {
        "resources": [
            {"digest": DIGEST, "tag": "latest", "resource_url": "hub.harbor.com/test-webhook/debian:latest"},
        ],
        "repository": {
            "date_created": 1586922308,
            "name": "debian",
            "namespace": "test-webhook",
            "repo_full_name": "test-webhook/debian",
            "repo_type": "private",
        },
    },
}
QUAY = {
    "name": "repository",
    "repository": "mynamespace/repository",
    "namespace": "mynamespace",
    "docker_url": "quay.io/mynamespace/repository",
    "homepage": "https://quay.io/repository/mynamespace/repository",
    "updated_tags": ["latest", "1.0"],
}
ACR = {
    "id": "cb8c3971-9adc-488b-xxxx-43cbb4974ff5",
    "timestamp": "2017-11-17T16:52:01.343145347Z",
    "action": "push",
    "target": {
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "size": 524,
        "digest": DIGEST,
        "length": 524,
        "repository": "hello-world",
        "tag": "v1",
    },
    "request": {
        "id": "3cbb6949-7549-4fa1-xxxx-a6d5451dffc7",
        "host": "myregistry.azurecr.io",
        "method": "PUT",
        "useragent": "docker/17.09.0-ce",
    },
}
ECR = {
    "version": "0",
    "id": "13cde686-328b-6117-af20-0e5566167482",
    "detail-type": "ECR Image Action",
    "source": "aws.ecr",
    "account": "123456789012",
    "time": "2019-11-16T01:54:34Z",
    "region": "us-west-2",
    "resources": [],
    "detail": {
        "result": "SUCCESS",
        "repository-name": "my-repository-name",
        "image-digest": DIGEST,
        "action-type": "PUSH",
        "image-tag": "latest",
    },
}
DISTRIBUTION = {
    "events": [
        {
            "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
            "timestamp": "2016-03-09T14:44:26.402973972-08:00",
            "action": "push",
            "target": {
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "size": 708,
                "digest": DIGEST,
                "length": 708,
                "repository": "team/hello-world",
                "url": f"http://192.168.100.227:5000/v2/team/hello-world/manifests/{DIGEST}",
                "tag": "latest",
            },
            "request": {"id": "6df24a34", "addr": "192.168.64.11:42961", "host": "192.168.100.227:5000", "method": "PUT"},
            "actor": {},
            "source": {"addr": "xtal.local:5000", "instanceID": "a53db899-3b4b-4a62-a067-8dd013beaca4"},
        },
        {"action": "pull", "target": {"repository": "team/hello-world", "tag": "old"}},
        {"action": "push", "target": {"repository": "team/hello-world", "digest": DIGEST}},
    ]
}
NEXUS_COMPONENT = {
    "timestamp": "2016-11-14T19:32:13.515+0000",
    "nodeId": "7FFA7361-6ED33978-36997BD4-47095CC4-331356BE",
    "initiator": "anonymous/127.0.0.1",
    "repositoryName": "docker-hosted",
    "action": "CREATED",
    "component": {"id": "08909bf0c86cf6c9600aade89e1c5e25", "format": "docker", "name": "team/web", "version": "1.2.3"},
}
NEXUS_ASSET = {
    "timestamp": "2016-11-10T23:57:49.664+0000",
    "nodeId": "52905B51-085CCABB-CEBBEAAD-16795588-FC927D93",
    "initiator": "admin/127.0.0.1",
    "repositoryName": "docker-hosted",
    "action": "CREATED",
    "asset": {"id": "31c950c8eeeab78336308177ae9c441c", "format": "docker", "name": "/v2/team/web/manifests/1.2.3"},
}
CDEVENT = {
    "context": {
        "version": "0.4.1",
        "id": "271069a8-fc18-44f1-b38f-9d70a1695819",
        "source": "/event/source/123",
        "type": "dev.cdevents.artifact.published.0.2.0",
        "timestamp": "2023-03-20T14:27:05.315384Z",
    },
    "subject": {
        "id": f"pkg:oci/web@{DIGEST.replace(':', '%3A')}?repository_url=ghcr.io%2Forg%2Fweb&tag=1.2.3",
        "source": "/event/source/123",
        "type": "artifact",
        "content": {},
    },
}
PIPELINE = {"object_kind": "pipeline", "object_attributes": {"id": 31, "ref": "main", "status": "success"}, "project": {"id": 1}}


def read(kind: str, document: Any, **headers: str) -> tuple[Pushed, ...]:
    return pushed(kind, {name.replace("_", "-"): value for name, value in headers.items()}, orjson.dumps(document))


@pytest.mark.parametrize(
    ("kind", "document", "headers", "expected"),
    [
        ("dockerhub", DOCKERHUB, {}, [("docker.io/svendowideit/testhook", "latest", "")]),
        ("dockerhub", {**DOCKERHUB, "repository": {"repo_name": "busybox"}}, {}, [("busybox", "latest", "")]),
        ("github", {"action": "published", "package": PACKAGE}, {"x_github_event": "package"}, [(GHCR, "1.0-RC1", DIGEST)]),
        ("github", {"action": "updated", "registry_package": PACKAGE}, REGISTRY_PACKAGE, [(GHCR, "1.0-RC1", DIGEST)]),
        ("harbor", HARBOR, {}, [(HUB, "latest", DIGEST)]),
        ("harbor", {"type": "harbor.artifact.pushed", "data": HARBOR["event_data"]}, {}, [(HUB, "latest", DIGEST)]),
        ("quay", QUAY, {}, [("quay.io/mynamespace/repository", "latest", ""), ("quay.io/mynamespace/repository", "1.0", "")]),
        ("quay", {**QUAY, "updated_tags": {"latest": "b750fe"}}, {}, [("quay.io/mynamespace/repository", "latest", "")]),
        ("acr", ACR, {}, [("myregistry.azurecr.io/hello-world", "v1", DIGEST)]),
        ("ecr", ECR, {}, [("123456789012.dkr.ecr.us-west-2.amazonaws.com/my-repository-name", "latest", DIGEST)]),
        ("ecr", {**ECR, "region": "cn-north-1"}, {}, [(f"{CHINA}/my-repository-name", "latest", DIGEST)]),
        ("distribution", DISTRIBUTION, {}, [("registry.example.com/team/hello-world", "latest", DIGEST)]),
        ("gitlab", DISTRIBUTION, {}, [("registry.example.com/team/hello-world", "latest", DIGEST)]),
        ("nexus", NEXUS_COMPONENT, {}, [("nexus.example.com/team/web", "1.2.3", "")]),
        ("nexus", NEXUS_COMPONENT, {}, [("nexus.example.com/docker-hosted/team/web", "1.2.3", "")]),
        ("nexus", NEXUS_ASSET, {}, [("nexus.example.com/team/web", "1.2.3", "")]),
        ("cdevents", CDEVENT, {"ce_type": "dev.cdevents.artifact.published.0.2.0"}, [("ghcr.io/org/web", "1.2.3", DIGEST)]),
        ("cdevents", CDEVENT, {}, [("ghcr.io/org/web", "1.2.3", DIGEST)]),
        ("generic-hmac", {"image": "ghcr.io/org/web", "tag": "1.0"}, {}, [("ghcr.io/org/web", "1.0", "")]),
        ("generic-hmac", {"image": f"ghcr.io/org/web:1.0@{DIGEST}"}, {}, [("ghcr.io/org/web", "1.0", DIGEST)]),
        ("generic-hmac", {"image": "ghcr.io/org/web"}, {}, [("ghcr.io/org/web", "", "")]),
        ("generic-hmac", {"tag": "1.0"}, {}, [("whatever.example.com/it/is", "1.0", "")]),
        ("gitlab", PIPELINE, {}, [("whatever.example.com/it/is", "", "")]),
    ],
)  # fmt: skip
def test_the_payloads_of_the_documents(
    kind: str, document: Any, headers: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    found = read(kind, document, **headers)
    assert [(image.tag, image.digest) for image in found] == [(tag, digest) for _, tag, digest in expected]
    for image, (name, _, _) in zip(found, expected, strict=True):
        assert image.is_of(parse_repository(name))
        if image.path:
            assert not image.is_of(parse_repository(f"{name}x"))
            assert not image.is_of(parse_repository(f"{name}/more"))
            assert not image.is_of(parse_repository("127.0.0.1:5000/other"))
        if image.hosts:
            assert not image.is_of(parse_repository(f"elsewhere.example.com/{image.path}"))


def test_a_prefix_before_the_name_counts_for_nexus_only() -> None:
    [of_nexus] = read("nexus", NEXUS_COMPONENT)
    assert of_nexus.is_of(parse_repository("n.example.com/docker-hosted/team/web"))
    assert not of_nexus.is_of(parse_repository("n.example.com/otherteam/web"))
    assert not of_nexus.is_of(parse_repository("n.example.com/steam/web"))
    [of_distribution] = read("distribution", DISTRIBUTION)
    assert not of_distribution.is_of(parse_repository("n.example.com/prefix/team/hello-world"))


def test_a_form_of_github_is_read() -> None:
    body = b"payload=" + quote_plus(orjson.dumps({"action": "published", "package": PACKAGE}).decode()).encode()
    headers = {"x-github-event": "package", "content-type": "application/x-www-form-urlencoded"}
    assert [image.tag for image in pushed("github", headers, body)] == ["1.0-RC1"]
    with pytest.raises(Unreadable):
        pushed("github", headers, b"payload=\xff")
    with pytest.raises(Unreadable):
        pushed("github", headers, b"other=1")


def test_a_package_whose_tag_is_not_known_yet_counts_without_one() -> None:
    version = {**PACKAGE["package_version"], "container_metadata": {"tag": {"name": "", "digest": ""}}}  # type: ignore[dict-item]
    for url in ("ghcr.io/octocat/hello-docker:", "ghcr.io/octocat/hello-docker", "", None):
        package = {**PACKAGE, "package_version": {**version, "package_url": url}}
        [image] = read("github", {"action": "published", "package": package}, x_github_event="package")
        assert (image.tag, image.digest) == ("", DIGEST)
        assert image.is_of(parse_repository("ghcr.io/octocat/hello-docker"))


@pytest.mark.parametrize(
    ("kind", "document", "headers"),
    [
        ("dockerhub", {}, {}),
        ("dockerhub", {"push_data": None, "repository": None}, {}),
        ("github", {"zen": "Design for failure.", "hook_id": 1}, {"x_github_event": "ping"}),
        ("github", {"action": "published", "package": {**PACKAGE, "package_type": "npm"}}, {"x_github_event": "package"}),
        ("github", {"action": "published", "package": PACKAGE}, {"x_github_event": "push"}),
        ("harbor", {**HARBOR, "type": "DELETE_ARTIFACT"}, {}),
        ("quay", {"docker_url": "quay.io/a/b"}, {}),
        ("acr", {**ACR, "action": "delete"}, {}),
        ("acr", {"action": "ping"}, {}),
        ("ecr", {**ECR, "detail": {**ECR["detail"], "action-type": "DELETE"}}, {}),  # type: ignore[dict-item]
        ("ecr", {**ECR, "detail": {**ECR["detail"], "result": "FAILURE"}}, {}),  # type: ignore[dict-item]
        ("ecr", {**ECR, "detail-type": "ECR Image Scan"}, {}),
        ("gitlab", {**PIPELINE, "object_attributes": {"status": "failed"}}, {}),
        ("gitlab", {"object_kind": "push"}, {}),
        ("nexus", {**NEXUS_COMPONENT, "action": "DELETED"}, {}),
        ("nexus", {**NEXUS_COMPONENT, "component": {"format": "npm", "name": "a", "version": "1"}}, {}),
        ("nexus", {**NEXUS_ASSET, "asset": {"format": "docker", "name": "v2/-/blobs/sha256:ab"}}, {}),
        ("distribution", {"events": []}, {}),
        ("cdevents", {"context": {"type": "dev.cdevents.change.merged.0.1.2"}}, {}),
        ("cdevents", {**CDEVENT, "subject": {"id": "pkg:npm/web@1.0"}}, {}),
    ],
)
def test_what_is_no_push_is_read_and_ignored(kind: str, document: Any, headers: dict[str, str]) -> None:
    assert read(kind, document, **headers) == ()


@pytest.mark.parametrize("kind", sorted(SENDERS))
def test_what_is_no_json_object_is_refused(kind: str) -> None:
    for body in (b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"[" * 5000, b'{"a":' * 5000):
        with pytest.raises(Unreadable):
            pushed(kind, {"x-github-event": "package"}, body)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("dockerhub", {"push_data": "x"}),
        ("dockerhub", {"push_data": {"tag": 1}, "repository": {"repo_name": "a/b"}}),
        ("harbor", {"type": 1}),
        ("harbor", {**HARBOR, "event_data": {"resources": {}}}),
        ("quay", {**QUAY, "updated_tags": 1}),
        ("acr", {"action": "push", "target": []}),
        ("nexus", {"action": "CREATED", "repositoryName": []}),
        ("distribution", {"events": {}}),
        ("distribution", {"events": [1]}),
        ("generic-hmac", {"image": ["x"]}),
        ("generic-hmac", {"image": "No Image"}),
    ],
)
def test_types_that_do_not_fit_are_refused(kind: str, document: Any) -> None:
    with pytest.raises(Unreadable):
        read(kind, document)


def test_one_delivery_brings_a_bounded_number_of_images() -> None:
    event = {"action": "push", "target": {"repository": "a/b"}}
    events = [{**event, "target": {"repository": "a/b", "tag": f"t{n}"}} for n in range(MOST_IMAGES + 50)]
    assert len(read("distribution", {"events": events})) == MOST_IMAGES


@pytest.mark.parametrize("tag", ["a b", "x" * 129, "-\n", "../x", "x" * 5000])
def test_texts_that_are_no_tags_are_dropped(tag: str) -> None:
    assert read("dockerhub", {"push_data": {"tag": tag}, "repository": {"repo_name": "a/b"}}) in (
        (),
        (Pushed("a/b", "", hosts=("index.docker.io",)),),
    )
