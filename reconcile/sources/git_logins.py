"""Short-lived credentials for Git servers: GitHub Apps, AWS CodeCommit, Azure DevOps.

Identities of the clouds come from the environment of the process; a GitHub App's from the Secret. What a login gave is kept for
most of its life, and never in a status, an event or a log.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import urlsplit

from reconcile.errors import Invalid
from reconcile.forges.github_app import TLS_KEYS, GitHubApp, InstallationTokens
from reconcile.git.auth import GitCredentials
from reconcile.net.client import make_client
from reconcile.net.proxy import Proxy, ProxyEnvironment
from reconcile.net.tls import DEFAULT, tls_from_secret
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.cloud import Channels, Kept
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_azure import Azure
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.git_access import CloudLogin

DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798"
"""Azure DevOps as a resource of Entra."""
CODECOMMIT = r"git-codecommit(?:-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?)"
_CODECOMMIT = re.compile(CODECOMMIT)
_DEVOPS_HOST = re.compile(r"(?:[a-z0-9-]+\.)?dev\.azure\.com|[a-z0-9-]+\.visualstudio\.com")
_SIGNATURE_LIFE = 900.0
_METADATA_TIMEOUT = 5.0


class GitHubLogin:
    """The provider `github`: an installation token of an app (documentation of GitHub: «Authenticating as an installation»)."""

    def __init__(self, clock: Clock | None = None, kept: Kept[str] | None = None, *, timeout: float = 30.0) -> None:
        self._tokens = InstallationTokens(clock, kept, timeout=timeout)

    async def credentials(
        self,
        url: str,  # noqa: ARG002 - an app's token is good for all its repositories
        secret: str,
        data: Mapping[str, bytes],
        proxy: Proxy | None,
    ) -> GitCredentials:
        """User `x-access-token` with a token; raises ReconcileError."""
        app = GitHubApp.of(secret, data)
        tls = tls_from_secret(secret, data) if any(name in data for name in TLS_KEYS) else DEFAULT
        token = await self._tokens.token(app, tls, proxy)
        return GitCredentials(username="x-access-token", password=token, identity=app.identity())


class CodeCommitLogin:
    """The provider `aws`: a signature over the repository's address as its password, as AWS's own helper for Git makes it."""

    def __init__(self, aws: Aws | None = None, kept: Kept[tuple[str, str]] | None = None) -> None:
        self._aws = aws or Aws()
        self._kept = kept or Kept(clock=self._aws.clock)

    async def credentials(self, url: str, secret: str, data: Mapping[str, bytes], proxy: Proxy | None) -> GitCredentials:  # noqa: ARG002
        """User and password for a repository of CodeCommit; raises ReconcileError."""
        parts = urlsplit(url)
        found = _CODECOMMIT.fullmatch(parts.hostname or "")
        if found is None or parts.scheme != "https":
            raise Invalid(f"the URL is not that of a repository of AWS CodeCommit: its host must match {CODECOMMIT}")
        host, region, domain = found[0], found[1], found[2]

        async def log_in() -> tuple[tuple[str, str], float]:
            async with _channels(proxy, self._aws.clock) as channels:
                keys = await self._aws.keys(region, domain, channels)
            return codecommit_login(keys, host, parts.path, region, self._aws.clock.now()), _SIGNATURE_LIFE

        username, password = await self._kept.get((host, parts.path, proxy), log_in)
        return GitCredentials(username=username, password=password, identity=f"aws {host}")


def codecommit_login(keys: AwsKeys, host: str, path: str, region: str, moment: datetime) -> tuple[str, str]:
    """User and password: Signature Version 4 of a request `GIT` of which only the host is signed. Pure; `moment` is in UTC."""
    stamp = moment.strftime("%Y%m%dT%H%M%S")
    scope = f"{stamp[:8]}/{region}/codecommit/aws4_request"
    canonical = f"GIT\n{path}\n\nhost:{host}\n\nhost\n"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    user = f"{keys.access_key}%{keys.session_token}" if keys.session_token else keys.access_key
    return user, f"{stamp}Z{signature}"


class DevOpsLogin:
    """The provider `azure`: a token of Entra for Azure DevOps."""

    def __init__(self, azure: Azure | None = None, kept: Kept[str] | None = None) -> None:
        self._azure = azure or Azure()
        self._kept = kept or Kept(clock=self._azure.clock)

    async def credentials(self, url: str, secret: str, data: Mapping[str, bytes], proxy: Proxy | None) -> GitCredentials:  # noqa: ARG002
        """A bearer token; raises ReconcileError."""

        async def log_in() -> tuple[str, float]:
            async with _channels(proxy, self._azure.clock) as channels:
                return await self._azure.token(DEVOPS, channels)

        # The token is the controller's own: whoever may write a GitRepository must not have it sent to a server of his.
        parts = urlsplit(url)
        if parts.scheme != "https" or not _DEVOPS_HOST.fullmatch(parts.hostname or ""):
            raise Invalid(f"the URL is not that of a repository of Azure DevOps: its host must match {_DEVOPS_HOST.pattern}")
        return GitCredentials(bearer_token=await self._kept.get((DEVOPS, proxy), log_in), identity="azure devops")


@asynccontextmanager
async def _channels(proxy: Proxy | None, clock: Clock) -> AsyncIterator[Channels]:
    """Clients for one login: one that takes the proxy, one for metadata services, which are never behind one."""
    direct = make_client(timeout=_METADATA_TIMEOUT, clock=clock, environment=ProxyEnvironment())
    async with make_client(proxy=proxy, clock=clock) as http, direct:
        yield Channels(http, direct)


def default_logins(clock: Clock | None = None, environment: Mapping[str, str] | None = None) -> dict[str, CloudLogin]:
    """Every provider by its name, with identities from `environment` (default: the process's variables)."""
    time = clock or SystemClock()
    variables = os.environ if environment is None else environment
    return {
        "github": GitHubLogin(time),
        "aws": CodeCommitLogin(Aws(environment=variables, clock=time)),
        "azure": DevOpsLogin(Azure(environment=variables, clock=time)),
    }
