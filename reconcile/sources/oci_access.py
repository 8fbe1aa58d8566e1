"""How an OCIRepository logs in: pull Secrets first, a cloud's login only where there is none, as Flux does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconcile.api.source import OCIRepositorySpec
from reconcile.errors import Failed, ReconcileError, Stalled
from reconcile.net.tls import Tls
from reconcile.registry.access import RegistryAccess, Wanted
from reconcile.registry.client import RegistryClient
from reconcile.registry.names import Repository
from reconcile.registry.pool import GENERIC
from reconcile.sources.base import SourcePass
from reconcile.sources.summary import FETCH_FAILED

IDENTITY_GATE = "ObjectLevelWorkloadIdentity"
AUTHENTICATION_FAILED = "AuthenticationFailed"


async def login(work: SourcePass, access: RegistryAccess, repository: Repository, gates: Mapping[str, bool]) -> RegistryClient:
    """A client with everything the object asks for.

    Raises:
        Stalled: `FeatureGateDisabled`.
        Failed: `AuthenticationFailed`, with the condition FetchFailed.
    """
    spec: OCIRepositorySpec = work.spec
    wanted = Wanted(
        namespace=work.key.namespace,
        provider=spec.provider,
        secret=spec.secret_ref,
        account=spec.service_account_name,
        certificates=spec.cert_secret_ref,
        proxy=spec.proxy_secret_ref,
        insecure=bool(spec.insecure),
    )
    try:
        keychain = await access.keychain(wanted)
        if wanted.provider != GENERIC and await access.has_credentials(wanted):
            wanted = replace(wanted, provider=GENERIC)
    except ReconcileError as error:
        raise _failed(work, f"failed to get credential: {error}") from error
    if wanted.provider != GENERIC and wanted.account:
        _check_identity(work, gates)
    try:
        tls, proxy = await access.tls(wanted), await access.proxy(wanted)
        if wanted.insecure and wanted.certificates is None:
            tls = Tls(unchecked=True)
    except ReconcileError as error:
        raise _failed(work, f"failed to generate transport for '{spec.url}': {error}") from error
    try:
        return await access.client(repository, wanted, keychain=keychain, tls=tls, proxy=proxy)
    except ReconcileError as error:
        raise _failed(work, f"failed to get credential: {error}") from error


def _check_identity(work: SourcePass, gates: Mapping[str, bool]) -> None:
    """Raise: an identity of the object's own in a cloud is not to be had."""
    if not gates.get(IDENTITY_GATE, False):
        raise Stalled(
            "FeatureGateDisabled",
            "to use spec.serviceAccountName for provider authentication please enable the "
            f"{IDENTITY_GATE} feature gate in the controller",
        )
    raise _failed(
        work,
        f"failed to get credential from {work.spec.provider}: spec.serviceAccountName for cloud providers is not supported yet; "
        "remove it to use the identity of the controller",
    )


def _failed(work: SourcePass, text: str) -> Failed:
    return work.failed(FETCH_FAILED, Failed(AUTHENTICATION_FAILED, text))
