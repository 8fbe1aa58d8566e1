"""How an object reaches its registry: credentials, trust and proxy out of the Secrets and the ServiceAccount that it names."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.api.meta import Key, LocalReference
from reconcile.errors import NotFound
from reconcile.net.proxy import Proxy, proxy_from_secret
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from reconcile.ports.store import Store
from reconcile.registry.client import RegistryClient
from reconcile.registry.keychain import Keychain, chain, keychain_from_secret
from reconcile.registry.names import Repository
from reconcile.registry.pool import GENERIC, ClientPool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an object says about its registry; the names are those of objects in `namespace`.

    Attributes:
        namespace: where the object and everything that it names is.
        provider: `generic` or a cloud.
        secret: pull Secret.
        account: ServiceAccount whose pull Secrets count too.
        certificates: Secret with TLS material.
        proxy: Secret with a proxy.
        insecure: plain HTTP is permitted.
    """

    namespace: str
    provider: str = GENERIC
    secret: LocalReference | None = None
    account: str | None = None
    certificates: LocalReference | None = None
    proxy: LocalReference | None = None
    insecure: bool = False


class RegistryAccess:
    """Finds credentials and makes clients. `default` is asked when no Secret is named (a user's docker login)."""

    def __init__(self, store: Store, pool: ClientPool, default: Keychain | None = None) -> None:
        self._store = store
        self._pool = pool
        self._default = default

    async def keychain(self, wanted: Wanted) -> Keychain:
        """The credentials that the named Secrets and the ServiceAccount's pull Secrets hold.

        Raises:
            NotFound: an object that is named is not there.
            Invalid: a Secret cannot be read.
        """
        if wanted.secret is None and wanted.account is None:
            return chain(self._default)
        return chain(*await self._named(wanted))

    async def has_credentials(self, wanted: Wanted) -> bool:
        """Whether a Secret or a pull Secret of the ServiceAccount could hold credentials; raises as `keychain`."""
        return any(found is not None for found in await self._named(wanted))

    async def tls(self, wanted: Wanted) -> Tls:
        """Trust and client certificate; raises NotFound or Invalid."""
        if wanted.certificates is None:
            return DEFAULT
        key = Key(wanted.namespace, wanted.certificates.name)
        return tls_from_secret(str(key), (await self._store.secret(key)).data)

    async def proxy(self, wanted: Wanted) -> Proxy | None:
        """The proxy, None for what the environment says; raises NotFound or Invalid."""
        if wanted.proxy is None:
            return None
        return await proxy_of(self._store, Key(wanted.namespace, wanted.proxy.name))

    async def client(
        self, repository: Repository, wanted: Wanted, *, keychain: Keychain, tls: Tls, proxy: Proxy | None
    ) -> RegistryClient:
        """A client with what the methods above found; raises ReconcileError."""
        return await self._pool.client(
            repository, keychain=keychain, tls=tls, proxy=proxy, insecure=wanted.insecure, provider=wanted.provider
        )

    async def _named(self, wanted: Wanted) -> list[Keychain | None]:
        found: list[Keychain | None] = []
        if wanted.secret is not None:
            secret = await self._store.secret(Key(wanted.namespace, wanted.secret.name))
            found.append(keychain_from_secret(secret.type, secret.data))
        if wanted.account is not None:
            found += await self._pull_secrets(Key(wanted.namespace, wanted.account))
        return found

    async def _pull_secrets(self, key: Key) -> list[Keychain | None]:
        try:
            account = await self._store.service_account(key)
        except NotFound:
            raise NotFound(f"serviceaccount '{key}' not found") from None
        found: list[Keychain | None] = []
        for name in account.image_pull_secrets:
            try:
                secret = await self._store.secret(Key(key.namespace, name))
            except NotFound as error:
                raise NotFound(f"failed to get image pull secret for serviceaccount '{key}': {error}") from error
            found.append(keychain_from_secret(secret.type, secret.data))
        return found


async def proxy_of(store: Store, key: Key) -> Proxy:
    """The proxy that a Secret describes; raises NotFound or Invalid with upstream's texts."""
    try:
        secret = await store.secret(key)
    except NotFound:
        raise NotFound(f"secret '{key}' not found") from None
    return proxy_from_secret(str(key), secret.data)
