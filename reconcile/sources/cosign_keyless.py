"""Cosign signatures made without a key of one's own: a short-lived certificate says who signed, public logs say when.

The checks are those of the `sigstore` library: certificate chain at the time of signing, certificate log (SCT), transparency log
(inclusion proof and promise), identity, signature. It is imported when the first signature of this kind is checked, because it
brings half a second and many modules. Everything is checked offline against a trusted root.

Cosign's older signatures (a tag `sha256-….sig`) come with the log's signed promise but without a proof of inclusion, which the
library insists on for bundles. They pass through the same checks of the library, with the promise in the place of the proof, as
cosign itself does it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from reconcile.api.source import OIDCIdentity
from reconcile.errors import Invalid, MissingProgram
from reconcile.regexp import Regexp, RegexpError
from reconcile.sources.cosign_keys import BadSignature, check_simple_signing, check_statement, decoded, signed_by

PUBLIC_GOOD = "https://tuf-repo-cdn.sigstore.dev"
ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
OTHER_NAME = ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_UTF8_STRING = 0x0C


@dataclass(frozen=True, slots=True)
class LegacySignature:
    """One layer of a `sha256-….sig` image.

    Attributes:
        payload: the simple-signing JSON.
        signature: over the payload.
        certificate: PEM, empty where a key pair signed.
        promise: cosign's JSON about the log entry, empty where there is none.
    """

    payload: bytes
    signature: bytes
    certificate: bytes = b""
    promise: bytes = b""


@dataclass(frozen=True, slots=True)
class _Identity:
    issuer: Regexp
    subject: Regexp


class Identities:
    """Who may have signed: any of some pairs of issuer and subject; with none given, everybody with a valid certificate.

    Patterns are searched, not anchored, as cosign does it.
    """

    def __init__(self, wanted: Sequence[OIDCIdentity]) -> None:
        """Compile the patterns; raises Invalid."""
        try:
            self._identities = [_Identity(Regexp(each.issuer), Regexp(each.subject)) for each in wanted]
        except RegexpError as error:
            raise Invalid(f"matchOIDCIdentity: {error}") from error

    def check(self, certificate: x509.Certificate) -> None:
        """Raise BadSignature unless the certificate belongs to one of them."""
        if not self._identities:
            return
        issuer, subjects = issuer_of(certificate), subjects_of(certificate)
        for identity in self._identities:
            if identity.issuer.matches(issuer) and any(identity.subject.matches(subject) for subject in subjects):
                return
        names = " ".join(subjects)
        raise BadSignature(
            "none of the expected identities matched what was in the certificate, "
            f"got subjects [{names[:500]}] with issuer {issuer[:500]}"
        )


def issuer_of(certificate: x509.Certificate) -> str:
    """The identity provider that a Fulcio certificate names, empty if none."""
    for name in (ISSUER_V2, ISSUER_V1):
        try:
            value = certificate.extensions.get_extension_for_oid(name).value
        except x509.ExtensionNotFound:
            continue
        raw = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
        return (_der_text(raw) if name == ISSUER_V2 else raw).decode("utf-8", "replace")
    return ""


def subjects_of(certificate: x509.Certificate) -> list[str]:
    """Every name that the certificate was given to."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found: list[str] = []
    for name in names:
        if isinstance(name, x509.OtherName):
            if name.type_id == OTHER_NAME:
                found.append(_der_text(name.value).decode("utf-8", "replace"))
        elif isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier | x509.DNSName):
            found.append(name.value)
        elif isinstance(name, x509.IPAddress):
            found.append(str(name.value))
    return found


