"""A look into an armoured OpenPGP key (RFC 4880, RFC 9580): how many entities, secret or not, encrypted or not. Pure.

Enough to say what is wrong with a signing key before anything is started; using the key is gpg's work.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reconcile.errors import Invalid

_BLOCK = re.compile(rb"-----BEGIN PGP (?:PRIVATE|PUBLIC) KEY BLOCK-----\r?\n(.*?)\r?\n-----END PGP [A-Z ]+-----", re.DOTALL)
_PUBLIC_INTEGERS = {1: 2, 2: 2, 3: 2, 16: 3, 17: 4}
_FIXED_PUBLIC = {25: 32, 26: 56, 27: 32, 28: 57}
_GNU_DUMMY = 101


@dataclass(frozen=True, slots=True)
class KeySummary:
    """What a key file holds: primary keys, whether any is secret, whether a passphrase is needed."""

    entities: int
    secret: bool
    encrypted: bool


def summarize(data: bytes) -> KeySummary:
    """Read all blocks of `data`. Raises `Invalid` when it holds no armoured key or a broken one."""
    blocks = _BLOCK.findall(data.replace(b"\r\n", b"\n"))
    if not blocks:
        raise Invalid("no armored key found")
    entities, secret, encrypted = 0, False, False
    try:
        for block in blocks:
            for tag, body in _packets(_dearmour(block)):
                entities += tag in (5, 6)
                secret = secret or tag in (5, 7)
                encrypted = encrypted or (tag in (5, 7) and _protected(body))
    except (IndexError, binascii.Error):
        raise Invalid("the armored key is broken") from None
    return KeySummary(entities, secret, encrypted)


def _dearmour(block: bytes) -> bytes:
    """Bytes of one block: headers end at an empty line, a line that starts with `=` is the checksum."""
    head, blank, body = (b"\n" + block).partition(b"\n\n")
    lines = (body if blank else head).split()
    return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise IndexError
        at += 1
        if head & 0x40:
            tag = head & 0x3F
            size, at = _new_length(data, at)
        else:
            tag = head >> 2 & 0x0F
            width = 1 << (head & 3)
            if width == 8:
                raise IndexError
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + size > len(data):
            raise IndexError
        yield tag, data[at : at + size]
        at += size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    raise IndexError


def _protected(body: bytes) -> bool:
    """Whether the secret part of a key packet is encrypted; a part that was left out (an offline primary key) is not."""
    version, algorithm = body[0], body[5]
    at = 6
    if version == 6:
        at += 4 + int.from_bytes(body[6:10], "big")
    elif version != 4:
        return body[8] != 0 if version == 3 else True
    elif algorithm in _FIXED_PUBLIC:
        at += _FIXED_PUBLIC[algorithm]
    elif algorithm in (18, 19, 22):
        at = _integer(body, at + 1 + body[at])
        if algorithm == 18:
            at += 1 + body[at]
    else:
        for _ in range(_PUBLIC_INTEGERS.get(algorithm, 0)):
            at = _integer(body, at)
    usage = body[at]
    if usage in (254, 255) and version == 4:
        return body[at + 2] != _GNU_DUMMY
    return usage != 0


def _integer(body: bytes, at: int) -> int:
    """Position behind a multiprecision integer."""
    return at + 2 + (int.from_bytes(body[at : at + 2], "big") + 7) // 8
