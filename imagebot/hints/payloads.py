"""What registries send when an image was pushed: bytes in, names, tags and digests out. Pure.

One function for each kind of sender, each naming the document that it follows. Fields that we do not need may be missing or be
anything; a field that we need and that is of another type makes the payload `Unreadable`, as with Flux's Receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from reconcile.errors import ReconcileError
from reconcile.registry.names import DOCKER_HUB, InvalidImage, Reference, Repository, is_digest, is_tag, parse_reference

MOST_IMAGES = 100
"""Images of one delivery that count."""
_MOST_TEXT = 1024
_FORM = "application/x-www-form-urlencoded"

Headers = Mapping[str, str]
"""Headers of a request, by their names in lower case."""


class Unreadable(ReconcileError):
    """The body is not what this sender sends."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image that was pushed, as far as the sender says.

    Attributes:
        path: path in the registry; empty: the image that the hint was set up for.
        tag: its tag; empty: not said.
        digest: its digest; empty: not said, or not a digest.
        hosts: names under which the registry is reached; empty: not known.
        below: whether `path` may be the end of the real path only (registries behind one name with a prefix for each).
    """

    path: str = ""
    tag: str = ""
    digest: str = ""
    hosts: tuple[str, ...] = ()
    below: bool = False

    def is_of(self, repository: Repository) -> bool:
        """Whether this is an image of `repository`."""
        if self.hosts and repository.registry not in self.hosts:
            return False
        return not self.path or repository.path == self.path or (self.below and repository.path.endswith(f"/{self.path}"))


def pushed(kind: str, headers: Headers, body: bytes) -> tuple[Pushed, ...]:
    """The images that a delivery tells of; none when it tells of something else.

    Args:
        kind: a `HintType`.
        headers: those of the request.
        body: its body.

    Raises:
        Unreadable: the body is not JSON, or not of this sender.
    """
    sender = SENDERS[kind]
    document = _document(_form_payload(body) if kind == "github" and _is_form(headers) else body)
    return tuple(islice(sender.read(headers, document), MOST_IMAGES))


def _dockerhub(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Docker Hub documentation: «Webhooks», example payload."""
    name, tag = _text(document, "repository", "repo_name"), _text(document, "push_data", "tag")
    if name and is_tag(tag):
        yield Pushed(name if "/" in name else f"library/{name}", tag, hosts=(DOCKER_HUB,))


