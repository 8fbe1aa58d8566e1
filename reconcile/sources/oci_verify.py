"""Signatures of an OCIRepository: what `spec.verify` asks for, with the keys and roots that it names."""

from __future__ import annotations

import asyncio

from reconcile.api.meta import Key
from reconcile.api.source import OCIVerification
from reconcile.errors import Invalid, ReconcileError
from reconcile.ports.store import Store
from reconcile.registry.client import RegistryClient
from reconcile.sources.cosign import NotVerified, verify_keyless, verify_with_keys
from reconcile.sources.cosign_keyless import Identities, keyless
from reconcile.sources.cosign_keys import public_keys
from reconcile.sources.oci_resolve import Target

TRUSTED_ROOT = "trusted_root.json"


class NotSupported(ReconcileError):
    """The signature system is not one that we can check."""


class Verifier:
    """Checks signatures; reads keys and trusted roots from Secrets."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def verify(self, client: RegistryClient, target: Target, wanted: OCIVerification, namespace: str) -> None:
        """Return if the image is signed as `wanted` says.

        Raises:
            NotVerified: it is not.
            NotSupported: the provider is `notation`.
            ReconcileError: a Secret is missing or cannot be read, or the registry failed.
        """
        if wanted.provider != "cosign":
            raise NotSupported(
                f"signatures of {wanted.provider} cannot be checked here, so nothing that needs one is used; "
                "sign with cosign and set spec.verify.provider to cosign, or remove spec.verify"
            )
        if wanted.secret_ref is not None:
            await self._with_keys(client, target, Key(namespace, wanted.secret_ref.name))
        else:
            await self._keyless(client, target, wanted, namespace)

    async def _with_keys(self, client: RegistryClient, target: Target, secret: Key) -> None:
        keys = public_keys((await self._store.secret(secret)).data)
        if not keys:
            raise NotVerified(
                f"no matching signatures were found for '{target}': the secret '{secret}' has no key whose name ends in .pub"
            )
        await verify_with_keys(client, target, keys)

    async def _keyless(self, client: RegistryClient, target: Target, wanted: OCIVerification, namespace: str) -> None:
        root: bytes | None = None
        if wanted.trusted_root_secret_ref is not None:
            key = Key(namespace, wanted.trusted_root_secret_ref.name)
            root = (await self._store.secret(key)).data.get(TRUSTED_ROOT)
            if not root:
                raise Invalid(f"secret '{key}': key '{TRUSTED_ROOT}' not found")
        identities = Identities(wanted.match_oidc_identity or ())
        checker = await asyncio.to_thread(keyless, root)
        await verify_keyless(client, target, checker, identities)
