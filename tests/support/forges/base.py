"""What the fake forges share: requests over a real bare repository, and what people do to them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.support.forges import history
from tests.support.forges.history import MergeRefused
from tests.support.forges.http import Call, ForgeHttp, Refused, Reply
from tests.support.forges.interface import NONE, FakeRequest, Headers
from tests.support.gitrepo import BareRepository, Files


class Forge:
    """The common half of the fakes; the API of each is in its own file."""

    provider: str
    prefixes: ClassVar[tuple[str, ...]]
    serves_git: ClassVar[bool] = True
    closes_empty: ClassVar[bool] = False
    notices_merges: ClassVar[bool] = False
    refusal: ClassVar[str]

    def __init__(self, folder: Path, owner: str = "acme", name: str = "fleet") -> None:
        self.owner = owner
        self.repository_name = name
        self.repository = BareRepository.create(folder / "git" / owner / f"{name}.git")
        self.token = f"tok-{self.provider}-0123456789abcdefSECRET"
        self.requests: dict[int, FakeRequest] = {}
        self.problems: list[str] = []
        self.protected: dict[str, tuple[int, bool]] = {}
        self.checks: dict[str, dict[str, str]] = {}
        self.labels: dict[str, int] = {}
        self.delete_merged = False
        self.conditional = 0
        self._offset = timedelta()
        self._known: dict[str, str] = {}
        self.api = ForgeHttp(folder / "git", self.prefixes, self._handle, git=self.serves_git)
        self.api.now = self.now
        self.front = self.api if self.serves_git else ForgeHttp(folder / "git", (), self._handle, git=True)
        self.front.after_push = self.sync

    # --- running

    def start(self) -> None:
        """Listen."""
        self.api.start()
        if self.front is not self.api:
            self.front.start()

    def stop(self) -> None:
        """Stop listening."""
        self.api.stop()
        if self.front is not self.api:
            self.front.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """URL of the Git repository."""
        return self.front.url(f"{self.owner}/{self.repository_name}.git")

    @property
    def address(self) -> str:
        """Address of the API."""
        return self.api.url(self.prefixes[0].strip("/"))

    @property
    def secret(self) -> dict[str, bytes]:
        """Data of a Secret with a token."""
        return {"token": self.token.encode()}

    @property
    def log(self) -> list[str]:
        """Calls to the API."""
        return self.api.log

    @property
    def counts(self) -> Counter[str]:
        """Calls to the API by method."""
        return self.api.counts

    def quiet(self) -> None:
        """Forget what was asked so far."""
        with self.api.lock:
            self.api.log.clear()
            self.api.counts.clear()
            self.api.statuses.clear()
            self.conditional = 0

    def now(self) -> datetime:
        """The forge's time."""
        return datetime.now(UTC) + self._offset

    def pass_time(self, seconds: float) -> None:
        """Move the forge's clock on."""
        self._offset += timedelta(seconds=seconds)

    # --- faults

    def fail(self, kind: str | int, times: int = 1, match: str = "", *, headers: Headers = NONE, body: Any = None) -> None:
        """Spoil the next `times` calls whose `METHOD /path` matches; kinds are in `http.Fault`."""
        self.api.fail(kind, times, match, headers, body)

    def before(self, match: str, act: Callable[[], object]) -> None:
        """Do something just before the next call whose `METHOD /path` matches is answered: what a quick person does meanwhile."""
        self.api.hooks.append((re.compile(match), act))

    def limit(self, seconds: int, times: int = 1, match: str = "") -> None:
        """Answer as the forge does beyond its rate limit."""
        self.fail(429, times, match, headers={"Retry-After": str(seconds)}, body={"message": "Too Many Requests"})

    # --- what people do

    def opened(self) -> list[FakeRequest]:
        """Open requests, oldest first."""
        with self.api.lock:
            self.sync()
            return [request for _, request in sorted(self.requests.items()) if request.state == "open"]

    def only(self) -> FakeRequest:
        """The one request that there ever was."""
        with self.api.lock:
            self.sync()
            (request,) = self.requests.values()
            return request

    def merge(self, number: int, how: str = "merge") -> str:
        """Press the button; the commit that the base has now. Raises MergeRefused."""
        with self.api.lock:
            self.sync()
            return self._merge(self.requests[number], how)

    def close(self, number: int) -> None:
        """Close without merging."""
        self._change(number, state="closed")

    def reopen(self, number: int) -> None:
        """Open again."""
        self._change(number, state="open")

    def comment(self, number: int, text: str, author: str = "alice") -> None:
        """Say something."""
        with self.api.lock:
            self.requests[number].comments.append((author, text))
            self.requests[number].updated = self.now()

    def label(self, number: int, name: str) -> None:
        """Put a label on it."""
        with self.api.lock:
            self._label(self.requests[number], [name])

    def edit(self, number: int, *, title: str = "", body: str = "") -> None:
        """Change its texts."""
        with self.api.lock:
            request = self.requests[number]
            self._change(number, title=title or request.title, body=body or request.body)

    def make_ready(self, number: int) -> None:
        """Say that a draft is ready."""
        self._change(number, draft=False)

    def approve(self, number: int, author: str = "alice") -> None:
        """Approve it, which may set off its merge."""
        with self.api.lock:
            self.requests[number].approvals.append(author)
            self._merge_what_may()

    def push(self, branch: str, files: Files, message: str = "a person's change") -> str:
        """A person's commit on a branch, past every protection."""
        commit = self.repository.commit(files, branch=branch, message=message)
        with self.api.lock:
            self.sync()
        return commit

    def delete_branch(self, branch: str) -> None:
        """Delete a branch."""
        self.repository.git("update-ref", "-d", f"refs/heads/{branch}")
        with self.api.lock:
            self.sync()

    def protect(self, branch: str, *, approvals: int = 0, checks: bool = False) -> None:
        """Take no direct pushes to a branch; requests need that many approvals, and passed checks."""
        self.protected[branch] = approvals, checks
        history.refuse_pushes(self.repository, {name: self.refusal.format(branch=name) for name in self.protected})

    def set_checks(self, commit: str, state: str, name: str = "ci") -> None:
        """A check says `pending`, `success` or `failure` of a commit, which may set off a merge."""
        with self.api.lock:
            self.checks.setdefault(commit, {})[name] = state
            self._merge_what_may()

    # --- life of requests; the lock is held

    def sync(self) -> None:
        """Follow what happened to the branches."""
        with self.api.lock:
            branches = history.branches(self.repository)
            before, self._known = self._known, branches
            if before == branches:
                return
            for request in self.requests.values():
                if request.state == "open":
                    self._follow(request, branches)

    def _follow(self, request: FakeRequest, branches: Mapping[str, str]) -> None:
        head, base = branches.get(request.branch), branches.get(request.base)
        if head is None or base is None:
            self._set(request, state="closed", auto_merge="")
            return
        moved = head != request.head
        if moved:
            self._set(request, head=head)
            self._moved(request)
        if history.contains(self.repository, base, head):
            if moved and self.closes_empty:
                self._set(request, state="closed", auto_merge="")
            elif not moved and self.notices_merges:
                self._set(request, state="merged", merge_commit=head, merged_how="push")

    def _moved(self, request: FakeRequest) -> None:
        """Its branch has other commits."""

    def _open(self, branch: str, base: str, title: str, body: str, *, draft: bool) -> FakeRequest:
        branches = history.branches(self.repository)
        now = self.now()
        number = max(self.requests, default=0) + 1
        request = FakeRequest(number, branch, base, branches[branch], title, body, now, now, draft=draft)
        self.requests[number] = request
        return request

    def _change(self, number: int, **changes: Any) -> None:
        with self.api.lock:
            self.sync()
            self._set(self.requests[number], **changes)

    def _set(self, request: FakeRequest, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(request, name, value)
        request.updated = self.now()

    def _label(self, request: FakeRequest, names: Collection[str]) -> None:
        for name in names:
            known = next((label for label in self.labels if label.lower() == name.lower()), name)
            self.labels.setdefault(known, len(self.labels) + 1)
            if known not in request.labels:
                request.labels.append(known)
        request.updated = self.now()

    def _merge(self, request: FakeRequest, how: str) -> str:
        if request.state != "open":
            raise MergeRefused(f"it is {request.state}")
        base = self.repository.head(request.base)
        assert base is not None
        message = f"Merge request {request.number} from {request.branch}\n\n{request.title}\n"
        message = message if how == "merge" else f"{request.title} (#{request.number})\n\n{request.body}\n"
        commit = history.joined(self.repository, base, request.head, how, message)
        history.move(self.repository, request.base, commit, base)
        self._set(request, state="merged", merge_commit=commit, merged_how=how, auto_merge="")
        if self.delete_merged:
            self.repository.git("update-ref", "-d", f"refs/heads/{request.branch}")
        self.sync()
        return commit

    def _states(self, commit: str) -> list[str]:
        return list(self.checks.get(commit, {}).values())

    def _lacking(self, request: FakeRequest) -> bool:
        """Whether the protection of its base asks for more."""
        approvals, checks = self.protected.get(request.base, (0, False))
        states = self._states(request.head)
        return len(request.approvals) < approvals or (checks and (not states or set(states) != {"success"}))

    def _merge_what_may(self) -> None:
        self.sync()
        for request in list(self.requests.values()):
            if request.state == "open" and request.auto_merge and not self._lacking(request) and self._auto_may(request):
                self._merge(request, request.auto_merge)

    def _auto_may(self, request: FakeRequest) -> bool:
        return set(self._states(request.head)) <= {"success"}

    # --- strictness

    def _handle(self, call: Call) -> Reply:
        self.sync()
        return self._api(call)

    def _api(self, call: Call) -> Reply:
        raise NotImplementedError

    def problem(self, call: Call, text: str) -> Refused:
        """Note what was done against the documentation."""
        self.problems.append(f"{call}: {text}")
        return Refused(Reply(400, {"message": f"against the documentation: {text}"}))

    def query(self, call: Call, allowed: Collection[str]) -> Mapping[str, str]:
        """The query, of known names alone."""
        if unknown := set(call.query) - set(allowed):
            raise self.problem(call, f"unknown query {sorted(unknown)}")
        return call.query

    def content(self, call: Call, required: Mapping[str, type], optional: Mapping[str, type] = NONE) -> dict[str, Any]:
        """The JSON body, with known fields of known types alone."""
        if not call.headers.get("content-type", "").startswith("application/json") or not isinstance(call.body, dict):
            raise self.problem(call, "the body must be a JSON object of Content-Type application/json")
        known = {**required, **optional}
        if unknown := set(call.body) - set(known):
            raise self.problem(call, f"unknown fields {sorted(unknown)}")
        if absent := set(required) - set(call.body):
            raise self.problem(call, f"missing fields {sorted(absent)}")
        for name, value in call.body.items():
            if type(value) is not known[name]:
                raise self.problem(call, f"field {name!r} must be {known[name].__name__}")
        return call.body

    def tagged(self, call: Call, reply: Reply) -> Reply:
        """With an ETag; 304 where the caller has it already."""
        if call.method != "GET" or reply.status != 200:
            return reply
        etag = f'W/"{hashlib.sha256(json.dumps(reply.body).encode()).hexdigest()}"'
        if call.headers.get("if-none-match") == etag:
            self.conditional += 1
            return Reply(304, None, {"ETag": etag})
        return Reply(reply.status, reply.body, {**reply.headers, "ETag": etag})


def stamp(moment: datetime) -> str:
    """RFC 3339 with whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
