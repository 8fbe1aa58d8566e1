"""Those of Sprig's cryptographic functions that can be done soundly here: derived passwords and AES.

Left out: bcrypt and htpasswd (no maintained implementation among our dependencies), and making keys and certificates, which takes
seconds and has no place in a commit message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.sprig_misc import base64_error
from reconcile.gotemplate.values import Uint32, to_bytes, to_text

CRYPTO: Final = Family()

_SCRYPT_COST: Final = 400_000
_SEED: Final = b"com.lyndir.masterpassword"
_VOWELS: Final = "AEIOU"
_CONSONANTS: Final = "BCDFGHJKLMNPQRSTVWXYZ"
_LETTERS: Final = _VOWELS + _VOWELS.lower() + _CONSONANTS + _CONSONANTS.lower()
_CHARACTERS: Final = {
    "V": _VOWELS,
    "C": _CONSONANTS,
    "v": _VOWELS.lower(),
    "c": _CONSONANTS.lower(),
    "A": _VOWELS + _CONSONANTS,
    "a": _LETTERS,
    "n": "0123456789",
    "o": "@&%?,=[]_:-+*$#!'^~;()/.",
    "x": _LETTERS + "0123456789!@#$%^&*()",
}
_TEMPLATES: Final = {
    "maximum": "anoxxxxxxxxxxxxxxxxx axxxxxxxxxxxxxxxxxno",
    "long": "CvcvnoCvcvCvcv CvcvCvcvnoCvcv CvcvCvcvCvcvno CvccnoCvcvCvcv CvccCvcvnoCvcv CvccCvcvCvcvno CvcvnoCvccCvcv "
    "CvcvCvccnoCvcv "
    "CvcvCvccCvcvno CvcvnoCvcvCvcc CvcvCvcvnoCvcc CvcvCvcvCvccno CvccnoCvccCvcv CvccCvccnoCvcv CvccCvccCvcvno CvcvnoCvccCvcc "
    "CvcvCvccnoCvcc CvcvCvccCvccno CvccnoCvcvCvcc CvccCvcvnoCvcc CvccCvcvCvccno",
    "medium": "CvcnoCvc CvcCvcno",
    "short": "Cvcn",
    "basic": "aaanaaan aannaaan aaannaaa",
    "pin": "nnnn",
}


def _sized(text: str) -> bytes:
    data = to_bytes(text)
    return len(data).to_bytes(4, "big") + data


@CRYPTO.add("derivePassword")
def _derive_password(counter: Uint32, kind: str, password: str, user: str, site: str) -> str:
    """A site password by the Master Password algorithm."""
    if kind not in _TEMPLATES:
        return f"cannot find password template {kind}"
    spend(_SCRYPT_COST)
    key = hashlib.scrypt(to_bytes(password), salt=_SEED + _sized(user), n=32768, r=8, p=2, dklen=64, maxmem=64 << 20)
    seed = hmac.digest(key, _SEED + _sized(site) + int(counter).to_bytes(4, "big"), "sha256")
    templates = _TEMPLATES[kind].split()
    template = templates[seed[0] % len(templates)]
    return "".join(_CHARACTERS[each][byte % len(_CHARACTERS[each])] for each, byte in zip(template, seed[1:], strict=False))


def _cipher(password: str, start: bytes) -> Cipher[CBC]:
    return Cipher(AES(to_bytes(password)[:32].ljust(32, b"\0")), CBC(start))


@CRYPTO.add("encryptAES")
def _encrypt_aes(password: str, text: str) -> str:
    data = to_bytes(text)
    padding = 16 - len(data) % 16
    start = secrets.token_bytes(16)
    encryptor = _cipher(password, start).encryptor()
    return base64.b64encode(start + encryptor.update(data + bytes([padding]) * padding) + encryptor.finalize()).decode()


@CRYPTO.add("decryptAES")
def _decrypt_aes(password: str, text: str) -> str:
    try:
        data = base64.b64decode(to_bytes(text), validate=True)
    except binascii.Error:
        raise CallError(base64_error(text)) from None
    if not text:
        return ""
    if len(data) < 16:
        raise CallError(f"runtime error: slice bounds out of range [:16] with capacity {len(text) // 4 * 3}")
    if len(data) == 16:
        raise CallError("runtime error: index out of range [-1]")
    if len(data) % 16:
        raise CallError("crypto/cipher: input not full blocks")
    decryptor = _cipher(password, data[:16]).decryptor()
    plain = decryptor.update(data[16:]) + decryptor.finalize()
    if plain[-1] > len(plain):
        raise CallError(f"runtime error: slice bounds out of range [:{len(plain) - plain[-1]}]")
    return to_text(plain[: len(plain) - plain[-1]])
