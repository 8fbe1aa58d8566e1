"""Lenient semantic versions as Masterminds/semver v3.5 reads them. Pure.

A version is reduced to an order-preserving byte string, its *key*: comparing two keys as bytes is comparing two versions by
precedence. A constraint then is a handful of key intervals, so that "the best of 100,000 versions in this range" is two
binary searches in a sorted list of keys. Layout of a key::

    key        = number number number pre          major, minor, patch
    number     = length byte, big-endian bytes     0 is the single byte 00; the length orders before the bytes do
    pre        = 04                                a release, which is above every pre-release
               | *( 02 number | 03 text 00 ) 01    identifiers: a number is below a text, fewer are below more

A version longer than 256 bytes is none, as upstream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering

from reconcile.errors import Invalid

MAX_VERSION_BYTES = 256

UINT64_END = 1 << 64
RELEASE = b"\x04"
END = b"\xff"  # above every key: a length byte is at most 9

DOTTED = r"[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*"
_VERSION = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-({DOTTED}))?(?:\+({DOTTED}))?", re.ASCII)


class InvalidVersion(Invalid):
    """The text is not a version."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A parsed version. Equality and order are precedence: build metadata and spelling (`v`, leading zeros) do not count."""

    original: str
    major: int
    minor: int
    patch: int
    prerelease: str
    metadata: str
    key: bytes = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.key == other.key

    def __lt__(self, other: Version) -> bool:
        return self.key < other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.original


def parse_version(text: str) -> Version:
    """Read a version as `semver.NewVersion` does: optional `v`, one to three parts, leading zeros allowed in the parts.

    Raises:
        InvalidVersion: the text does not fit, a part needs more than 64 bits, an all-digit pre-release identifier starts with
            zero, or the text is longer than 256 bytes.
    """
    found = _VERSION.fullmatch(text) if len(text) <= MAX_VERSION_BYTES else None
    key = version_key(text)
    if found is None or key is None:
        raise InvalidVersion(f"{text[:MAX_VERSION_BYTES]!r} is not a version")
    major, minor, patch, prerelease, metadata = found.groups()
    return Version(text, int(major), int(minor or 0), int(patch or 0), prerelease or "", metadata or "", key)


@lru_cache(maxsize=16_384)
def version_key(text: str) -> bytes | None:
    """The key of a version, or None where `parse_version` would raise: the fast way for long lists.

    Remembered, because the repositories of one house have many version numbers in common.
    """
    if len(text) > MAX_VERSION_BYTES:
        return None
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    major, minor, patch, prerelease, _ = found.groups()
    return encode(int(major), int(minor or 0), int(patch or 0), prerelease)


def is_prerelease(key: bytes) -> bool:
    """Whether the version behind a key has a pre-release part."""
    return not key.endswith(RELEASE)


def encode(major: int, minor: int, patch: int, prerelease: str | None) -> bytes | None:
    """The key of a version, or None if a number needs more than 64 bits or the pre-release is not allowed."""
    if major >= UINT64_END or minor >= UINT64_END or patch >= UINT64_END:
        return None
    tail = RELEASE if prerelease is None else encode_prerelease(prerelease)
    return None if tail is None else encode_number(major) + encode_number(minor) + encode_number(patch) + tail


def encode_number(value: int) -> bytes:
    """The part of a key for one number, up to 2**64 inclusive."""
    if value < len(_SMALL):
        return _SMALL[value]
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def encode_prerelease(text: str) -> bytes | None:
    """The part of a key for a pre-release, or None if an all-digit identifier starts with zero."""
    parts = []
    for identifier in text.split("."):
        if identifier.isdigit():
            if identifier[0] == "0" and identifier != "0":
                return None
            value = int(identifier)
            if value < UINT64_END:
                parts.append(b"\x02" + encode_number(value))
                continue
        parts.append(b"\x03" + identifier.encode("ascii") + b"\x00")
    return b"".join(parts) + b"\x01"


_SMALL: tuple[bytes, ...] = ()
_SMALL = tuple(encode_number(n) for n in range(4096))
