"""How an ImageRepository reaches its registry: credentials, trust and proxy out of the objects it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imagebot.api import ImageRepository
from reconcile.errors import Failed, ReconcileError, Stalled
from reconcile.ports.store import Store
from reconcile.registry.access import RegistryAccess, Wanted
from reconcile.registry.client import RegistryClient
from reconcile.registry.keychain import Keychain, chain
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
        self._access = RegistryAccess(store, pool, default_keychain)

    async def client(self, resource: ImageRepository, repository: Repository) -> RegistryClient:
        """A client with everything the object asks for; raises Failed `AuthenticationFailed`."""
        spec = resource.spec
        cloud = spec.provider != "generic"
        if cloud and spec.service_account_name:
            raise Failed(
                "AuthenticationFailed",
                "failed to configure authentication options: spec.serviceAccountName for cloud providers is not supported yet; "
                "remove it to use the identity of the controller",
            )
        wanted = Wanted(
            namespace=resource.key.namespace,
            provider=spec.provider,
            secret=spec.secret_ref,
            account=spec.service_account_name,
            certificates=spec.cert_secret_ref,
            proxy=spec.proxy_secret_ref,
            insecure=bool(spec.insecure),
        )
        access = self._access
        try:
            # The client fetches cloud credentials itself, pull secrets do not count.
            keychain = chain() if cloud else await access.keychain(wanted)
            tls, proxy = await access.tls(wanted), await access.proxy(wanted)
            return await access.client(repository, wanted, keychain=keychain, tls=tls, proxy=proxy)
        except ReconcileError as error:
            raise Failed("AuthenticationFailed", f"failed to configure authentication options: {error}") from error
