"""A bucket of each provider on loopback, and clients for it made as the service makes them: from a spec and its Secrets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from reconcile.api.meta import Key
from reconcile.api.source import BucketSpec
from reconcile.errors import NotFound
from reconcile.net.proxy import ProxyEnvironment
from reconcile.ports.clock import Clock
from reconcile.ports.store import Secret
from reconcile.registry.cloud_aws import Aws, AwsEndpoints
from reconcile.registry.cloud_azure import Azure, AzureEndpoints
from reconcile.registry.cloud_gcp import Gcp, GcpEndpoints
from reconcile.sources.buckets.access import BucketAccess
from reconcile.sources.buckets.client import BucketClient
from reconcile.sources.buckets.logins import Logins, Network
from tests.support.bucket_azure import KEY, AzureServer
from tests.support.bucket_gcs import GcsServer
from tests.support.bucket_servers import S3Server, Store, StoreServer
from tests.support.registry import FakeClock

NAMESPACE = "apps"
PROVIDERS = ("generic", "gcp", "azure")


class Secrets:
    """The Secrets of a cluster, and nothing else of it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, bytes]] = {}

    async def secret(self, key: Key) -> Secret:
        if key.namespace != NAMESPACE or key.name not in self.values:
            raise NotFound(f'secrets "{key.name}" not found')
        return Secret(key, "Opaque", self.values[key.name])

    def put(self, name: str, **values: str | bytes) -> None:
        self.values[name] = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}


@dataclass
class World:
    """A server, the objects in it, and what reaches it."""

    provider: str
    server: StoreServer
    clock: FakeClock
    secrets: Secrets = field(default_factory=Secrets)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.server.store

    def spec(self, **fields: Any) -> BucketSpec:
        """A spec of the bucket with its credentials."""
        server = self.server
        document: dict[str, Any] = {
            "provider": self.provider,
            "bucketName": "files",
            "endpoint": server.endpoint if isinstance(server, AzureServer) else server.host,
            "insecure": True,
            "interval": "1m",
            "secretRef": {"name": "login"},
        }
        return BucketSpec.model_validate({k: v for k, v in {**document, **fields}.items() if v is not None})

    def access(self, **options: Any) -> BucketAccess:
        """What makes clients; identities of this process come from `environment` and the server."""
        base = f"http://{self.server.host}"
        clock: Clock = self.clock
        logins = Logins(
            aws=Aws(self.environment, AwsEndpoints(sts=base + "/sts", container=base, metadata=base), clock),
            azure=Azure(self.environment, AzureEndpoints(authority=base, metadata=base), clock),
            gcp=Gcp(self.environment, GcpEndpoints(token=base + "/token", metadata=base), clock),
            clock=clock,
        )
        network = Network(environment=ProxyEnvironment())
        return BucketAccess(self.secrets, logins, network, clock=clock, **options)  # type: ignore[arg-type]

    def opened(self, **fields: Any) -> AbstractAsyncContextManager[BucketClient]:
        """A client for the bucket."""
        return self.access().opened(NAMESPACE, self.spec(**fields))


@asynccontextmanager
async def world_of(provider: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[World]:
    """A bucket of this provider, with a Secret `login` that may read it; with `tls` over TLS."""
    clock = FakeClock()
    store = Store()
    server: StoreServer
    match provider:
        case "gcp":
            server = GcsServer(store, clock)
        case "azure":
            server = AzureServer(store, clock)
        case _:
            server = S3Server(store, clock)
    server.tls = tls
    async with server:
        world = World(provider, server, clock)
        world.secrets.put("login", **_login(server))
        yield world


def _login(server: StoreServer) -> Mapping[str, str | bytes]:
    match server:
        case GcsServer():
            return {"serviceaccount": server.service_account()}
        case AzureServer():
            return {"accountKey": KEY}
        case S3Server():
            assert server.keys is not None
            return {"accesskey": server.keys.access, "secretkey": server.keys.secret}
        case _:
            raise AssertionError(server)


async def listed(client: BucketClient, prefix: str = "") -> list[str]:
    """Keys in the order in which they come."""
    return [entry.key async for page in client.pages(prefix) for entry in page]
