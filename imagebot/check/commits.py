"""What can be wrong with how automations commit: waits without effect, commits that cannot be shared, pull requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from imagebot.check import findings as rules
from imagebot.check.findings import Finding
from imagebot.check.manifests import Manifest, Manifests
from imagebot.check.relations import Automation, checked_out, url_of
from reconcile.api.duration import format_duration

_PULL_REQUEST = "spec.git.push.pullRequest"
_COMMIT = "spec.git.commit"


def check_commits(manifests: Manifests, automations: Sequence[Automation]) -> Iterator[Finding]:
    """The findings about the commits, and those of automations that write to the same branch."""
    branches: dict[object, list[Automation]] = {}
    for automation in automations:
        git = _git(automation.manifest)
        if git is None:
            continue
        yield from _waits(automation.manifest, git.commit)
        if git.push is not None and git.push.pull_request is not None:
            yield from _pull_request(manifests, automation, git.push)
        elif automation.branch:
            branches.setdefault((url_of(automation, manifests), automation.branch), []).append(automation)
    for together in branches.values():
        if any(_git(each.manifest).commit.quiet_period for each in together):
            yield from _shared(together)


def _git(manifest: Manifest) -> Any:
    return manifest.resource.spec.git if manifest.resource is not None else None


# --- waits


def _waits(manifest: Manifest, commit: Any) -> Iterator[Finding]:
    where = f"{_COMMIT}.maxWait"
    if commit.max_wait is not None and not commit.quiet_period:
        text = "without quietPeriod nothing waits, so maxWait has no effect"
        yield manifest.finding(rules.DOUBTFUL_WAIT, where, text, at_key=True)
    elif commit.max_wait is not None and commit.max_wait < commit.quiet_period:
        quiet, most = format_duration(commit.quiet_period), format_duration(commit.max_wait)
        text = f"nothing waits for longer than maxWait {most}, so a quietPeriod of {quiet} never comes to its end"
        yield manifest.finding(rules.DOUBTFUL_WAIT, where, text)


_COMMON: tuple[tuple[str, Callable[[Any], object]], ...] = (
    ("author", lambda commit: (commit.author.name or "", commit.author.email)),
    ("signingKey", lambda commit: commit.signing_key and (commit.signing_key.secret_ref.name, commit.signing_key.type)),
    ("messageTemplate", lambda commit: commit.message_template or ""),
    ("messageTemplateValues", lambda commit: commit.message_template_values or {}),
    ("trailers", lambda commit: bool(commit.trailers)),
)
"""What automations must have in common to share a commit."""


def _shared(automations: Sequence[Automation]) -> Iterator[Finding]:
    """What keeps automations of a branch from one commit, each seen beside the first that waits."""
    first = next(each for each in automations if _git(each.manifest).commit.quiet_period)
    mine = _git(first.manifest).commit
    for other in automations:
        if other is first:
            continue
        theirs, manifest = _git(other.manifest).commit, other.manifest
        beside = f"{first.manifest.subject} ({first.manifest.place}), which writes to branch {first.branch} too"
        different = [name for name, part in _COMMON if part(mine) != part(theirs)]
        # A key is a Secret of the automation's own namespace.
        if mine.signing_key and theirs.signing_key and manifest.key.namespace != first.manifest.key.namespace:
            different = list(dict.fromkeys([*different, "signingKey"]))
        if different:
            text = f"{_and(different)} {'is' if len(different) == 1 else 'are'} not as in {beside}: each makes commits of its own"
            yield manifest.finding(rules.SEPARATE_COMMITS, _COMMIT, text, at_key=True)
        elif not theirs.quiet_period:
            text = f"it has no quietPeriod, unlike {beside}"
            yield manifest.finding(
                rules.SEPARATE_COMMITS, _COMMIT, text, "Give both the same quietPeriod and maxWait.", at_key=True
            )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# --- pull requests


def _pull_request(manifests: Manifests, automation: Automation, push: Any) -> Iterator[Finding]:
    manifest, asked = automation.manifest, push.pull_request
    if asked.commit_through == "API" and asked.provider != "github":
        text = f"commitThrough API is for provider github; {asked.provider} has no such call"
        yield manifest.finding(
            rules.INVALID_PULL_REQUEST, f"{_PULL_REQUEST}.commitThrough", text, "Leave it out: commits are then pushed with git."
        )
    if push.refspec:
        text = "a refspec cannot be pushed together with pull requests"
        yield manifest.finding(rules.INVALID_PULL_REQUEST, "spec.git.push.refspec", text, "Leave out one of the two.")
    repository = manifests.get("GitRepository", automation.repository)
    if asked.base is None and (repository is None or repository.resource is None):
        return
    base = asked.base or checked_out(manifest, repository)
    if not base:
        text = "what is checked out is no branch, so it is not known what to merge into"
        yield manifest.finding(rules.INVALID_PULL_REQUEST, _PULL_REQUEST, text, "Give base.", at_key=True)
    elif push.branch == base:
        text = f"{base} is the branch to merge into, so no request can be made of it"
        yield manifest.finding(rules.INVALID_PULL_REQUEST, "spec.git.push.branch", text, "Name another branch, or leave it out.")
