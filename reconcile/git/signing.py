"""Signing keys from Secrets, and the signatures `git verify-commit` accepts: OpenPGP by gpg, SSHSIG in process."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from reconcile.errors import Invalid, TimedOut
from reconcile.git.environment import environment, write_private
from reconcile.git.errors import SigningFailed, bounded
from reconcile.git.gpghome import gpg_home
from reconcile.git.pgpkey import summarize
from reconcile.git.process import Completed, Job
from reconcile.git.sshkeys import KeyNeedsPassphrase, PrivateKey, UnreadableKey, WrongPassphrase, load_private_key
from reconcile.git.types import Counters

SECONDS = 30.0
_NAMESPACE = b"git"
_MINIMUM_RSA_BITS = 2048


def gpg_signer_from_secret(name: str, data: Mapping[str, bytes]) -> GpgSigner:
    """A signer from Flux's Secret `name` of type gpg: `git.asc`, and `passphrase` when the key is encrypted.

    Pure: a wrong passphrase or an expired key shows when something is signed, or by `GpgSigner.check`. Raises `SigningFailed`
    with Flux's texts.
    """
    key = data.get("git.asc")
    if not key:
        raise SigningFailed(f"signing key secret '{name}' does not contain a 'git.asc' key")
    try:
        found = summarize(key)
    except Invalid as error:
        raise SigningFailed(f"could not read signing key from secret '{name}': {error}") from None
    if found.entities > 1:
        raise SigningFailed(f"multiple entities read from secret '{name}', could not determine which signing key to use")
    if not found.secret:
        raise SigningFailed(f"could not read signing key from secret '{name}': it holds no secret key")
    passphrase = data.get("passphrase")
    if found.encrypted and passphrase is None:
        raise SigningFailed(f"can not use passphrase protected signing key without 'passphrase' field present in secret {name}")
    return GpgSigner(name, key, passphrase or b"")


def ssh_signer_from_secret(name: str, data: Mapping[str, bytes], scratch: Path | None = None) -> SshSigner:
    """A signer from Flux's Secret `name` of type ssh: `identity`, and `password` when the key is encrypted.

    Blocking: may run `ssh-keygen` under `scratch` to take the passphrase off. Raises `SigningFailed` with Flux's texts.
    """
    identity = data.get("identity")
    if not identity:
        raise SigningFailed(f"signing key secret '{name}' does not contain an 'identity' key")
    password = data.get("password", b"").decode("utf-8", "replace").rstrip("\r\n")
    try:
        key = load_private_key(identity, password, scratch, SECONDS)
        _check_strength(key)
    except KeyNeedsPassphrase:
        raise SigningFailed(
            f"can not use passphrase protected signing key without 'password' field present in secret {name}"
        ) from None
    except WrongPassphrase as error:
        raise SigningFailed(f"could not decrypt private key of the signing key present in secret {name}: {error}") from None
    except UnreadableKey as error:
        raise SigningFailed(f"could not parse SSH signing key from secret '{name}': {error}") from None
    return SshSigner(key)


def _check_strength(key: PrivateKey) -> None:
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MINIMUM_RSA_BITS:
        raise UnreadableKey(f"RSA key of {key.key_size} bits is too short, at least {_MINIMUM_RSA_BITS} are needed")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVE_HASHES:
        raise UnreadableKey(f"unsupported curve {key.curve.name}")


_CURVE_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _mpint(number: int) -> bytes:
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


class SshSigner:
    """SSHSIG signatures (OpenSSH's PROTOCOL.sshsig), namespace `git`, hash sha512."""

    def __init__(self, key: PrivateKey) -> None:
        """`key` has been checked."""
        self._key = key
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.public_key = public.decode()
        self._blob = base64.b64decode(public.split()[1])

    def sign(self, payload: bytes) -> str:
        """Armoured signature over `payload`."""
        digest = hashlib.sha512(payload).digest()
        signed = b"SSHSIG" + _string(_NAMESPACE) + _string(b"") + _string(b"sha512") + _string(digest)
        algorithm, signature = self._raw(signed)
        blob = b"SSHSIG" + struct.pack(">I", 1) + _string(self._blob) + _string(_NAMESPACE) + _string(b"") + _string(b"sha512")
        blob += _string(_string(algorithm) + _string(signature))
        text = base64.b64encode(blob).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])

    def _raw(self, data: bytes) -> tuple[bytes, bytes]:
        """Algorithm and signature as the SSH protocol writes them (RFC 8709, 8332, 5656)."""
        key = self._key
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return b"ssh-ed25519", key.sign(data)
        if isinstance(key, rsa.RSAPrivateKey):
            return b"rsa-sha2-512", key.sign(data, padding.PKCS1v15(), hashes.SHA512())
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_CURVE_HASHES[key.curve.name])))
        return self.public_key.split()[0].encode(), _mpint(r) + _mpint(s)


class GpgSigner:
    """Signs with gpg in a private home that exists only while it signs; no terminal, no agent of the user."""

    def __init__(self, secret: str, key: bytes, passphrase: bytes) -> None:
        """`secret` is the name shown in messages."""
        self._secret = secret
        self._key = key
        self._passphrase = passphrase
        self.counters = Counters()

    def check(self) -> None:
        """Sign something and forget it. Blocking. Raises `SigningFailed` when the key cannot be used."""
        self.sign(b"")

    def sign(self, payload: bytes) -> str:
        """Armoured detached signature over `payload`. Blocking. Raises `SigningFailed` or `MissingProgram`."""
        job = Job(SECONDS, self.counters)
        with gpg_home() as home:
            env = environment(home, Path(os.devnull), extra={"GNUPGHOME": str(home)})

            def gpg(*arguments: str, stdin: bytes = b"") -> Completed:
                return job.run(["gpg", "--batch", "--no-tty", "--quiet", *arguments], env, home, stdin)

            try:
                imported = gpg("--import", str(write_private(home / "key.asc", self._key)))
                if imported.status != 0:
                    raise SigningFailed(f"could not read signing key from secret '{self._secret}': {_said(imported)}")
                data = str(write_private(home / "payload", payload))
                secret = ("--pinentry-mode", "loopback", "--passphrase-fd", "0")
                done = gpg(
                    *secret, "--armor", "--output", "-", "--detach-sign", data, stdin=self._passphrase.rstrip(b"\r\n") + b"\n"
                )
                if done.status != 0:
                    raise SigningFailed(self._reason(done, gpg("--with-colons", "--list-secret-keys").stdout))
                return done.stdout.decode("ascii")
            except TimedOut:
                raise SigningFailed(f"gpg did not answer within {SECONDS:g} seconds") from None
            finally:
                with suppress(Exception):
                    Job(SECONDS, self.counters).run(["gpgconf", "--kill", "all"], env, home)

    def _reason(self, done: Completed, listing: bytes) -> str:
        # Second column of gpg's listing: e is expired, r revoked, d disabled, i invalid.
        states = [line.split(b":")[1] for line in listing.splitlines() if line.startswith((b"sec:", b"ssb:"))]
        if "Bad passphrase" in done.stderr or "No passphrase given" in done.stderr:
            return (
                f"could not decrypt private key of the signing key present in secret {self._secret}: the passphrase does not fit"
            )
        if states and all(state in (b"e", b"r") for state in states):
            word = "expired" if b"e" in states else "revoked"
            return f"signing key from secret '{self._secret}' is {word}"
        return f"could not sign with the key from secret '{self._secret}': {_said(done)}"


def _said(done: Completed) -> str:
    return bounded(done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else f"gpg exited with status {done.status}"
