"""Where an automation reads and writes: the GitRepository it names, credentials, references, signing key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagebot.api import ImageUpdateAutomation
from imagebot.scan.access import IDENTITY_GATE
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.errors import Failed, Invalid, NotFound, ReconcileError, Stalled
from reconcile.git.auth import GitCredentials, credentials_from_secret, proxy_url
from reconcile.git.signing import gpg_signer_from_secret, ssh_signer_from_secret
from reconcile.git.types import Reference, Signer, parse_refspec
from reconcile.ports.store import Store
from reconcile.registry.access import proxy_of
from reconcile.sources.git_access import APP_KEYS, CloudLogin, logged_in

CLOUDS = ("azure", "aws")
PREFIX = "failed configuring source manager: "
NO_PUSH_BRANCH = "push spec not provided, and cannot be inferred from .spec.git.checkout.ref or GitRepository .spec.ref"
MAX_SIGNERS = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that a run needs to know about its repository, checked. `timeout` is for one Git operation, in seconds."""

    url: str
    credentials: GitCredentials
    timeout: float
    reference: Reference
    push_branch: str
    refspec: tuple[str, str, bool] | None
    """A further refspec: its text, the reference it moves, and whether it may move it other than forward."""
    options: tuple[str, ...]
    signer: Signer | None

    @property
    def same_branch(self) -> bool:
        """Whether what is read by branch is what is pushed to. Full names count too: `refs/heads/main` is `main`."""
        reference = self.reference
        if reference.commit or (reference.semver and not reference.name):
            return False
        if reference.name:
            return reference.name == f"refs/heads/{self.push_branch}"
        return not reference.tag and (reference.branch or "master") == self.push_branch


