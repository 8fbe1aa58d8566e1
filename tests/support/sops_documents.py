"""Documents encrypted with the real sops, with age and OpenPGP keys made for the test."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import find_program


@dataclass(frozen=True)
class AgeKey:
    """An age identity."""

    recipient: str
    identity: str

    @property
    def entry(self) -> bytes:
        """As age-keygen writes it: with comments."""
        return f"# created: 2026-01-01T00:00:00Z\n# public key: {self.recipient}\n{self.identity}\n".encode()


def age_key(*arguments: str) -> AgeKey:
    """A new identity; `-pq` for a post-quantum one."""
    done = subprocess.run([find_program("age-keygen"), *arguments], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    return AgeKey(next(line for line in lines if "public key" in line).split()[-1], lines[-1])


@dataclass(frozen=True)
class PgpKey:
    """An OpenPGP key without a passphrase, unless one is given."""

    fingerprint: str
    secret: bytes
    public: bytes


def pgp_key(name: str, passphrase: str = "") -> PgpKey:
    """A new key; its home and agent are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pgp-") as home:
        environment = {"GNUPGHOME": home, "PATH": os.environ["PATH"], "HOME": home}
        Path(home, "gpg-agent.conf").write_text("s2k-count 65536\n")  # else it measures for seconds what a passphrase may cost

        def gpg(*arguments: str) -> bytes:
            options = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", passphrase]
            done = subprocess.run(["gpg", *options, *arguments], env=environment, capture_output=True, check=True, timeout=60)
            return done.stdout

        try:
            gpg("--quick-generate-key", f"{name} <{name}@example.com>", "ed25519", "sign", "never")
            listing = gpg("--with-colons", "--list-secret-keys").decode().splitlines()
            fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr"))
            gpg("--quick-add-key", fingerprint, "cv25519", "encr", "never")
            return PgpKey(fingerprint, gpg("--armor", "--export-secret-keys"), gpg("--armor", "--export"))
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False, timeout=60)


def encrypted(
    text: str | bytes, form: str, *, age: AgeKey | None = None, pgp: PgpKey | None = None, options: tuple[str, ...] = ()
) -> bytes:
    """`text`, of the format `form`, as sops encrypts it for the recipients."""
    with tempfile.TemporaryDirectory(prefix="sops-") as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"], "GNUPGHOME": home}
        recipients: list[str] = []
        if pgp is not None:
            subprocess.run(["gpg", "--batch", "--quiet", "--import"], env=environment, input=pgp.public, check=True, timeout=60)
            recipients += ["--pgp", pgp.fingerprint]
        if age is not None:
            recipients += ["--age", age.recipient]
        plain = Path(home, "plain")
        plain.write_bytes(text.encode() if isinstance(text, str) else text)
        forms = ["--input-type", form, "--output-type", form]
        try:
            done = subprocess.run(
                [find_program("sops"), "--encrypt", *recipients, *forms, *options, str(plain)],
                env=environment,
                capture_output=True,
                check=True,
                timeout=60,
            )
        finally:
            if pgp is not None:
                subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False, timeout=60)
        return done.stdout
