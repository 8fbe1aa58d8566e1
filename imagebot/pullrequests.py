"""Pull requests in an ImageUpdateAutomation: what is asked for, and what is known of each. All Extensions; data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reconcile.api.crd import without_default
from reconcile.api.meta import ApiModel, LocalReference

MAX_LABELS = 20
MAX_REVIEWERS = 20

Label = Annotated[str, Field(min_length=1, max_length=50)]
Reviewer = Annotated[str, Field(min_length=1, max_length=100)]
_MOMENT = {"format": "date-time"}


class PullRequestSpec(ApiModel):
    """How changes are proposed."""

    provider: Literal["github", "gitlab", "gitea"]
    """Kind of the forge; gitea is Forgejo too."""
    secret_ref: LocalReference
    """Secret with `token`, or with the keys of a GitHub App: githubAppID, githubAppPrivateKey, githubAppInstallationID or
    githubAppInstallationOwner, githubAppBaseURL; `ca.crt` as needed."""
    address: Annotated[str, Field(pattern=r"^https?://.*$", max_length=2048)] | None = None
    """Address of the API; derived from the URL of the GitRepository when unset."""
    base: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Branch to merge into; that of the checkout when unset."""
    when: Annotated[Literal["Always", "PushRefused"], Field(json_schema_extra=without_default)] = "Always"
    """Always: changes are only ever proposed. PushRefused: they are pushed, and proposed where the branch is protected; Always
    when unset."""
    group_by: Annotated[Literal["automation", "policy"], Field(json_schema_extra=without_default)] = "automation"
    """What one request brings: all that is due, or the changes of one policy; automation when unset."""
    title: Annotated[str, Field(max_length=2048)] | None = None
    """Go template of the title, with the data of the commit message."""
    body: Annotated[str, Field(max_length=16384)] | None = None
    """Go template of what stands above the table of changes, with the data of the commit message."""
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] | None = None
    """Labels that requests get; made where they do not exist."""
    reviewers: Annotated[list[Reviewer], Field(max_length=MAX_REVIEWERS)] | None = None
    """Who is asked to review: login names, `team:NAME` for a team."""
    draft: bool | None = None
    """Open as a draft."""
    auto_merge: Annotated[Literal["Never", "WhenChecksPass"], Field(json_schema_extra=without_default)] = "Never"
    """Whether requests are merged without a person once their checks pass; Never when unset."""
    max_open: Annotated[int, Field(ge=1, le=50)] | None = None
    """Most requests that are open at a time; the others wait. No more than 50 when unset."""
    commit_through: Annotated[Literal["Git", "API"], Field(json_schema_extra=without_default)] = "Git"
    """Git: commits are pushed. API: GitHub makes and signs them (createCommitOnBranch), so that they are verified without a key;
    Git when unset."""


class ForgeReference(ApiModel):
    """Where the open pull requests are, so that they can be closed when the spec does not say it any more."""

    provider: Literal["github", "gitlab", "gitea"]
    """Kind of the forge."""
    secret_ref: LocalReference
    """Secret with the credentials."""
    address: str | None = None
    """Address of the API, where the spec has one."""


class PullRequestStatus(ApiModel):
    """What is known of one pull request."""

    group: str
    """Name of the policy whose changes it brings; empty: all of the automation."""
    branch: str
    """Branch that is asked to be merged."""
    base: str
    """Branch to merge into."""
    number: int | None = None
    """Its number; none as long as it could not be opened."""
    url: str | None = None
    """Where people find it."""
    state: Literal["Pending", "Open", "Waiting", "Merged", "Closed", "Superseded", "Foreign"]
    """Pending: not opened yet. Waiting: for room under maxOpen. Closed: by a person, who is understood to decline these changes.
    Foreign: people committed to the branch, so it is left to them."""
    head: str | None = None
    """Commit that we pushed to the branch last."""
    base_commit: str | None = None
    """Commit of the base that it was built on."""
    changes: str | None = None
    """Checksum of what it changes."""
    images: list[str] | None = None
    """What it brings, as `policy: image`, at most 50."""
    message: str | None = None
    """What people should know."""
    updated: Annotated[str, Field(json_schema_extra=_MOMENT)] | None = None
    """When it last changed."""
