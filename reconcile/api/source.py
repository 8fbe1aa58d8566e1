"""Kinds of `source.toolkit.fluxcd.io`: where files come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from reconcile.api.duration import Duration, GoDuration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus, LocalReference
from reconcile.api.scheme import KindInfo, PrinterColumn

GROUP = "source.toolkit.fluxcd.io"


class GitReference(ApiModel):
    """Which commit of a Git repository; `commit` wins over `name` over `semver` over `tag` over `branch`."""

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


class GitRepositorySpec(CommonSpec):
    """Spec of a GitRepository."""

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
    git_implementation: str | None = None
    """Accepted from old manifests, without effect."""
    access_from: dict[str, Any] | None = None
    """Accepted from old manifests, without effect."""


class GitRepositoryStatus(CommonStatus):
    """Status of a GitRepository; image automation reads only its spec."""


GIT_REPOSITORY = KindInfo(
    group=GROUP,
    kind="GitRepository",
    plural="gitrepositories",
    versions=("v1", "v1beta2", "v1beta1"),
    spec=GitRepositorySpec,
    status=GitRepositoryStatus,
    short_names=("gitrepo",),
    categories=("all", "fluxcd", "fluxcd-sources"),
    columns=(
        PrinterColumn("URL", ".spec.url"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        PrinterColumn("Status", '.status.conditions[?(@.type=="Ready")].message'),
    ),
    controller="source-controller",
)
