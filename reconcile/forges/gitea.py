"""Gitea and Forgejo: API, version 1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from reconcile.errors import Conflict
from reconcile.forges import answers
from reconcile.forges.checks import Checks, settled
from reconcile.forges.remote import Place
from reconcile.forges.reviewing import ask_reviewers, request_reviews
from reconcile.forges.session import Answer, Asked, Repository, Session
from reconcile.forges.wishes import fitted, is_draft, missing_labels, ready_title, same_text, split_reviewers, without_losing
from reconcile.ports.forge import Merge, Request, RequestState, Wanted

HEADERS: Mapping[str, str] = MappingProxyType({"Accept": "application/json"})
LOOKED_AT = 50
"""Requests that are looked at, those first that changed last; the most that Gitea gives at once by default."""
LABEL_PAGES = 10
DRAFT = "WIP: "
COLOR = "#ededed"
_WRITE = "write pull requests (scopes «write:repository» and «write:issue»)"
_EXISTING = re.compile(r"issue_id: (\d+)")


class Gitea(Repository):
    """A `Forge`."""

    def __init__(self, session: Session, place: Place) -> None:
        super().__init__(session, place)
        self._base = f"{place.api}/repos/{place.project}"

    async def find(self, branch: str, base: str) -> Request | None:
        """Gitea API: Get a pull request by base and head; List a repo's pull requests, where that one is over.

        With several between the same branches Gitea gives any of them, so that an open or newer one is looked for in the list.
        """
        asked = Asked("look for pull requests", _WRITE)
        url = f"{self._base}/pulls/{quote(base, safe='')}/{quote(branch)}"
        answer = await self._session.ask("GET", url, asked, taken=(404,))
        if answer.status == 404:
            return None
        found = [_request(answer.body)]
        if found[0].state is not RequestState.OPEN:
            query: dict[str, str | int] = {"state": "all", "sort": "recentupdate", "limit": LOOKED_AT}
            listed = await self._session.ask("GET", f"{self._base}/pulls", asked, query=query)
            found += [_request(item) for item in answers.rows(listed.body) if _ours(item, branch, base)]
        found.sort(key=lambda request: (request.state is RequestState.OPEN, request.number))
        return found[-1]

    async def get(self, number: int) -> Request:
        """Gitea API: Get a pull request."""
        return _request((await self._pull(number)).body)

    async def open(self, branch: str, base: str, wanted: Wanted) -> Request:
        """Gitea API: Create a pull request; then labels and reviewers."""
        wanted = fitted(wanted)
        content = {
            "head": branch,
            "base": base,
            "title": _title(wanted.title, draft=wanted.draft or is_draft(wanted.title)),
            "body": wanted.body,
        }
        answer = await self._session.ask("POST", f"{self._base}/pulls", _opening(branch, base), json=content, taken=(409,))
        body = answer.body
        if answer.status == 409:
            body = (await self._existing(branch, base, answer)).body
        request, warnings = await without_losing(_request(body), self._completed(_request(body), wanted))
        warnings += await self._ask_reviewers(request.number, body, wanted)
        return replace(request, warnings=tuple(warnings))

    async def update(self, request: Request, wanted: Wanted) -> Request:
        """Gitea API: Update a pull request, Add a label to an issue."""
        wanted = fitted(wanted)
        return await self._completed(request, wanted)

    async def comment(self, number: int, text: str) -> None:
        """Gitea API: Add a comment to an issue."""
        asked = Asked(f"comment on pull request #{number}", _WRITE)
        await self._session.ask("POST", f"{self._base}/issues/{number}/comments", asked, json={"body": text})

    async def close(self, number: int) -> None:
        """Gitea API: Update a pull request; 412 says that it was merged."""
        asked = Asked(f"close pull request #{number}", _WRITE)
        url = f"{self._base}/pulls/{number}"
        await self._session.ask("PATCH", url, asked, json={"state": "closed"}, taken=(412,), idempotent=True)

    async def merge_when_checks_pass(self, request: Request) -> Merge:
        """Gitea API: Merge a pull request, with `head_commit_id`, once its checks have passed.

        Gitea's own `merge_when_checks_succeed` forgets which commit was meant, and would merge what people push meanwhile.
        """
        answer = await self._pull(request.number)
        now = _request(answer.body)
        if now.state is RequestState.MERGED:
            return Merge.DONE
        if now.state is RequestState.CLOSED or now.head != request.head:
            raise Conflict(f"{self.name}: pull request #{request.number} is closed, or its branch has other commits")
        if now.draft:
            return Merge.WAITING
        changed = answers.moment(answers.optional(answer.body, "updated_at"))
        if not settled(await self._checks(now.head), answer.moment, changed):
            return Merge.WAITING
        return await self._merge(now)

    # --- parts of the above

    async def _pull(self, number: int) -> Answer:
        return await self._session.ask("GET", f"{self._base}/pulls/{number}", Asked(f"read pull request #{number}", _WRITE))

    async def _existing(self, branch: str, base: str, refused: Answer) -> Answer:
        """The open request that made Gitea refuse another one; raises what it said when there is none."""
        named = _EXISTING.search(answers.said(refused.body))
        if named is not None:
            return await self._pull(int(named[1]))
        found = await self.find(branch, base)
        if found is None or found.state is not RequestState.OPEN:
            raise self._session.refusal(refused, _opening(branch, base))
        return await self._pull(found.number)

    async def _completed(self, request: Request, wanted: Wanted) -> Request:
        content = {}
        if ready_title(wanted.title) != request.title:
            content["title"] = _title(wanted.title, draft=request.draft)
        if not same_text(wanted.body, request.body):
            content["body"] = wanted.body
        if content:
            asked = Asked(f"update pull request #{request.number}", _WRITE)
            url = f"{self._base}/pulls/{request.number}"
            request = _request((await self._session.ask("PATCH", url, asked, json=content, idempotent=True)).body)
        missing = missing_labels(request, wanted)
        if not missing:
            return request
        asked = Asked(f"label pull request #{request.number}", _WRITE)
        ids = await self._label_ids(missing, asked)
        url = f"{self._base}/issues/{request.number}/labels"
        answer = await self._session.ask("POST", url, asked, json={"labels": ids}, idempotent=True)
        return replace(request, labels=answers.names({"labels": answer.body}, "labels", "name"))

    async def _label_ids(self, names: Sequence[str], asked: Asked) -> list[int]:
        """Ids of the repository's labels, else of its organization's; those that are missing in both are made in the first."""
        known = await self._known_labels(f"{self._base}/labels", asked)
        wanted = {name.lower(): name for name in names}
        if not set(wanted) <= set(known):
            known = {**await self._known_labels(f"{self._place.api}/orgs/{quote(self._place.path[0])}/labels", asked), **known}
        for key, name in wanted.items():
            if key not in known:
                made = await self._session.ask("POST", f"{self._base}/labels", asked, json={"name": name, "color": COLOR})
                known[key] = answers.number(made.body, "id")
        return [known[key] for key in wanted]

    async def _known_labels(self, url: str, asked: Asked) -> dict[str, int]:
        """Ids by lower-case name. A repository of a person has no organization: 404."""
        known: dict[str, int] = {}
        for page in range(1, LABEL_PAGES + 1):
            query: dict[str, str | int] = {"page": page, "limit": LOOKED_AT}
            answer = await self._session.ask("GET", url, asked, query=query, taken=(403, 404) if "/orgs/" in url else ())
            listed = answer.body if isinstance(answer.body, list) else []
            for label in listed:
                known.setdefault(answers.text(label, "name").lower(), answers.number(label, "id"))
            total = answer.headers.get("x-total-count", "")
            if not listed or (total.isdigit() and int(total) <= page * LOOKED_AT):
                break
        return known

    async def _ask_reviewers(self, number: int, pull: Any, wanted: Wanted) -> list[str]:
        """Gitea API: create review requests for a pull request."""
        people, teams = split_reviewers(wanted.reviewers)
        people = [name for name in people if name not in answers.names(pull, "requested_reviewers", "login")]
        teams = [name for name in teams if name not in answers.names(pull, "requested_reviewers_teams", "name")]
        asked = Asked(f"ask for reviews of pull request #{number}", _WRITE)
        url = f"{self._base}/pulls/{number}/requested_reviewers"
        return await ask_reviewers(partial(request_reviews, self._session, url, asked), people, teams)

    async def _checks(self, head: str) -> Checks:
        """Gitea API: Get a commit's combined status."""
        asked = Asked("read the checks", "read commit statuses (scope «read:repository»)")
        combined = (await self._session.ask("GET", f"{self._base}/commits/{head}/status", asked)).body
        states = [answers.optional(status, "status") for status in answers.items(combined, "statuses")]
        return Checks.of([*states, answers.optional(combined, "state")] if states else [])

    async def _merge(self, request: Request) -> Merge:
        asked = Asked(f"merge pull request #{request.number}", "merge into its base branch")
        content = {"Do": "merge", "head_commit_id": request.head}
        url = f"{self._base}/pulls/{request.number}/merge"
        answer = await self._session.ask("POST", url, asked, json=content, taken=(405, 409))
        said = answers.said(answer.body).lower()
        for way in ("squash", "rebase"):
            if answer.status == 405 and "merge style" in said:
                answer = await self._session.ask("POST", url, asked, json={**content, "Do": way}, taken=(405, 409))
                said = answers.said(answer.body).lower()
        if answer.status == 409 and "out of date" in said:
            raise self._session.refusal(answer, asked)
        return Merge.DONE if answer.status < 300 else Merge.WAITING


