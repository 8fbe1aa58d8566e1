"""Signed Git objects: what was signed and the signature, out of the bytes of a commit or a tag. Pure.

A commit has its signature in a header `gpgsig`, a tag at the end of its message; what was signed is the object without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from reconcile.errors import Invalid

_ARMOUR = re.compile(rb"^-----BEGIN (PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----", re.MULTILINE)


class SignatureType(StrEnum):
    """Kinds of signatures; the words of Flux's Git library."""

    EMPTY = "empty"
    OPENPGP = "openpgp"
    SSH = "ssh"
    X509 = "x509"
    UNKNOWN = "unknown"


_TYPES = {
    b"PGP SIGNATURE": SignatureType.OPENPGP,
    b"PGP MESSAGE": SignatureType.OPENPGP,
    b"SSH SIGNATURE": SignatureType.SSH,
    b"SIGNED MESSAGE": SignatureType.X509,
}


@dataclass(frozen=True, slots=True)
class Signed:
    """An object taken apart: the bytes that were signed, and the armoured signature, empty when there is none."""

    payload: bytes
    signature: bytes

    @property
    def type(self) -> SignatureType:
        """What kind of signature it is, by its first line."""
        if not self.signature.strip():
            return SignatureType.EMPTY
        found = _ARMOUR.match(self.signature.lstrip())
        return _TYPES[found[1]] if found else SignatureType.UNKNOWN


def split_commit(raw: bytes) -> Signed:
    """Take the signature out of a commit. Raises `Invalid` when it has more than one."""
    head, blank, message = raw.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    signatures = 0
    taking = leaving = False
    for line in head.split(b"\n"):
        if line.startswith(b" ") and (taking or leaving):
            if taking:
                signature.append(line[1:])
            continue
        taking = line.startswith(b"gpgsig ")
        # The signature of the same commit under its SHA-256 name: made over a payload without either.
        leaving = line.startswith(b"gpgsig-sha256 ")
        if taking:
            signatures += 1
            signature.append(line[len(b"gpgsig ") :])
        elif not leaving:
            kept.append(line)
    if signatures > 1:
        raise Invalid("the commit has more than one signature")
    return Signed(b"\n".join(kept) + blank + message, b"\n".join(signature) + b"\n" if signature else b"")


def split_tag(raw: bytes) -> Signed:
    """Take the signature out of an annotated tag: from the last line that begins one to the end."""
    starts = [found.start() for found in _ARMOUR.finditer(raw)]
    if not starts:
        return Signed(raw, b"")
    return Signed(raw[: starts[-1]], raw[starts[-1] :])


def target_of_tag(raw: bytes) -> tuple[str, str]:
    """Id and type (`commit`, `tag`, …) of the object that a tag names. Raises `Invalid` when this is no tag."""
    found = re.match(rb"object ([0-9a-f]{40})\ntype ([a-z]+)\n", raw)
    if found is None:
        raise Invalid("not an annotated tag")
    return found[1].decode(), found[2].decode()


def subject(raw: bytes) -> str:
    """First line of a commit's message; more than 50 characters are cut to 50 and `...` added, as Flux shows it."""
    line = raw.partition(b"\n\n")[2].decode("utf-8", "replace").strip().split("\n")[0]
    return line if len(line) <= 50 else line[:50] + "..."
