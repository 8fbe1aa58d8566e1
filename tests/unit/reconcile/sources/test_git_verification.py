"""Signatures of commits and tags, by real gpg and ssh keys: who may sign what, and what is said when it does not fit."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from reconcile.errors import Invalid
from reconcile.git.signatures import SignatureType, Signed, split_commit, split_tag, subject
from reconcile.git.signing import ssh_signer_from_secret
from reconcile.git.sshsig import authorized_keys, fingerprint
from reconcile.git.types import Counters
from reconcile.git.verify import TrustedKeys, verify
from tests.support.gitrepo import ENV, BareRepository
from tests.support.sourceworld import SourceWorld, conditions, source_world

pytestmark = [pytest.mark.needs("gpg"), pytest.mark.needs("ssh-keygen")]


class Signers:
    """People with keys: OpenPGP in a home of gpg, SSH in files."""

    def __init__(self) -> None:
        # Not in pytest's folder: the agent's socket needs a short path.
        self.home = Path(tempfile.mkdtemp(prefix="gpgtest-"))
        self.env = {**ENV, "GNUPGHOME": str(self.home), "HOME": str(self.home)}
        for name, expiry in (("alice", "0"), ("mallory", "0")):
            self.gpg("--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.com>", "ed25519", "sign", expiry)
        faked = ("--faked-system-time", "20200101T000000!")
        self.gpg(*faked, "--passphrase", "", "--quick-generate-key", "old <old@example.com>", "ed25519", "sign", "1d")
        for kind in ("ed25519", "ecdsa", "rsa"):
            argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", str(self.home / kind)]
            subprocess.run(argv, check=True, env=self.env)

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(argv, env=self.env, input=stdin, capture_output=True, check=True).stdout

    def ring(self, name: str) -> bytes:
        return self.gpg("--armor", "--export", f"{name}@example.com")

    def id_of(self, name: str) -> str:
        lines = self.gpg("--with-colons", "--list-keys", f"{name}@example.com").decode().splitlines()
        return next(line.split(":")[4] for line in lines if line.startswith("pub:"))

    def ssh_public(self, kind: str) -> bytes:
        return (self.home / f"{kind}.pub").read_bytes()

    def config(self, who: str) -> list[str]:
        if (self.home / who).exists():
            return ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.home / who}.pub"]
        return ["-c", f"user.signingKey={who}@example.com"]

    def commit(self, repository: BareRepository, who: str, text: str = "1", branch: str = "main") -> str:
        plain = repository.commit({"a.txt": text.encode()}, branch=branch)
        env = {**self.env, "GIT_DIR": str(repository.path)}
        argv = ["git", *self.config(who), "commit-tree", "-S", "-m", f"by {who}", f"{plain}^{{tree}}"]
        made = subprocess.run(argv, env=env, check=True, capture_output=True).stdout.decode().strip()
        repository.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def tag(self, repository: BareRepository, name: str, commit: str, who: str) -> str:
        env = {**self.env, "GIT_DIR": str(repository.path)}
        argv = ["git", *self.config(who), "tag", "-f", "-s", "-m", f"release\n\n{name}", name, commit]
        subprocess.run(argv, env=env, check=True, capture_output=True)
        return repository.git("rev-parse", f"refs/tags/{name}")

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.env, check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def people() -> Iterator[Signers]:
    made = Signers()
    yield made
    made.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SourceWorld]:
    async with source_world(tmp_path) as made:
        yield made


def homes() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("imagebot-gpg-*"))


async def trust(world: SourceWorld, keys: Mapping[str, bytes], mode: str = "HEAD", **spec: object) -> None:
    await world.secret("keys", keys)
    await world.declare(verify={"mode": mode, "secretRef": {"name": "keys"}}, **spec)


# --- commits


@pytest.mark.parametrize("who", ["alice", "ed25519", "ecdsa", "rsa"])
async def test_a_commit_by_somebody_trusted(world: SourceWorld, people: Signers, who: str) -> None:
    repository = world.repository()
    commit = people.commit(repository, who)
    keys = {"mallory.asc": people.ring("mallory"), "alice.asc": people.ring("alice"), "binary": b"-"}
    del keys["binary"]
    for kind in ("rsa", "ed25519", "ecdsa"):
        keys[f"{kind}.sshpub"] = b"# people\n\n" + people.ssh_public(kind)
    await trust(world, keys, "head")
    found = await world.step()
    key = people.id_of("alice") if who == "alice" else fingerprint(authorized_keys(people.ssh_public(who))[0])
    message = f"verified signature of\n\t- commit '{commit}' with key '{key}'"
    assert f"SourceVerified=True Succeeded: {message}" in conditions(found)
    assert found.status.source_verification_mode == "head"
    assert [e[0] for e in world.sink.take()] == ["Trace", "Normal"]
    writes = world.writes
    world.processes()
    assert await world.step() == found
    assert (world.processes(), world.writes, world.sink.take()) == ({"ls-remote": 1}, writes, [])
    assert homes() == []


@pytest.mark.parametrize(
    ("who", "trusted", "cause"),
    [
        ("mallory", "alice", "unable to verify payload with any of the given key rings: no matching key"),
        ("old", "old", "unable to verify payload with any of the given key rings: the key has expired"),
        ("ed25519", "rsa", "unable to verify payload with any of the given authorized keys: no matching key"),
        ("alice", "rsa", "no key ring for PGP signatures was given"),
        ("rsa", "alice", "no authorized keys for SSH signatures were given"),
        ("alice", "junk", "unable to verify payload with any of the given key rings: no key could be read"),
        ("rsa", "junkssh", "unable to verify payload with any of the given authorized keys: 'junk.sshpub': line 1"),
        (None, "alice", "unsupported signature type: empty"),
    ],
)
async def test_a_commit_by_somebody_else(world: SourceWorld, people: Signers, who: str | None, trusted: str, cause: str) -> None:
    repository = world.repository()
    if who == "old":
        plain = repository.commit({"a.txt": b"1"})
        raw = repository.raw("cat-file", "commit", plain)
        faked = ("--faked-system-time", "20200101T010000!")
        signature = people.gpg(*faked, "-u", "old@example.com", "--armor", "--detach-sign", stdin=raw).decode()
        head, blank, message = raw.decode().partition("\n\n")
        signed = f"{head}\ngpgsig " + signature.rstrip("\n").replace("\n", "\n ") + blank + message
        commit = repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=signed.encode())
        repository.git("update-ref", "refs/heads/main", commit)
    elif who:
        commit = people.commit(repository, who)
    else:
        commit = repository.commit({"a.txt": b"1"})
    keys = {"junk": {"junk.asc": b"no key"}, "junkssh": {"junk.sshpub": b"ssh-dss AAAA"}}.get(trusted)
    if keys is None:
        is_ssh = trusted in ("rsa", "ed25519")
        keys = {"k.sshpub": people.ssh_public(trusted)} if is_ssh else {"k": people.ring(trusted)}
    await trust(world, keys)
    found = await world.step()
    [failure] = [c for c in conditions(found) if c.startswith("SourceVerified")]
    assert failure.startswith(
        f"SourceVerified=False InvalidCommitSignature: signature verification of commit '{commit}' failed: "
    )
    assert cause in failure
    assert found.status.artifact is None
    assert homes() == []


async def test_a_missing_secret_of_keys(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1"})
    await world.declare(verify={"secretRef": {"name": "keys"}})
    text = 'SourceVerified=False VerificationError: public keys secret error: secrets "keys" not found'
    assert text in conditions(await world.step())


async def test_verification_is_made_up_for_and_given_up(world: SourceWorld, people: Signers) -> None:
    repository = world.repository()
    people.commit(repository, "alice")
    await world.declare()
    plain = await world.step()
    await trust(world, {"a": people.ring("alice")})
    world.sink.take()
    found = await world.step()
    assert any(c.startswith("SourceVerified=True") for c in conditions(found))
    assert found.status.artifact == plain.status.artifact
    assert [event[:2] for event in world.sink.take()] == [("Trace", "Succeeded")]
    await world.declare(verify=None)
    found = await world.step()
    assert not any(c.startswith("SourceVerified") for c in conditions(found))
    assert found.status.source_verification_mode is None


async def test_after_a_bad_commit_the_good_one_is_verified_again(world: SourceWorld, people: Signers) -> None:
    repository = world.repository()
    good = people.commit(repository, "alice")
    await trust(world, {"a": people.ring("alice")})
    first = await world.step()
    repository.commit({"a.txt": b"evil"})
    assert any(c.startswith("SourceVerified=False") for c in conditions(await world.step()))
    repository.git("update-ref", "refs/heads/main", good)
    again = await world.step()
    assert conditions(again) == conditions(first)
    assert again.status.artifact == first.status.artifact


# --- tags


@pytest.mark.parametrize(("who", "trusted"), [("alice", "alice"), ("ed25519", "ed25519")])
async def test_a_tag_and_its_commit(world: SourceWorld, people: Signers, who: str, trusted: str) -> None:
    repository = world.repository()
    commit = people.commit(repository, who)
    tag = people.tag(repository, "v1.0.0", commit, who)
    ssh = trusted == "ed25519"
    keys = {"k.sshpub": people.ssh_public(trusted)} if ssh else {"k.asc": people.ring(trusted)}
    await trust(world, keys, "TagAndHEAD", ref={"semver": ">=1.0.0"})
    found = await world.step()
    key = fingerprint(authorized_keys(people.ssh_public(who))[0]) if ssh else people.id_of(who)
    lines = f"\n\t- tag 'v1.0.0@{tag}' with key '{key}'\n\t- commit '{commit}' with key '{key}'"
    assert f"SourceVerified=True Succeeded: verified signature of{lines}" in conditions(found)
    # The mode that asks for less is satisfied already.
    await trust(world, keys, "Tag")
    world.processes()
    await world.step()
    assert world.processes() == {"ls-remote": 1}


async def test_a_plain_tag_is_not_signed(world: SourceWorld, people: Signers) -> None:
    repository = world.repository()
    commit = people.commit(repository, "alice")
    repository.tag("v1", commit)
    await trust(world, {"k": people.ring("alice")}, "Tag", ref={"tag": "v1"})
    text = f"cannot verify signature of tag 'v1@{commit}' since it is not signed"
    assert f"SourceVerified=False InvalidGitObject: {text}" in conditions(await world.step())


async def test_a_tag_signed_by_somebody_else(world: SourceWorld, people: Signers) -> None:
    repository = world.repository()
    commit = people.commit(repository, "alice")
    tag = people.tag(repository, "v1", commit, "mallory")
    await trust(world, {"k": people.ring("alice")}, "TagAndHEAD", ref={"name": "refs/tags/v1"})
    [failure] = [c for c in conditions(await world.step()) if c.startswith("SourceVerified")]
    assert failure.startswith(f"SourceVerified=False InvalidTagSignature: signature verification of tag 'v1@{tag}' failed: ")


async def test_a_server_that_shows_a_signed_tag_for_another_commit(tmp_path: Path, people: Signers) -> None:
    swap: dict[bytes, bytes] = {}

    def lie(handler: object) -> bool:
        """Answers the listing of references itself, with the evil commit as what the signed tag stands for."""
        if not swap or "info/refs" not in handler.path:  # type: ignore[attr-defined]
            return False
        [(good, evil)] = swap.items()
        lines = [good + b" refs/tags/v1\n", evil + b" refs/tags/v1^{}\n", evil + b" refs/heads/main\n"]
        lines[0] = lines[0][:-1] + b"\0 allow-tip-sha1-in-want allow-reachable-sha1-in-want shallow\n"
        body = b"001e# service=git-upload-pack\n0000"
        body += b"".join(b"%04x" % (len(line) + 4) + line for line in lines) + b"0000"
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.send_header("Content-Type", "application/x-git-upload-pack-advertisement")  # type: ignore[attr-defined]
        handler.send_header("Content-Length", str(len(body)))  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        handler.wfile.write(body)  # type: ignore[attr-defined]
        return True

    async with source_world(tmp_path, intercept=lie) as world:
        repository = world.repository()
        repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
        good = people.commit(repository, "alice")
        tag = people.tag(repository, "v1", good, "alice")
        evil = repository.commit({"a.txt": b"evil"})
        swap[tag.encode()] = evil.encode()
        await trust(world, {"k": people.ring("alice")}, "Tag", ref={"tag": "v1"})
        found = await world.step()
        [failure] = [c for c in conditions(found) if c.startswith(("SourceVerified", "FetchFailed"))]
        assert failure == (
            f"SourceVerified=False InvalidTagSignature: signature verification of tag 'v1@{tag}' failed: "
            f"it does not stand for commit {evil}"
        )
        assert found.status.artifact is None


# --- the parts


def test_a_commit_is_taken_apart_and_put_together() -> None:
    header = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n"
    raw = b"tree t\nauthor a\n" + header + b"encoding x\n\nmsg\n\nmore"
    found = split_commit(raw)
    assert found.payload == b"tree t\nauthor a\nencoding x\n\nmsg\n\nmore"
    assert found.signature == b"-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
    assert found.type is SignatureType.OPENPGP
    twice = raw.replace(b"encoding x", b"gpgsig -----BEGIN PGP SIGNATURE-----")
    with pytest.raises(Invalid, match="more than one"):
        split_commit(twice)
    # Headers of a message are no headers.
    assert split_commit(b"tree t\n\ngpgsig x").signature == b""


def test_a_tag_ends_in_its_last_signature() -> None:
    message = b"object o\n\n-----BEGIN PGP SIGNATURE-----\nquoted\n-----END PGP SIGNATURE-----\n"
    signature = b"-----BEGIN SSH SIGNATURE-----\nx\n-----END SSH SIGNATURE-----\n"
    found = split_tag(message + signature)
    assert (found.payload, found.signature, found.type) == (message, signature, SignatureType.SSH)
    assert split_tag(b"object o\n\nnothing").type is SignatureType.EMPTY


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("short", "short"),
        ("x" * 50, "x" * 50),
        ("x" * 51, "x" * 50 + "..."),
        ("\n\nfirst\nsecond", "first"),
        ("", ""),
        ("ü" * 60, "ü" * 50 + "..."),
    ],
)
def test_subjects_are_cut(line: str, shown: str) -> None:
    assert subject(b"tree t\n\n" + line.encode()) == shown


@pytest.fixture
def signed(people: Signers) -> tuple[bytes, bytes, bytes]:
    """A payload, its signature and the list of authorized keys."""
    signer = ssh_signer_from_secret("s", {"identity": (people.home / "ed25519").read_bytes()})
    return b"payload", signer.sign(b"payload").encode(), people.ssh_public("ed25519")


def test_an_ssh_signature_fits_its_payload_alone(signed: tuple[bytes, bytes, bytes]) -> None:
    payload, signature, keys = signed
    trusted = TrustedKeys.of({"a.sshpub": keys})
    assert verify(Signed(payload, signature), trusted, "commit").startswith("SHA256:")
    for other in (payload + b"x", b""):
        with pytest.raises(Invalid, match="does not fit"):
            verify(Signed(other, signature), trusted, "commit")
    for broken in (signature[:60], signature.replace(b"SSH SIGNATURE", b"X SIGNATURE"), signature[:80] + b"A" + signature[81:]):
        with pytest.raises(Invalid):
            verify(Signed(payload, broken), trusted, "commit")


def test_an_ssh_signature_for_something_else_is_refused(people: Signers, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"payload")
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(people.home / "ed25519"), "-n", "file", str(tmp_path / "file")]
    subprocess.run(argv, check=True, env=people.env, capture_output=True)
    trusted = TrustedKeys.of({"a.sshpub": people.ssh_public("ed25519")})
    with pytest.raises(Invalid, match="was made for 'file'"):
        verify(Signed(b"payload", (tmp_path / "file.sig").read_bytes()), trusted, "commit")


@pytest.mark.parametrize(("flags", "fits"), [(1, True), (5, True), (0, False), (4, False)])
def test_a_security_token_must_have_been_touched(flags: int, fits: bool) -> None:
    def string(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    key = ed25519.Ed25519PrivateKey.generate()
    kind, application, state = b"sk-ssh-ed25519@openssh.com", b"ssh:", bytes([flags]) + struct.pack(">I", 7)
    blob = string(kind) + string(key.public_key().public_bytes_raw()) + string(application)
    digest = hashlib.sha512(b"payload").digest()
    signed = b"SSHSIG" + string(b"git") + string(b"") + string(b"sha512") + string(digest)
    value = key.sign(hashlib.sha256(application).digest() + state + hashlib.sha256(signed).digest())
    whole = b"SSHSIG" + struct.pack(">I", 1) + string(blob) + string(b"git") + string(b"") + string(b"sha512")
    whole += string(string(kind) + string(value) + state)
    armour = b"-----BEGIN SSH SIGNATURE-----\n" + base64.encodebytes(whole) + b"-----END SSH SIGNATURE-----\n"
    trusted = TrustedKeys.of({"a.sshpub": kind + b" " + base64.b64encode(blob)})
    if fits:
        assert verify(Signed(b"payload", armour), trusted, "commit").startswith("SHA256:")
    else:
        with pytest.raises(Invalid, match="nobody touched"):
            verify(Signed(b"payload", armour), trusted, "commit")


def test_lists_of_authorized_keys(people: Signers) -> None:
    key = people.ssh_public("ed25519").strip()
    text = b"\n# comment\n" + key + b'\nno-pty,command="echo hi there" ' + key + b"\n"
    assert len(set(authorized_keys(text))) == 1
    assert len(authorized_keys(text)) == 2
    for bad in (b"ssh-ed25519", b"ssh-ed25519 !!!", b"ssh-rsa " + key.split()[1], b"hello world"):
        with pytest.raises(Invalid, match="line 1"):
            authorized_keys(bad)


@pytest.mark.parametrize("armour", ["SIGNED MESSAGE", "WEIRD"])
def test_other_kinds_of_signatures(armour: str) -> None:
    found = Signed(b"x", f"-----BEGIN {armour}-----\n".encode())
    kind = "x509" if armour == "SIGNED MESSAGE" else "unknown"
    with pytest.raises(Invalid, match=f"unsupported signature type: {kind}"):
        verify(found, TrustedKeys(), "commit")


def test_gpg_is_started_twice_for_any_number_of_rings(people: Signers) -> None:
    payload = b"payload"
    signature = people.gpg("-u", "alice@example.com", "--armor", "--detach-sign", stdin=payload)
    counters = Counters()
    keys = TrustedKeys.of({f"ring-{number}": people.ring("mallory") for number in range(5)} | {"z": people.ring("alice")})
    assert verify(Signed(payload, signature), keys, "tag", counters) == people.id_of("alice")
    assert dict(counters.processes) == {"gpg": 2}


def test_a_weak_hash_is_refused(people: Signers) -> None:
    argv = ("-u", "alice@example.com", "--digest-algo", "SHA1", "--armor", "--detach-sign")
    try:
        signature = people.gpg("--allow-weak-digest-algos", *argv, stdin=b"payload")
    except subprocess.CalledProcessError:
        pytest.skip("this gpg does not sign with SHA-1")
    with pytest.raises(Invalid, match=r"weak hash|cannot be checked"):
        verify(Signed(b"payload", signature), TrustedKeys.of({"k": people.ring("alice")}), "commit")


def test_no_key_of_the_user_counts(people: Signers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GNUPGHOME", str(people.home))
    signature = people.gpg("-u", "mallory@example.com", "--armor", "--detach-sign", stdin=b"payload")
    with pytest.raises(Invalid, match="no matching key"):
        verify(Signed(b"payload", signature), TrustedKeys.of({"k": people.ring("alice")}), "commit")
