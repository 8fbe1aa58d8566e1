"""Signed commits, checked by git itself with the public key."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.gitrepo import BareRepository
from tests.support.lab import Lab, lab, secret


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        yield made


class GpgHome:
    """A GnuPG home of its own with one key."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700)
        self.env = {**os.environ, "GNUPGHOME": str(path)}

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--yes", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(command, input=stdin, env=self.env, check=True, capture_output=True).stdout

    def make_key(self, passphrase: str = "", expires: str = "0") -> None:
        self.run("--passphrase", passphrase, "--quick-generate-key", "bot <bot@example.com>", "ed25519", "sign", expires)

    def export(self, passphrase: str = "") -> str:
        return self.run("--passphrase", passphrase, "--armor", "--export-secret-keys").decode()

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.env, check=False, capture_output=True)


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[GpgHome]:
    # GnuPG's socket has a path of at most 107 bytes.
    home = GpgHome(Path("/tmp") / f"gpg-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**6}")
    yield home
    home.close()
    subprocess.run(["rm", "-rf", home.env["GNUPGHOME"]], check=True)


def verify(bare: BareRepository, env: dict[str, str] | None = None, *config: str) -> str:
    """What `git verify-commit` says of the head; fails when the signature is not good."""
    settings = [part for setting in config for part in ("-c", setting)]
    done = subprocess.run(
        ["git", *settings, "-C", str(bare.path), "verify-commit", "--verbose", "main"],
        env=env or dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.needs("gpg")
@pytest.mark.parametrize("passphrase", ["", "correct horse"])
async def test_a_gpg_signature_is_good(world: Lab, gpg: GpgHome, passphrase: str) -> None:
    gpg.make_key(passphrase)
    bare = world.declare_app(commit={"signingKey": {"secretRef": {"name": "key"}}})
    world.declare(secret("key", {"git.asc": gpg.export(passphrase), **({"passphrase": passphrase} if passphrase else {})}))
    done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True", done.ready("ImageUpdateAutomation", "web")
    assert "Good signature" in verify(bare, gpg.env)


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
async def test_an_ssh_signature_is_good(world: Lab, algorithm: str, passphrase: str | None) -> None:
    key = asyncssh.generate_private_key(algorithm)
    bare = world.declare_app(commit={"signingKey": {"secretRef": {"name": "key"}, "type": "ssh"}})
    file = world.root / "identity"
    file.write_bytes(key.export_private_key())
    file.chmod(0o600)
    if passphrase:
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(file)], check=True, capture_output=True)
    values = {"identity": file.read_text()}
    world.declare(secret("key", values | ({"password": passphrase} if passphrase else {})))
    done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True", done.ready("ImageUpdateAutomation", "web")
    allowed = world.root / "allowed"
    allowed.write_text(f"bot@example.com {key.export_public_key().decode()}")
    assert "Good" in verify(bare, None, "gpg.format=ssh", f"gpg.ssh.allowedSignersFile={allowed}")


async def failing(world: Lab, values: dict[str, str] | None, kind: str = "gpg") -> tuple[str, str]:
    bare = world.declare_app(commit={"signingKey": {"secretRef": {"name": "key"}, "type": kind}})
    if values is not None:
        world.declare(secret("key", values))
    done = await world.once()
    assert len(bare.log()) == 1
    status, reason, message = done.ready("ImageUpdateAutomation", "web")
    assert status == "False"
    for value in (values or {}).values():
        assert value not in message
    return reason, message


PREFIX = "failed configuring source manager: "


async def test_a_missing_key_secret(world: Lab) -> None:
    assert await failing(world, None) == (
        "SourceManagerFailed",
        f"{PREFIX}could not find signing key secret 'key': secrets \"key\" not found",
    )


async def test_a_secret_without_the_key(world: Lab) -> None:
    reason, message = await failing(world, {"other": "value"})
    assert (reason, message) == ("SourceManagerFailed", f"{PREFIX}signing key secret 'key' does not contain a 'git.asc' key")


async def test_an_ssh_secret_without_the_key(world: Lab) -> None:
    reason, message = await failing(world, {"other": "value"}, "ssh")
    assert (reason, message) == ("SourceManagerFailed", f"{PREFIX}signing key secret 'key' does not contain an 'identity' key")


@pytest.mark.needs("gpg")
async def test_a_passphrase_that_is_not_given(world: Lab, gpg: GpgHome) -> None:
    gpg.make_key("correct horse")
    reason, message = await failing(world, {"git.asc": gpg.export("correct horse")})
    assert reason == "SourceManagerFailed"
    assert "can not use passphrase protected signing key without 'passphrase' field present in secret key" in message


@pytest.mark.needs("gpg")
async def test_a_key_that_has_expired_signs_nothing(world: Lab, gpg: GpgHome) -> None:
    command = ["--faked-system-time", "20200101T000000", "--passphrase", "", "--quick-generate-key", "old <old@example.com>"]
    gpg.run(*command, "ed25519", "sign", "1d")
    reason, message = await failing(world, {"git.asc": gpg.export()})
    assert reason in {"SourceManagerFailed", "GitOperationFailed"}
    assert "expired" in message
