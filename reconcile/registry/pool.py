"""Makes registry clients and keeps them: one per registry, credential, trust, proxy and permission for plain HTTP."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from reconcile.net.client import Client, Limits, make_client
from reconcile.net.proxy import Proxy, ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT, Tls
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.auth import CredentialSource
from reconcile.registry.budget import Budget
from reconcile.registry.client import RegistryClient
from reconcile.registry.cloud import Channels, LoginCache, Provider
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_azure import Azure
from reconcile.registry.cloud_gcp import Gcp
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential, Keychain
from reconcile.registry.memory import Memory
from reconcile.registry.names import Repository
from reconcile.registry.tags import TagLimits

GENERIC = "generic"
"""The provider whose credentials come from a keychain; the others are cloud logins."""

METADATA_TIMEOUT = 3.0
"""Seconds for a connect or read at a metadata service, which is near or not there."""


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
        providers: clouds by the name that `spec.provider` gives them; by default all three, with identities from the environment.
        logins: credentials of cloud logins.
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

    providers: Mapping[str, Provider] = field(default_factory=lambda: cloud_providers())
    logins: LoginCache = field(default_factory=LoginCache)
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
            provider: `generic`, or one of `providers`.

        Raises:
            ReconcileError: the keychain failed, or there is no such provider.
        """
        credential = await keychain.resolve(repository) if keychain is not None and provider == GENERIC else None
        if provider != GENERIC and provider not in self.providers:
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
        provider = self.providers.get(key.provider)

        async def known() -> Credential | None:
            return key.credential

        async def log_in() -> Credential | None:
            assert provider is not None  # noqa: S101 - checked by client()
            return await self.logins.credential(provider, key.registry, channels)

        @asynccontextmanager
        async def channels() -> AsyncIterator[Channels]:
            # Not the registry's client: its certificate is for it alone, and metadata services are never behind a proxy.
            http = make_client(
                proxy=key.proxy, timeout=self.timeout, retry=self.retry, clock=self.clock, environment=self.environment
            )
            direct = make_client(timeout=METADATA_TIMEOUT, retry=self.retry, clock=self.clock, environment=ProxyEnvironment())
            async with http, direct:
                yield Channels(http, direct)

        return known if provider is None else log_in


def cloud_providers(environment: Mapping[str, str] | None = None, clock: Clock | None = None) -> dict[str, Provider]:
    """The three clouds by name, with identities from `environment` (default: the process's variables)."""
    variables = os.environ if environment is None else environment
    time = clock or SystemClock()
    clouds: tuple[Provider, ...] = (
        Aws(environment=variables, clock=time),
        Azure(environment=variables, clock=time),
        Gcp(environment=variables, clock=time),
    )
    return {cloud.name: cloud for cloud in clouds}