def _der_text(raw: bytes) -> bytes:
    """The content of a DER UTF8String; empty when it is something else."""
    if len(raw) < 2 or raw[0] != _UTF8_STRING:
        return b""
    length, start = raw[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(raw[2 : 2 + count], "big"), 2 + count
    return raw[start:] if len(raw) - start == length else b""


@dataclass(frozen=True, slots=True)
class Keyless:
    """Checks signatures against one trusted root."""

    _verifier: Any

    def check_bundle(self, raw: bytes, manifest: bytes, digest: str, identities: Identities) -> None:
        """Raise BadSignature unless the Sigstore bundle `raw` shows that one of `identities` signed.

        Args:
            raw: the bundle's JSON.
            manifest: the bytes of the signed manifest, for signatures over the manifest itself.
            digest: the manifest's.
            identities: who may have signed.
        """
        from sigstore.errors import Error
        from sigstore.models import Bundle

        try:
            bundle = Bundle.from_json(raw)
            policy = _Policy(identities)
            if orjson.loads(raw).get("dsseEnvelope") is not None:
                kind, payload = self._verifier.verify_dsse(bundle, policy)
                check_statement(kind, payload, digest)
            else:
                self._verifier.verify_artifact(manifest, bundle, policy)
        except Error as error:
            raise BadSignature(str(error)) from error
        except (ValueError, x509.ExtensionNotFound) as error:  # what the library lets through of what it is built on
            raise BadSignature(f"the bundle cannot be read: {type(error).__name__}") from error

    def check_legacy(self, signature: LegacySignature, digest: str, identities: Identities) -> None:
        """Raise BadSignature unless cosign's older `signature` shows that one of `identities` signed the manifest `digest`."""
        from sigstore.errors import Error

        if not signature.certificate:
            raise BadSignature("signed with a key, not with a certificate")
        try:
            certificate = x509.load_pem_x509_certificate(signature.certificate)
            entry, body = _promised(signature.promise)
            material = SimpleNamespace(timestamp_verification_data=None)
            signed = SimpleNamespace(signing_certificate=certificate, log_entry=entry, verification_material=material)
            # Not public, but the only place where the library's checks of certificate, logs and identity are all together.
            self._verifier._verify_common_signing_cert(signed, _Policy(identities))  # noqa: SLF001
        except Error as error:
            raise BadSignature(str(error)) from error
        except (ValueError, x509.ExtensionNotFound) as error:
            raise BadSignature(f"the signature's certificate or log entry cannot be read: {type(error).__name__}") from error
        if not signed_by(cast(Any, certificate.public_key()), signature.signature, signature.payload):
            raise BadSignature("the signature is not the certificate's")
        _check_entry(body, certificate, signature)
        check_simple_signing(signature.payload, digest)


class _Policy:
    """What the library asks about a certificate whose chain it has checked."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def verify(self, cert: x509.Certificate) -> None:
        """Raise the library's error unless the certificate is of one of the identities."""
        from sigstore.errors import VerificationError

        try:
            self._identities.check(cert)
        except BadSignature as error:
            raise VerificationError(str(error)) from error


def _promised(promise: bytes) -> tuple[Any, bytes]:
    """The log entry of cosign's annotation, which checks itself by the log's promise, and its body."""
    from sigstore.models import TransparencyLogEntry
    from sigstore_models.common.v1 import LogId
    from sigstore_models.rekor import v1 as rekor

    class Promised(TransparencyLogEntry):
        """An entry without proof of inclusion."""

        def _validate(self) -> None:
            """There is no proof to ask for."""

        def _verify(self, keyring: Any) -> None:
            """Check the log's signature over the entry instead."""
            self._verify_set(keyring)

    if not promise:
        raise BadSignature("the signature has no entry of a transparency log with it")
    try:
        document = orjson.loads(promise)
        payload = document["Payload"]
        body = decoded(payload["body"], "body of the log entry")
        kind = orjson.loads(body)
        inner = rekor.TransparencyLogEntry.model_construct(
            log_index=int(payload["logIndex"]),
            log_id=LogId.model_construct(key_id=bytes.fromhex(payload["logID"])),
            kind_version=rekor.KindVersion(kind=kind["kind"], version=kind["apiVersion"]),
            integrated_time=int(payload["integratedTime"]),
            inclusion_promise=rekor.InclusionPromise.model_construct(
                signed_entry_timestamp=decoded(document["SignedEntryTimestamp"], "promise of the log")
            ),
            inclusion_proof=cast(Any, None),
            canonicalized_body=body,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadSignature("the log entry of the signature cannot be read") from error
    return Promised(inner), body


def _check_entry(body: bytes, certificate: x509.Certificate, signature: LegacySignature) -> None:
    """Raise BadSignature unless the log entry is about this payload, signature and certificate."""
    try:
        entry = orjson.loads(body)
        spec = entry["spec"]
        logged = spec["signature"]
        same = (
            (entry["kind"], entry["apiVersion"]) == ("hashedrekord", "0.0.1")
            and spec["data"]["hash"]["algorithm"] == "sha256"
            and spec["data"]["hash"]["value"] == hashlib.sha256(signature.payload).hexdigest()
            and decoded(logged["content"], "logged signature") == signature.signature
        )
        key = x509.load_pem_x509_certificate(decoded(logged["publicKey"]["content"], "logged certificate"))
    except (ValueError, KeyError, TypeError) as error:
        raise BadSignature("the log entry of the signature cannot be read") from error
    if not same or key.public_bytes(Encoding.DER) != certificate.public_bytes(Encoding.DER):
        raise BadSignature("the log entry is about another signature")


@functools.lru_cache(maxsize=8)
def keyless(trusted_root: bytes | None) -> Keyless:
    """A checker for a Sigstore trusted root; None takes the public one that comes with the library.

    Raises:
        Invalid: the text is no trusted root.
        MissingProgram: the library is not installed.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Document
    except ImportError as error:
        raise MissingProgram("signatures without keys need the Python package 'sigstore'; install it beside imagebot") from error
    try:
        root = TrustedRoot(Document.from_json(public_root() if trusted_root is None else trusted_root))
        return Keyless(Verifier(trusted_root=root))
    except (Error, ValueError) as error:
        raise Invalid(f"the trusted root cannot be read: {str(error).splitlines()[0][:200]}") from error


def public_root() -> bytes:
    """The public-good trusted root as the installed library has it."""
    folder = importlib.resources.files("sigstore._store") / quote(PUBLIC_GOOD, safe="")
    return (folder / "trusted_root.json").read_bytes()
