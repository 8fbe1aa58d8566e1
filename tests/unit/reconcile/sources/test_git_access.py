"""How a GitRepository reaches its remote, what is said when it cannot, and what survives when a pass is ended half way."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.sources.git_archive import Writer
from tests.support.gitrepo import ENV
from tests.support.pki import Authority
from tests.support.sourceworld import SourceWorld, conditions, source_world
from tests.support.sshserver import SshGitServer

PREFIX = "FetchFailed=True "


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SourceWorld]:
    async with source_world(tmp_path) as made:
        yield made


async def failure(world: SourceWorld) -> str:
    """One pass that fails; what FetchFailed says."""
    found = conditions(await world.step())
    [said] = [c for c in found if c.startswith(PREFIX)]
    ready = next(c for c in found if c.startswith("Ready="))
    assert ready == "Ready=False " + said.removeprefix(PREFIX)
    return said.removeprefix(PREFIX)


@pytest.mark.parametrize(
    ("data", "url", "said"),
    [
        (
            None,
            "http://h/a",
            "failed to get secret 'apps/login': failed to get secret 'apps/login': secrets \"login\" not found",
        ),
        (
            {"password": "p"},
            "http://h/a",
            "failed to configure authentication options: invalid 'http' auth option: 'password' requires 'username' to be set",
        ),
        (
            {"identity": "k"},
            "ssh://h/a",
            "failed to configure authentication options: invalid 'ssh' auth option: 'known_hosts' is required",
        ),
        (
            {"bearerToken": "t"},
            "http://user@h/a",
            "failed to configure authentication options: the URL has a user although 'bearerToken' is set: use one of them",
        ),
    ],
)
async def test_credentials_that_do_not_fit(world: SourceWorld, data: dict[str, str] | None, url: str, said: str) -> None:
    if data is not None:
        await world.secret("login", data)
    await world.declare(url=url, secretRef={"name": "login"})
    assert await failure(world) == f"AuthenticationFailed: {said}"
    assert world.processes() == {}


async def test_an_address_that_is_none_is_final(world: SourceWorld) -> None:
    await world.declare(url="http://a b/c")
    said = await failure(world)
    assert said.startswith("URLInvalid: failed to parse url 'http://a b/c': ")
    assert any(c == f"Stalled=True {said}" for c in conditions(await world.get()))
    assert (await world.get()).status.observed_generation == 1


@pytest.mark.parametrize(
    ("spec", "gates", "said"),
    [
        ({"provider": "aws", "serviceAccountName": "me"}, {}, "FeatureGateDisabled: to use spec.serviceAccountName"),
        (
            {"provider": "aws", "serviceAccountName": "me"},
            {"ObjectLevelWorkloadIdentity": True},
            "AuthenticationFailed: failed to configure authentication options: spec.serviceAccountName for cloud providers",
        ),
        ({"provider": "azure"}, {}, "InvalidProviderConfiguration: provider 'azure' is not available here"),
        (
            {"proxySecretRef": {"name": "p"}},
            {},
            "AuthenticationFailed: failed to configure proxy options: secret 'apps/p' not found",
        ),
    ],
)
async def test_identities_that_are_not_to_be_had(tmp_path: Path, spec: dict[str, Any], gates: dict[str, bool], said: str) -> None:
    async with source_world(tmp_path, gates=gates) as world:
        await world.declare(**spec)
        assert (await failure(world)).startswith(said)


async def test_basic_credentials_and_bearer_tokens(tmp_path: Path) -> None:
    async with source_world(tmp_path, username="user", password="s3cret", token="t0ken") as world:
        world.repository(files={"a.txt": b"1"})
        await world.declare()
        assert "authentication required" in await failure(world)
        for data in ({"username": "user", "password": "s3cret"}, {"bearerToken": "t0ken", "username": "ignored"}):
            await world.secret("login", data)
            await world.declare(secretRef={"name": "login"})
            found = await world.step()
            assert world.names(found) == ["a.txt"]
        await world.secret("login", {"username": "user", "password": "wr0ng"})
        said = await failure(world)
        assert said.startswith("GitOperationFailed: failed to checkout and determine revision: unable to clone '")
        everything = str([e.message for e in world.sink.events]) + str(conditions(await world.get()))
        assert not any(secret in everything for secret in ("s3cret", "t0ken", "wr0ng"))


async def test_a_server_is_trusted_by_its_authority(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.server(["127.0.0.1"])
    for name, data in (("crt", certificate), ("key", key)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    async with source_world(tmp_path, tls=context) as world:
        world.repository(files={"a.txt": b"1"})
        await world.declare()
        assert "tls: " in await failure(world)
        await world.secret("ca", {"ca.crt": authority.certificate})
        await world.declare(secretRef={"name": "ca"})
        assert world.names(await world.step()) == ["a.txt"]


async def test_a_repository_over_ssh(tmp_path: Path, world: SourceWorld) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "opensesame", "-f", str(tmp_path / "key")], check=True, env=ENV)
    world.repository(files={"a.txt": b"1"})
    public = (tmp_path / "key.pub").read_text()
    with SshGitServer(tmp_path / "git", authorized=[public]) as server:
        data = {"identity": (tmp_path / "key").read_bytes(), "known_hosts": server.known_hosts(), "password": "opensesame"}
        await world.secret("key", data)
        await world.declare(url=server.url("app"), secretRef={"name": "key"})
        assert world.names(await world.step()) == ["a.txt"]
        await world.secret("key", {name: value for name, value in data.items() if name != "password"})
        said = await failure(world)
        assert said.startswith("AuthenticationFailed: failed to configure authentication options: secret 'apps/key': ")
        assert "protected by a passphrase" in said


# --- what survives


async def test_a_pass_that_is_ended_while_it_writes_leaves_the_old_artifact(
    world: SourceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = world.repository(files={"a.txt": b"1"})
    await world.declare()
    good = await world.step()
    repository.commit({"a.txt": b"2"})
    begun, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    write = Writer.__call__

    def slow(self: Writer, out: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            out.write(b"half")
            while not self._cancelled:
                time.sleep(0.001)
            write(self, out)
        finally:
            loop.call_soon_threadsafe(ended.set)

    monkeypatch.setattr(Writer, "__call__", slow)
    task = asyncio.create_task(world.step())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()  # the thread does not wait for a loop that may be about to end
    monkeypatch.undo()
    kept = world.storage.path_of(good.status.artifact)
    assert world.names(good) == ["a.txt"]
    assert (await world.get()).status.artifact == good.status.artifact
    found = await world.step()
    assert world.files(found)["a.txt"] == (b"2", False)
    left = {path.name for path in kept.parent.iterdir() if not path.name.endswith(".lock")}
    assert left <= {kept.name, world.storage.path_of(found.status.artifact).name}


async def test_a_mirror_that_was_damaged_is_made_again(world: SourceWorld) -> None:
    world.repository(files={"a.txt": b"1", "b.txt": b"2"})
    await world.declare()
    await world.step()
    await world.mirrors.mirror(world.git.url("app")).close()
    for pack in (world.root / "mirrors").rglob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"")
    for loose in (world.root / "mirrors").rglob("objects/??/*"):
        loose.unlink()
    await world.declare(ignore="b.txt")
    assert world.names(await world.step()) == ["a.txt"]


async def test_two_repositories_of_one_url_share_what_was_fetched(world: SourceWorld) -> None:
    repository = world.repository("app", files={"a.txt": b"1"})
    url = world.git.url("app")
    for name in ("one", "two"):
        await world.declare(name, url=url)
    await asyncio.gather(world.step("one"), world.step("two"))
    assert world.processes()["fetch"] == 1
    repository.commit({"a.txt": b"2"})
    await asyncio.gather(world.step("one"), world.step("two"))
    assert world.processes()["fetch"] == 1
    one, two = await world.get("one"), await world.get("two")
    assert one.status.artifact.digest == two.status.artifact.digest
    assert one.status.artifact.path != two.status.artifact.path
