"""What the spec of an automation asks for about pull requests, checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from imagebot.api import ImageUpdateAutomation
from imagebot.bot.requests.scene import MAX_ENTRIES
from imagebot.bot.source import Source
from imagebot.pullrequests import ForgeReference, PullRequestSpec
from reconcile.errors import Invalid, Stalled
from reconcile.git.types import HEADS, Reference, check_ref

INVALID = "InvalidPullRequest"


@dataclass(frozen=True, slots=True)
class Settings:
    """One automation's requests.

    Attributes:
        spec: `spec.git.push.pullRequest`; None: there are to be no requests any more.
        where: the forge.
        base: branch to merge into.
        prefix: branch of the only group, or what the branches of the groups begin with.
    """

    spec: PullRequestSpec | None
    where: ForgeReference
    base: str
    prefix: str

    @property
    def branch(self) -> str:
        """The branch that changes are pushed to where nothing is refused: that of the requests, or the base."""
        return self.base if self.spec is not None and self.spec.when == "PushRefused" else self.prefix

    @property
    def by_policy(self) -> bool:
        """Whether each policy has a request of its own."""
        return self.spec is not None and self.spec.group_by == "policy"

    @property
    def through_api(self) -> bool:
        """Whether the forge makes the commits."""
        return self.spec is not None and self.spec.commit_through == "API"

    @property
    def max_open(self) -> int:
        """Most requests at a time."""
        return (self.spec.max_open if self.spec is not None else None) or MAX_ENTRIES


def asked(resource: ImageUpdateAutomation) -> PullRequestSpec | None:
    """`spec.git.push.pullRequest`."""
    git = resource.spec.git
    return git.push.pull_request if git is not None and git.push is not None else None


def settings_of(resource: ImageUpdateAutomation, source: Source) -> Settings | None:
    """The settings; of an automation that does not ask for requests (any more), as far as its open ones need them, else None.

    Raises:
        Stalled: `InvalidPullRequest`, for what only an edit mends.
    """
    spec, last = asked(resource), resource.status.observed_forge
    prefix = prefix_of(resource)
    if spec is None:
        if last is None:
            return None
        return Settings(None, last, base_of(source.reference) or "", prefix)
    base = spec.base or base_of(source.reference)
    where = ForgeReference(provider=spec.provider, secret_ref=spec.secret_ref, address=spec.address)
    if not base:
        raise Stalled(INVALID, "spec.git.push.pullRequest.base must be set: what is checked out is not a branch")
    for name in (base, prefix):
        try:
            check_ref(HEADS + name)
        except Invalid as error:
            raise Stalled(INVALID, f"spec.git.push: {error}") from error
    if prefix == base and spec.when == "PushRefused":
        prefix = _named_after(resource)
    if prefix == base:
        raise Stalled(
            INVALID,
            f"spec.git.push.branch is '{base}', the branch to merge into: name another one for pull requests, or leave it out",
        )
    if source.refspec is not None:
        raise Stalled(
            INVALID, "spec.git.push.refspec cannot be used together with spec.git.push.pullRequest: leave one of them out"
        )
    if spec.commit_through == "API" and spec.provider != "github":
        raise Stalled(
            INVALID, f"spec.git.push.pullRequest.commitThrough API is for provider github; '{spec.provider}' has no such call"
        )
    return Settings(spec, where, base, prefix)


def base_of(reference: Reference) -> str | None:
    """The branch that is checked out; None when it is none."""
    if reference.name:
        return reference.name.removeprefix(HEADS) if reference.name.startswith(HEADS) else None
    if reference.tag or reference.semver:
        return None
    return reference.branch or (None if reference.commit else "master")


def prefix_of(resource: ImageUpdateAutomation) -> str:
    """The branch of requests: `spec.git.push.branch`, else one that has the automation's name."""
    git = resource.spec.git
    given = git.push.branch if git is not None and git.push is not None else None
    return given or _named_after(resource)


def _named_after(resource: ImageUpdateAutomation) -> str:
    name = resource.key.name + ("-" if resource.key.name.endswith(".lock") else "")
    return f"imagebot/{resource.key.namespace}/{name}"


def proposing(resource: ImageUpdateAutomation, source: Source) -> Settings | None:
    """The settings by which what is due would be proposed for now; None: it would be pushed. Raises as `settings_of`."""
    settings = settings_of(resource, source) if asked(resource) is not None else None
    if settings is None or (settings.branch == settings.base and resource.status.push_refused_time is None):
        return None
    return settings
