"""Logins of GitHub Apps, CodeCommit and Azure DevOps against strict doubles of the documented endpoints, on loopback sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from reconcile.errors import ReconcileError
from reconcile.forges.github_app import GitHubApp
from reconcile.registry.cloud import Kept
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_azure import Azure, AzureEndpoints
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.git_logins import CodeCommitLogin, DevOpsLogin, GitHubLogin, codecommit_login
from tests.support.clock import VirtualClock
from tests.support.registry import BareServer, Exchange
from tests.support.sourceworld import conditions, source_world

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


class GitHub:
    """GitHub's endpoints for apps, which believe nothing: 401 for a token that is not as documented, 404 for what is unknown."""

    def __init__(self, clock: VirtualClock, life: int = 3600) -> None:
        self.clock, self.life = clock, life
        self.installations = {"orgs/acme": 42, "users/jane": 7}
        self.seen: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.seen.append(f"{exchange.method} {exchange.target}")
        path = exchange.target.removeprefix("/api/v3")
        if path == exchange.target or exchange.headers.get("accept") != "application/vnd.github+json":
            await answer(exchange, 404, {"message": "Not Found"})
        elif not self.believes(exchange.headers.get("authorization", "")):
            await answer(exchange, 401, {"message": "A JSON web token could not be decoded"})
        elif exchange.method == "GET" and path.endswith("/installation"):
            found = self.installations.get(path.strip("/").removesuffix("/installation"))
            await answer(exchange, 200 if found else 404, {"id": found} if found else {"message": "Not Found"})
        elif exchange.method == "POST" and path in [f"/app/installations/{n}/access_tokens" for n in (42, 7)]:
            expires = datetime.fromtimestamp(self.clock.now().timestamp() + self.life, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            issued = sum("access_tokens" in seen for seen in self.seen)
            await answer(exchange, 201, {"token": f"ghs_{issued}", "expires_at": expires})
        else:
            await answer(exchange, 404, {"message": "Not Found"})

    def believes(self, header: str) -> bool:
        head, body, signature = header.removeprefix("Bearer ").split(".")
        now = int(self.clock.now().timestamp())
        KEY.public_key().verify(decode(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(decode(body))
        return (
            json.loads(decode(head))["alg"] == "RS256"
            and claims["iss"] == "1234"
            and claims["iat"] == now - 30
            and now < claims["exp"] <= now + 600
        )


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def answer(exchange: Exchange, status: int, body: object) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    exchange.writer.write(head.encode() + data)
    await exchange.writer.drain()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def github(clock: VirtualClock) -> AsyncIterator[tuple[GitHub, dict[str, bytes]]]:
    double = GitHub(clock)
    async with BareServer(double) as server:
        yield double, {"githubAppID": b"1234", "githubAppPrivateKey": PEM, "githubAppBaseURL": f"http://{server.host}".encode()}


async def test_a_token_is_kept_for_most_of_its_life(github: tuple[GitHub, dict[str, bytes]], clock: VirtualClock) -> None:
    double, data = github
    data["githubAppInstallationID"] = b"42\n"
    login = GitHubLogin(clock)
    first = await login.credentials("https://github.com/acme/app", "apps/s", data, None)
    assert (first.username, first.password) == ("x-access-token", "ghs_1")
    assert "ghs_1" not in repr(first)
    clock.advance(0.8 * 3600 - 1)
    assert (await login.credentials("https://github.com/acme/other", "apps/s", data, None)).password == "ghs_1"
    assert double.seen == ["POST /api/v3/app/installations/42/access_tokens"]
    clock.advance(2)
    second = await login.credentials("https://github.com/acme/app", "apps/s", data, None)
    assert second.password == "ghs_2"
    assert second.digest() == first.digest()  # a new token is no new mirror


@pytest.mark.parametrize(("owner", "number"), [("acme", 42), ("jane", 7)])
async def test_an_installation_is_found_by_its_owner(
    github: tuple[GitHub, dict[str, bytes]], clock: VirtualClock, owner: str, number: int
) -> None:
    double, data = github
    data["githubAppInstallationOwner"] = owner.encode()
    assert (await GitHubLogin(clock).credentials("https://github.com/a/b", "apps/s", data, None)).password == "ghs_1"
    assert double.seen[-1] == f"POST /api/v3/app/installations/{number}/access_tokens"


async def test_refusals_are_told_and_nothing_is_kept(github: tuple[GitHub, dict[str, bytes]], clock: VirtualClock) -> None:
    _, data = github
    login = GitHubLogin(clock)
    with pytest.raises(ReconcileError, match="not installed for 'nobody'"):
        await login.credentials("https://github.com/a/b", "apps/s", {**data, "githubAppInstallationOwner": b"nobody"}, None)
    wrong = {**data, "githubAppID": b"9", "githubAppInstallationID": b"42"}
    with pytest.raises(ReconcileError, match="refused: unexpected status code 401: A JSON web token could not be decoded"):
        await login.credentials("https://github.com/a/b", "apps/s", wrong, None)
    good = {**data, "githubAppInstallationID": b"42"}
    assert (await login.credentials("https://github.com/a/b", "apps/s", good, None)).password == "ghs_2"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"githubAppID": b""}, "'githubAppID'"),
        ({"githubAppID": b"1/../2"}, "'githubAppID'"),
        ({"githubAppInstallationID": b""}, "exactly one"),
        ({"githubAppInstallationOwner": b"acme"}, "exactly one"),
        ({"githubAppInstallationID": b"42/x"}, "is not a number"),
        ({"githubAppInstallationID": b"", "githubAppInstallationOwner": b"../x"}, "is not the name of an owner"),
        ({"githubAppPrivateKey": b"no key"}, "'githubAppPrivateKey'"),
        ({"githubAppBaseURL": b"ftp://x"}, "'githubAppBaseURL'"),
        ({"githubAppBaseURL": b"https://user:pass@x"}, "'githubAppBaseURL'"),
    ],
)
def test_what_is_wrong_with_an_app_is_named(change: dict[str, bytes], complaint: str) -> None:
    good = {"githubAppID": b"1", "githubAppPrivateKey": PEM, "githubAppInstallationID": b"42"}
    with pytest.raises(ReconcileError, match=complaint):
        GitHubApp.of("apps/s", {**good, **change})


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("", "https://api.github.com"),
        ("https://api.github.com/", "https://api.github.com"),
        ("https://git.example.com", "https://git.example.com/api/v3"),
        ("https://git.example.com/", "https://git.example.com/api/v3"),
        ("https://git.example.com/api/v3", "https://git.example.com/api/v3"),
    ],
)
def test_the_base_of_the_api(given: str, base: str) -> None:
    data = {
        "githubAppID": b"1",
        "githubAppPrivateKey": PEM,
        "githubAppInstallationID": b"42",
        "githubAppBaseURL": given.encode(),
    }
    assert GitHubApp.of("apps/s", data).base == base


