"""Cosign signatures made with a key pair: simple-signing payloads and Sigstore bundles, checked against PEM public keys. Pure.

The transparency log is not looked at: who holds the key has signed (as Flux does with keys of a Secret).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from reconcile.errors import Invalid, ReconcileError

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

IN_TOTO = "application/vnd.in-toto+json"
_CURVES: Mapping[str, tuple[hashes.HashAlgorithm, ...]] = {
    # Cosign hashes with SHA-256 whatever the curve; newer signers take the hash of the curve's strength.
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA256(), hashes.SHA384()),
    "secp521r1": (hashes.SHA256(), hashes.SHA512()),
}
MIN_RSA_BITS = 2048


class BadSignature(ReconcileError):
    """This signature does not show what it should."""


def public_key(name: str, pem: bytes) -> PublicKey:
    """The key in a PEM text: ECDSA on a NIST curve, RSA with 2048 bits or more, or Ed25519.

    Raises:
        Invalid: it is none of these; `name` says which one.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"'{name}' is not a PEM public key") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise Invalid(f"'{name}' is a public key of a kind or size that is not supported: use ECDSA, RSA of 2048 bits, or Ed25519")


def public_keys(data: Mapping[str, bytes]) -> dict[str, PublicKey]:
    """The keys of a Secret, by name: every value whose name ends in `.pub`; raises Invalid."""
    return {name: public_key(name, value) for name, value in sorted(data.items()) if name.endswith(".pub")}


def signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is `key`'s over `message`."""
    try:
        match key:
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return any(_on_curve(key, signature, message, algorithm) for algorithm in _CURVES.get(key.curve.name, ()))
    except InvalidSignature:
        return False
    return True


def signed_digest(key: PublicKey, signature: bytes, sha256: bytes) -> bool:
    """Whether `signature` is `key`'s over a message with this SHA-256; never for Ed25519, which signs messages only."""
    prehashed = utils.Prehashed(hashes.SHA256())
    try:
        match key:
            case ed25519.Ed25519PublicKey():
                return False
            case rsa.RSAPublicKey():
                key.verify(signature, sha256, padding.PKCS1v15(), prehashed)
            case _:
                key.verify(signature, sha256, ec.ECDSA(prehashed))
    except InvalidSignature:
        return False
    return True


def _on_curve(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def check_simple_signing(payload: bytes, digest: str) -> None:
    """Raise BadSignature unless the simple-signing `payload` is about the manifest with `digest`."""
    document = _json(payload, "the signed payload")
    critical = document.get("critical")
    image = critical.get("image") if isinstance(critical, dict) else None
    found = image.get("docker-manifest-digest") if isinstance(image, dict) else None
    if found != digest:
        raise BadSignature(f"the signed payload is about {found!s:.100}, not about {digest}")


def check_statement(payload_type: str, payload: bytes, digest: str) -> None:
    """Raise BadSignature unless `payload` is an in-toto statement with `digest` (`sha256:…`) among its subjects."""
    if payload_type != IN_TOTO:
        raise BadSignature(f"the signed envelope holds {payload_type[:100]!r}, not an in-toto statement")
    algorithm, _, value = digest.partition(":")
    subjects = _json(payload, "the signed statement").get("subject")
    for subject in subjects if isinstance(subjects, list) else ():
        digests = subject.get("digest") if isinstance(subject, dict) else None
        if isinstance(digests, dict) and digests.get(algorithm) == value:
            return
    raise BadSignature(f"the signed statement is not about {digest}")


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is over (DSSE v1, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def check_payload(keys: Mapping[str, PublicKey], payload: bytes, signature: bytes, digest: str) -> str:
    """The name of the key that made `signature` over the simple-signing `payload` about `digest`; raises BadSignature."""
    for name, key in keys.items():
        if signed_by(key, signature, payload):
            check_simple_signing(payload, digest)
            return name
    raise BadSignature("signed with none of the given keys")


def check_bundle(keys: Mapping[str, PublicKey], raw: bytes, digest: str) -> str:
    """The name of the key that made the signature in a Sigstore bundle about the manifest with `digest`.

    A bundle holds an envelope with an in-toto statement, or a signature over the manifest itself.

    Raises:
        BadSignature: it is no bundle, about something else, or signed with none of the keys.
    """
    bundle = _json(raw, "the bundle")
    envelope, message = bundle.get("dsseEnvelope"), bundle.get("messageSignature")
    if isinstance(envelope, dict):
        return _check_envelope(keys, envelope, digest)
    if not isinstance(message, dict):
        raise BadSignature("the bundle holds no signature")
    signature = decoded(message.get("signature"), "signature")
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256":
        raise BadSignature(f"a signature over a manifest is checked for sha256 digests only, not for {algorithm}")
    for name, key in keys.items():
        if signed_digest(key, signature, bytes.fromhex(value)):
            return name
    raise BadSignature("signed with none of the given keys, or not about this manifest")


def _check_envelope(keys: Mapping[str, PublicKey], envelope: Mapping[str, Any], digest: str) -> str:
    kind = envelope.get("payloadType")
    payload = decoded(envelope.get("payload"), "payload")
    signatures = envelope.get("signatures")
    if not isinstance(kind, str) or not isinstance(signatures, list) or len(signatures) != 1:
        raise BadSignature("the bundle's envelope needs a payload type and exactly one signature")
    entry = signatures[0]
    signature = decoded(entry.get("sig") if isinstance(entry, dict) else None, "signature")
    message = pre_authentication(kind, payload)
    for name, key in keys.items():
        if signed_by(key, signature, message):
            check_statement(kind, payload, digest)
            return name
    raise BadSignature("signed with none of the given keys")


def decoded(value: Any, what: str) -> bytes:
    """The bytes behind base64 text; raises BadSignature."""
    if not isinstance(value, str) or not value:
        raise BadSignature(f"there is no {what}")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise BadSignature(f"the {what} is not base64") from None


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadSignature(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise BadSignature(f"{what} is not a JSON object")
    return document


def reasons(errors: Sequence[ReconcileError]) -> str:
    """Why none of several signatures counts, each reason once."""
    return "; ".join(dict.fromkeys(str(error) for error in errors))
