"""Signatures that `git verify-commit` accepts, and keys that cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconcile.git.errors import SigningFailed
from reconcile.git.mirrors import Mirrors
from reconcile.git.pgpkey import KeySummary, summarize
from reconcile.git.signing import GpgSigner, gpg_signer_from_secret, ssh_signer_from_secret
from reconcile.git.types import Author, Edit, RefUpdate, Signer
from tests.support.gitrepo import ENV, BareRepository

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
AUTHOR = Author("Bot", "bot@example.com")

needs_gpg = pytest.mark.needs("gpg")
needs_ssh_keygen = pytest.mark.needs("ssh-keygen")


class Home:
    """A GNUPGHOME of the person who makes keys and checks signatures."""

    def __init__(self) -> None:
        # Not in pytest's folder: the agent's socket needs a short path.
        self.path = Path(tempfile.mkdtemp(prefix="gpgtest-"))
        # Keys that open at once; the default takes a tenth of a second of hashing for each.
        (self.path / "gpg-agent.conf").write_text("s2k-count 65536\n")
        self.env = {**ENV, "GNUPGHOME": str(self.path), "HOME": str(self.path)}

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(argv, env=self.env, input=stdin, capture_output=True, check=True).stdout

    def key(self, name: str, passphrase: str = "", algorithm: str = "ed25519", expire: str = "0", *extra: str) -> bytes:
        self.gpg(
            *extra, "--passphrase", passphrase, "--quick-generate-key", f"{name} <{name}@example.com>", algorithm, "sign", expire
        )
        return self.export(f"{name}@example.com", passphrase)

    def export(self, name: str, passphrase: str = "") -> bytes:
        return self.gpg("--passphrase", passphrase, "--armor", "--export-secret-keys", name)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.env, check=False)
        shutil.rmtree(self.path, ignore_errors=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.close()


@pytest.fixture
async def sign(tmp_path: Path) -> AsyncIterator[object]:
    """Push a commit signed by the given signer; the repository and the commit."""
    repository = BareRepository.create(tmp_path / "app.git")
    mirrors = Mirrors(tmp_path / "state", allow_file=True)

    async def signed(signer: Signer, message: str = "msg\r\n\n# not a comment\nwithout newline") -> tuple[BareRepository, str]:
        base = repository.head() or repository.commit({"a": b"0"})
        mirror = mirrors.mirror(f"file://{repository.path}")
        await mirror.fetch(base)
        made = await mirror.write_commit(base, [Edit("a", base.encode())], message, AUTHOR, WHEN, signer)
        await mirror.push([RefUpdate(made, "refs/heads/main", base)])
        repository.check()
        assert repository.raw("cat-file", "commit", made).endswith(b"\n\n" + message.encode())
        return repository, made

    yield signed
    await mirrors.close()


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("imagebot-gpg-*"))


@needs_gpg
@pytest.mark.parametrize(("algorithm", "passphrase"), [("ed25519", ""), ("rsa2048", "correct horse\tü"), ("nistp256", "")])
async def test_gpg_signatures_verify(home: Home, sign, algorithm: str, passphrase: str) -> None:
    key = home.key(f"k-{algorithm}", passphrase, algorithm)
    secret = {"git.asc": key, **({"passphrase": passphrase.encode() + b"\n"} if passphrase else {})}
    repository, made = await sign(gpg_signer_from_secret("key", secret))
    verify = subprocess.run(
        ["git", "verify-commit", "--raw", made], cwd=repository.path, env=home.env, capture_output=True, check=False
    )
    assert verify.returncode == 0, verify.stderr
    assert b"GOODSIG" in verify.stderr
    assert leftovers() == []


@needs_gpg
def test_gpg_keys_that_cannot_be_used(home: Home) -> None:
    def text(secret: dict[str, bytes]) -> str:
        with pytest.raises(SigningFailed) as error:
            gpg_signer_from_secret("sk", secret).sign(b"x")
        assert leftovers() == []
        return str(error.value)

    plain, locked = home.key("plain"), home.key("locked", "right", "rsa2048")
    assert text({"identity": b"x"}) == "signing key secret 'sk' does not contain a 'git.asc' key"
    assert text({"git.asc": b"nothing"}) == "could not read signing key from secret 'sk': no armored key found"
    assert text({"git.asc": plain[:300] + plain[-40:]}).startswith("could not read signing key from secret 'sk': ")
    public = home.gpg("--armor", "--export", "plain@example.com")
    assert text({"git.asc": public}) == "could not read signing key from secret 'sk': it holds no secret key"
    several = "multiple entities read from secret 'sk', could not determine which signing key to use"
    assert text({"git.asc": plain + locked}) == several
    both = home.gpg("--passphrase", "right", "--armor", "--export-secret-keys", "plain@example.com", "locked@example.com")
    assert text({"git.asc": both}) == several
    wanted = "can not use passphrase protected signing key without 'passphrase' field present in secret sk"
    assert text({"git.asc": locked}) == wanted
    assert text({"git.asc": locked, "passphrase": b"wrong"}).startswith(
        "could not decrypt private key of the signing key present in secret sk: "
    )
    expired = home.key("old", "", "ed25519", "1d", "--faked-system-time", "20200101T000000")
    assert text({"git.asc": expired}) == "signing key from secret 'sk' is expired"


@needs_gpg
def test_a_look_into_keys_needs_no_program(home: Home) -> None:
    for algorithm in ("ed25519", "rsa2048", "nistp384"):
        for passphrase in ("", "secret"):
            key = home.key(f"look-{algorithm}-{bool(passphrase)}", passphrase, algorithm)
            assert summarize(key) == KeySummary(1, secret=True, encrypted=bool(passphrase)), algorithm
            assert summarize(key.replace(b"\n", b"\r\n")) == summarize(key)


@needs_gpg
def test_an_offline_primary_key_signs_with_its_subkey(home: Home) -> None:
    home.gpg("--passphrase", "", "--quick-generate-key", "sub <sub@example.com>", "ed25519", "cert", "0")
    listing = home.gpg("--with-colons", "--list-keys", "sub@example.com").decode().splitlines()
    fingerprint = next(line for line in listing if line.startswith("fpr:")).split(":")[9]
    home.gpg("--passphrase", "", "--quick-add-key", fingerprint, "ed25519", "sign", "0")
    key = home.gpg("--passphrase", "", "--armor", "--export-secret-subkeys", "sub@example.com")
    assert summarize(key) == KeySummary(1, secret=True, encrypted=False)
    assert "BEGIN PGP SIGNATURE" in gpg_signer_from_secret("sk", {"git.asc": key}).sign(b"payload")


@needs_gpg
def test_the_home_of_a_killed_process_is_removed(home: Home) -> None:
    left = Path(tempfile.mkdtemp(prefix="imagebot-gpg-"))
    (left / "lock").touch()
    (left / "key.asc").write_bytes(b"secret")
    signer = gpg_signer_from_secret("sk", {"git.asc": home.key("sweep")})
    signer.check()
    assert leftovers() == []
    assert signer.counters.processes == {"gpg": 2, "gpgconf": 1}


def test_gpg_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from reconcile.errors import MissingProgram

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match=r"^'gpg' is not installed"):
        GpgSigner("sk", b"key", b"").sign(b"x")


def ssh_key(folder: Path, kind: str, passphrase: str = "", *extra: str) -> bytes:
    path = folder / f"{kind}-{len(list(folder.iterdir()))}"
    name, _, bits = kind.partition("-b")
    size = ["-b", bits] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", name, *size, "-N", passphrase, "-C", "", "-f", str(path), *extra], check=True)
    return path.read_bytes()


@needs_ssh_keygen
@pytest.mark.parametrize("form", ["openssh", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-b256", "ecdsa-b384", "ecdsa-b521", "rsa-b2048"])
@pytest.mark.parametrize("passphrase", ["", "open sesame ü"])
async def test_ssh_signatures_verify(sign, tmp_path: Path, kind: str, form: str, passphrase: str) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    identity = ssh_key(keys, kind, passphrase, *([] if form == "openssh" else ["-m", form]))
    signer = ssh_signer_from_secret("sk", {"identity": identity, "password": passphrase.encode()}, tmp_path)
    repository, made = await sign(signer)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"bot@example.com {signer.public_key}\n")
    settings = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}"]
    verify = subprocess.run(
        ["git", *settings, "verify-commit", made], cwd=repository.path, env=ENV, capture_output=True, check=False
    )
    assert verify.returncode == 0, verify.stderr
    assert b'Good "git" signature for bot@example.com' in verify.stderr + verify.stdout
    assert not list(tmp_path.glob("key-*"))


@needs_ssh_keygen
def test_ssh_keys_that_cannot_be_used(tmp_path: Path) -> None:
    def text(secret: dict[str, bytes]) -> str:
        with pytest.raises(SigningFailed) as error:
            ssh_signer_from_secret("sk", secret, tmp_path)
        return str(error.value)

    keys = tmp_path / "keys"
    keys.mkdir()
    assert text({"git.asc": b"x"}) == "signing key secret 'sk' does not contain an 'identity' key"
    for locked in (ssh_key(keys, "ed25519", "right"), ssh_key(keys, "rsa-b2048", "right", "-m", "PEM")):
        wanted = "can not use passphrase protected signing key without 'password' field present in secret sk"
        assert text({"identity": locked}) == wanted
        assert text({"identity": locked, "password": b"wrong"}).startswith(
            "could not decrypt private key of the signing key present in secret sk: "
        )
    broken = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    for bad in (b"garbage", broken, broken.replace(b"AAAA", b"*")):
        assert text({"identity": bad}).startswith("could not parse SSH signing key from secret 'sk': ")
    assert "1024 bits is too short" in text({"identity": ssh_key(keys, "rsa-b1024")})
    assert os.listdir(tmp_path) == ["keys"]
