"""GitLab: REST API, version 4. Requests are merge requests there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from reconcile.errors import Conflict, ReconcileError
from reconcile.forges import answers
from reconcile.forges.checks import Checks, settled
from reconcile.forges.remote import Place
from reconcile.forges.session import Answer, Asked, Repository, Session
from reconcile.forges.wishes import TEAM, fitted, is_draft, missing_labels, ready_title, same_text, split_reviewers
from reconcile.ports.forge import AccessRefused, Merge, RateLimited, Request, RequestState, Wanted

HEADERS: Mapping[str, str] = MappingProxyType({"Accept": "application/json"})
LOOKED_AT = 30
"""Requests of one branch that are looked at, newest first."""
DRAFT = "Draft: "
_WRITE = "write merge requests (role Developer, scope «api»)"
_STATES = {"merged": RequestState.MERGED, "closed": RequestState.CLOSED}
_EXISTING = re.compile(r"already exists for this source branch: !(\d+)")
_PASSED = frozenset({"success", "skipped"})
_ENDED = frozenset({"failed", "canceled", "canceling", "manual"})


class GitLab(Repository):
    """A `Forge`."""

    def __init__(self, session: Session, place: Place) -> None:
        super().__init__(session, place)
        self._base = f"{place.api}/projects/{place.project}/merge_requests"

    async def find(self, branch: str, base: str) -> Request | None:
        """Merge requests API: List project merge requests."""
        found = [_request(item) for item in await self._list(branch, base, "all")]
        return next((request for request in found if request.state is RequestState.OPEN), found[0] if found else None)

    async def get(self, number: int) -> Request:
        """Merge requests API: Get single merge request."""
        return _request((await self._single(number)).body)

    async def open(self, branch: str, base: str, wanted: Wanted) -> Request:
        """Merge requests API: Create a merge request. Labels that the project does not have are made by it."""
        wanted = fitted(wanted)
        warnings, ids = await self._reviewers(wanted)
        labels = _usable(wanted.labels, warnings)
        content = {
            "source_branch": branch,
            "target_branch": base,
            "title": _title(wanted.title, draft=wanted.draft or is_draft(wanted.title)),
        }
        content["description"] = wanted.body
        content |= {"labels": ",".join(labels)} if labels else {}
        reviewers = {"reviewer_ids": list(ids.values())} if ids else {}
        answer = await self._session.ask("POST", self._base, _opening(branch, base), json={**content, **reviewers}, taken=(409,))
        body = answer.body
        if answer.status == 409:
            body = await self._existing(branch, base, answer)
            await self.update(_request(body), wanted)
            body = await self._with_reviewers(body, ids)
        asked_now = answers.names(body, "reviewers", "username")
        refused = [name for name in ids if name not in asked_now]
        warnings += [f"'{name}' was not asked to review: GitLab takes no such or no further reviewer here" for name in refused]
        return replace(_request(body), warnings=tuple(warnings))

    async def update(self, request: Request, wanted: Wanted) -> Request:
        """Merge requests API: Update a merge request."""
        wanted = fitted(wanted)
        content: dict[str, Any] = {}
        if ready_title(wanted.title) != request.title:
            content["title"] = _title(wanted.title, draft=request.draft)
        if not same_text(wanted.body, request.body):
            content["description"] = wanted.body
        if missing := [label for label in missing_labels(request, wanted) if "," not in label]:
            content["add_labels"] = ",".join(missing)
        if not content:
            return request
        return _request((await self._put(request.number, content, f"update merge request !{request.number}")).body)

    async def comment(self, number: int, text: str) -> None:
        """Notes API: Create new merge request note."""
        asked = Asked(f"comment on merge request !{number}", _WRITE)
        await self._session.ask("POST", f"{self._base}/{number}/notes", asked, json={"body": text})

    async def close(self, number: int) -> None:
        """Merge requests API: Update a merge request."""
        await self._put(number, {"state_event": "close"}, f"close merge request !{number}")

    async def merge_when_checks_pass(self, request: Request) -> Merge:
        """Merge requests API: Merge a merge request; with `auto_merge` while its pipeline runs.

        GitLab gives up its own waiting when somebody pushes to the branch.
        """
        answer = await self._single(request.number)
        body = answer.body
        now = _request(body)
        if now.state is RequestState.MERGED:
            return Merge.DONE
        if now.state is RequestState.CLOSED or now.head != request.head:
            raise Conflict(f"{self.name}: merge request !{request.number} is closed, or its branch has other commits")
        if now.draft:
            return Merge.WAITING
        if answers.flag(body, "merge_when_pipeline_succeeds"):
            return Merge.SET
        status = _pipeline(body, now.head)
        if status in _ENDED:
            return Merge.WAITING
        if status in ("", *_PASSED):
            checks = Checks.PASSED if status else Checks.NONE
            changed = answers.moment(answers.optional(body, "updated_at"))
            return await self._merge(now, {}) if settled(checks, answer.moment, changed) else Merge.WAITING
        # The older of the two names is the one that GitLab before 17.11 knows.
        return await self._merge(now, {"auto_merge": True, "merge_when_pipeline_succeeds": True})

    # --- parts of the above

    async def _single(self, number: int) -> Answer:
        return await self._session.ask("GET", f"{self._base}/{number}", Asked(f"read merge request !{number}", _WRITE))

    async def _list(self, branch: str, base: str, state: str) -> list[Any]:
        query: dict[str, str | int] = {"source_branch": branch, "target_branch": base, "state": state}
        query |= {"order_by": "created_at", "sort": "desc", "per_page": LOOKED_AT}
        answer = await self._session.ask("GET", self._base, Asked("look for merge requests", _WRITE), query=query)
        return [item for item in answers.rows(answer.body) if _ours(item, branch, base)]

    async def _put(self, number: int, content: Mapping[str, Any], what: str) -> Answer:
        return await self._session.ask("PUT", f"{self._base}/{number}", Asked(what, _WRITE), json=content, idempotent=True)

    async def _existing(self, branch: str, base: str, refused: Answer) -> Any:
        """The open request that made GitLab refuse another one; raises what it said when there is none."""
        named = _EXISTING.search(answers.said(refused.body))
        if named is not None:
            body = (await self._single(int(named[1]))).body
            if _ours(body, branch, base):
                return body
        for item in await self._list(branch, base, "opened"):
            return item
        raise self._session.refusal(refused, _opening(branch, base))

    async def _reviewers(self, wanted: Wanted) -> tuple[list[str], dict[str, int]]:
        """What cannot be, and logins with their ids (Users API: List users)."""
        people, teams = split_reviewers(wanted.reviewers)
        warnings = [f"'{TEAM}{name}' was not asked to review: GitLab asks people, not groups" for name in teams]
        ids = {}
        for name in people:
            asked = Asked(f"look for user '{name}'", "read users (scope «api»)")
            try:
                answer = await self._session.ask("GET", f"{self._place.api}/users", asked, query={"username": name})
            except RateLimited:
                raise
            except ReconcileError as error:
                warnings.append(f"'{name}' was not asked to review: {error}")
                continue
            found = next(
                (user for user in answers.rows(answer.body) if answers.optional(user, "username").lower() == name.lower()), None
            )
            if found is None:
                warnings.append(f"'{name}' was not asked to review: there is no such user")
            else:
                ids[answers.text(found, "username")] = answers.number(found, "id")
        return warnings, ids

    async def _with_reviewers(self, body: Any, ids: Mapping[str, int]) -> Any:
        """The request with these reviewers beside those that it has; the call takes all of them."""
        present = {answers.text(user, "username"): answers.number(user, "id") for user in answers.items(body, "reviewers")}
        number = answers.number(body, "iid")
        if set(ids) <= set(present):
            return (await self._single(number)).body
        everybody = list({**present, **ids}.values())
        return (await self._put(number, {"reviewer_ids": everybody}, f"ask for reviews of merge request !{number}")).body

    async def _merge(self, request: Request, options: Mapping[str, bool]) -> Merge:
        asked = Asked(f"merge merge request !{request.number}", "merge into its target branch")
        content = {"sha": request.head, **options}
        answer = await self._session.ask(
            "PUT", f"{self._base}/{request.number}/merge", asked, json=content, taken=(401, 405, 422)
        )
        if answer.status == 401:
            # The credentials have just been taken for reading: this is how GitLab says that they may not merge.
            raise AccessRefused(f"{self.name}: cannot {asked.what}: the credentials do not allow to {asked.right}")
        if answer.status >= 300:
            return Merge.WAITING
        return Merge.DONE if answers.optional(answer.body, "state") == "merged" else Merge.SET


def _opening(branch: str, base: str) -> Asked:
    return Asked(f"open a merge request from '{branch}' into '{base}'", _WRITE)


def _title(title: str, *, draft: bool) -> str:
    return f"{DRAFT}{ready_title(title)}" if draft else ready_title(title)


def _usable(labels: tuple[str, ...], warnings: list[str]) -> list[str]:
    """Labels but for those that GitLab would take for several."""
    warnings += [f"label '{label}' was not set: GitLab has no labels with a comma" for label in labels if "," in label]
    return [label for label in labels if "," not in label]


def _ours(item: Any, branch: str, base: str) -> bool:
    """Whether it is between these branches of this project, not out of a fork's branch of that name."""
    same = answers.number(item, "source_project_id") == answers.number(item, "target_project_id")
    return same and (answers.optional(item, "source_branch"), answers.optional(item, "target_branch")) == (branch, base)


