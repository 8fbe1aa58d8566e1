"""How a GitRepository reaches its remote: checked URL, credentials and proxy out of the objects that it names.

Reasons and texts of failures are those of Flux's source-controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, Invalid, NotFound, ReconcileError, Stalled
from reconcile.git.auth import GitCredentials, credentials_from_secret, parse_remote, proxy_url
from reconcile.net.proxy import Proxy
from reconcile.ports.store import Store
from reconcile.registry.access import proxy_of

IDENTITY_GATE = "ObjectLevelWorkloadIdentity"
APP_KEYS = ("githubAppID", "githubAppPrivateKey", "githubAppInstallationID", "githubAppInstallationOwner")
"""Keys of a Secret that make it one of a GitHub App."""

AUTHENTICATION_FAILED = "AuthenticationFailed"
INVALID_PROVIDER = "InvalidProviderConfiguration"


class CloudLogin(Protocol):
    """Short-lived credentials of one provider."""

    async def credentials(self, url: str, secret: str, data: Mapping[str, bytes], proxy: Proxy | None) -> GitCredentials:
        """Credentials for `url`, without certificates and proxy; `secret` names the Secret that `data` comes from.

        Raises ReconcileError with a text for people.
        """
        ...


class GitAccess:
    """Finds credentials; the clouds and GitHub by `logins`, by the name of the provider."""

    def __init__(self, store: Store, gates: Mapping[str, bool], logins: Mapping[str, CloudLogin] | None = None) -> None:
        self._store = store
        self._gates = gates
        self._logins = dict(logins or {})

    async def credentials(self, resource: AnyResource) -> GitCredentials:
        """The credentials of a repository, proxy included.

        Raises Failed or Stalled: URLInvalid, AuthenticationFailed, InvalidProviderConfiguration, FeatureGateDisabled.
        """
        spec = resource.spec
        self._check(resource)
        proxy = await self._proxy(resource)
        try:
            parse_remote(spec.url, allow_file=True)
        except Invalid as error:
            raise Stalled("URLInvalid", f"failed to parse url '{spec.url}': {error}") from None
        secret, data = await self._secret(resource)
        if spec.provider not in (None, "generic") and spec.provider not in self._logins:
            text = f"provider '{spec.provider}' is not available here; use secretRef with a token or an SSH key"
            raise Failed(INVALID_PROVIDER, text)
        try:
            found = credentials_from_secret(spec.url, data, proxy=proxy_url(proxy) if proxy is not None else "")
            if found.bearer_token and urlsplit(spec.url).username:
                raise Invalid("the URL has a user although 'bearerToken' is set: use one of them")
            if spec.provider not in (None, "generic"):
                found = logged_in(found, await self._logins[spec.provider].credentials(spec.url, secret, data, proxy))
        except ReconcileError as error:
            raise Failed(AUTHENTICATION_FAILED, f"failed to configure authentication options: {error}") from error
        return found

    def _check(self, resource: AnyResource) -> None:
        spec = resource.spec
        if spec.provider == "github" and spec.secret_ref is None:
            raise Stalled(INVALID_PROVIDER, "secretRef with github app data must be specified when provider is set to github")
        if spec.service_account_name and spec.provider in ("azure", "aws"):
            if not self._gates.get(IDENTITY_GATE, False):
                raise Stalled(
                    "FeatureGateDisabled",
                    "to use spec.serviceAccountName for provider authentication please enable the "
                    f"{IDENTITY_GATE} feature gate in the controller",
                )
            raise Failed(
                AUTHENTICATION_FAILED,
                "failed to configure authentication options: spec.serviceAccountName for cloud providers is not supported yet; "
                "remove it to use the identity of the controller",
            )

    async def _proxy(self, resource: AnyResource) -> Proxy | None:
        reference = resource.spec.proxy_secret_ref
        if reference is None:
            return None
        try:
            return await proxy_of(self._store, Key(resource.key.namespace, reference.name))
        except ReconcileError as error:
            raise Failed(AUTHENTICATION_FAILED, f"failed to configure proxy options: {error}") from error

    async def _secret(self, resource: AnyResource) -> tuple[str, Mapping[str, bytes]]:
        spec = resource.spec
        if spec.secret_ref is None:
            return "", {}
        key = Key(resource.key.namespace, spec.secret_ref.name)
        try:
            data = (await self._store.secret(key)).data
        except NotFound as error:
            twice = f"failed to get secret '{key}': "
            raise Failed(AUTHENTICATION_FAILED, f"{twice}{twice}{error}") from error
        except ReconcileError as error:
            raise Failed(AUTHENTICATION_FAILED, f"failed to get secret '{key}': {error}") from error
        has_app = any(name in data for name in APP_KEYS)
        if spec.provider == "github" and not has_app:
            raise Failed(INVALID_PROVIDER, "secretRef with github app data must be specified when provider is set to github")
        if spec.provider != "github" and has_app:
            raise Failed(INVALID_PROVIDER, f"secretRef '{key}' has github app data but provider is not set to github")
        return str(key), data


def logged_in(found: GitCredentials, login: GitCredentials) -> GitCredentials:
    """The credentials that a Secret holds, with user and token of a login in place of its own. Pure."""
    # A new token is no new mirror, but other certificates or another proxy may lead to another server.
    identity = f"{login.identity} {replace(found, username='', password='', bearer_token='').digest()}"
    return replace(found, username=login.username, password=login.password, bearer_token=login.bearer_token, identity=identity)


def for_module(parent: str, credentials: GitCredentials, url: str) -> GitCredentials:
    """What a submodule at `url` is fetched with: the parent's credentials if it is on the same server, reached the same way.

    Elsewhere only what is no secret of the parent's: its proxy, and for ssh nothing, as every server needs a key. Pure.
    """
    ours, user, _ = parse_remote(parent, allow_file=True)
    theirs, their_user, _ = parse_remote(url, allow_file=True)
    if (ours.scheme, ours.origin) == (theirs.scheme, theirs.origin):
        if user and not their_user and not credentials.username and not credentials.bearer_token and ours.scheme != "ssh":
            return replace(credentials, username=user, password=parse_remote(parent, allow_file=True)[2])
        return credentials
    return GitCredentials(proxy=credentials.proxy)
