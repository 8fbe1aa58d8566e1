"""Sprig's defaults, reflection, encodings and hashes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from typing import Final

from reconcile.gotemplate.convert import empty
from reconcile.gotemplate.fmt import type_name
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import deep_equal, kind_of, to_bytes, to_text

MISC: Final = Family()


@MISC.add("default")
def _default(fallback: object, *given: object) -> object:
    return fallback if not given or empty(given[0]) else given[0]


@MISC.add("empty")
def _empty(value: object) -> bool:
    return empty(value)


@MISC.add("coalesce")
def _coalesce(*values: object) -> object:
    return next((value for value in values if not empty(value)), None)


@MISC.add("all")
def _all(*values: object) -> bool:
    return not any(map(empty, values))


@MISC.add("any")
def _any(*values: object) -> bool:
    return not all(map(empty, values))


@MISC.add("ternary")
def _ternary(yes: object, no: object, condition: bool) -> object:
    return yes if condition else no


@MISC.add("typeOf")
def _type_of(value: object) -> str:
    return type_name(value)


@MISC.add("typeIs")
def _type_is(wanted: str, value: object) -> bool:
    return wanted == type_name(value)


@MISC.add("typeIsLike")
def _type_is_like(wanted: str, value: object) -> bool:
    return type_name(value) in {wanted, f"*{wanted}"}


@MISC.add("kindOf")
def _kind_of(value: object) -> str:
    return "invalid" if value is None else kind_of(value)


@MISC.add("kindIs")
def _kind_is(wanted: str, value: object) -> bool:
    return wanted == _kind_of(value)


@MISC.add("deepEqual")
def _deep_equal(left: object, right: object) -> bool:
    return deep_equal(left, right)


@MISC.add("b64enc")
def _b64enc(text: str) -> str:
    return base64.b64encode(to_bytes(text)).decode()


@MISC.add("b32enc")
def _b32enc(text: str) -> str:
    return base64.b32encode(to_bytes(text)).decode()


_ALPHABETS: Final = {
    4: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    8: "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
}


@MISC.add("b64dec")
def _b64dec(text: str) -> str:
    return _decoded(text, 4, "base64")


def base64_error(text: str) -> str:
    """Go's complaint about a text that is not base64."""
    return f"illegal base64 data at input byte {_first_wrong(to_bytes(text), 4) or 0}"


@MISC.add("b32dec")
def _b32dec(text: str) -> str:
    return _decoded(text, 8, "base32")


def _decoded(text: str, group: int, name: str) -> str:
    """The decoded bytes; for what is not encoded the text of Go's error, which Sprig gives as the result."""
    data = to_bytes(text)
    clean = bytes(byte for byte in data if byte not in b"\r\n")
    wrong = _first_wrong(data, group)
    if wrong is not None:
        return f"illegal {name} data at input byte {wrong}"
    try:
        return to_text(base64.b64decode(clean, validate=True) if group == 4 else base64.b32decode(clean))
    except binascii.Error:
        return f"illegal {name} data at input byte {len(data)}"


def _first_wrong(data: bytes, group: int) -> int | None:
    """Where the decoder stops: a foreign character, padding at the wrong place, or the end of an incomplete group."""
    alphabet = _ALPHABETS[group].encode()
    count = start = 0
    paddings = {4: (2, 3), 8: (2, 4, 5, 7)}[group]
    for at, byte in enumerate(data):
        if byte in b"\r\n":
            continue
        if byte in alphabet:
            start = at if count % group == 0 else start
            count += 1
            continue
        if byte == 0x3D and count % group in paddings:
            rest = bytes(each for each in data[at:] if each not in b"\r\n")
            wanted = group - count % group
            if len(rest) < wanted and set(rest) == {0x3D}:
                return len(data)
            if rest[:wanted] == b"=" * wanted:
                return None if len(rest) == wanted else at + wanted
        return at
    return None if count % group == 0 else len(data) - count % group


@MISC.add("sha1sum")
def _sha1sum(text: str) -> str:
    return hashlib.sha1(to_bytes(text), usedforsecurity=False).hexdigest()


@MISC.add("sha256sum")
def _sha256sum(text: str) -> str:
    return hashlib.sha256(to_bytes(text)).hexdigest()


@MISC.add("sha512sum")
def _sha512sum(text: str) -> str:
    return hashlib.sha512(to_bytes(text)).hexdigest()


@MISC.add("adler32sum")
def _adler32sum(text: str) -> str:
    return str(zlib.adler32(to_bytes(text)))