class Sources:
    """Builds a `Source` out of the objects in the store; `logins` by the name of the provider that a GitRepository names."""

    def __init__(
        self,
        store: Store,
        gates: Mapping[str, bool],
        logins: Mapping[str, CloudLogin] | None = None,
        *,
        no_cross_namespace_refs: bool = False,
    ) -> None:
        self._store = store
        self._gates = gates
        self._logins = dict(logins or {})
        self._no_cross_namespace_refs = no_cross_namespace_refs
        self._signers: dict[tuple[str, int], Signer] = {}

    async def find(self, resource: ImageUpdateAutomation) -> Source:
        """The source of an automation; raises Stalled or Failed with upstream's reasons and texts."""
        key = source_key(resource)
        if resource.spec.git is None:
            raise Stalled(
                "InvalidSourceConfiguration",
                "source kind 'GitRepository' necessitates field .spec.git: invalid source configuration",
            )
        if key.namespace != resource.key.namespace and self._no_cross_namespace_refs:
            raise Stalled("AccessDenied", f"can't access 'GitRepository/{key}', cross-namespace references have been blocked")
        try:
            repository = await self._store.get("GitRepository", key)
        except NotFound:
            raise Failed(
                "SourceManagerFailed",
                f"{PREFIX}referenced git repository does not exist: "
                f'gitrepositories.source.toolkit.fluxcd.io "{key.name}" not found',
            ) from None
        self._check_identity(repository)
        try:
            credentials = await self._credentials(repository)
            signer = await self._signer(resource)
            return self._assemble(resource, repository, credentials, signer)
        except Stalled:
            raise
        except ReconcileError as error:
            raise Failed("SourceManagerFailed", f"{PREFIX}{error}") from error

    def _assemble(
        self, resource: ImageUpdateAutomation, repository: AnyResource, credentials: GitCredentials, signer: Signer | None
    ) -> Source:
        git = resource.spec.git
        assert git is not None  # noqa: S101 - `find` refused it before
        declared = git.checkout.ref if git.checkout is not None else repository.spec.ref
        reference = Reference(
            branch=(declared and declared.branch) or "",
            tag=(declared and declared.tag) or "",
            semver=(declared and declared.semver) or "",
            name=(declared and declared.name) or "",
            commit=(declared and declared.commit) or "",
        )
        push = git.push
        branch = (push and push.branch) or ""
        if not branch:
            detached = reference.commit or reference.semver or reference.tag or reference.name
            if detached or not reference.branch:
                branch = reference.name.removeprefix("refs/heads/") if reference.name.startswith("refs/heads/") else ""
            else:
                branch = reference.branch
        if not branch:
            raise Invalid(NO_PUSH_BRANCH)
        refspec = None
        if push is not None and push.refspec:
            source, target, force = parse_refspec(push.refspec, allow_force=self._gates["GitForcePushBranch"])
            if source not in {f"refs/heads/{branch}", "HEAD", branch}:
                raise Invalid(
                    f"refspec '{push.refspec}': its source must be the branch that is pushed, refs/heads/{branch}, not {source}"
                )
            refspec = (push.refspec, target, force)
        options = tuple(f"{k}={v}" for k, v in sorted((push.options or {}).items())) if push is not None else ()
        return Source(
            repository.spec.url, credentials, float(repository.spec.timeout), reference, branch, refspec, options, signer
        )

    # --- credentials

    def _check_identity(self, repository: AnyResource) -> None:
        spec = repository.spec
        if spec.provider in CLOUDS and spec.service_account_name and not self._gates[IDENTITY_GATE]:
            raise Stalled(
                "FeatureGateDisabled",
                "to use spec.serviceAccountName in the GitRepository for provider authentication please enable the "
                f"{IDENTITY_GATE} feature gate in the controller",
            )

    async def _credentials(self, repository: AnyResource) -> GitCredentials:
        spec, namespace = repository.spec, repository.key.namespace
        data: Mapping[str, bytes] = {}
        name = ""
        if spec.secret_ref is not None:
            key = Key(namespace, spec.secret_ref.name)
            try:
                data = (await self._store.secret(key)).data
            except ReconcileError as error:
                raise NotFound(f"failed to get auth secret '{key}': {error}") from error
            name = str(key)
            self._check_github(spec.provider, key, data)
        elif spec.provider == "github":
            self._check_github(spec.provider, repository.key, data)
        proxy = None
        if spec.proxy_secret_ref is not None:
            proxy = await proxy_of(self._store, Key(namespace, spec.proxy_secret_ref.name))
        try:
            found = credentials_from_secret(spec.url, data, proxy=proxy_url(proxy) if proxy is not None else "")
            if spec.provider not in (None, "generic"):
                login = await self._login(repository).credentials(spec.url, name, data, proxy)
                found = logged_in(found, login)
        except ReconcileError as error:
            raise Invalid(f"failed to configure authentication options: {error}") from error
        return found

    def _login(self, repository: AnyResource) -> CloudLogin:
        spec = repository.spec
        if spec.provider in CLOUDS and spec.service_account_name:
            raise Invalid(
                "spec.serviceAccountName for cloud providers is not supported yet; "
                "remove it to use the identity of the controller"
            )
        if spec.provider not in self._logins:
            raise Invalid(f"provider '{spec.provider}' is not available here; use secretRef with a token or an SSH key")
        return self._logins[spec.provider]

    @staticmethod
    def _check_github(provider: str | None, key: Key, data: Mapping[str, bytes]) -> None:
        has_app = any(name in data for name in APP_KEYS)
        if provider == "github" and not has_app:
            raise Stalled(
                "InvalidSourceConfiguration",
                "secretRef with github app data must be specified when provider is set to github: invalid source configuration",
            )
        if provider != "github" and has_app:
            raise Stalled(
                "InvalidSourceConfiguration",
                f"secretRef '{key}' has github app data but provider is not set to github: invalid source configuration",
            )

    async def _signer(self, resource: ImageUpdateAutomation) -> Signer | None:
        git = resource.spec.git
        if git is None or git.commit.signing_key is None:
            return None
        name, kind = git.commit.signing_key.secret_ref.name, git.commit.signing_key.type
        try:
            secret = await self._store.secret(Key(resource.key.namespace, name))
        except NotFound as error:
            raise NotFound(f"could not find signing key secret '{name}': {error}") from error
        # Keys are parsed once per content, not once per run; the hash stands in for content that must not be kept twice.
        identity = (f"{kind}/{resource.key.namespace}/{name}", hash(tuple(sorted(secret.data.items()))))
        signer = self._signers.get(identity)
        if signer is None:
            build = ssh_signer_from_secret if kind == "ssh" else gpg_signer_from_secret
            signer = build(name, secret.data)
            while len(self._signers) >= MAX_SIGNERS:
                self._signers.pop(next(iter(self._signers)))
            self._signers[identity] = signer
        return signer


def source_key(resource: ImageUpdateAutomation) -> Key:
    """Key of the GitRepository that an automation names."""
    reference = resource.spec.source_ref
    return Key(reference.namespace or resource.key.namespace, reference.name)
