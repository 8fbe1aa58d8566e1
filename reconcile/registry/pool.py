"""Makes registry clients and keeps them: one per registry, credential, trust, proxy and permission for plain HTTP."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from reconcile.net.client import Client, Limits, make_client
from reconcile.net.proxy import Proxy, ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT, Tls
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.auth import CredentialSource
from reconcile.registry.budget import Budget
from reconcile.registry.client import RegistryClient
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential, Keychain
from reconcile.registry.memory import Memory
from reconcile.registry.names import Repository
from reconcile.registry.tags import TagLimits

GENERIC = "generic"
"""The provider whose credentials come from a keychain; the others are cloud logins."""

Login = Callable[[str, Client], Awaitable[Credential]]
"""A cloud login: registry host and an HTTP client in, credential out; raises `CredentialError`."""


@dataclass(frozen=True)
class _Key:
    registry: str
    credential: Credential | None
    provider: str
    tls: Tls
    proxy: Proxy | None
    insecure: bool


@dataclass
class ClientPool:
    """Registry clients by what distinguishes them; they share tokens, facts about hosts and the budget of each registry.

    Attributes:
        logins: cloud logins by provider name.
        budget: the request budgets, one per registry host.
        memory: tokens and facts about hosts.
        max_clients: clients kept with their connections; the least recently used is retired.
        limits: bounds of HTTP clients.
        tag_limits: bounds of tag lists.
        retry: when requests are tried again.
        timeout: seconds for each connect, read and write; a caller bounds whole operations.
        clock: time.
        environment: proxy variables; None reads the process's when a client is made.
    """

    logins: Mapping[str, Login] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    memory: Memory = field(default_factory=Memory)
    max_clients: int = 200
    limits: Limits = field(default_factory=Limits)
    tag_limits: TagLimits = field(default_factory=TagLimits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = 30.0
    clock: Clock = field(default_factory=SystemClock)
    environment: ProxyEnvironment | None = None
    _clients: OrderedDict[_Key, RegistryClient] = field(default_factory=OrderedDict, repr=False)

    async def client(
        self,
        repository: Repository,
        *,
        keychain: Keychain | None = None,
        tls: Tls = DEFAULT,
        proxy: Proxy | None = None,
        insecure: bool = False,
        provider: str = GENERIC,
    ) -> RegistryClient:
        """The client for `repository`; the credential is looked up now, a cloud login is made when it is first needed.

        Args:
            repository: what will be asked for.
            keychain: credentials for provider `generic`; None is anonymous. Ignored for other providers, as Flux does.
            tls: trust and client certificate.
            proxy: proxy for registry, token endpoint and cloud login; None takes the environment's choice.
            insecure: permits plain HTTP.
            provider: `generic`, or the name of a login.

        Raises:
            ReconcileError: the keychain failed, or there is no such provider.
        """
        credential = await keychain.resolve(repository) if keychain is not None and provider == GENERIC else None
        if provider != GENERIC and provider not in self.logins:
            raise CredentialError(f"no login for provider '{provider}'")
        key = _Key(repository.registry, credential, provider, tls, proxy, insecure)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._make(key)
        self._clients.move_to_end(key)
        while len(self._clients) > self.max_clients:
            _, oldest = self._clients.popitem(last=False)
            await oldest.retire()
        return client

    async def close(self) -> None:
        """Close all connections that are not in use; those in use close when their operation ends."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.retire()

    def __len__(self) -> int:
        return len(self._clients)

    def _make(self, key: _Key) -> RegistryClient:
        def make_http() -> Client:
            return make_client(
                tls=key.tls,
                proxy=key.proxy,
                timeout=self.timeout,
                limits=self.limits,
                retry=self.retry,
                clock=self.clock,
                around=self.budget.around,
                environment=self.environment,
            )

        return RegistryClient(
            make_http,
            self._source(key),
            insecure=key.insecure,
            memory=self.memory,
            limits=self.tag_limits,
            clock=self.clock,
        )

    def _source(self, key: _Key) -> CredentialSource:
        login = self.logins.get(key.provider)

        async def known() -> Credential | None:
            return key.credential

        async def log_in() -> Credential | None:
            assert login is not None  # noqa: S101 - checked by client()
            # Metadata services and token endpoints get a client of their own: the registry's client certificate is not theirs.
            http = make_client(
                proxy=key.proxy, timeout=self.timeout, retry=self.retry, clock=self.clock, environment=self.environment
            )
            async with http:
                return await login(key.registry, http)

        return known if login is None else log_in
