"""A Sigstore of one's own: certificate authority, certificate log and transparency log, with the trusted root that knows them.

Everything is made anew for each laboratory and checks offline, as the public service's signatures do.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reconcile.sources.cosign_keyless import ISSUER_V1, ISSUER_V2, LegacySignature
from reconcile.sources.cosign_keys import pre_authentication
from tests.support import oci_artifacts
from tests.support.pki import private_key, public_pem

SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
SHA256 = ec.ECDSA(hashes.SHA256())
EMAIL, ISSUER = "ann@example.com", "https://accounts.example.com"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Signer:
    """A short-lived certificate and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, SHA256)


class Lab:
    """Issues certificates, logs what was signed with them, and gives out the trusted root."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        self._root, self._ct_log, self._log = private_key(), private_key(), private_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the laboratory")])
        self._authority = self._make_authority()
        self._entries = 0

    def trusted_root(self) -> bytes:
        """`trusted_root.json`."""
        valid = {"start": "2020-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            identity = {"keyId": b64(hashlib.sha256(spki(key)).digest())}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identity}

        der = self._authority.public_bytes(serialization.Encoding.DER)
        authority = {
            "subject": {"organization": "laboratory", "commonName": "authority"},
            "uri": "https://fulcio.example.com",
            "certChain": {"certificates": [{"rawBytes": b64(der)}]},
            "validFor": valid,
        }
        return orjson.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self._log, "https://rekor.example.com")],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self._ct_log, "https://ctlog.example.com")],
                "timestampAuthorities": [],
            }
        )

    def signer(
        self, *, email: str = EMAIL, uri: str = "", issuer: str = ISSUER, old: bool = False, logged: bool = True
    ) -> Signer:
        """A certificate that is good for ten minutes from now; with `old` issuer in the older extension; `logged` has an SCT."""
        key = private_key()
        name: x509.GeneralName = x509.UniformResourceIdentifier(uri) if uri else x509.RFC822Name(email)
        text = issuer.encode()
        named = x509.UnrecognizedExtension(ISSUER_V1, text)
        if not old:
            assert len(text) < 128
            named = x509.UnrecognizedExtension(ISSUER_V2, bytes([0x0C, len(text)]) + text)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now)
            .not_valid_after(self.now + dt.timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(named, critical=False)
        )
        certificate = builder.sign(self._root, hashes.SHA256())
        if logged:
            scts = x509.UnrecognizedExtension(SCT_LIST, self._scts(certificate.tbs_certificate_bytes))
            certificate = builder.add_extension(scts, critical=False).sign(self._root, hashes.SHA256())
        return Signer(key, certificate)

    # --- signatures

    def legacy(self, signer: Signer, digest: str, *, at: dt.datetime | None = None) -> LegacySignature:
        """A signature as cosign made them before bundles; `at` is when the log saw it, a minute from now by default."""
        payload = oci_artifacts.simple_signing(digest)
        signature = signer.sign(payload)
        entry = self._entry(_hashedrekord(payload, signature, signer), at)
        promise = {
            "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            "Payload": {
                "body": entry["canonicalizedBody"],
                "integratedTime": int(entry["integratedTime"]),
                "logIndex": int(entry["logIndex"]),
                "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            },
        }
        return LegacySignature(payload, signature, signer.pem, orjson.dumps(promise))

    def bundle(self, signer: Signer, digest: str, *, at: dt.datetime | None = None) -> dict[str, Any]:
        """A bundle (version 0.3) with an in-toto statement about `digest`."""
        payload, kind = oci_artifacts.statement(digest), "application/vnd.in-toto+json"
        signature = signer.sign(pre_authentication(kind, payload))
        envelope = oci_artifacts.envelope(payload, signature, kind)
        hashed = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        whole = {"algorithm": "sha256", "value": hashlib.sha256(orjson.dumps(envelope)).hexdigest()}
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": whole,
                "payloadHash": hashed,
                "signatures": [{"signature": b64(signature), "verifier": b64(signer.pem)}],
            },
        }
        return self._bundle(signer, self._entry(body, at), {"dsseEnvelope": envelope})

    def message_bundle(self, signer: Signer, manifest: bytes, *, at: dt.datetime | None = None) -> dict[str, Any]:
        """A bundle with a signature over the manifest itself."""
        signature = signer.sign(manifest)
        digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(manifest).digest())}
        entry = self._entry(_hashedrekord(manifest, signature, signer), at)
        return self._bundle(signer, entry, {"messageSignature": {"messageDigest": digest, "signature": b64(signature)}})

    def _bundle(self, signer: Signer, entry: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
        material = {"certificate": {"rawBytes": b64(signer.der)}, "tlogEntries": [entry]}
        return {"mediaType": oci_artifacts.BUNDLE_MEDIA_TYPE, "verificationMaterial": material, **content}

    # --- logs

    def _entry(self, body: dict[str, Any], at: dt.datetime | None) -> dict[str, Any]:
        """An entry of a log with nothing else in it: the leaf is the root."""
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        seen = int((at or self.now + dt.timedelta(minutes=1)).timestamp())
        identity = hashlib.sha256(spki(self._log)).digest()
        self._entries += 1
        promised = {"body": b64(canonical), "integratedTime": seen, "logID": identity.hex(), "logIndex": self._entries}
        promise = self._log.sign(orjson.dumps(promised, option=orjson.OPT_SORT_KEYS), SHA256)
        root = hashlib.sha256(b"\0" + canonical).digest()
        note = f"rekor.example.com\n1\n{b64(root)}\n"
        signed = b64(identity[:4] + self._log.sign(note.encode(), SHA256))
        return {
            "logIndex": str(self._entries),
            "logId": {"keyId": b64(identity)},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "integratedTime": str(seen),
            "inclusionPromise": {"signedEntryTimestamp": b64(promise)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 rekor.example.com {signed}\n"},
            },
            "canonicalizedBody": b64(canonical),
        }

    def _scts(self, tbs: bytes) -> bytes:
        """The list with one timestamp of the certificate log (RFC 6962 §3.3)."""
        identity = hashlib.sha256(spki(self._ct_log)).digest()
        stamp = struct.pack("!Q", int(self.now.timestamp() * 1000))
        entry = hashlib.sha256(spki(self._root)).digest() + len(tbs).to_bytes(3, "big") + tbs
        signature = self._ct_log.sign(b"\0\0" + stamp + b"\0\1" + entry + b"\0\0", SHA256)
        sct = b"\0" + identity + stamp + b"\0\0" + b"\4\3" + struct.pack("!H", len(signature)) + signature
        scts = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        assert len(scts) < 256
        length = bytes([len(scts)]) if len(scts) < 128 else bytes([0x81, len(scts)])
        return b"\4" + length + scts

    def _make_authority(self) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._root.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - dt.timedelta(days=365))
            .not_valid_after(self.now + dt.timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._root.public_key()), critical=False)
            .sign(self._root, hashes.SHA256())
        )


def _hashedrekord(content: bytes, signature: bytes, signer: Signer) -> dict[str, Any]:
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(signer.pem)}},
        },
    }


def _usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
        "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


__all__ = ["EMAIL", "ISSUER", "Lab", "Signer", "public_pem"]
