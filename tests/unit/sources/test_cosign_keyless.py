"""Signatures without keys, made by a Sigstore of our own and checked offline against its trusted root."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import replace

import orjson
import pytest

from reconcile.api.source import OIDCIdentity
from reconcile.errors import Invalid
from reconcile.sources.cosign_keyless import Identities, issuer_of, keyless, public_root, subjects_of
from reconcile.sources.cosign_keys import BadSignature
from tests.support.oci_artifacts import simple_signing
from tests.support.sigstore_lab import EMAIL, ISSUER, Lab

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
MANIFEST = b'{"schemaVersion": 2}'
LATER = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


def ann(issuer: str = f"^{ISSUER}$", subject: str = f"^{EMAIL}$") -> Identities:
    return Identities([OIDCIdentity(issuer=issuer, subject=subject)])


def check(lab: Lab, form: str, signed: str = DIGEST, *, asked: str = DIGEST, by=None, at=None, who=None, root=None) -> None:
    """Sign in one of the forms and check."""
    signer = by or lab.signer()
    checker = keyless(root or lab.trusted_root())
    identities = who or ann()
    if form == "legacy":
        checker.check_legacy(lab.legacy(signer, signed, at=at), asked, identities)
    elif form == "envelope":
        checker.check_bundle(orjson.dumps(lab.bundle(signer, signed, at=at)), MANIFEST, asked, identities)
    else:
        content = MANIFEST if signed == DIGEST else b"something else"
        checker.check_bundle(orjson.dumps(lab.message_bundle(signer, content, at=at)), MANIFEST, asked, identities)


forms = pytest.mark.parametrize("form", ["legacy", "envelope", "message"])


@forms
def test_who_is_asked_for_has_signed(lab, form):
    check(lab, form)


@forms
def test_identities_are_alternatives_and_searched_for(lab, form):
    wanted = Identities([OIDCIdentity(issuer="^nobody$", subject=".*"), OIDCIdentity(issuer="example", subject="example")])
    check(lab, form, who=wanted)


@forms
def test_without_identities_every_certificate_of_the_authority_counts(lab, form):
    check(lab, form, who=Identities([]))


@forms
def test_another_issuer_or_subject(lab, form):
    expected = rf"none of the expected identities matched .* got subjects \[{EMAIL}\] with issuer {ISSUER}"
    with pytest.raises(BadSignature, match=expected):
        check(lab, form, who=ann(issuer="^https://login.example.org$"))
    with pytest.raises(BadSignature, match=expected):
        check(lab, form, who=ann(subject="^bob@example.com$"))


@forms
def test_issuer_and_subject_must_belong_to_one_identity(lab, form):
    mixed = Identities([OIDCIdentity(issuer=ISSUER, subject="bob"), OIDCIdentity(issuer="other", subject="ann")])
    with pytest.raises(BadSignature, match="none of the expected identities"):
        check(lab, form, who=mixed)


@forms
def test_a_certificate_that_had_expired_when_the_log_saw_the_signature(lab, form):
    with pytest.raises(BadSignature, match=r"chain|expired"):
        check(lab, form, at=lab.now + LATER)


@forms
def test_another_digest(lab, form):
    with pytest.raises(BadSignature, match=r"is about|not about|digest mismatch"):
        check(lab, form, OTHER, asked=DIGEST)


@forms
def test_the_certificate_of_another_authority(lab, form):
    with pytest.raises(BadSignature, match="chain"):
        check(lab, form, root=Lab().trusted_root())


@forms
def test_a_certificate_that_no_log_has_seen(lab, form):
    with pytest.raises(BadSignature, match="SCT"):
        check(lab, form, by=lab.signer(logged=False))


@forms
def test_a_workflow_by_its_address_and_the_older_extension(lab, form):
    address = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main"
    signer = lab.signer(uri=address, issuer="https://token.actions.githubusercontent.com", old=True)
    check(lab, form, by=signer, who=ann("^https://token.actions.githubusercontent.com$", "^https://github.com/acme/.*$"))
    assert subjects_of(signer.certificate) == [address]
    assert issuer_of(signer.certificate) == "https://token.actions.githubusercontent.com"


# --- tampering


def changed(bundle: dict, *path: str | int, value: object) -> bytes:
    """The bundle's JSON with one value replaced."""
    copy = orjson.loads(orjson.dumps(bundle))
    place = copy
    for step in path[:-1]:
        place = place[step]
    assert place[path[-1]] != value
    place[path[-1]] = value
    return orjson.dumps(copy)


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


