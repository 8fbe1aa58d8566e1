"""Checks signatures of commits and tags against trusted keys: OpenPGP by gpg in a private home, SSH in process.

Which keys a Secret holds, and the texts of failures, are those of Flux's GitRepository.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconcile.errors import Invalid, TimedOut
from reconcile.git.environment import environment, write_private
from reconcile.git.errors import bounded
from reconcile.git.gpghome import gpg_home
from reconcile.git.process import Completed, Job
from reconcile.git.signatures import SignatureType, Signed
from reconcile.git.sshsig import authorized_keys
from reconcile.git.sshsig import verify as verify_ssh
from reconcile.git.types import Counters

SECONDS = 30.0
_AT_ONCE = threading.BoundedSemaphore(2)
"""Homes of gpg that exist at the same time."""
_WEAK = frozenset(("1", "2", "3"))
"""MD5, SHA-1 and RIPEMD-160, by their numbers in OpenPGP."""
_REASONS = {
    "NO_PUBKEY": "no matching key",
    "BADSIG": "the signature does not fit",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key is revoked",
    "ERRSIG": "the signature cannot be checked",
}


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Whose signatures count: key rings of OpenPGP, and lists of SSH keys, by the names under which a Secret has them."""

    pgp: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: Mapping[str, bytes]) -> TrustedKeys:
        """The keys in a Secret: `*.sshpub` are SSH keys, everything else is OpenPGP."""
        ssh = {name: value for name, value in data.items() if name.endswith(".sshpub")}
        return cls({name: value for name, value in data.items() if name not in ssh}, ssh)


def verify(signed: Signed, keys: TrustedKeys, what: str, counters: Counters | None = None) -> str:
    """Id of the key that signed: of the primary key in upper-case hex (16 digits), or an SSH fingerprint. Blocking.

    `what` is `commit` or `tag`. Raises `Invalid` with the cause in Flux's words, `MissingProgram` without gpg.
    """
    if signed.type is SignatureType.OPENPGP:
        if not keys.pgp:
            raise Invalid(f"unable to verify Git {what}: no key ring for PGP signatures was given")
        try:
            return _verify_pgp(signed, keys, counters or Counters())
        except Invalid as error:
            raise Invalid(
                f"unable to verify Git {what}: unable to verify payload with any of the given key rings: {error}"
            ) from None
    if signed.type is SignatureType.SSH:
        if not keys.ssh:
            raise Invalid(f"unable to verify Git {what}: no authorized keys for SSH signatures were given")
        try:
            known = [key for name in sorted(keys.ssh) for key in _ssh_keys(name, keys.ssh[name])]
            return verify_ssh(signed.payload, signed.signature, known)
        except Invalid as error:
            raise Invalid(
                f"unable to verify Git {what}: unable to verify payload with any of the given authorized keys: {error}"
            ) from None
    raise Invalid(f"unsupported signature type: {signed.type}")


def _ssh_keys(name: str, text: bytes) -> list[bytes]:
    try:
        return authorized_keys(text)
    except Invalid as error:
        raise Invalid(f"'{name}': {error}") from None


def _verify_pgp(signed: Signed, keys: TrustedKeys, counters: Counters) -> str:
    job = Job(SECONDS, counters)
    try:
        with _AT_ONCE, gpg_home() as home:
            # New homes may be set up for a key daemon, which must not be needed here.
            write_private(home / "common.conf", b"")
            env = environment(home, Path(os.devnull), extra={"GNUPGHOME": str(home)})

            def gpg(*arguments: str) -> Completed:
                fixed = ["gpg", "--batch", "--no-tty", "--quiet", "--no-autostart", "--no-auto-key-retrieve", "--status-fd", "1"]
                return job.run([*fixed, *arguments], env, home)

            rings = [
                str(write_private(home / f"ring-{number}", ring)) for number, (_, ring) in enumerate(sorted(keys.pgp.items()))
            ]
            imported = gpg("--import", *rings)
            if "IMPORT_OK" not in _status(imported):
                raise Invalid(f"no key could be read: {bounded(imported.stderr.strip())[:200]}")
            signature = str(write_private(home / "signature", signed.signature))
            payload = str(write_private(home / "payload", signed.payload))
            return _judge(_status(gpg("--trust-model", "always", "--verify", signature, payload)))
    except TimedOut:
        raise Invalid(f"gpg did not answer within {SECONDS:g} seconds") from None


def _status(done: Completed) -> dict[str, list[str]]:
    """Gpg's status lines by keyword; of several with one keyword a further one is under a key of its own."""
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        words = line.split(" ")
        if words[0] == "[GNUPG:]" and len(words) > 1:
            name = words[1]
            found[name if name not in found else f"{name}+"] = words[2:]
    return found


def _judge(status: Mapping[str, list[str]]) -> str:
    """The primary key's id out of gpg's verdict. Raises `Invalid` unless one valid signature was found, and no other."""
    for word, reason in _REASONS.items():
        if word in status:
            raise Invalid(reason)
    valid = status.get("VALIDSIG", [])
    if "GOODSIG" not in status or len(valid) < 10 or "GOODSIG+" in status or "NEWSIG+" in status:
        raise Invalid("the signature cannot be checked")
    # VALIDSIG: fingerprint, date, time, expiry, version, reserved, key algorithm, hash algorithm, class, primary fingerprint.
    if valid[7] in _WEAK:
        raise Invalid("the signature uses a weak hash algorithm")
    if valid[8] not in ("00", "01"):
        raise Invalid("this is no signature over a document")
    return valid[9][-16:].upper()