def _request(item: Any) -> Request:
    state = _STATES.get(answers.text(item, "state"), RequestState.OPEN)
    title = answers.optional(item, "title")
    draft = answers.flag(item, "draft") or answers.flag(item, "work_in_progress")
    head = answers.optional(item, "sha")
    commits = (answers.optional(item, name) for name in ("merge_commit_sha", "squash_commit_sha"))
    return Request(
        number=answers.number(item, "iid"),
        url=answers.optional(item, "web_url"),
        state=state,
        branch=answers.text(item, "source_branch"),
        base=answers.text(item, "target_branch"),
        head=head,
        title=ready_title(title) if draft else title,
        body=answers.optional(item, "description"),
        labels=tuple(label for label in answers.items(item, "labels") if isinstance(label, str)),
        draft=draft,
        # A fast-forward makes no commit of its own.
        merge_commit=next((commit for commit in commits if commit), head) if state is RequestState.MERGED else "",
    )


def _pipeline(item: Any, head: str) -> str:
    """Status of the pipeline of its head; empty without one, also where the one that is told is of an earlier push."""
    told = {name: answers.optional(item, "head_pipeline", name) for name in ("source", "sha", "status")}
    stale = told["source"] == "push" and told["sha"] != head
    return "" if stale else told["status"]
