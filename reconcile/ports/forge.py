"""Forge: change requests (pull requests, merge requests) and commits through the API of GitHub, GitLab, Gitea or Forgejo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from reconcile.errors import ReconcileError


class AccessRefused(ReconcileError):
    """The credentials are refused, or do not allow what was asked."""


class RateLimited(ReconcileError):
    """The forge asks for patience: `after` seconds."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


class RequestState(StrEnum):
    """What became of a request."""

    OPEN = "Open"
    MERGED = "Merged"
    """By whatever way: merge, squash, rebase."""
    CLOSED = "Closed"
    """Without being merged."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request should look like.

    Attributes:
        title: one line.
        body: Markdown.
        labels: names, created where the forge knows them not; those that people add stay.
        reviewers: logins; `team:NAME` is a team or group. Asked once, when the request is opened.
        draft: whether it is opened as a draft. A request that people made ready stays so.
    """

    title: str
    body: str
    labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    draft: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the forge has it.

    Attributes:
        number: as people say it (`#7`, `!7`).
        url: for people.
        state: open, merged or closed.
        branch: branch that is asked to be merged.
        base: branch to merge into.
        head: commit of `branch` that the forge knows.
        merge_commit: commit on `base` that brought it, when merged and told.
        warnings: what the forge would not do for it, for people: a reviewer who may not be asked, a draft that it does not have.
            Known right after `open` alone.
        title: as it is now, without the word by which GitLab and Gitea know a draft.
        body: as it is now.
        labels: as they are now.
        draft: whether it is a draft.
    """

    number: int
    url: str
    state: RequestState
    branch: str
    base: str
    head: str
    title: str
    body: str
    labels: tuple[str, ...] = ()
    draft: bool = False
    merge_commit: str = ""
    warnings: tuple[str, ...] = ()


class Merge(StrEnum):
    """What the wish for a merge led to."""

    DONE = "Done"
    """Merged at once: nothing stood in the way."""
    SET = "Set"
    """The forge merges by itself when all checks have passed."""
    WAITING = "Waiting"
    """The forge cannot do it by itself and checks have not passed: ask again later."""


class Forge(Protocol):
    """One repository on one forge, with credentials. Every method costs a bounded number of requests, none of them loops.

    Raises:
        ReconcileError: a text for people that names forge, repository and what to do, never a credential; `NotFound` for a
            repository or request that is not there, `AccessRefused`, `RateLimited`, `Conflict` when a branch is not where it was
            expected or the same request exists already, `Invalid` for what the forge will never accept.
    """

    @property
    def name(self) -> str:
        """For messages: `github.com/acme/fleet`."""
        ...

    async def find(self, branch: str, base: str) -> Request | None:
        """The open request from `branch` into `base`, else the newest that was closed or merged; None: there never was one."""
        ...

    async def get(self, number: int) -> Request:
        """One request; unchanged answers cost no quota where the forge has conditional requests."""
        ...

    async def open(self, branch: str, base: str, wanted: Wanted) -> Request:
        """Open a request; the branch is there already.

        One that is open already is completed and returned, so that asking again after a crash opens no second one.
        """
        ...

    async def update(self, request: Request, wanted: Wanted) -> Request:
        """Bring title, body and missing labels in line; no request is sent when they are."""
        ...

    async def comment(self, number: int, text: str) -> None:
        """Say something under the request, in Markdown."""
        ...

    async def close(self, number: int) -> None:
        """Close without merging; closed ones stay as they are."""
        ...

    async def merge_when_checks_pass(self, request: Request) -> Merge:
        """Have it merged once its checks pass, only if its head is still `request.head`.

        A request without any check is merged once the forge has had a minute to begin some. Ask again until it is merged.

        Raises:
            Conflict: its head is elsewhere, or it was closed.
        """
        ...

    async def commit(self, branch: str, expected: str, files: Mapping[str, bytes], message: str) -> str:
        """Commit new contents of files, by path, on top of `expected`, the head of `branch`; the forge signs. The commit's id.

        A branch that is not there is made at `expected` first. Resetting the branch of an open request to its base closes the
        request at GitHub: commit to a branch of another name and push that commit to the request's branch instead.

        Raises:
            Conflict: the branch is elsewhere.
            Invalid: this forge has no such call.
        """
        ...
