"""Checks SSH signatures (OpenSSH's PROTOCOL.sshsig) against lists of authorized keys, in process.

Keys: ed25519, ECDSA, RSA from 2048 bits, and the first two on security tokens (PROTOCOL.u2f). The namespace is Git's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from reconcile.errors import Invalid

NAMESPACE = b"git"
MINIMUM_RSA_BITS = 2048
_MAGIC = b"SSHSIG"
_ARMOUR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\r?\n(.*?)\r?\n-----END SSH SIGNATURE-----", re.DOTALL)
_KEY_TYPES = frozenset(
    (
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    )
)
_CURVES: dict[bytes, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    b"nistp256": (ec.SECP256R1(), hashes.SHA256()),
    b"nistp384": (ec.SECP384R1(), hashes.SHA384()),
    b"nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_RSA_HASHES: dict[bytes, hashes.HashAlgorithm] = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}
_PRESENT = 1
"""Flag of a security token: somebody touched it."""


@dataclass(frozen=True, slots=True)
class _Signature:
    key: bytes
    algorithm: bytes
    value: bytes
    rest: bytes
    """What follows the signature itself: flags and counter of a security token."""
    hash: bytes


def authorized_keys(text: bytes) -> list[bytes]:
    """The public keys in a file of authorized keys, as the SSH protocol writes them; options before them are not looked at.

    Raises `Invalid`, naming the line, for one that holds no key of a kind that can be used.
    """
    found = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        at = next((i for i, word in enumerate(words[:-1]) if word in _KEY_TYPES), None)
        try:
            key = base64.b64decode(words[at + 1], validate=True) if at is not None else b""
        except binascii.Error:
            key = b""
        if at is None or not key.startswith(_string(words[at].encode())):
            raise Invalid(f"line {number} is not an SSH public key of a supported kind")
        found.append(key)
    return found


def fingerprint(key: bytes) -> str:
    """`SHA256:…`, as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def verify(payload: bytes, signature: bytes, keys: Iterable[bytes]) -> str:
    """Fingerprint of the key among `keys` that made `signature` over `payload`. Raises `Invalid` with the reason."""
    found = _parse(signature)
    if found.key not in set(keys):
        raise Invalid("no matching key")
    digest = hashlib.new(found.hash.decode(), payload).digest()
    signed = _MAGIC + _string(NAMESPACE) + _string(b"") + _string(found.hash) + _string(digest)
    try:
        _check(found, signed)
    except InvalidSignature:
        raise Invalid("the signature does not fit") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"the key or its signature cannot be used: {error}") from None
    return fingerprint(found.key)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """The first `count` strings of `data` as the SSH protocol writes them, and what follows."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise Invalid("the signature is cut off")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found, data


def _parse(armoured: bytes) -> _Signature:
    block = _ARMOUR.search(armoured)
    try:
        data = base64.b64decode(b"".join(block[1].split()), validate=True) if block else b""
    except binascii.Error:
        data = b""
    if not data.startswith(_MAGIC + struct.pack(">I", 1)):
        raise Invalid("not an SSH signature of version 1")
    (key, namespace, _, algorithm, signature), rest = _strings(data[len(_MAGIC) + 4 :], 5)
    if rest:
        raise Invalid("something follows the SSH signature")
    if namespace != NAMESPACE:
        raise Invalid(f"the signature was made for {namespace.decode('utf-8', 'replace')!r}, not for 'git'")
    if algorithm not in (b"sha256", b"sha512"):
        raise Invalid("the signature uses an unsupported hash algorithm")
    (kind, value), more = _strings(signature, 2)
    return _Signature(key, kind, value, more, algorithm)


def _check(found: _Signature, signed: bytes) -> None:
    """Raises InvalidSignature, or ValueError for what is not as the key's kind wants it."""
    (kind,), rest = _strings(found.key, 1)
    if kind.startswith(b"sk-"):
        signed = _by_token(found, kind, rest, signed)
    elif found.rest:
        raise ValueError("something follows the signature")
    if kind in (b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com"):
        _same(found.algorithm, kind)
        (point,), _ = _strings(rest, 1)
        ed25519.Ed25519PublicKey.from_public_bytes(point).verify(found.value, signed)
    elif kind == b"ssh-rsa":
        (exponent, modulus), _ = _strings(rest, 2)
        key = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
        if key.key_size < MINIMUM_RSA_BITS:
            raise ValueError(f"RSA key of {key.key_size} bits is too short")
        if found.algorithm not in _RSA_HASHES:
            raise ValueError("an RSA signature needs SHA-2")
        key.verify(found.value, signed, padding.PKCS1v15(), _RSA_HASHES[found.algorithm])
    else:
        _same(found.algorithm, kind)
        (curve, point), _ = _strings(rest, 2)
        shape, algorithm = _CURVES[curve] if curve in _CURVES else _unknown_curve()
        (r, s), _ = _strings(found.value, 2)
        value = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        ec.EllipticCurvePublicKey.from_encoded_point(shape, point).verify(value, signed, ec.ECDSA(algorithm))


def _by_token(found: _Signature, kind: bytes, rest: bytes, signed: bytes) -> bytes:
    """What a security token signs instead of `signed`."""
    (*_, application), _ = _strings(rest, 3 if b"ecdsa" in kind else 2)
    if len(found.rest) != 5:
        raise ValueError("flags and counter of the security token are missing")
    if not found.rest[0] & _PRESENT:
        raise ValueError("nobody touched the security token")
    return hashlib.sha256(application).digest() + found.rest + hashlib.sha256(signed).digest()


def _same(algorithm: bytes, kind: bytes) -> None:
    if algorithm != kind:
        raise ValueError("the signature is of another kind than the key")


def _unknown_curve() -> tuple[ec.EllipticCurve, hashes.HashAlgorithm]:
    raise ValueError("unsupported curve")
