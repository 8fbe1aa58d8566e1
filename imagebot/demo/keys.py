"""Signing keys for the demonstration: made when it starts, with what the machine has, and gone when it ends."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imagebot.demo.tools import DemoFailed, Tools
from reconcile.errors import MissingProgram

Kind = Literal["ssh", "gpg", "none"]

SSH_SINCE = (2, 34)
"""First version of git that checks SSH signatures."""

_PROGRAMS: Mapping[Kind, str] = {"ssh": "ssh-keygen", "gpg": "gpg"}
_MARKS = ('Good "git" signature', "Good signature")


@dataclass(frozen=True, slots=True)
class DemoKey:
    """A key, where a Secret finds it, and how `git verify-commit` is told whom to trust."""

    kind: Kind
    shown: str
    """One line about the key."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Key of the Secret → file with the value."""
    settings: Sequence[str] = ()
    """`-c` options for git."""
    env: Mapping[str, str] = field(default_factory=dict)

    async def verify(self, tools: Tools, repository: Path, commit: str) -> str:
        """What git says about the signature; raises `DemoFailed` when it is not good."""
        status, output = await tools.try_run("git", *self.settings, "verify-commit", commit, cwd=repository, env=self.env)
        said = next((line for line in output.splitlines() if any(mark in line for mark in _MARKS)), "")
        if status != 0 or not said:
            raise DemoFailed(f"the signature of commit {commit[:7]} is not good: {output.strip() or 'there is none'}")
        return said.removeprefix("gpg: ").strip()


async def choose_kind(wanted: Kind | None, tools: Tools) -> tuple[Kind, str]:
    """The kind of key to sign with, and what to say about it: `wanted`, or what is there.

    Raises `MissingProgram` when what was asked for is not there, `DemoFailed` when git is too old for it.
    """
    version = await tools.git_version()
    if wanted is None:
        if shutil.which("ssh-keygen") and version >= SSH_SINCE:
            return "ssh", ""
        if shutil.which("gpg"):
            return "gpg", ""
        return "none", "none: neither ssh-keygen (with git 2.34 or later) nor gpg is installed"
    if wanted == "ssh" and version < SSH_SINCE:
        raise DemoFailed(
            f"git {version[0]}.{version[1]} cannot check SSH signatures, 2.34 is the first that can; try --signing gpg"
        )
    if wanted != "none" and shutil.which(_PROGRAMS[wanted]) is None:
        raise MissingProgram(f"'{_PROGRAMS[wanted]}' is not installed: install it, or leave out --signing to take what is there")
    return wanted, "none, as asked" if wanted == "none" else ""


async def make_key(kind: Kind, author: str, email: str, folder: Path, tools: Tools) -> DemoKey:
    """A new key for `author` in `folder`, which is private and empty; raises `DemoFailed` when the program cannot make one."""
    if kind == "none":
        return DemoKey("none", "none")
    return await (_ssh_key(email, folder, tools) if kind == "ssh" else _gpg_key(author, email, folder, tools))


async def _ssh_key(email: str, folder: Path, tools: Tools) -> DemoKey:
    identity, trusted = folder / "identity", folder / "allowed_signers"
    await tools.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", email, "-f", str(identity))
    kind, public, *_ = identity.with_suffix(".pub").read_text().split()
    trusted.write_text(f'{email} namespaces="git" {kind} {public}\n')
    fingerprint = (await tools.run("ssh-keygen", "-l", "-f", str(identity))).split()[1]
    settings = ("-c", f"gpg.ssh.allowedSignersFile={trusted}")
    return DemoKey("ssh", f"SSH key {fingerprint}", {"identity": identity}, settings)


async def _gpg_key(author: str, email: str, folder: Path, tools: Tools) -> DemoKey:
    home, private = {"GNUPGHOME": str(folder)}, folder / "git.asc"
    batch = ("gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")
    try:
        await tools.run(*batch, "--quick-generate-key", f"{author} <{email}>", "ed25519", "sign", "never", env=home)
        await tools.run(*batch, "--armor", "--output", str(private), "--export-secret-keys", email, env=home)
        listing = await tools.run("gpg", "--batch", "--with-colons", "--list-keys", email, env=home)
    finally:
        # The agent would outlive the folder it serves.
        await tools.try_run("gpgconf", "--kill", "all", env=home)
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    return DemoKey("gpg", f"GPG key {fingerprint}", {"git.asc": private}, env=home)
