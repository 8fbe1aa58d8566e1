"""Signatures made with key pairs: each kind of key, both forms, and everything that must not count."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from reconcile.errors import Invalid
from reconcile.sources.cosign_keys import BadSignature, check_bundle, check_payload, pre_authentication, public_keys
from tests.support.oci_artifacts import envelope, key_bundle, simple_signing, statement

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
OTHER = f"sha256:{'b' * 64}"
KIND = "application/vnd.in-toto+json"

KEYS = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
kinds = pytest.mark.parametrize("kind", KEYS)


def pem(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(kind: str, message: bytes, algorithm=None) -> bytes:
    key = KEYS[kind]
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign(message)
        case rsa.RSAPrivateKey():
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return key.sign(message, ec.ECDSA(algorithm or hashes.SHA256()))


def secret(*names: str):
    return public_keys({f"{name}.pub": pem(KEYS[name]) for name in names} | {"cosign.key": b"private", "note": b"text"})


@kinds
def test_each_kind_of_key_and_each_form(kind):
    keys = secret(kind)
    payload = simple_signing(DIGEST)
    assert check_payload(keys, payload, sign(kind, payload), DIGEST) == f"{kind}.pub"
    claim = statement(DIGEST)
    signed = key_bundle(envelope(claim, sign(kind, pre_authentication(KIND, claim))))
    assert check_bundle(keys, signed, DIGEST) == f"{kind}.pub"


@pytest.mark.parametrize(("kind", "algorithm"), [("p384", hashes.SHA384()), ("p521", hashes.SHA512())])
def test_the_hash_of_the_curve_counts_too(kind, algorithm):
    payload = simple_signing(DIGEST)
    assert check_payload(secret(kind), payload, sign(kind, payload, algorithm), DIGEST) == f"{kind}.pub"


def test_any_key_of_the_secret_is_enough_and_other_entries_do_not_matter():
    payload = simple_signing(DIGEST)
    assert check_payload(secret(*KEYS), payload, sign("rsa", payload), DIGEST) == "rsa.pub"


@kinds
def test_a_signature_over_the_manifest(kind):
    bundle = key_bundle(message={"signature": base64.b64encode(sign(kind, MANIFEST)).decode()})
    if kind == "ed25519":  # such a signature cannot be checked against a digest
        with pytest.raises(BadSignature, match="none of the given keys"):
            check_bundle(secret(kind), bundle, DIGEST)
        return
    assert check_bundle(secret(kind), bundle, DIGEST) == f"{kind}.pub"
    with pytest.raises(BadSignature, match="none of the given keys"):
        check_bundle(secret(kind), bundle, OTHER)


@kinds
def test_another_key(kind):
    payload, claim = simple_signing(DIGEST), statement(DIGEST)
    others = secret(*(name for name in KEYS if name != kind))
    with pytest.raises(BadSignature, match="signed with none of the given keys"):
        check_payload(others, payload, sign(kind, payload), DIGEST)
    with pytest.raises(BadSignature, match="signed with none of the given keys"):
        check_bundle(others, key_bundle(envelope(claim, sign(kind, pre_authentication(KIND, claim)))), DIGEST)


def test_a_good_signature_about_another_image():
    payload, claim = simple_signing(OTHER), statement(OTHER)
    with pytest.raises(BadSignature, match=f"is about {OTHER}, not about {DIGEST}"):
        check_payload(secret("p256"), payload, sign("p256", payload), DIGEST)
    bundle = key_bundle(envelope(claim, sign("p256", pre_authentication(KIND, claim))))
    with pytest.raises(BadSignature, match=f"not about {DIGEST}"):
        check_bundle(secret("p256"), bundle, DIGEST)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b'{"critical": []}', b'{"critical": {"image": {"docker-manifest-digest": null}}}', b"\xff"],
)
def test_signed_payloads_that_say_nothing(payload):
    with pytest.raises(BadSignature):
        check_payload(secret("p256"), payload, sign("p256", payload), DIGEST)


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        ("text/plain", statement(DIGEST)),
        (KIND, b"[]"),
        (KIND, b'{"subject": {}}'),
        (KIND, b'{"subject": [1, {"digest": 2}, {"digest": {"sha512": "aa"}}]}'),
    ],
)
def test_signed_statements_that_say_nothing(kind, claim):
    bundle = key_bundle(envelope(claim, sign("p256", pre_authentication(kind, claim)), kind))
    with pytest.raises(BadSignature):
        check_bundle(secret("p256"), bundle, DIGEST)


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b'{"dsseEnvelope": {}}',
        b'{"dsseEnvelope": {"payloadType": "x", "payload": "e30=", "signatures": [1]}}',
        b'{"dsseEnvelope": {"payloadType": "x", "payload": "e30=", "signatures": [{"sig": "e30="}, {"sig": "e30="}]}}',
        b'{"messageSignature": {"signature": "*"}}',
        b'{"messageSignature": {}}',
    ],
)
def test_what_is_no_bundle(bundle):
    with pytest.raises(BadSignature):
        check_bundle(secret("p256"), bundle, DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        b"not a key",
        pem(rsa.generate_private_key(65537, 1024)),
        pem(ed448.Ed448PrivateKey.generate()),
        pem(ec.generate_private_key(ec.SECP256K1())),
    ],
    ids=["text", "short RSA", "ed448", "other curve"],
)
def test_keys_that_are_refused(text):
    with pytest.raises(Invalid, match=r"'bad\.pub' is"):
        public_keys({"bad.pub": text})


def test_a_secret_without_keys():
    assert public_keys({"cosign.key": b"x", "cosign.pub.bak": b"y"}) == {}
