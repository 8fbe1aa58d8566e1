"""What a test sees of a fake forge, whichever it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

from tests.support.gitrepo import BareRepository, Files

BOT = "fleet-bot"
PEOPLE = ("alice", "bob")
TEAMS = ("platform",)
NONE: Mapping[str, Any] = MappingProxyType({})
Headers = Mapping[str, str]


@dataclass
class FakeRequest:
    """A request as the forge keeps it. `state`: open, merged, closed. `comments`: author and text.

    `fork`: whether its branch is one of a fork that has the same name.
    """

    number: int
    branch: str
    base: str
    head: str
    title: str
    body: str
    created: datetime
    updated: datetime
    draft: bool = False
    state: str = "open"
    author: str = BOT
    labels: list[str] = field(default_factory=list)
    reviewers: list[str] = field(default_factory=list)
    teams: list[str] = field(default_factory=list)
    comments: list[tuple[str, str]] = field(default_factory=list)
    merge_commit: str = ""
    merged_how: str = ""
    auto_merge: str = ""
    approvals: list[str] = field(default_factory=list)
    fork: bool = False


class FakeForge(Protocol):
    """A forge for tests, and people who work there. Its methods may be called from the test's thread at any time.

    Attributes:
        provider: github, gitlab, gitea.
        repository: what it keeps; commits may be made there directly.
        token: what its API takes.
        requests: by number.
        default_how: how auto-merge merges.
        problems: what callers did against the documentation; a test asserts at its end that there is nothing.
        delete_merged: whether it deletes the branch of a request that was merged.
    """

    provider: str
    repository: BareRepository
    token: str
    requests: dict[int, FakeRequest]
    problems: list[str]
    delete_merged: bool

    @property
    def url(self) -> str:
        """URL of the Git repository."""
        ...

    @property
    def address(self) -> str:
        """Address of the API, for `spec.git.push.pullRequest.address`."""
        ...

    @property
    def secret(self) -> dict[str, bytes]:
        """Data of a Secret with a token."""
        ...

    @property
    def log(self) -> list[str]:
        """Calls to the API, as `METHOD path`."""
        ...

    @property
    def counts(self) -> Counter[str]:
        """Calls to the API by method."""
        ...

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def quiet(self) -> None: ...
    def only(self) -> FakeRequest: ...
    def opened(self) -> list[FakeRequest]: ...
    def merge(self, number: int, how: str = "merge") -> str: ...
    def close(self, number: int) -> None: ...
    def reopen(self, number: int) -> None: ...
    def comment(self, number: int, text: str, author: str = "alice") -> None: ...
    def label(self, number: int, name: str) -> None: ...
    def edit(self, number: int, *, title: str = "", body: str = "") -> None: ...
    def make_ready(self, number: int) -> None: ...
    def approve(self, number: int, author: str = "alice") -> None: ...
    def push(self, branch: str, files: Files, message: str = "a person's change") -> str: ...
    def delete_branch(self, branch: str) -> None: ...
    def protect(self, branch: str, *, approvals: int = 0, checks: bool = False) -> None: ...
    def set_checks(self, commit: str, state: str, name: str = "ci") -> None: ...
    def fail(self, kind: str | int, times: int = 1, match: str = "", *, headers: Headers = NONE, body: Any = None) -> None: ...
    def limit(self, seconds: int, times: int = 1, match: str = "") -> None: ...
    def before(self, match: str, act: Callable[[], object]) -> None: ...
    def pass_time(self, seconds: float) -> None: ...
