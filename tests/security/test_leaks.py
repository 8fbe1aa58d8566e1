"""Threat: a password, a token or a key shows where more people look than may see it."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import orjson
import pytest
from cryptography.hazmat.primitives import serialization

from imagebot.demo.gitserver import GitServer
from reconcile.runtime.logs import configure
from reconcile.settings import ServerSettings
from tests.support.commands import program
from tests.support.gitrepo import BareRepository, processes_with
from tests.support.lab import automation, git_repository, image_policy, image_repository, marked, secret
from tests.support.neighbours import Street, street
from tests.support.registry import BareServer, Exchange
from tests.support.sshserver import SshGitServer

UPDATE = "ImageUpdateAutomation"
GIT, PULL, PHRASE, URL = "git-5f1cA9~x", "pull-77e2B4~y", "phrase-91c0C3~z", "url-3ac4D7~w"
EVERY = (GIT, PULL, PHRASE, URL)
CODED = tuple(base64.b64encode(f"bot:{each}".encode()).decode() for each in EVERY)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


def clean(text: str | bytes) -> None:
    """Fail where any secret is in `text`, as it is or as a header has it."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for each in (*EVERY, *CODED):
        assert each not in shown
    assert "PRIVATE KEY-----" not in shown


def pull_secret(host: str) -> dict[str, Any]:
    """A pull secret for a registry."""
    config = {"auths": {host: {"username": "bot", "password": PULL}}}
    return secret("pull", {".dockerconfigjson": orjson.dumps(config).decode()}, "kubernetes.io/dockerconfigjson")


def locked(key: bytes, phrase: bytes) -> str:
    """A private key that needs a passphrase."""
    form = serialization.PrivateFormat.PKCS8
    lock = serialization.BestAvailableEncryption(phrase)
    plain = serialization.load_ssh_private_key(key, None)
    return plain.private_bytes(serialization.Encoding.PEM, form, lock).decode()


def gossip(handler: Any) -> bool:
    """A Git server that refuses and repeats in its answer what it was shown."""
    shown = handler.headers.get("Authorization", "")
    plain = base64.b64decode(shown.partition(" ")[2]).decode("utf-8", "replace") if shown else "nothing"
    body = f"remote: I was shown {shown}, that is {plain}, Authorization: {shown}\n".encode()
    handler._plain(403 if shown else 401, body, {"WWW-Authenticate": 'Basic realm="git"', "Content-Type": "text/plain"})
    return True


async def repeating(exchange: Exchange) -> None:
    """A registry that does the same."""
    shown = exchange.headers.get("authorization", "")
    plain = base64.b64decode(shown.partition(" ")[2]).decode("utf-8", "replace") if shown else "nothing"
    body = orjson.dumps({"errors": [{"code": "UNAUTHORIZED", "message": f"I was shown {shown}, that is {plain}"}]})
    status = "403 Forbidden" if shown else "401 Unauthorized"
    await exchange.answer(status, body, WWW_Authenticate='Basic realm="x"', Content_Type="application/json")


