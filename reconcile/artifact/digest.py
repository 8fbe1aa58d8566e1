"""Digests of artifacts: `<algorithm>:<hex>`, with the algorithms that Flux source-controller offers."""

from __future__ import annotations

import hashlib
import hmac
from typing import BinaryIO, Protocol

from reconcile.errors import Invalid

ALGORITHMS = ("sha256", "sha384", "sha512", "sha1", "blake3")
DEFAULT = "sha256"
_PIECE = 1024 * 1024


class Hasher(Protocol):
    """What `hashlib` and blake3 have in common."""

    def update(self, data: bytes, /) -> object:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest of all so far in hex."""
        ...


def hasher(algorithm: str) -> Hasher:
    """A new hash; raises Invalid for an algorithm that is unknown or not installed."""
    if algorithm not in ALGORITHMS:
        raise Invalid(f"digest algorithm {algorithm[:40]!r} is not supported: use one of {', '.join(ALGORITHMS)}")
    if algorithm != "blake3":
        return hashlib.new(algorithm, usedforsecurity=False)
    try:
        from blake3 import blake3
    except ImportError:
        raise Invalid("digest algorithm blake3 needs the Python package blake3: install it or use sha256") from None
    return blake3()


def parse_digest(text: str) -> tuple[str, str]:
    """Algorithm and hex value of a digest; without an algorithm it is sha256. Raises Invalid for one that cannot be checked."""
    algorithm, colon, value = text.rpartition(":")
    algorithm = algorithm if colon else DEFAULT
    expected = len(hasher(algorithm).hexdigest())
    value = value.lower()
    if len(value) != expected or value.strip("0123456789abcdef"):
        raise Invalid(f"{text[:160]!r} is not a digest: {algorithm} has {expected} hexadecimal digits")
    return algorithm, value


def file_digest(file: BinaryIO, algorithm: str) -> str:
    """Hex digest of what is left of `file`."""
    digest = hasher(algorithm)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two hex digests are equal."""
    return hmac.compare_digest(one.encode(), other.encode())
