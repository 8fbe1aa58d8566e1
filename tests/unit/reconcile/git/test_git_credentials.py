"""Secrets to credentials, credentials to files, and what a remote that refuses, redirects or lies gets to see."""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import asyncssh
import pytest

from imagebot.demo.gitserver import GitServer
from reconcile.errors import Invalid, LimitExceeded
from reconcile.git.auth import GitCredentials, credentials_from_secret, parse_remote
from reconcile.git.errors import (
    AuthenticationRequired,
    GitError,
    GitTimeout,
    HostKeyMismatch,
    InvalidCredentials,
    RemoteUnreachable,
    RepositoryNotFound,
)
from reconcile.git.mirrors import Mirrors
from reconcile.git.session import session
from tests.support.gitrepo import BareRepository, processes_with
from tests.support.pki import Authority
from tests.support.sshserver import SshGitServer

PASSWORD = "p@ss'w\"ord $HOME `id` \\n%41ü"


@pytest.fixture
async def mirrors(tmp_path: Path) -> AsyncIterator[Mirrors]:
    made = Mirrors(tmp_path / "state")
    yield made
    await made.close()
    assert not list((tmp_path / "state").rglob("tmp/*"))


@pytest.fixture
def repository(tmp_path: Path) -> BareRepository:
    made = BareRepository.create(tmp_path / "srv" / "app.git")
    made.commit({"a": b"1"})
    return made


# --- Secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_becomes_credentials() -> None:
    both = credentials_from_secret("https://h/r", {"username": b"u", "password": b"p\n", "ca.crt": b"ca", "caFile": b"old"})
    assert (both.username, both.password, both.ca) == ("u", "p", b"ca")
    token = credentials_from_secret("https://h/r", {"username": b"u", "password": b"p", "bearerToken": b"t\n", "caFile": b"ca"})
    assert (token.bearer_token, token.username, token.password, token.ca) == ("t", "", "", b"ca")
    url = credentials_from_secret("http://us%40er:pa%2Fss@h/r", {})
    assert (url.username, url.password) == ("us@er", "pa/ss")
    pair = credentials_from_secret("https://h/r", {"tls.crt": b"c", "tls.key": b"k"})
    assert (pair.client_certificate, pair.client_key) == (b"c", b"k")
    ssh = credentials_from_secret("ssh://h/r", {"identity": b"i", "known_hosts": b"k", "password": b"p"}, proxy="http://x")
    assert (ssh.ssh_key, ssh.known_hosts, ssh.ssh_passphrase, ssh.proxy) == (b"i", b"k", "p", "http://x")


@pytest.mark.parametrize(
    ("url", "secret", "text"),
    [
        ("https://h/r", {"password": b"p"}, "invalid 'https' auth option: 'password' requires 'username' to be set"),
        ("http://h/r", {"password": b"p"}, "invalid 'http' auth option: 'password' requires 'username' to be set"),
        ("ssh://h/r", {}, "invalid 'ssh' auth option: 'identity' is required"),
        ("ssh://h/r", {"identity": b"i"}, "invalid 'ssh' auth option: 'known_hosts' is required"),
        ("https://h/r", {"tls.crt": b"p"}, "invalid 'https' auth option: 'tls.crt' requires 'tls.key' to be set"),
        ("https://h/r", {"username": b"a\nb"}, "invalid 'https' auth option: 'username' has more than one line"),
        ("https://h/r", {"username": b"\xff"}, "invalid 'https' auth option: 'username' is not UTF-8"),
    ],
)
def test_a_secret_that_does_not_fit(url: str, secret: dict[str, bytes], text: str) -> None:
    with pytest.raises(InvalidCredentials) as error:
        credentials_from_secret(url, secret)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/r",
        "ext::sh -c id",
        "-oProxyCommand=id",
        "file:///r",
        "ssh://-oX/r",
        "ssh://-l@h/r",
        "http:///r",
        "https://h/a b",
        "h:r",
        "http://[/",
    ],
)
def test_urls_that_are_not_taken(url: str) -> None:
    with pytest.raises(Invalid):
        parse_remote(url)


