"""Reading SSH private keys of any usual form, with or without passphrase.

Keys in OpenSSH's own encrypted form need its bcrypt key derivation, which neither the standard library nor `cryptography`
alone has; `ssh-keygen` takes the passphrase off in a private folder, told through an askpass script.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from reconcile.errors import Invalid
from reconcile.git.environment import environment, write_private
from reconcile.git.gpghome import key_folder
from reconcile.git.process import Job
from reconcile.git.types import Counters

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


class KeyNeedsPassphrase(Invalid):
    """The key is encrypted and no passphrase was given."""


class WrongPassphrase(Invalid):
    """The key is encrypted with another passphrase."""


class UnreadableKey(Invalid):
    """Not a private key of a supported form and kind."""


def load_private_key(data: bytes, passphrase: str, scratch: Path | None = None, timeout: float = 30.0) -> PrivateKey:
    """Read an ed25519, ECDSA or RSA key in OpenSSH, PKCS#1, PKCS#8 or SEC1 form.

    Blocking; may run `ssh-keygen` under `scratch` for OpenSSH's encrypted form. Raises `KeyNeedsPassphrase`,
    `WrongPassphrase` or `UnreadableKey`; messages hold nothing of the key.
    """
    data = data.replace(b"\r\n", b"\n").strip() + b"\n"
    if data.startswith(_OPENSSH):
        return _supported(_load_openssh(data, passphrase, scratch, timeout))
    try:
        return _supported(serialization.load_pem_private_key(data, None))
    except TypeError:
        if not passphrase:
            raise KeyNeedsPassphrase("the key is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnreadableKey("no private key in a known form found") from None
    try:
        return _supported(serialization.load_pem_private_key(data, passphrase.encode()))
    except (ValueError, UnsupportedAlgorithm):
        raise WrongPassphrase("the passphrase does not fit the key") from None


def private_key_file(data: bytes, passphrase: str, scratch: Path, timeout: float = 30.0) -> bytes:
    """The key without passphrase in OpenSSH's form, for a file with mode 0600 that only `ssh` reads."""
    plain = data.replace(b"\r\n", b"\n").strip() + b"\n"
    if plain.startswith(_OPENSSH) and not _encrypted(plain):
        # As it is: `ssh` knows kinds of keys that we do not.
        return plain
    return load_private_key(data, passphrase, scratch, timeout).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _supported(key: object) -> PrivateKey:
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise UnreadableKey("unsupported kind of key")


def _encrypted(data: bytes) -> bool:
    """Whether an OpenSSH key names a cipher; the header is not secret. Raises `UnreadableKey` when there is none."""
    if data.count(b"-----") < 4:
        raise UnreadableKey("no private key in a known form found")
    body = b"".join(data.split(b"-----")[2].split())
    try:
        raw = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise UnreadableKey("no private key in a known form found") from None
    if not raw.startswith(b"openssh-key-v1\0"):
        raise UnreadableKey("no private key in a known form found")
    return not raw.startswith(b"openssh-key-v1\0\0\0\0\x04none")


def _load_openssh(data: bytes, passphrase: str, scratch: Path | None, timeout: float) -> object:
    if _encrypted(data):
        if not passphrase:
            raise KeyNeedsPassphrase("the key is protected by a passphrase")
        data = _without_passphrase(data, passphrase, scratch, timeout)
    try:
        return serialization.load_ssh_private_key(data, None)
    except (ValueError, UnsupportedAlgorithm):
        raise UnreadableKey("no private key in a known form found") from None


def _without_passphrase(data: bytes, passphrase: str, scratch: Path | None, timeout: float) -> bytes:
    with key_folder(scratch) as folder:
        key = write_private(folder / "key", data)
        answer = write_private(folder / "answer", passphrase.encode() + b"\n")
        askpass = write_private(folder / "askpass", f"#!/bin/sh\ncat -- {shlex.quote(str(answer))}\n".encode(), 0o700)
        env = environment(
            folder, Path(os.devnull), extra={"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        )
        done = Job(timeout, Counters()).run(["ssh-keygen", "-q", "-p", "-N", "", "-f", str(key)], env, folder)
        if done.status != 0:
            wrong = "passphrase" in done.stderr
            raise (
                WrongPassphrase("the passphrase does not fit the key")
                if wrong
                else UnreadableKey("ssh-keygen cannot read the key")
            )
        return key.read_bytes()
