"""Credentials for buckets, kept for most of their life: keys and tokens by what they are asked for with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from reconcile.errors import ReconcileError
from reconcile.net.client import Client, make_client
from reconcile.net.errors import NetworkError
from reconcile.net.proxy import Proxy, ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT, Tls
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.cloud import Channels, Kept
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_azure import Azure
from reconcile.registry.cloud_gcp import Gcp
from reconcile.registry.errors import CredentialError
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.buckets import azure_entra, sts
from reconcile.sources.buckets.azure_entra import Application

AWS_LIFE = 900.0
"""Seconds that ambient keys are used for: the shortest life that Amazon gives to any."""

NOBODY_LIFE = 300.0
"""Seconds for which it is remembered that this process has no identity at Azure."""

METADATA_TIMEOUT = 3.0
"""Seconds for a connect or read at a metadata service, which is near or not there."""

T = TypeVar("T")


@dataclass(frozen=True)
class Network:
    """How the outside is reached.

    Attributes:
        tls: trust and client certificate.
        proxy: proxy; None takes the environment's choice.
        environment: proxy variables; None reads the process's.
        retry: when requests are tried again.
        timeout: seconds for each connect, read and write.
    """

    tls: Tls = DEFAULT
    proxy: Proxy | None = None
    environment: ProxyEnvironment | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = 30.0

    def client(self, clock: Clock) -> Client:
        """A client for credentials; close it."""
        return make_client(
            tls=self.tls, proxy=self.proxy, timeout=self.timeout, retry=self.retry, clock=clock, environment=self.environment
        )


@dataclass
class Logins:
    """Logins at clouds and token services; what they gave is shared by all buckets that ask with the same.

    Attributes:
        aws: Amazon, with an identity from the environment.
        azure: Azure, with an identity from the environment.
        gcp: Google, with an identity from the environment.
        clock: time.
    """

    aws: Aws = field(default_factory=Aws)
    azure: Azure = field(default_factory=Azure)
    gcp: Gcp = field(default_factory=Gcp)
    clock: Clock = field(default_factory=SystemClock)
    _keys: Kept[AwsKeys] = field(init=False, repr=False)
    _tokens: Kept[tuple[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._keys = Kept(clock=self.clock)
        self._tokens = Kept(clock=self.clock)

    async def ambient_aws(self, region: str, domain: str, endpoint: str, network: Network) -> AwsKeys:
        """Keys of this process's identity at Amazon; a token service other than the region's own if `endpoint` says so."""
        aws = replace(self.aws, endpoints=replace(self.aws.endpoints, sts=endpoint)) if endpoint else self.aws

        async def log_in(channels: Channels) -> tuple[AwsKeys, float]:
            return await aws.keys(region, domain, channels), AWS_LIFE

        return await self._kept(self._keys, ("aws", region, domain, endpoint, network.proxy), network, log_in)

    async def ldap(self, endpoint: str, username: str, password: str, network: Network) -> AwsKeys:
        """Keys for an LDAP user from a security token service."""

        async def log_in(channels: Channels) -> tuple[AwsKeys, float]:
            return await sts.ldap_keys(channels.http, endpoint, username, password, self.clock)

        key = ("ldap", endpoint, username, _digest(password.encode()), network.tls, network.proxy)
        return await self._kept(self._keys, key, network, log_in)

    async def google(self, account: tuple[dict[str, object], bytes] | None, network: Network) -> str:
        """A token for a service account's key (parsed, and as it was written), or for the identity of this process."""

        async def log_in(channels: Channels) -> tuple[tuple[str], float]:
            found, life = await (self.gcp.token(channels) if account is None else self.gcp.service_account(account[0], channels))
            return (found,), life

        key = ("google", account and _digest(account[1]), network.proxy)
        return (await self._kept(self._tokens, key, network, log_in))[0]

    async def application(self, who: Application, network: Network) -> str:
        """An Entra token for an application whose secret or certificate a Secret has."""

        async def log_in(channels: Channels) -> tuple[tuple[str], float]:
            found, life = await azure_entra.token(who, channels, self.clock, self.azure.endpoints.authority)
            return (found,), life

        return (await self._kept(self._tokens, ("azure", who, network.proxy), network, log_in))[0]

    async def managed(self, client: str, network: Network) -> str:
        """An Entra token of the managed identity with a client id."""

        async def log_in(channels: Channels) -> tuple[tuple[str], float]:
            found, life = await azure_entra.managed(self.azure, client, channels)
            return (found,), life

        return (await self._kept(self._tokens, ("managed", client), network, log_in))[0]

    async def ambient_azure(self, network: Network) -> str:
        """An Entra token of this process's identity; empty when it has none, so that only what is public can be read."""

        async def log_in(channels: Channels) -> tuple[tuple[str], float]:
            try:
                found, life = await azure_entra.ambient(self.azure, channels)
            except (CredentialError, NetworkError):
                if self.azure.environment.get("AZURE_CLIENT_ID"):
                    raise  # an identity was meant; to go on without it would hide what is wrong
                return ("",), NOBODY_LIFE
            return (found,), life

        return (await self._kept(self._tokens, ("ambient", network.proxy), network, log_in))[0]

    async def _kept(
        self,
        kept: Kept[T],
        key: Hashable,
        network: Network,
        log_in: Callable[[Channels], Awaitable[tuple[T, float]]],
    ) -> T:
        async def fresh() -> tuple[T, float]:
            async with self._channels(network) as channels:
                try:
                    return await log_in(channels)
                except CredentialError:
                    raise
                except ReconcileError as error:
                    raise CredentialError(str(error)) from error

        return await kept.get(key, fresh)

    def _channels(self, network: Network) -> AbstractAsyncContextManager[Channels]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Channels]:
            # Metadata services are on this machine or beside it, never behind a proxy.
            http = network.client(self.clock)
            nearby = Network(environment=ProxyEnvironment(), retry=RetryPolicy(attempts=1), timeout=METADATA_TIMEOUT)
            direct = nearby.client(self.clock)
            async with http, direct:
                yield Channels(http, direct)

        return opened()


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