def test_urls_lose_their_credentials() -> None:
    assert parse_remote("https://u:p@h:8443/r.git?x=1#f")[0].url == "https://h:8443/r.git?x=1"
    assert parse_remote("ssh://h/r")[0].url == "ssh://git@h/r"
    assert parse_remote("ssh://me:secret@h:22/r")[0].url == "ssh://me@h:22/r"
    assert parse_remote("https://[::1]:1/r")[0].url == "https://[::1]:1/r"


def test_digests_tell_credentials_apart_and_nothing_prints_them() -> None:
    some = [
        GitCredentials(),
        GitCredentials(username="a", password="b"),
        GitCredentials(username="ab"),
        GitCredentials(bearer_token="ab"),
        GitCredentials(username="a", password="b", ca=b"x"),
    ]
    assert len({c.digest() for c in some}) == len(some)
    assert GitCredentials(password="1", identity="app").digest() == GitCredentials(password="2", identity="app").digest()
    assert "secret" not in repr(GitCredentials(username="secret", password="secret", bearer_token="secret", ssh_key=b"secret"))


# --- files --------------------------------------------------------------------------------------------------------------


def test_files_are_private_and_gone_afterwards(tmp_path: Path) -> None:
    remote = parse_remote("https://example.com:8443/r")[0]
    credentials = GitCredentials(username="us er", password=PASSWORD, ca=b"CA", proxy="http://pu:proxypass@proxy:3128")

    def look(env: dict[str, str]) -> None:
        folder = next(tmp_path.iterdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.name == "askpass" else 0o600), path
        assert not [value for value in env.values() if PASSWORD in value or "proxypass" in value]

        def ask(prompt: str) -> tuple[int, str]:
            done = subprocess.run([env["GIT_ASKPASS"], prompt], capture_output=True, check=False)
            return done.returncode, done.stdout.decode()

        assert ask("Username for 'https://example.com:8443': ") == (0, "us er\n")
        assert ask("Password for 'https://us%20er@example.com:8443': ") == (0, PASSWORD + "\n")
        for other in (
            "Username for 'https://evil.example:8443': ",
            "Username for 'http://example.com:8443': ",
            "Username for 'https://example.com': ",
            "Password for 'https://us%20er@evil.example': ",
            "Password for 'http://us%20er@example.com:8443': ",
            "Enter passphrase for key: ",
        ):
            assert ask(other) == (1, "")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), session(tmp_path, remote, credentials) as made:
        look(made)
    assert not list(tmp_path.iterdir())


async def test_the_variables_of_the_person_are_not_used(
    mirrors: Mirrors, repository: BareRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / ".gitconfig").write_text(
        f'[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://\n[core]\n\tsshCommand = touch {evil}/ran\n'
    )
    monkeypatch.setenv("HOME", str(evil))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(evil / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.proxy")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://127.0.0.1:1")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nonexistent")
    monkeypatch.setenv("GIT_TRACE", "1")
    with GitServer(tmp_path / "srv") as server:
        mirror = mirrors.mirror(server.url("app.git"))
        refs = await mirror.ls_remote()
        await mirror.fetch(refs.refs["refs/heads/main"])
        assert [entry.path for entry in await mirror.entries(refs.refs["refs/heads/main"])] == ["a"]


async def test_no_secret_is_in_arguments_or_environment(mirrors: Mirrors, repository: BareRepository, tmp_path: Path) -> None:
    seen: list[str] = []

    def spy(handler: BaseHTTPRequestHandler) -> bool:
        # While git waits for this answer its processes can be looked at, as any user of the machine could.
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
            except OSError:
                continue
            if b"git" in parts[0]:
                seen.append(b"".join(parts).decode("utf-8", "replace"))
        return False

    with GitServer(tmp_path / "srv", username="bot", password="very-secret-1", token="very-secret-2", intercept=spy) as server:
        basic = mirrors.mirror(server.url("app.git"), GitCredentials(username="bot", password="very-secret-1"))
        await basic.fetch((await basic.ls_remote()).refs["refs/heads/main"])
        bearer = mirrors.mirror(server.url("app.git"), GitCredentials(bearer_token="very-secret-2"))
        await bearer.ls_remote()
        by_url = mirrors.mirror(server.url("app.git", "bot:very-secret-1"))
        await by_url.ls_remote()
        assert by_url.url == server.url("app.git")
    assert any("git-remote-http" in text or "remote-http" in text for text in seen)
    assert not [text for text in seen if "very-secret" in text]
    state = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and b"very-secret" in path.read_bytes()]
    assert state == []


