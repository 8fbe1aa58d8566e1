"""GitHub and GitHub Enterprise Server: REST API, version 2022-11-28, and GraphQL where REST has no call."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.forges import answers
from reconcile.forges.checks import Checks, settled
from reconcile.forges.remote import Place
from reconcile.forges.reviewing import ask_reviewers, request_reviews
from reconcile.forges.session import Answer, Asked, Repository, Session
from reconcile.forges.wishes import fitted, missing_labels, same_text, split_message, split_reviewers, without_losing
from reconcile.ports.forge import AccessRefused, Merge, RateLimited, Request, RequestState, Wanted

HEADERS = MappingProxyType({"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"})
LOOKED_AT = 30
"""Requests of one branch that are looked at, newest first."""
CHECKS_PAGE = 100
_WRITE = "write pull requests («Pull requests: write»)"
_CONTENTS = "write contents («Contents: write»)"
_METHODS = (("merge", "allow_merge_commit"), ("squash", "allow_squash_merge"), ("rebase", "allow_rebase_merge"))
_AUTO_MERGE = """mutation($id: ID!, $head: GitObjectID!, $method: PullRequestMergeMethod!) {
  enablePullRequestAutoMerge(input: {pullRequestId: $id, expectedHeadOid: $head, mergeMethod: $method}) {
    pullRequest { number }
  }
}"""
_COMMIT = """mutation($input: CreateCommitOnBranchInput!) {
  createCommitOnBranch(input: $input) { commit { oid } }
}"""


class GitHub(Repository):
    """A `Forge`."""

    def __init__(self, session: Session, place: Place) -> None:
        super().__init__(session, place)
        self._base = f"{place.api}/repos/{place.project}"

    async def find(self, branch: str, base: str) -> Request | None:
        """GitHub REST API: List pull requests."""
        query: dict[str, str | int] = {"head": f"{self._place.path[0]}:{branch}", "base": base, "state": "all"}
        query |= {"sort": "created", "direction": "desc", "per_page": LOOKED_AT}
        answer = await self._session.ask("GET", f"{self._base}/pulls", Asked("look for pull requests", _WRITE), query=query)
        found = [_request(item) for item in answers.rows(answer.body) if _ours(item, branch, base)]
        return next((request for request in found if request.state is RequestState.OPEN), found[0] if found else None)

    async def get(self, number: int) -> Request:
        """GitHub REST API: Get a pull request."""
        return _request((await self._pull(number)).body)

    async def open(self, branch: str, base: str, wanted: Wanted) -> Request:
        """GitHub REST API: Create a pull request; then labels and reviewers."""
        wanted = fitted(wanted)
        existing, warnings = None, []
        answer = await self._create(branch, base, wanted, draft=wanted.draft)
        if answer.status == 422 and wanted.draft and "draft" in answers.said(answer.body).lower():
            warnings.append("the repository has no draft pull requests: it was opened as an ordinary one")
            answer = await self._create(branch, base, wanted, draft=False)
        if answer.status == 422:
            existing = await self._existing(branch, base, answer)
        body = existing if existing is not None else answer.body
        request, lacking = await without_losing(_request(body), self.update(_request(body), wanted))
        warnings += lacking
        warnings += await self._ask_reviewers(request.number, body, wanted)
        return replace(request, warnings=tuple(warnings))

    async def update(self, request: Request, wanted: Wanted) -> Request:
        """GitHub REST API: Update a pull request, Add labels to an issue."""
        wanted = fitted(wanted)
        changes = {}
        if wanted.title != request.title:
            changes["title"] = wanted.title
        if not same_text(wanted.body, request.body):
            changes["body"] = wanted.body
        if changes:
            asked = Asked(f"update pull request #{request.number}", _WRITE)
            url = f"{self._base}/pulls/{request.number}"
            answer = await self._session.ask("PATCH", url, asked, json=changes, idempotent=True)
            request = _request(answer.body)
        return await self._labelled(request, wanted)

    async def comment(self, number: int, text: str) -> None:
        """GitHub REST API: Create an issue comment."""
        asked = Asked(f"comment on pull request #{number}", _WRITE)
        await self._session.ask("POST", f"{self._base}/issues/{number}/comments", asked, json={"body": text})

    async def close(self, number: int) -> None:
        """GitHub REST API: Update a pull request."""
        asked = Asked(f"close pull request #{number}", _WRITE)
        url = f"{self._base}/pulls/{number}"
        await self._session.ask("PATCH", url, asked, json={"state": "closed"}, idempotent=True)

    async def merge_when_checks_pass(self, request: Request) -> Merge:
        """GitHub GraphQL API: enablePullRequestAutoMerge; REST API: Merge a pull request where that is refused.

        GitHub sets auto-merge only where the base branch is protected and something is still missing. In all other cases checks
        and statuses of the head are read, and the request is merged once all of them have passed.
        """
        answer = await self._pull(request.number)
        pull = answer.body
        now = _request(pull)
        if now.state is RequestState.MERGED:
            return Merge.DONE
        if now.state is RequestState.CLOSED or now.head != request.head:
            raise Conflict(f"{self.name}: pull request #{request.number} is closed, or its branch has other commits")
        if now.draft:
            return Merge.WAITING
        if answers.optional(pull, "auto_merge", "merge_method"):
            return Merge.SET
        method = _method(pull)
        if await self._set_auto_merge(answers.text(pull, "node_id"), request, method):
            return Merge.SET
        checks = await self._checks(request.head)
        if not settled(checks, answer.moment, answers.moment(answers.optional(pull, "updated_at"))):
            return Merge.WAITING
        return await self._merge(request, method)

    async def commit(self, branch: str, expected: str, files: Mapping[str, bytes], message: str) -> str:
        """GitHub GraphQL API: createCommitOnBranch; REST API: Create a reference, where the branch is not there."""
        headline, body = split_message(message)
        additions = [{"path": path, "contents": base64.b64encode(data).decode()} for path, data in sorted(files.items())]
        wish = {
            "branch": {"repositoryNameWithOwner": "/".join(self._place.path), "branchName": branch},
            "message": {"headline": headline, "body": body},
            "fileChanges": {"additions": additions},
            "expectedHeadOid": expected,
        }
        asked = Asked(f"commit to branch '{branch}'", _CONTENTS)
        document, errors = await self._mutate(_COMMIT, {"input": wish}, asked)
        if any(answers.optional(error, "type") == "NOT_FOUND" for error in errors) and await self._branch(branch, expected):
            document, errors = await self._mutate(_COMMIT, {"input": wish}, asked)
        if errors:
            raise self._graphql_error(errors, asked)
        return answers.text(document, "createCommitOnBranch", "commit", "oid")

    # --- parts of the above

    async def _pull(self, number: int) -> Answer:
        return await self._session.ask("GET", f"{self._base}/pulls/{number}", Asked(f"read pull request #{number}", _WRITE))

    async def _create(self, branch: str, base: str, wanted: Wanted, *, draft: bool) -> Answer:
        content = {"title": wanted.title, "head": branch, "base": base, "body": wanted.body, "draft": draft}
        return await self._session.ask("POST", f"{self._base}/pulls", _opening(branch, base), json=content, taken=(422,))

    async def _existing(self, branch: str, base: str, refused: Answer) -> Any:
        """The open request that made GitHub refuse another one; raises what it said when there is none."""
        query: dict[str, str | int] = {"head": f"{self._place.path[0]}:{branch}", "base": base, "state": "open"}
        answer = await self._session.ask("GET", f"{self._base}/pulls", Asked("look for pull requests", _WRITE), query=query)
        for item in answers.rows(answer.body):
            if _ours(item, branch, base):
                return item
        raise self._session.refusal(refused, _opening(branch, base))

    async def _labelled(self, request: Request, wanted: Wanted) -> Request:
        missing = missing_labels(request, wanted)
        if not missing:
            return request
        # A label that the repository does not have is made by this call.
        asked = Asked(f"label pull request #{request.number}", _WRITE)
        url = f"{self._base}/issues/{request.number}/labels"
        answer = await self._session.ask("POST", url, asked, json={"labels": list(missing)}, idempotent=True)
        return replace(request, labels=answers.names({"labels": answer.body}, "labels", "name"))

    async def _ask_reviewers(self, number: int, pull: Any, wanted: Wanted) -> list[str]:
        """GitHub REST API: Request reviewers for a pull request."""
        people, teams = split_reviewers(wanted.reviewers)
        people = [name for name in people if name not in answers.names(pull, "requested_reviewers", "login")]
        teams = [name for name in teams if name not in answers.names(pull, "requested_teams", "slug")]
        asked = Asked(f"ask for reviews of pull request #{number}", _WRITE)
        url = f"{self._base}/pulls/{number}/requested_reviewers"
        return await ask_reviewers(partial(request_reviews, self._session, url, asked), people, teams)

    async def _set_auto_merge(self, node: str, request: Request, method: str) -> bool:
        asked = Asked(f"set auto-merge of pull request #{request.number}", _WRITE)
        variables = {"id": node, "head": request.head, "method": method.upper()}
        _, errors = await self._mutate(_AUTO_MERGE, variables, asked)
        if any(answers.optional(error, "type") == "RATE_LIMITED" for error in errors):
            raise self._graphql_error(errors, asked)
        return not errors

    async def _checks(self, head: str) -> Checks:
        """GitHub REST API: Get the combined status for a specific reference, List check runs for a Git reference."""
        asked = Asked("read the checks", "read checks and commit statuses («Checks: read», «Commit statuses: read»)")
        combined = (await self._session.ask("GET", f"{self._base}/commits/{head}/status", asked)).body
        url = f"{self._base}/commits/{head}/check-runs"
        runs = (await self._session.ask("GET", url, asked, query={"per_page": CHECKS_PAGE})).body
        states = [answers.optional(combined, "state")] if answers.number(combined, "total_count") else []
        for run in answers.items(runs, "check_runs"):
            done = answers.optional(run, "status") == "completed"
            states.append(answers.optional(run, "conclusion") if done else "pending")
        if answers.number(runs, "total_count") > CHECKS_PAGE:
            states.append("pending")  # more than anybody looks through: people merge this one
        return Checks.of(states)

    async def _merge(self, request: Request, method: str) -> Merge:
        asked = Asked(f"merge pull request #{request.number}", _CONTENTS)
        content = {"sha": request.head, "merge_method": method}
        url = f"{self._base}/pulls/{request.number}/merge"
        answer = await self._session.ask("PUT", url, asked, json=content, taken=(405,))
        return Merge.DONE if answer.status == 200 else Merge.WAITING

    async def _branch(self, branch: str, commit: str) -> bool:
        """Make a branch that is not there; false when it is."""
        asked = Asked(f"make branch '{branch}'", _CONTENTS)
        there = f"{self._base}/git/ref/heads/{quote(branch)}"
        try:
            await self._session.ask("GET", there, asked)
        except NotFound:
            content = {"ref": f"refs/heads/{branch}", "sha": commit}
            await self._session.ask("POST", f"{self._base}/git/refs", asked, json=content)
            return True
        return False

    async def _mutate(self, query: str, variables: Mapping[str, Any], asked: Asked) -> tuple[Any, list[Any]]:
        """Data and errors of a mutation (GitHub GraphQL API: «Forming calls with GraphQL»)."""
        content = {"query": query, "variables": variables}
        body = (await self._session.ask("POST", self._place.graphql, asked, json=content)).body
        return (body or {}).get("data") if isinstance(body, dict) else None, answers.items(body, "errors")

    def _graphql_error(self, errors: Sequence[Any], asked: Asked) -> ReconcileError:
        kinds = {answers.optional(error, "type") for error in errors}
        said = answers.said({"errors": list(errors)})
        told = f"{self.name}: cannot {asked.what}: {said or 'the forge gives no reason'}"
        if "RATE_LIMITED" in kinds:
            return RateLimited(f"{told}; trying again later", answers.DEFAULT_WAIT)
        if "STALE_DATA" in kinds or "expected branch to point to" in said.lower():
            return Conflict(told)
        if "NOT_FOUND" in kinds:
            return NotFound(told)
        if kinds & {"FORBIDDEN", "INSUFFICIENT_SCOPES"} or "not accessible by" in said:
            return AccessRefused(f"{told}: the credentials need the right to {asked.right}")
        return Invalid(told)


def _opening(branch: str, base: str) -> Asked:
    return Asked(f"open a pull request from '{branch}' into '{base}'", _WRITE)


def _ours(item: Any, branch: str, base: str) -> bool:
    """Whether it is between these branches: the list's filter is not trusted, and a fork may have a branch of that name."""
    same = answers.optional(item, "head", "repo", "full_name") == answers.optional(item, "base", "repo", "full_name")
    return same and (answers.optional(item, "head", "ref"), answers.optional(item, "base", "ref")) == (branch, base)


def _request(pull: Any) -> Request:
    merged = bool(answers.optional(pull, "merged_at"))
    closed = RequestState.CLOSED if answers.text(pull, "state") == "closed" else RequestState.OPEN
    return Request(
        number=answers.number(pull, "number"),
        url=answers.optional(pull, "html_url"),
        state=RequestState.MERGED if merged else closed,
        branch=answers.text(pull, "head", "ref"),
        base=answers.text(pull, "base", "ref"),
        head=answers.text(pull, "head", "sha"),
        title=answers.optional(pull, "title"),
        body=answers.optional(pull, "body"),
        labels=answers.names(pull, "labels", "name"),
        draft=answers.flag(pull, "draft"),
        # Before the merge this field names a trial merge that nobody will see.
        merge_commit=answers.optional(pull, "merge_commit_sha") if merged else "",
    )


def _method(pull: Any) -> str:
    """How to merge: by a merge commit, which keeps signed commits, unless the repository has other ways only."""
    return next((method for method, allowed in _METHODS if not answers.forbidden(pull, "base", "repo", allowed)), "merge")
