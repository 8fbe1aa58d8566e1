"""How an ImageRepository reaches its registry: credentials, trust and proxy out of the objects it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imagebot.api import ImageRepository
from reconcile.api.meta import Key, LocalReference
from reconcile.errors import Failed, NotFound, ReconcileError, Stalled
from reconcile.net.proxy import Proxy, proxy_from_secret
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from reconcile.ports.store import Store
from reconcile.registry.client import RegistryClient
from reconcile.registry.keychain import Keychain, chain, keychain_from_secret
from reconcile.registry.names import InvalidImage, Repository, parse_repository
from reconcile.registry.pool import ClientPool

IDENTITY_GATE = "ObjectLevelWorkloadIdentity"


class Gates(Protocol):
    """The feature gates in force."""

    def __getitem__(self, name: str) -> bool:
        """Whether the gate is on."""
        ...


def repository_of(resource: ImageRepository) -> Repository:
    """The repository that `spec.image` names; raises Stalled `ImageURLInvalid`."""
    try:
        return parse_repository(resource.spec.image)
    except InvalidImage as error:
        raise Stalled("ImageURLInvalid", str(error)) from error


def check_identity_gate(resource: ImageRepository, gates: Mapping[str, bool], field: str = "spec.serviceAccountName") -> None:
    """Raise Stalled `FeatureGateDisabled` when a cloud identity of the object's own is asked for but not allowed."""
    if resource.spec.provider != "generic" and resource.spec.service_account_name and not gates[IDENTITY_GATE]:
        raise Stalled(
            "FeatureGateDisabled",
            f"to use {field} for provider authentication please enable the {IDENTITY_GATE} feature gate in the controller",
        )


class Access:
    """Finds the client for a repository. `default_keychain` is asked when no secret is named (a user's docker login)."""

    def __init__(self, store: Store, pool: ClientPool, default_keychain: Keychain | None = None) -> None:
        self._store = store
        self._pool = pool
        self._default = default_keychain

    async def client(self, resource: ImageRepository, repository: Repository) -> RegistryClient:
        """A client with everything the object asks for; raises Failed `AuthenticationFailed`."""
        if resource.spec.provider != "generic" and resource.spec.service_account_name:
            raise Failed(
                "AuthenticationFailed",
                "failed to configure authentication options: spec.serviceAccountName for cloud providers is not supported yet; "
                "remove it to use the identity of the controller",
            )
        try:
            keychain, tls, proxy = await self._keychain(resource), await self._tls(resource), await self._proxy(resource)
            return await self._pool.client(
                repository,
                keychain=keychain,
                tls=tls,
                proxy=proxy,
                insecure=bool(resource.spec.insecure),
                provider=resource.spec.provider,
            )
        except ReconcileError as error:
            raise Failed("AuthenticationFailed", f"failed to configure authentication options: {error}") from error

    async def _keychain(self, resource: ImageRepository) -> Keychain:
        if resource.spec.provider != "generic":
            return chain()  # the client fetches cloud credentials itself, pull secrets do not count
        namespace, spec = resource.key.namespace, resource.spec
        if spec.secret_ref is None and spec.service_account_name is None:
            return chain(self._default)
        found: list[Keychain | None] = []
        if spec.secret_ref is not None:
            secret = await self._store.secret(Key(namespace, spec.secret_ref.name))
            found.append(keychain_from_secret(secret.type, secret.data))
        if spec.service_account_name is not None:
            found += await self._pull_secrets(Key(namespace, spec.service_account_name))
        return chain(*found)

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

    async def _tls(self, resource: ImageRepository) -> Tls:
        reference: LocalReference | None = resource.spec.cert_secret_ref
        if reference is None:
            return DEFAULT
        key = Key(resource.key.namespace, reference.name)
        return tls_from_secret(str(key), (await self._store.secret(key)).data)

    async def _proxy(self, resource: ImageRepository) -> Proxy | None:
        reference: LocalReference | None = resource.spec.proxy_secret_ref
        if reference is None:
            return None
        return await proxy_of(self._store, Key(resource.key.namespace, reference.name))


async def proxy_of(store: Store, key: Key) -> Proxy:
    """The proxy that a Secret describes; raises NotFound or Invalid with upstream's texts."""
    try:
        secret = await store.secret(key)
    except NotFound:
        raise NotFound(f"secret '{key}' not found") from None
    return proxy_from_secret(str(key), secret.data)