# --- HTTP -------------------------------------------------------------------------------------------------------------


async def test_http_credentials(mirrors: Mirrors, repository: BareRepository, tmp_path: Path) -> None:
    with GitServer(tmp_path / "srv", username="bot ü", password=PASSWORD, token="to.ken") as server:
        url = server.url("app.git")
        prefix = f"unable to clone '{url}': authentication required: "
        for good in (GitCredentials(username="bot ü", password=PASSWORD), GitCredentials(bearer_token="to.ken")):
            assert "refs/heads/main" in (await mirrors.mirror(url, good).ls_remote()).refs
        wrong = GitCredentials(username="bot", password="wrong-password")
        for bad in (GitCredentials(), wrong, GitCredentials(bearer_token="bad")):
            with pytest.raises(AuthenticationRequired) as error:
                await mirrors.mirror(url, bad).ls_remote()
            assert str(error.value) == prefix
        server.refusal = b"Your token wrong-password has expired.\n"
        with pytest.raises(AuthenticationRequired) as error:
            await mirrors.mirror(url, wrong).ls_remote()
        assert str(error.value) == prefix + "Your token ***** has expired."


def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> object:
    def intercept(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return intercept


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (403, AuthenticationRequired, "authorization failed: "),
        (404, RepositoryNotFound, "repository not found: "),
        (
            500,
            RemoteUnreachable,
            'unexpected client error: unexpected requesting "ASKED" status code: 500',
        ),
        (
            429,
            RemoteUnreachable,
            'unexpected client error: unexpected requesting "ASKED" status code: 429',
        ),
    ],
)
async def test_http_statuses(mirrors: Mirrors, tmp_path: Path, status: int, kind: type[GitError], text: str) -> None:
    (tmp_path / "srv").mkdir()
    with GitServer(tmp_path / "srv", intercept=answering(status)) as server:
        url = server.url("app.git")
        with pytest.raises(kind) as error:
            await mirrors.mirror(url).ls_remote()
        assert str(error.value) == f"unable to clone '{url}': " + text.replace(
            "ASKED", f"{url}/info/refs?service=git-upload-pack"
        )


