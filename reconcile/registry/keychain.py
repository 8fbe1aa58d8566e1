"""Who am I for this repository: docker configuration files, Secrets, helper programs, or nobody.

A keychain turns a repository into a credential. Entries are matched as the kubelet matches them: host label by label with globs,
equal ports, and the key's path as a prefix of the image's path; longer keys first, and the first match is the only one tried.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from reconcile.errors import Invalid
from reconcile.registry.names import DOCKER_HUB, Repository

DOCKER_CONFIG_JSON = "kubernetes.io/dockerconfigjson"
DOCKER_CONFIG = "kubernetes.io/dockercfg"

_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_SCHEME = re.compile(r"^https?://")


@dataclass(frozen=True)
class Credential:
    """What to show to a registry; nothing of it but the user name appears in `repr`.

    Attributes:
        username: user for Basic, or for the token endpoint.
        password: password of that user.
        identity_token: OAuth refresh token for the token endpoint.
        registry_token: bearer token sent to the registry as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def basic(self) -> str | None:
        """The value of a Basic `Authorization` header, or None without user and password."""
        if not (self.username or self.password):
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


class Keychain(Protocol):
    """Repository in, credential out."""

    async def resolve(self, repository: Repository) -> Credential | None:
        """The credential for `repository`, or None for anonymous access; raises `ReconcileError`."""
        ...


class Anonymous:
    """The keychain that knows nobody."""

    async def resolve(self, repository: Repository) -> Credential | None:  # noqa: ARG002 - the port's signature
        """Always None."""
        return None


@dataclass(frozen=True)
class Chain:
    """Several keychains; the first that knows the repository answers."""

    keychains: tuple[Keychain, ...]

    async def resolve(self, repository: Repository) -> Credential | None:
        """The first credential found, or None."""
        for keychain in self.keychains:
            credential = await keychain.resolve(repository)
            if credential is not None:
                return credential
        return None


def chain(*keychains: Keychain | None) -> Keychain:
    """One keychain that asks `keychains` in order; None stands for one that is not there."""
    present = tuple(keychain for keychain in keychains if keychain is not None)
    if not present:
        return Anonymous()
    return present[0] if len(present) == 1 else Chain(present)


@dataclass(frozen=True)
class Entry:
    """One line of a docker configuration: where it applies, and the credential.

    Attributes:
        labels: host split at dots, globs allowed in each.
        port: port as text, empty for none.
        path: path prefix, empty or beginning with a slash.
        credential: what to show there.
    """

    labels: tuple[str, ...]
    port: str
    path: str
    credential: Credential

    def matches(self, host: str, path: str) -> bool:
        """Whether the entry applies to `host` (with port) and `path` (beginning with a slash)."""
        labels, port = _split_host(host)
        return (
            port == self.port
            and len(labels) == len(self.labels)
            and path.startswith(self.path)
            and all(map(_glob, labels, self.labels))
        )


@dataclass(frozen=True)
class DockerKeychain:
    """The `auths` of a docker configuration."""

    entries: tuple[Entry, ...]

    async def resolve(self, repository: Repository) -> Credential | None:
        """The credential of the most specific entry that applies, or None."""
        return self.find(repository)

    def find(self, repository: Repository) -> Credential | None:
        """The same, without awaiting."""
        path = f"/{repository.path}"
        for entry in self.entries:
            if entry.matches(repository.registry, path):
                return entry.credential if entry.credential != Credential() else None
        return None


def keychain_from_docker_config(data: bytes) -> DockerKeychain:
    """The keychain of a `.dockerconfigjson` text: an object with `auths`.

    Raises:
        Invalid: the text is no such object, or an entry cannot be read; no value is quoted.
    """
    return DockerKeychain(_entries(_load(data).get("auths") or {}))


def keychain_from_secret(type_: str, data: Mapping[str, bytes]) -> DockerKeychain | None:
    """The keychain of a pull Secret, or None for a type that is none (Flux ignores those: anonymous access).

    Args:
        type_: the Secret's `type`.
        data: the decoded values.

    Raises:
        Invalid: the Secret's text cannot be read; no value is quoted.
    """
    if type_ == DOCKER_CONFIG_JSON:
        return keychain_from_docker_config(data.get(".dockerconfigjson", b"{}"))
    if type_ == DOCKER_CONFIG:
        return DockerKeychain(_entries(_load(data.get(".dockercfg", b"{}"))))
    return None


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"docker configuration is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    if not isinstance(document, dict):
        raise Invalid("docker configuration is not a JSON object")
    return document


def _entries(auths: Any) -> tuple[Entry, ...]:
    if not isinstance(auths, dict):
        raise Invalid("docker configuration: 'auths' is not an object")
    keyed = [(_normal_key(key), _credential(key, value)) for key, value in auths.items()]
    # Reverse order puts longer keys of one host before shorter ones, as the kubelet does.
    return tuple(_entry(key, credential) for key, credential in sorted(keyed, key=lambda pair: pair[0], reverse=True))


def _normal_key(key: str) -> str:
    host, slash, path = _SCHEME.sub("", key).partition("/")
    path = slash + path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    if host in _HUB_HOSTS:
        host = DOCKER_HUB
    return host if path in {"", "/", "/v1", "/v2"} else host + path


def _entry(key: str, credential: Credential) -> Entry:
    host, slash, path = key.partition("/")
    labels, port = _split_host(host)
    return Entry(labels, port, slash + path, credential)


def _split_host(host: str) -> tuple[tuple[str, ...], str]:
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name, port = host, ""
    return tuple(name.split(".")), port


def _glob(label: str, pattern: str) -> bool:
    if not any(character in pattern for character in "*?["):
        return label == pattern
    return fnmatch.fnmatchcase(label, pattern.replace("[^", "[!"))


def _credential(key: str, value: Any) -> Credential:
    if not isinstance(value, dict):
        raise Invalid(f"docker configuration: the entry {key!r} is not an object")
    username, password, auth, identity, registry = (
        _text(key, value, name) for name in ("username", "password", "auth", "identitytoken", "registrytoken")
    )
    if auth:
        decoded = _decode(auth)
        if decoded is None or ":" not in decoded:
            raise Invalid(f"docker configuration: 'auth' of {key!r} is not the base64 of username:password")
        first, _, second = decoded.partition(":")
        username, password = username or first, password or second.rstrip("\0")
    return Credential(username, password, identity, registry)


def _text(key: str, value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Invalid(f"docker configuration: {name!r} of {key!r} is not a text")
    return text


def _decode(auth: str) -> str | None:
    try:
        return base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
