"""From a provider, the URL of a Git repository and a Secret to a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from reconcile.errors import Invalid
from reconcile.forges import gitea, github, gitlab
from reconcile.forges.gitea import Gitea
from reconcile.forges.github import GitHub
from reconcile.forges.github_app import TLS_KEYS, AppTokens, GitHubApp, InstallationTokens
from reconcile.forges.gitlab import GitLab
from reconcile.forges.remote import Place, place
from reconcile.forges.session import TIMEOUT, Answers, Credentials, Observe, Session, Token
from reconcile.net.proxy import Proxy
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.forge import Forge

MAX_TOKEN = 4096
_APP_KEY = "githubAppID"


class OpenForge(Forge, Protocol):
    """A `Forge` with connections: use it with `async with`, or call `aclose`."""

    async def aclose(self) -> None:
        """Close its connections."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Shared:
    """What the clients of one process share: tokens of GitHub Apps, and answers for conditional requests. Bounded."""

    def __init__(self, clock: Clock | None = None, observe: Observe | None = None, timeout: float = TIMEOUT) -> None:
        """`observe` is told of every request: provider, and its status code or `error`; `timeout`: seconds for each wait."""
        self.clock: Clock = clock or SystemClock()
        self.tokens = InstallationTokens(self.clock, timeout=timeout)
        self.answers = Answers()
        self.observe = observe
        self.timeout = timeout


def open_forge(
    provider: str,
    url: str,
    address: str,
    data: Mapping[str, bytes],
    *,
    secret: str = "",
    proxy: Proxy | None = None,
    tls: Tls | None = None,
    clock: Clock | None = None,
    shared: Shared | None = None,
) -> OpenForge:
    """A client for the repository at `url`. No request is sent before its first method is called.

    Args:
        provider: github, gitlab or gitea (Forgejo too).
        url: of the Git repository: https, http or ssh.
        address: of the API; empty where it follows from `url`.
        data: of the Secret: `token`, or at GitHub the keys of an App; `ca.crt` and others as `tls_from_secret` takes them.
        secret: `<namespace>/<name>` of the Secret, for messages.
        proxy: for all requests; None takes the environment's choice.
        tls: trust; that of the Secret when None.
        clock: time; of no effect beside `shared`.
        shared: what clients of one process share.

    Raises:
        Invalid: the provider is unknown, `url` or `address` names nothing, or the Secret does not have what is needed.
    """
    where = place(provider, url, address)
    shared = shared or Shared(clock)
    if tls is None:
        tls = tls_from_secret(secret, data) if any(name in data for name in TLS_KEYS) else DEFAULT
    kind, headers, header, scheme = _CLIENTS[provider]
    credentials: Credentials
    if provider == "github" and _APP_KEY in data:
        app = GitHubApp.of(secret, data)
        if app.base != where.api:
            # Whoever may write a GitRepository must not have the App's signature sent to a server of his.
            raise Invalid(
                f"secret '{secret}': its GitHub App belongs to {app.base}, but pull requests would be opened at {where.api}: "
                "set 'githubAppBaseURL' to the address of that server"
            )
        credentials = AppTokens(shared.tokens, app, tls, proxy)
    else:
        credentials = _token(provider, where, secret, data, header, scheme)
    session = Session(
        provider,
        where.name,
        credentials,
        headers,
        proxy=proxy,
        tls=tls,
        clock=shared.clock,
        kept=shared.answers,
        observe=shared.observe,
        timeout=shared.timeout,
    )
    return kind(session, where)


# What each forge documents for tokens: GitHub «Authenticating to the REST API»; GitLab «REST API authentication», whose Bearer
# takes personal, project, group and OAuth tokens; Gitea «API Usage».
_CLIENTS: Mapping[str, tuple[Callable[[Session, Place], OpenForge], Mapping[str, str], str, str]] = {
    "github": (GitHub, github.HEADERS, "Authorization", "Bearer"),
    "gitlab": (GitLab, gitlab.HEADERS, "Authorization", "Bearer"),
    "gitea": (Gitea, gitea.HEADERS, "Authorization", "token"),
}


def _token(provider: str, where: Place, secret: str, data: Mapping[str, bytes], header: str, scheme: str) -> Token:
    try:
        token = data.get("token", b"").decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or len(token) > MAX_TOKEN or not token.isprintable() or " " in token:
        named = f"secret '{secret}'" if secret else "the secret"
        keys = "'token'"
        if provider == "github":
            keys += ", or the keys of a GitHub App: 'githubAppID', 'githubAppPrivateKey' and 'githubAppInstallationID'"
        raise Invalid(f"{named} has no usable token for pull requests of provider '{provider}': it needs the key {keys}")
    advice = f"put a valid one for {where.host} under 'token' of {'secret ' + repr(secret) if secret else 'the secret'}"
    return Token(token, header, scheme, advice)