def _github(headers: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """GitHub documentation: «Webhook events and payloads», `package` and `registry_package`.

    Without a tag the package may still have got one: it is told before its metadata are complete.
    """
    event = headers.get("x-github-event", "")
    if event not in ("package", "registry_package") or _text(document, "action") not in ("published", "updated"):
        return
    kind = _text(document, event, "package_type") or _text(document, event, "ecosystem")
    if kind.lower() not in ("container", "docker"):
        return
    version = (event, "package_version")
    tag = _tag(_text(document, *version, "container_metadata", "tag", "name"))
    digest = _text(document, *version, "container_metadata", "tag", "digest") or _text(document, *version, "version")
    name, _, last = _text(document, *version, "package_url").rpartition("/")
    # Owners may have capital letters, names of images may not; tags keep theirs.
    found = _reference(f"{name.lower()}/{last.partition(':')[0].lower()}:{last.partition(':')[2]}".rstrip(":") if name else "")
    if found is not None:
        yield Pushed(found.repository.path, tag or found.tag or "", _digest(digest), (found.repository.registry,))
        return
    path = f"{_text(document, event, 'namespace')}/{_text(document, event, 'name')}".strip("/").lower()
    if path:
        yield Pushed(path, tag, _digest(digest))


def _harbor(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Harbor documentation: «Configure Webhook Notifications», payloads `Default` and `CloudEvents` of «Artifact pushed»."""
    kind = _text(document, "type")
    data = {"PUSH_ARTIFACT": "event_data", "harbor.artifact.pushed": "data"}.get(kind)
    if data is None:
        return
    path = _text(document, data, "repository", "repo_full_name")
    for resource in _list(document, data, "resources"):
        tag = _tag(_text(resource, "tag"))
        found = _reference(_text(resource, "resource_url"))
        if tag and (found is not None or path):
            hosts = (found.repository.registry,) if found is not None else ()
            yield Pushed(path or _path(found), tag, _digest(_text(resource, "digest")), hosts)


def _quay(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Red Hat Quay documentation: «Repository Notifications», `Repository Push`. Older versions send tags with image ids."""
    found = _reference(_text(document, "docker_url"))
    tags = document.get("updated_tags") or []
    if not isinstance(tags, list | dict):
        raise Unreadable("'updated_tags' is neither a list nor an object")
    if found is None:
        return
    for tag in tags:
        if isinstance(tag, str) and is_tag(tag):
            yield Pushed(found.repository.path, tag, hosts=(found.repository.registry,))


def _acr(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Azure documentation: «Azure Container Registry webhook reference», push event."""
    path, tag = _text(document, "target", "repository"), _tag(_text(document, "target", "tag"))
    if _text(document, "action") == "push" and path and tag:
        host = _text(document, "request", "host").lower()
        yield Pushed(path, tag, _digest(_text(document, "target", "digest")), (host,) if host else ())


def _ecr(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """AWS documentation: «Amazon ECR events and EventBridge», event for a completed image push."""
    if (_text(document, "source"), _text(document, "detail-type")) != ("aws.ecr", "ECR Image Action"):
        return
    if (_text(document, "detail", "action-type"), _text(document, "detail", "result")) != ("PUSH", "SUCCESS"):
        return
    path, tag = _text(document, "detail", "repository-name"), _tag(_text(document, "detail", "image-tag"))
    if not path or not tag:
        return
    account, region = _text(document, "account"), _text(document, "region")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    hosts = (
        f"{account}.dkr.ecr.{region}.{domain}",
        f"{account}.dkr.ecr-fips.{region}.{domain}",
        f"{account}.dkr-ecr.{region}.on.aws",
        f"{account}.dkr-ecr-fips.{region}.on.aws",
    )
    yield Pushed(path, tag, _digest(_text(document, "detail", "image-digest")), hosts)


def _gitlab(headers: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """GitLab documentation: «Container registry notifications» of a GitLab of one's own, which are those of CNCF Distribution;
    else «Webhook events», pipeline events: a pipeline that succeeded may have pushed, and does not say what."""
    if "object_kind" not in document:
        yield from _distribution(headers, document)
    elif (_text(document, "object_kind"), _text(document, "object_attributes", "status")) == ("pipeline", "success"):
        yield Pushed()


def _nexus(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Sonatype documentation: «Example Headers And Payloads», repository component and asset webhooks.

    The name is that inside of the repository; whether it is a part of the path depends on how the repository is served.
    """
    if _text(document, "action") not in ("CREATED", "UPDATED"):
        return
    _text(document, "repositoryName")
    if _text(document, "component", "format") == "docker":
        path, tag = _text(document, "component", "name"), _text(document, "component", "version")
    elif _text(document, "asset", "format") == "docker":
        path, __, tag = _text(document, "asset", "name").removeprefix("/").removeprefix("v2/").partition("/manifests/")
    else:
        return
    if path and is_tag(tag):
        yield Pushed(path, tag, below=True)


def _distribution(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """CNCF Distribution documentation: «Work with notifications», envelopes with events.

    The host is the one under which the pusher reached the registry, which need not be ours: it does not count.
    """
    for event in _list(document, "events"):
        path, tag = _text(event, "target", "repository"), _tag(_text(event, "target", "tag"))
        if _text(event, "action") == "push" and path and tag:
            yield Pushed(path, tag, _digest(_text(event, "target", "digest")))


def _cdevents(headers: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """CDEvents specification: «Continuous Integration Vocabulary Events», artifact packaged and published, whose subject is named
    by a package URL (purl specification, type `oci`)."""
    kind = headers.get("ce-type") or _text(document, "context", "type")
    if not kind.startswith(("dev.cdevents.artifact.published.", "dev.cdevents.artifact.packaged.")):
        return
    name, _, query = _text(document, "subject", "id").partition("?")
    if not name.startswith("pkg:oci/"):
        return
    try:
        qualifiers = parse_qs(query, max_num_fields=32)
    except ValueError:
        raise Unreadable("the package URL of the subject has too many qualifiers") from None
    found = _reference(qualifiers.get("repository_url", [""])[0])
    tag = _tag(qualifiers.get("tag", [""])[0])
    if found is not None and tag:
        digest = _digest(unquote(name.partition("@")[2]))
        yield Pushed(found.repository.path, tag, digest, (found.repository.registry,))


def _generic(_: Headers, document: dict[str, Any]) -> Iterator[Pushed]:
    """Our own: `{"image": "host/name", "tag": "…", "digest": "sha256:…"}`; tag and digest may stand in `image`, too.

    Without a tag the image is scanned; without `image` it is the one that the hint was set up for.
    """
    image, tag, digest = (_text(document, name) for name in ("image", "tag", "digest"))
    if not image:
        yield Pushed(tag=_tag(tag), digest=_digest(digest))
        return
    found = _reference(image)
    if found is None:
        raise Unreadable("'image' is not the name of an image")
    hosts = (found.repository.registry,)
    yield Pushed(found.repository.path, _tag(tag) or found.tag or "", _digest(digest) or found.digest or "", hosts)


@dataclass(frozen=True, slots=True)
class Sender:
    """What is to be known of a kind of sender.

    Attributes:
        read: from headers and document to the images.
        dated: whether each delivery has a body of its own (a time or an id is in it), so that the same body is a repetition.
    """

    read: Callable[[Headers, dict[str, Any]], Iterable[Pushed]]
    dated: bool = True


SENDERS: Mapping[str, Sender] = {
    "acr": Sender(_acr),
    "cdevents": Sender(_cdevents),
    "distribution": Sender(_distribution),
    "dockerhub": Sender(_dockerhub),
    "ecr": Sender(_ecr),
    "generic-hmac": Sender(_generic, dated=False),
    "github": Sender(_github),
    "gitlab": Sender(_gitlab),
    "harbor": Sender(_harbor),
    "nexus": Sender(_nexus),
    "quay": Sender(_quay, dated=False),
}


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)  # refuses what is nested deeper than 1024
    except orjson.JSONDecodeError:
        raise Unreadable("the body is not JSON") from None
    if not isinstance(document, dict):
        raise Unreadable("the body is not a JSON object")
    return document


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM


def _form_payload(body: bytes) -> bytes:
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8, strict_parsing=True)
    except ValueError:
        raise Unreadable("the body is not a form") from None
    return fields.get("payload", [""])[0].encode("utf-8", "surrogatepass")


def _at(document: Any, names: Iterable[str]) -> Any:
    value = document
    for name in names:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Unreadable(f"what should hold '{name}' is not an object")
        value = value.get(name)
    return value


def _text(document: Any, *names: str) -> str:
    """A text in the document, empty where it is missing."""
    value = _at(document, names)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"'{'.'.join(names)}' is not a text")
    return value if len(value) <= _MOST_TEXT else ""


def _list(document: Any, *names: str) -> list[Any]:
    value = _at(document, names)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unreadable(f"'{'.'.join(names)}' is not a list")
    return value


def _tag(text: str) -> str:
    return text if is_tag(text) else ""


def _digest(text: str) -> str:
    return text if is_digest(text) else ""


def _reference(text: str) -> Reference | None:
    try:
        return parse_reference(text) if text else None
    except InvalidImage:
        return None


def _path(reference: Reference | None) -> str:
    return reference.repository.path if reference is not None else ""
