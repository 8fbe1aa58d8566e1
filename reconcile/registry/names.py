"""Names of images: registry, repository, tag, digest. Pure.

The grammar is the lenient one of Flux's ImageRepository: a host is what stands before the first slash if it is `localhost` or
holds a dot or colon; otherwise the image is on Docker Hub, where a name of one segment belongs to `library/`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from reconcile.errors import ReconcileError

DOCKER_HUB = "index.docker.io"

_DOCKER_HUB_ALIAS = "docker.io"
_PATH = re.compile(r"[a-z0-9_./-]{2,255}")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LOCAL_HOST = re.compile(r"localhost(?::.*)?|(?:.*\.localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_PRIVATE = tuple(ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


class InvalidImage(ReconcileError):
    """The text does not name an image repository or reference; the message is the one Flux gives."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in a registry; made by `parse_repository` or `parse_reference` only.

    Attributes:
        registry: host with optional port; `index.docker.io` for Docker Hub.
        path: path in the registry, with `library/` where Docker Hub implies it.
        text: what was typed, without tag and digest.
    """

    registry: str
    path: str
    text: str

    @property
    def canonical(self) -> str:
        """`registry/path`, the same for all spellings of one repository."""
        return f"{self.registry}/{self.path}"

    @property
    def scope(self) -> str:
        """The token scope for reading (distribution token specification)."""
        return f"repository:{self.path}:pull"

    def schemes(self, insecure: bool = False) -> tuple[str, ...]:
        """URL schemes to try, best first: `https` alone, or `https` and `http` for local hosts and when `insecure`."""
        return ("https", "http") if insecure or is_local(self.registry) else ("https",)

    def __str__(self) -> str:
        return self.canonical


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with the tag, the digest or both.

    Attributes:
        repository: where.
        tag: tag or None; `latest` is not filled in.
        digest: `sha256:…` or None.
        text: what was typed.
    """

    repository: Repository
    tag: str | None
    digest: str | None
    text: str

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{self.repository.text}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse_repository(text: str) -> Repository:
    """The repository that `ImageRepository.spec.image` names: no scheme, no tag, no digest.

    Raises:
        InvalidImage: with Flux's text for each of the mistakes.
    """
    if "://" in text:
        scheme = text.partition("://")[0]
        raise InvalidImage(f"image '{text}' should not include URL scheme; remove '{scheme}://'")
    reference = parse_reference(text)
    rest = text.removeprefix(reference.repository.registry)
    if ":" in rest:
        raise InvalidImage(f"image '{text}' should not include a tag; remove ':{rest.split(':')[1]}'")
    return reference.repository


def parse_reference(text: str) -> Reference:
    """The reference `name[:tag][@digest]`, leniently: the tag may be missing.

    Raises:
        InvalidImage: `could not parse reference: <text>`.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _unparsable(text)
    name, tag = rest, None
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail or None  # an empty tag is no tag; parse_repository still sees its colon
        if tag is not None and not is_tag(tag):
            raise _unparsable(text)
    host, slash, path = name.partition("/")
    if not (slash and (host == "localhost" or "." in host or ":" in host)):
        host, path = "", name
    if not _PATH.fullmatch(path) or (host and not _is_host(host)):
        raise _unparsable(text)
    registry = DOCKER_HUB if host in {"", _DOCKER_HUB_ALIAS} else host
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return Reference(Repository(registry, path, name), tag, digest if at else None, text)


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag: 1 to 128 letters, digits, `_`, `.`, `-`."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 or sha512 digest in canonical form."""
    return _DIGEST.fullmatch(text) is not None


def is_local(registry: str) -> bool:
    """Whether plain HTTP is permitted for this host without being asked: loopback names and private IPv4 addresses (RFC 1918)."""
    if _LOCAL_HOST.fullmatch(registry):
        return True
    try:
        address = ipaddress.IPv4Address(registry.partition(":")[0])
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)


def _is_host(host: str) -> bool:
    # Go accepts a few more characters in a URL host; none of them can be part of a host that exists.
    if not _HOST.fullmatch(host):
        return False
    port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else ""
    return not port or int(port) <= 65535


def _unparsable(text: str) -> InvalidImage:
    return InvalidImage(f"could not parse reference: {text}")