async def test_failing_logins_show_no_secret_anywhere(world: Street, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Statuses, events, logs, metrics, the state folder and what the commands print, when servers repeat what they were shown."""
    configure("debug", "json")
    world.git.intercept = lambda handler: "/app.git/" in handler.path and gossip(handler)
    world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
    in_url = world.url("app.git").replace("http://", f"http://bot:{URL}@")
    world.settings = world.settings.__class__(
        user_docker_config=False, retry=world.settings.retry, server=ServerSettings(address="127.0.0.1:0")
    )
    async with BareServer(repeating) as registry:
        world.declare(
            image_repository("web", world.image("web")),
            image_policy("web"),
            git_repository("web", world.url("app.git"), secretRef={"name": "git"}),
            git_repository("inside", in_url),
            automation("web", "web"),
            automation("inside", "inside"),
            secret("git", {"username": "bot", "password": GIT}),
            image_repository("closed", f"{registry.host}/acme/app", secretRef={"name": "pull"}),
            image_policy("closed"),
            pull_secret(registry.host),
        )
        async with world.start() as running:
            for kind, name, reason in (
                (UPDATE, "web", "GitOperationFailed"),
                (UPDATE, "inside", "GitOperationFailed"),
                ("ImageRepository", "closed", "ReadOperationFailed"),
            ):
                clean(orjson.dumps((await running.until_failed(kind, name, reason)).status.model_dump(mode="json")))
            async with httpx.AsyncClient(base_url=running.service.url or "") as client:
                clean((await client.get("/metrics")).text)
        out, err = capfd.readouterr()
        clean(out + err)
        assert "GitOperationFailed" in out + err
        place = ["--dir", str(world.folder), "--state", str(world.state)]
        _, shown, told = await program("get", *place, "-o", "yaml")
        assert "ReadOperationFailed" in shown
        clean((shown + told).replace(in_url, ""))
        _, shown, told = await program("events", *place)
        assert "shown" in shown
        clean(shown + told)
    files = [path for path in world.state.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        if path.name.startswith("state.db"):  # it holds the manifests themselves, and one of them has a password in its URL
            data = data.replace(in_url.encode(), b"")
        clean(data)


async def test_the_process_list_shows_no_secret(world: Street, tmp_path: Path) -> None:
    """Arguments and environments of all processes, looked at by the server while git talks to it, by http and ssh."""
    seen: list[str] = []
    asked: list[str] = []

    def look(handler: Any) -> bool:
        asked.append(handler.path)
        seen.extend(found for text in EVERY for found in processes_with(text))
        return False

    key = asyncssh.generate_private_key("ssh-ed25519")
    identity = locked(key.export_private_key(), PHRASE.encode())
    (tmp_path / "closed").mkdir()
    http, ssh = (BareRepository.create(tmp_path / "closed" / name) for name in ("http.git", "ssh.git"))
    for bare in (http, ssh):
        bare.commit({"deploy.yaml": marked(world.image("web"), "web", "0.9.0").encode()})
        # The hook runs while the service's own git waits for it, with whatever that one was given.
        bare.hook(
            "pre-receive",
            f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ > {tmp_path}/closed/{bare.path.name}.seen 2>/dev/null\nexit 0\n",
        )
    with (
        GitServer(tmp_path / "closed", username="bot", password=GIT, intercept=look) as server,
        SshGitServer(tmp_path / "closed", authorized=[key.export_public_key().decode()]) as shell,
    ):
        world.declare(
            image_repository("web", world.image("web")),
            image_policy("web"),
            git_repository("web", server.url("http.git"), secretRef={"name": "git"}),
            secret("git", {"username": "bot", "password": GIT}),
            automation("web", "web"),
            git_repository("shell", shell.url("ssh.git"), secretRef={"name": "ssh"}),
            secret("ssh", {"identity": identity, "known_hosts": shell.known_hosts().decode(), "password": PHRASE}),
            automation("shell", "shell"),
        )
        done = await world.once()
    for name, bare in (("web", http), ("shell", ssh)):
        assert done.ready(UPDATE, name)[0] == "True"
        assert len(bare.log()) == 2
        looked = (tmp_path / "closed" / f"{bare.path.name}.seen").read_bytes()
        assert b"git" in looked
        clean(looked)
    assert any("git-receive-pack" in path for path in asked)
    assert seen == []


async def test_what_is_on_the_disk_while_git_runs_is_ours_alone(world: Street, tmp_path: Path) -> None:
    """The state folder, and the files with credentials that exist as long as one process; nothing is left behind."""
    modes: dict[str, int] = {}
    holding: set[str] = set()

    def look(handler: Any) -> bool:
        if "/app.git/" in handler.path:
            for path in [world.state, *world.state.rglob("*")]:
                try:
                    modes[str(path.relative_to(tmp_path))] = stat.S_IMODE(path.lstat().st_mode)
                    if path.is_file() and GIT.encode() in path.read_bytes():
                        holding.add(str(path))
                except FileNotFoundError:
                    continue
        return False

    before = set(Path("/tmp").glob("*imagebot*"))
    world.files({})
    world.declare(
        git_repository("web", world.url("app.git"), secretRef={"name": "git"}),
        secret("git", {"username": "bot", "password": GIT}),
    )
    world.git.intercept = look
    old = os.umask(0)  # as careless as a process can be
    try:
        done = await world.once()
    finally:
        os.umask(old)
    assert done.ready(UPDATE, "web")[0] == "True"
    assert modes["state"] == 0o700
    assert holding
    assert all("/tmp/session-" in path for path in holding)
    for path, mode in modes.items():
        if "/repo.git" not in path:  # below a folder that nobody else may enter
            assert mode & 0o077 == 0, (path, oct(mode))
    assert not [path for path in world.state.rglob("*") if path.is_file() and GIT.encode() in path.read_bytes()]
    assert not list(world.state.rglob("session-*"))
    assert set(Path("/tmp").glob("*imagebot*")) <= before


async def test_an_error_that_nobody_foresaw_shows_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    """A crash text with an address and a header in it, as a library may write it, and its traceback."""
    from reconcile.runtime.logs import get_logger

    for encoding in ("json", "console"):
        configure("debug", encoding)  # type: ignore[arg-type]
        try:
            login = f"https://bot:{GIT}@example.com/app.git"
            raise RuntimeError(f"cannot reach {login} with Authorization: Basic {CODED[0]}")
        except RuntimeError:
            get_logger("test").exception("failed unexpectedly", url=f"https://bot:{URL}@example.com/?token={PULL}")
        out, err = capfd.readouterr()
        assert "failed unexpectedly" in err
        clean(out + err)
