"""Stories of GitRepositories whose provider logs in: an app of GitHub that pushes, tokens that expire, and what goes wrong."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from imagebot.bot.source import Sources
from reconcile.api.meta import Key
from reconcile.app import load_packages, local_service
from reconcile.settings import GATES
from reconcile.sources.git_logins import default_logins
from tests.support.clock import VirtualClock
from tests.support.lab import Lab, git_repository, lab, secret
from tests.support.registry import BareServer, Exchange

FAILED = "failed configuring source manager: failed to configure authentication options: "
GATE = "please enable the ObjectLevelWorkloadIdentity feature gate in the controller"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


class GitHub:
    """GitHub REST API: «Create an installation access token for an app»; tokens are numbered and live for an hour."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock
        self.issued = 0

    async def __call__(self, exchange: Exchange) -> None:
        assert (exchange.method, exchange.target) == ("POST", "/api/v3/app/installations/42/access_tokens")
        assert exchange.headers["authorization"].startswith("Bearer ")
        self.issued += 1
        now = self.clock.now() if self.clock is not None else datetime.now(UTC)
        expires = datetime.fromtimestamp(now.timestamp() + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await exchange.answer("201 Created", orjson.dumps({"token": f"ghs_{self.issued}", "expires_at": expires}))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        yield made


def app(server: BareServer) -> dict[str, str]:
    """The Secret of an app whose API this is."""
    return {
        "githubAppID": "1234",
        "githubAppPrivateKey": PEM.decode(),
        "githubAppInstallationID": "42",
        "githubAppBaseURL": f"http://{server.host}",
    }


async def test_an_app_of_github_pushes(world: Lab) -> None:
    bare = world.declare_app()
    world.git.expected = [f"Basic {base64.b64encode(b'x-access-token:ghs_1').decode()}"]
    double = GitHub()
    async with BareServer(double) as server:
        world.declare(
            git_repository("web", world.url("app.git"), provider="github", secretRef={"name": "app"}), secret("app", app(server))
        )
        done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web") == ("True", "Succeeded", "repository up-to-date")
    assert b"web:1.0.0" in bare.file("deploy.yaml")
    assert double.issued == 1
    assert b"ghs_1" not in b"".join(path.read_bytes() for path in world.state.rglob("*") if path.is_file())


async def test_a_token_is_replaced_before_it_expires_and_the_mirror_stays(world: Lab) -> None:
    clock = VirtualClock()
    double = GitHub(clock)
    world.declare_app()
    async with BareServer(double) as server:
        world.declare(
            git_repository("web", world.url("app.git"), provider="github", secretRef={"name": "app"}), secret("app", app(server))
        )
        async with local_service(world.folder, registry=load_packages(), settings=world.settings, state=world.state) as service:
            sources = Sources(service.store, GATES, default_logins(clock, {}))
            automation = await service.store.get("ImageUpdateAutomation", Key("apps", "web"))
            first = (await sources.find(automation)).credentials
            clock.advance(2700.0)
            assert (await sources.find(automation)).credentials == first
            clock.advance(300.0)
            second = (await sources.find(automation)).credentials
    assert (first.username, second.username) == ("x-access-token", "x-access-token")
    assert first.password != second.password  # whose numbers they are depends on the service, which logs in for itself
    assert second.password in {f"ghs_{number}" for number in range(1, double.issued + 1)}
    assert first.digest() == second.digest()


@pytest.mark.parametrize(
    ("spec", "data", "reason", "message"),
    [
        (
            {"provider": "github"},
            None,
            "InvalidSourceConfiguration",
            "secretRef with github app data must be specified when provider is set to github: invalid source configuration",
        ),
        (
            {"provider": "github", "secretRef": {"name": "login"}},
            {"username": "me", "password": "x"},
            "InvalidSourceConfiguration",
            "secretRef with github app data must be specified when provider is set to github: invalid source configuration",
        ),
        (
            {"secretRef": {"name": "login"}},
            {"githubAppID": "1234"},
            "InvalidSourceConfiguration",
            "secretRef 'apps/login' has github app data but provider is not set to github: invalid source configuration",
        ),
        (
            {"provider": "github", "secretRef": {"name": "login"}},
            {"githubAppID": "1234"},
            "SourceManagerFailed",
            f"{FAILED}secret 'apps/login': exactly one of 'githubAppInstallationID' and 'githubAppInstallationOwner' must be set",
        ),
        (
            {"provider": "aws"},
            None,
            "SourceManagerFailed",
            f"{FAILED}the URL is not that of a repository of AWS CodeCommit: its host must match ",
        ),
        (
            {"provider": "azure"},
            None,
            "SourceManagerFailed",
            f"{FAILED}the URL is not that of a repository of Azure DevOps: its host must match ",
        ),
        (
            {"provider": "azure", "serviceAccountName": "me"},
            None,
            "FeatureGateDisabled",
            f"to use spec.serviceAccountName in the GitRepository for provider authentication {GATE}",
        ),
    ],
)
async def test_what_is_wrong_with_a_login_is_said_as_flux_says_it(
    world: Lab, spec: dict[str, Any], data: dict[str, str] | None, reason: str, message: str
) -> None:
    world.declare_app()
    world.declare(git_repository("web", world.url("app.git"), **spec))
    if data is not None:
        world.declare(secret("login", data))
    status, found, said = (await world.once()).ready("ImageUpdateAutomation", "web")
    assert (status, found) == ("False", reason)
    assert said.startswith(message)