async def test_html_instead_of_git(mirrors: Mirrors, tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    page = b"<html>" + b"sign in " * 10000
    with GitServer(tmp_path / "srv", intercept=answering(200, {"Content-Type": "text/html"}, page)) as server:
        with pytest.raises(RemoteUnreachable) as error:
            await mirrors.mirror(server.url("app.git")).ls_remote()
        assert str(error.value).endswith("the answer does not come from a Git server")
        server.intercept = answering(200, {"Content-Type": "text/html"}, page.replace(b" ", b"\n"))
        with pytest.raises(RemoteUnreachable) as error:
            await mirrors.mirror(server.url("app.git")).ls_remote()
        assert len(str(error.value)) < 600


async def test_an_answer_without_end_is_cut(mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconcile.git.process.OUTPUT_LIMIT", 1 << 16)
    monkeypatch.setattr("reconcile.git.process.Job.run.__defaults__", (b"", 1 << 16))
    repository = BareRepository.create(tmp_path / "srv" / "app.git")
    head = repository.commit({"a": b"1"})
    repository.git(
        "update-ref", "--stdin", stdin=b"".join(b"create refs/heads/b%d %s\n" % (n, head.encode()) for n in range(2000))
    )
    with GitServer(tmp_path / "srv") as server, pytest.raises(LimitExceeded):
        await mirrors.mirror(server.url("app.git")).ls_remote()


async def test_no_connection(mirrors: Mirrors) -> None:
    url = "http://127.0.0.1:1/team/app.git"
    with pytest.raises(RemoteUnreachable) as error:
        await mirrors.mirror(url).ls_remote()
    get = f'Get "{url}/info/refs?service=git-upload-pack"'
    assert str(error.value) == f"unable to clone '{url}': {get}: dial tcp 127.0.0.1:1: connect: connection refused"
    with pytest.raises(RemoteUnreachable, match=r"dial tcp: lookup no-such-host.invalid: no such host$"):
        await mirrors.mirror("http://no-such-host.invalid/app.git").ls_remote()


async def test_redirects(mirrors: Mirrors, repository: BareRepository, tmp_path: Path) -> None:
    credentials = GitCredentials(username="bot", password="very-secret")
    stolen: list[str | None] = []

    def thief(handler: BaseHTTPRequestHandler) -> bool:
        stolen.append(handler.headers.get("Authorization"))
        return False

    with (
        GitServer(tmp_path / "srv", username="other", password="x", intercept=thief) as elsewhere,
        GitServer(tmp_path / "srv", username="bot", password="very-secret") as server,
    ):

        def move(handler: BaseHTTPRequestHandler) -> bool:
            for old, new in (("/old.git", server.url("app.git")), ("/gone.git", elsewhere.url("app.git"))):
                if handler.path.startswith(old):
                    return answering(301, {"Location": new + handler.path.removeprefix(old)})(handler)
            return False

        server.intercept = move
        renamed = mirrors.mirror(server.url("old.git"), credentials)
        await renamed.fetch((await renamed.ls_remote()).refs["refs/heads/main"])
        with pytest.raises(AuthenticationRequired):
            await mirrors.mirror(server.url("gone.git"), credentials).ls_remote()
        with pytest.raises(RemoteUnreachable, match=r"redirect \(301\) refused"):
            await mirrors.mirror(server.url("gone.git"), GitCredentials(bearer_token="very-secret")).ls_remote()
    assert stolen == [None]


async def test_a_server_that_hangs_is_left_at_the_deadline(mirrors: Mirrors, tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    release = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        release.wait(20)
        return answering(500)(handler)

    with GitServer(tmp_path / "srv", intercept=hang) as server:
        url = server.url("app.git")
        with pytest.raises(GitTimeout, match=rf"^unable to clone '{url}': context deadline exceeded$"):
            await mirrors.mirror(url, timeout=0.5).ls_remote()
        for _ in range(100):
            left = processes_with(str(tmp_path / "state"))
            if not left:
                break
            await asyncio.sleep(0.02)
        assert left == []
        release.set()


async def test_tls(mirrors: Mirrors, repository: BareRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, stranger = Authority(), Authority("stranger")
    files = []
    for name, data in zip(("cert", "key"), authority.server(["127.0.0.1"]), strict=True):
        (tmp_path / name).write_bytes(data)
        files.append(str(tmp_path / name))
    (tmp_path / "ca").write_bytes(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.load_verify_locations(str(tmp_path / "ca"))
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.client("bot")
    with GitServer(tmp_path / "srv", tls=context) as server:
        url = server.url("app.git")
        good = GitCredentials(ca=authority.certificate, client_certificate=certificate, client_key=key)
        assert "refs/heads/main" in (await mirrors.mirror(url, good).ls_remote()).refs
        for bad in (
            GitCredentials(client_certificate=certificate, client_key=key),
            GitCredentials(ca=stranger.certificate, client_certificate=certificate, client_key=key),
            GitCredentials(ca=authority.certificate),
        ):
            with pytest.raises(RemoteUnreachable):
                await mirrors.mirror(url, bad).ls_remote()
        # Without an authority of its own a remote is checked by what the whole process trusts.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
        trusting = mirrors.mirror(url, GitCredentials(client_certificate=certificate, client_key=key))
        assert "refs/heads/main" in (await trusting.ls_remote()).refs


# --- SSH --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ssh_keys() -> dict[str, asyncssh.SSHKey]:
    return {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("good", "bad")}


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode()


async def test_ssh_host_keys_and_users(
    mirrors: Mirrors, repository: BareRepository, tmp_path: Path, ssh_keys: dict[str, asyncssh.SSHKey]
) -> None:
    with SshGitServer(tmp_path / "srv", authorized=[public(ssh_keys["good"])], user="deploy") as server:

        async def text(url: str, identity: asyncssh.SSHKey, known: bytes, kind: type[GitError]) -> str:
            with pytest.raises(kind) as error:
                await mirrors.mirror(
                    url, GitCredentials(ssh_key=identity.export_private_key("openssh"), known_hosts=known)
                ).ls_remote()
            return str(error.value).partition("': ")[2]

        good, known = ssh_keys["good"], server.known_hosts()
        url = server.url("app.git", "deploy")
        credentials = GitCredentials(ssh_key=good.export_private_key("openssh"), known_hosts=known)
        assert "refs/heads/main" in (await mirrors.mirror(url, credentials).ls_remote()).refs
        logins = server.logins
        changed = server.known_hosts(ssh_keys["bad"])
        assert await text(url, good, changed, HostKeyMismatch) == "ssh: handshake failed: knownhosts: key mismatch"
        other = b"example.com " + known.split(b" ", 1)[1]
        assert await text(url, good, other, HostKeyMismatch) == "ssh: handshake failed: knownhosts: key is unknown"
        refused = "ssh: handshake failed: ssh: unable to authenticate"
        assert (await text(url, ssh_keys["bad"], known, AuthenticationRequired)).startswith(refused)
        assert (await text(server.url("app.git"), good, known, AuthenticationRequired)).startswith(refused)
        assert server.logins == logins
    assert "connection refused" in await text(url, good, known, RemoteUnreachable)


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("form", ["openssh", "pkcs8-pem"])
async def test_ssh_keys_with_passphrase(mirrors: Mirrors, repository: BareRepository, tmp_path: Path, form: str) -> None:
    path = tmp_path / "id"
    extra = ["-m", "PKCS8"] if form != "openssh" else []
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", PASSWORD, "-C", "", "-f", str(path), *extra], check=True)
    with SshGitServer(tmp_path / "srv", authorized=[(tmp_path / "id.pub").read_text()]) as server:
        secret = {"identity": path.read_bytes(), "known_hosts": server.known_hosts()}
        url = server.url("app.git")
        good = credentials_from_secret(url, {**secret, "password": PASSWORD.encode()})
        assert "refs/heads/main" in (await mirrors.mirror(url, good).ls_remote()).refs
        with pytest.raises(InvalidCredentials, match=r"^invalid 'ssh' auth option: 'password' does not fit 'identity'$"):
            await mirrors.mirror(url, credentials_from_secret(url, {**secret, "password": b"wrong"})).ls_remote()
        with pytest.raises(InvalidCredentials, match=r"'identity' is protected by a passphrase and 'password' is not set$"):
            await mirrors.mirror(url, credentials_from_secret(url, secret)).ls_remote()
        with pytest.raises(InvalidCredentials, match=r"no private key in a known form found$"):
            await mirrors.mirror(url, credentials_from_secret(url, {**secret, "identity": b"x", "password": b"y"})).ls_remote()


async def test_ssh_without_credentials_is_refused_at_once(mirrors: Mirrors) -> None:
    with pytest.raises(Invalid, match=r"^invalid 'ssh' auth option: 'identity' is required$"):
        mirrors.mirror("ssh://git@127.0.0.1/app.git")


def test_the_proxy_command_of_ssh_holds_no_password(tmp_path: Path, ssh_keys: dict[str, asyncssh.SSHKey]) -> None:
    key = ssh_keys["good"].export_private_key("openssh")
    credentials = GitCredentials(ssh_key=key, known_hosts=b"k", proxy="socks5://user:proxypass@127.0.0.1:1080")
    with session(tmp_path, parse_remote("ssh://h/r")[0], credentials) as env:
        config = Path(shlex.split(env["GIT_SSH_COMMAND"])[2])
        line = next(line for line in config.read_text().splitlines() if "ProxyCommand" in line)
        assert line.endswith(" %h %p")
        assert "proxypass" not in config.read_text()