ENTRY = ("verificationMaterial", "tlogEntries", 0)


@pytest.mark.parametrize(
    "path",
    [
        ("dsseEnvelope", "payload"),
        ("dsseEnvelope", "signatures", 0, "sig"),
        (*ENTRY, "inclusionPromise", "signedEntryTimestamp"),
        (*ENTRY, "inclusionProof", "rootHash"),
        (*ENTRY, "canonicalizedBody"),
        ("verificationMaterial", "certificate", "rawBytes"),
    ],
)
def test_a_bundle_in_which_one_bit_is_another(lab, path):
    bundle = lab.bundle(lab.signer(), DIGEST)
    value: object = bundle
    for step in path:
        value = value[step]
    with pytest.raises(BadSignature):
        keyless(lab.trusted_root()).check_bundle(changed(bundle, *path, value=flipped(value)), MANIFEST, DIGEST, ann())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*ENTRY, "integratedTime"), "1000000000"),
        ((*ENTRY, "inclusionProof", "treeSize"), "2"),
        (("mediaType",), "application/json"),
        (("verificationMaterial", "tlogEntries"), []),
        (("dsseEnvelope", "payloadType"), "text/plain"),
        (("dsseEnvelope", "signatures"), []),
    ],
)
def test_a_bundle_in_which_one_field_is_another(lab, path, value):
    bundle = changed(lab.bundle(lab.signer(), DIGEST), *path, value=value)
    with pytest.raises(BadSignature):
        keyless(lab.trusted_root()).check_bundle(bundle, MANIFEST, DIGEST, ann())


def test_the_log_entry_of_another_signature(lab):
    signer = lab.signer()
    one, other = lab.bundle(signer, DIGEST), lab.bundle(signer, OTHER)
    one["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    with pytest.raises(BadSignature, match="log entry"):
        keyless(lab.trusted_root()).check_bundle(orjson.dumps(one), MANIFEST, DIGEST, ann())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"mediaType": 1}'])
def test_what_is_no_bundle(lab, raw):
    with pytest.raises(BadSignature):
        keyless(lab.trusted_root()).check_bundle(raw, MANIFEST, DIGEST, ann())


def test_an_older_signature_in_which_something_is_another(lab):
    signer = lab.signer()
    good, other = lab.legacy(signer, DIGEST), lab.legacy(signer, OTHER)
    checker = keyless(lab.trusted_root())
    promise = orjson.loads(good.promise)
    earlier = {**promise, "Payload": {**promise["Payload"], "integratedTime": promise["Payload"]["integratedTime"] - 1}}
    cases = {
        "the signature is not the certificate's": replace(good, payload=simple_signing(OTHER)),
        "the log entry is about another signature": replace(good, promise=other.promise),
        "signed with a key": replace(good, certificate=b""),
        "no entry of a transparency log": replace(good, promise=b""),
        "invalid log entry": replace(good, promise=orjson.dumps(earlier)),
        "log entry of the signature cannot be read": replace(good, promise=b'{"Payload": {}}'),
        "certificate or log entry cannot be read": replace(good, certificate=b"-----BEGIN CERTIFICATE-----"),
    }
    for message, signature in cases.items():
        with pytest.raises(BadSignature, match=message):
            checker.check_legacy(signature, DIGEST, ann())
    stranger = lab.legacy(lab.signer(), DIGEST)
    with pytest.raises(BadSignature, match=r"another signature|not the certificate"):
        checker.check_legacy(replace(good, certificate=stranger.certificate), DIGEST, ann())


# --- roots and patterns


def test_the_public_root_is_at_hand_without_a_network():
    assert orjson.loads(public_root())["mediaType"].startswith("application/vnd.dev.sigstore.trustedroot")
    assert keyless(None) is keyless(None)


@pytest.mark.parametrize("root", [b"", b"{}", b'{"mediaType": "x"}', b"not json"])
def test_what_is_no_trusted_root(root):
    with pytest.raises(Invalid, match="the trusted root cannot be read"):
        keyless(root)


def test_a_pattern_that_cannot_be_read():
    with pytest.raises(Invalid, match="matchOIDCIdentity: error parsing regexp"):
        ann(subject="(")