async def test_a_repository_is_fetched_with_the_token(tmp_path: Path, github: tuple[GitHub, dict[str, bytes]]) -> None:
    double, data = github
    double.clock = VirtualClock()
    logins = {"github": GitHubLogin(double.clock)}
    async with source_world(tmp_path, logins=logins, username="x-access-token", password="ghs_1") as world:
        world.repository(files={"a.txt": b"1"})
        await world.secret("app-key", {**data, "githubAppInstallationID": b"42"})
        await world.declare(provider="github", secretRef={"name": "app-key"})
        assert world.names(await world.step()) == ["a.txt"]
        await world.step()
        assert len(double.seen) == 1
        await world.declare(provider="generic")
        found = conditions(await world.step())
        text = "secretRef 'apps/app-key' has github app data but provider is not set to github"
        assert f"FetchFailed=True InvalidProviderConfiguration: {text}" in found
        await world.declare(provider="github", secretRef=None)
        found = conditions(await world.step())
        text = "secretRef with github app data must be specified when provider is set to github"
        assert f"Stalled=True InvalidProviderConfiguration: {text}" in found


# --- the clouds


def test_a_signature_for_codecommit() -> None:
    moment = datetime(2016, 1, 2, 3, 4, 5, tzinfo=UTC)
    host, path = "git-codecommit.us-east-1.amazonaws.com", "/v1/repos/test"
    user, password = codecommit_login(AwsKeys("AKIDEXAMPLE", "SECRET"), host, path, "us-east-1", moment)
    assert user == "AKIDEXAMPLE"
    stamp, _, signature = password.partition("Z")
    assert (stamp, len(signature)) == ("20160102T030405", 64)
    others = {
        codecommit_login(AwsKeys("AKIDEXAMPLE", "OTHER"), host, path, "us-east-1", moment)[1],
        codecommit_login(AwsKeys("AKIDEXAMPLE", "SECRET"), host, path + "2", "us-east-1", moment)[1],
        codecommit_login(AwsKeys("AKIDEXAMPLE", "SECRET"), host, path, "eu-west-1", moment)[1],
    }
    assert password not in others
    assert len(others) == 3
    assert codecommit_login(AwsKeys("A", "S", "TOKEN"), host, path, "us-east-1", moment)[0] == "A%TOKEN"


async def test_codecommit_takes_keys_of_the_environment_for_its_own_hosts_alone(clock: VirtualClock) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S", "AWS_SESSION_TOKEN": "T"}
    login = CodeCommitLogin(Aws(environment=keys, clock=clock), Kept(clock=clock))
    url = "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app"
    first = await login.credentials(url, "", {}, None)
    assert first.username == "A%T"
    clock.advance(700)
    assert (await login.credentials(url, "", {}, None)).password == first.password
    clock.advance(30)
    assert (await login.credentials(url, "", {}, None)).password != first.password
    for bad in (
        "https://git-codecommit.eu-west-1.amazonaws.com.evil.example/v1/repos/app",
        "https://evil.example/git-codecommit.eu-west-1.amazonaws.com",
        "http://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app",
    ):
        with pytest.raises(ReconcileError, match="not that of a repository of AWS CodeCommit"):
            await login.credentials(bad, "", {}, None)


async def test_azure_devops_gets_a_token_and_nobody_else(clock: VirtualClock) -> None:
    async def entra(exchange: Exchange) -> None:
        form = exchange.body.decode()
        right = exchange.target == "/tenant/oauth2/v2.0/token" and "scope=499b84ac-1321-427f-aa17-267ca6975798%2F.default" in form
        await answer(exchange, 200 if right else 400, {"access_token": "entra", "expires_in": 3600} if right else {})

    async with BareServer(entra) as server:
        variables = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "s"}
        azure = Azure(environment=variables, endpoints=AzureEndpoints(authority=f"http://{server.host}"), clock=clock)
        login = DevOpsLogin(azure, Kept(clock=clock))
        for _ in range(2):
            found = await login.credentials("https://dev.azure.com/acme/project/_git/app", "", {}, None)
            assert found.bearer_token == "entra"
        assert len(server.exchanges) == 1
        for bad in ("https://dev.azure.com.evil.example/x", "http://dev.azure.com/x", "https://evil.example/dev.azure.com"):
            with pytest.raises(ReconcileError, match="not that of a repository of Azure DevOps"):
                await login.credentials(bad, "", {}, None)
        assert len(server.exchanges) == 1