def _opening(branch: str, base: str) -> Asked:
    return Asked(f"open a pull request from '{branch}' into '{base}'", _WRITE)


def _title(title: str, *, draft: bool) -> str:
    return f"{DRAFT}{ready_title(title)}" if draft else ready_title(title)


def _ours(item: Any, branch: str, base: str) -> bool:
    same = answers.optional(item, "head", "repo", "full_name") == answers.optional(item, "base", "repo", "full_name")
    return same and (_branch(item), answers.optional(item, "base", "ref")) == (branch, base)


def _branch(pull: Any) -> str:
    """Name of its branch: `ref` is `refs/pull/…` once the branch is deleted, `label` keeps the name."""
    return answers.optional(pull, "head", "label") or answers.text(pull, "head", "ref")


def _request(pull: Any) -> Request:
    merged = answers.flag(pull, "merged")
    closed = RequestState.CLOSED if answers.text(pull, "state") == "closed" else RequestState.OPEN
    title = answers.optional(pull, "title")
    draft = is_draft(title)
    return Request(
        number=answers.number(pull, "number"),
        url=answers.optional(pull, "html_url"),
        state=RequestState.MERGED if merged else closed,
        branch=_branch(pull),
        base=answers.text(pull, "base", "ref"),
        head=answers.text(pull, "head", "sha"),
        title=ready_title(title) if draft else title,
        body=answers.optional(pull, "body"),
        labels=answers.names(pull, "labels", "name"),
        draft=draft,
        merge_commit=answers.optional(pull, "merge_commit_sha") if merged else "",
    )
