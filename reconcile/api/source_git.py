"""GitRepository: files of a commit. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from reconcile.api.crd import ServedKind, validations
from reconcile.api.duration import Duration, GoDuration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, LocalReference
from reconcile.api.source_common import (
    AGE,
    CATEGORIES,
    CONTROLLER,
    GROUP,
    MESSAGE,
    READY,
    URL,
    AccessFrom,
    Artifact,
    SourceStatus,
)


class GitReference(ApiModel):
    """Which commit of a Git repository; `commit` wins over `name` over `tag` over `semver` over `branch`."""

    branch: str | None = None
    """Branch; master when nothing else is given."""
    tag: str | None = None
    """Tag."""
    semver: str | None = None
    """SemVer range over the tags."""
    name: str | None = None
    """Full name of a reference, for example refs/heads/main."""
    commit: str | None = None
    """Commit hash."""


class GitVerification(ApiModel):
    """How signatures of commits and tags are checked."""

    mode: Literal["head", "HEAD", "Tag", "TagAndHEAD"] = "HEAD"
    """What must be signed: the commit, the tag or both."""
    secret_ref: LocalReference
    """Secret with the public keys of trusted authors."""


class GitInclude(ApiModel):
    """Another GitRepository whose artifact is put into this one."""

    repository: LocalReference
    """The included GitRepository."""
    from_path: str | None = None
    """Path in the included artifact; its root if empty."""
    to_path: str | None = None
    """Path in this artifact; the name of the repository if empty."""


ACCOUNT_WITHOUT_CLOUD = "serviceAccountName can only be set when provider is 'azure' or 'aws'"
_ACCOUNT_RULE = "!has(self.serviceAccountName) || (has(self.provider) && (self.provider == 'azure' || self.provider == 'aws'))"


class GitRepositorySpec(CommonSpec):
    """Spec of a GitRepository."""

    model_config = ConfigDict(json_schema_extra=validations((_ACCOUNT_RULE, ACCOUNT_WITHOUT_CLOUD)))

    url: Annotated[str, Field(pattern=r"^(http|https|ssh)://.*$")]
    """Address of the repository: http, https or ssh."""
    secret_ref: LocalReference | None = None
    """Secret with the credentials."""
    provider: Literal["generic", "aws", "azure", "github"] | None = None
    """Where credentials come from; generic when unset."""
    service_account_name: str | None = None
    """ServiceAccount for workload identity."""
    interval: Duration
    """How often the repository is looked at."""
    timeout: ShortDuration = GoDuration("60s")
    """Limit of one Git operation."""
    ref: GitReference | None = None
    """Which commit; branch master when unset."""
    verify: GitVerification | None = None
    """Check of signatures."""
    proxy_secret_ref: LocalReference | None = None
    """Secret with the proxy."""
    ignore: str | None = None
    """Patterns to leave out, in the syntax of .gitignore."""
    recurse_submodules: bool | None = None
    """Fetch submodules too."""
    include: list[GitInclude] | None = None
    """Other GitRepositories to include."""
    sparse_checkout: list[str] | None = None
    """Only these directories."""
    git_implementation: Literal["go-git", "libgit2"] | None = None
    """Accepted from old manifests, without effect."""
    access_from: AccessFrom | None = None
    """Accepted from old manifests, without effect."""

    @model_validator(mode="after")
    def _account_fits(self) -> Self:
        if self.service_account_name is not None and self.provider not in {"azure", "aws"}:
            raise ValueError(ACCOUNT_WITHOUT_CLOUD)
        return self


class GitRepositoryStatus(SourceStatus):
    """Status of a GitRepository; image automation reads only its spec."""

    included_artifacts: list[Artifact] | None = None
    """The artifacts of other GitRepositories that are in it."""
    observed_ignore: str | None = None
    """Patterns that were left out of the artifact."""
    observed_include: list[GitInclude] | None = None
    """What was included in the artifact."""
    observed_recurse_submodules: bool | None = None
    """Whether the artifact has the submodules."""
    observed_sparse_checkout: list[str] | None = None
    """The directories that the artifact was limited to."""
    source_verification_mode: str | None = None
    """What was found to be signed."""


GIT_REPOSITORY = ServedKind(
    group=GROUP,
    kind="GitRepository",
    plural="gitrepositories",
    versions=("v1", "v1beta2", "v1beta1"),
    spec=GitRepositorySpec,
    status=GitRepositoryStatus,
    short_names=("gitrepo",),
    categories=CATEGORIES,
    columns=(URL, AGE, READY, MESSAGE),
    older_columns=(("v1beta1", (URL, READY, MESSAGE, AGE)),),
    description="A GitRepository is a Git repository and the commit in it that is meant.",
    controller=CONTROLLER,
)
