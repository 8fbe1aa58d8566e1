"""A fake Gitea, or Forgejo: API, version 1, below `/api/v1`, and Git on the same host.

Each endpoint names its operation in Gitea's API documentation (swagger), which Forgejo shares.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.forges import history
from tests.support.forges.base import Forge, stamp
from tests.support.forges.http import Call, Refused, Reply
from tests.support.forges.interface import BOT, PEOPLE, TEAMS, FakeRequest

_PREFIX = "WIP: "
_NOT_FOUND = Reply(404, {"message": "The target couldn't be found.", "url": "https://docs.gitea.com/api", "errors": []})


class Gitea(Forge):
    """Labels have ids, the list of requests is not filtered by branch, and drafts are those whose title says so."""

    provider = "gitea"
    prefixes = ("/api/v1",)
    refusal = "Gitea: Not allowed to push to protected branch {branch}"

    def __init__(self, folder: Path, owner: str = "acme", name: str = "fleet") -> None:
        super().__init__(folder, owner, name)
        self.organization_labels: dict[str, int] = {}
        self.most_items = 50
        self.styles = {"merge", "squash", "rebase"}

    # --- every call

    def _api(self, call: Call) -> Reply:
        """«API Usage», Authentication: `Authorization: token …`."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "token":
            raise self.problem(call, "Authorization must be 'token …'")
        if token != self.token:
            raise Refused(Reply(401, {"message": "user does not exist [uid: 0, name: ]", "url": "https://docs.gitea.com/api"}))
        if found := re.fullmatch(r"/orgs/([^/]+)/labels", call.path):
            return self.organization(call, found[1])
        found = re.fullmatch(r"/repos/([^/]+)/([^/]+)(/.*)", call.path)
        if found is None:
            raise self.problem(call, "no such endpoint")
        if (unquote(found[1]), unquote(found[2])) != (self.owner, self.repository_name):
            return _NOT_FOUND
        routes = (
            ("GET", r"/pulls", self.list_pulls),
            ("POST", r"/pulls", self.create_pull),
            ("GET", r"/pulls/(\d+)", self.get_pull),
            ("PATCH", r"/pulls/(\d+)", self.edit_pull),
            ("POST", r"/pulls/(\d+)/merge", self.merge_pull),
            ("POST", r"/pulls/(\d+)/requested_reviewers", self.request_reviewers),
            ("GET", r"/pulls/([^/]+)/(.+)", self.pull_by_base_and_head),
            ("GET", r"/labels", self.list_labels),
            ("POST", r"/labels", self.create_label),
            ("POST", r"/issues/(\d+)/labels", self.add_labels),
            ("POST", r"/issues/(\d+)/comments", self.create_comment),
            ("GET", r"/commits/([0-9a-f]{40})/status", self.combined_status),
        )
        for method, pattern, answer in routes:
            match = re.fullmatch(pattern, found[3])
            if match is not None and call.method == method:
                return answer(call, *match.groups())
        raise self.problem(call, "no such endpoint")

    # --- pull requests

    def list_pulls(self, call: Call) -> Reply:
        """`repoListPullRequests`."""
        query = self.query(call, ("state", "sort", "page", "limit", "base_branch"))
        state = query.get("state", "open")
        if state not in ("open", "closed", "all"):
            raise self.problem(call, "state")
        found = [r for r in self.requests.values() if state in ("all", "open" if r.state == "open" else "closed")]
        found.sort(key=lambda r: (r.updated, r.number) if query.get("sort") == "recentupdate" else r.number, reverse=True)
        return self._page(query, [self.shown(request) for request in found])

    def create_pull(self, call: Call) -> Reply:
        """`repoCreatePullRequest`."""
        content = self.content(call, {"head": str, "base": str, "title": str}, {"body": str, "labels": list, "assignees": list})
        branches = history.branches(self.repository)
        head, base = content["head"], content["base"]
        if head not in branches or base not in branches:
            return _NOT_FOUND
        for request in self.requests.values():
            if (request.branch, request.base, request.state) == (head, base, "open"):
                pair = f"head_repo_id: 1, base_repo_id: 1, head_branch: {head}, base_branch: {base}"
                said = f"pull request already exists for these targets [id: 9, issue_id: {request.number}, {pair}]"
                return Reply(409, {"message": said, "url": "https://docs.gitea.com/api"})
        title, draft = _split(content["title"])
        return Reply(201, self.shown(self._open(head, base, title, content.get("body", ""), draft=draft)))

    def get_pull(self, call: Call, number: str) -> Reply:
        """`repoGetPullRequest`."""
        self.query(call, ())
        return Reply(200, self.shown(self._request(number)))

    def pull_by_base_and_head(self, call: Call, base: str, head: str) -> Reply:
        """`repoGetPullRequestByBaseHead`: any one of several; here the oldest."""
        self.query(call, ())
        for _, request in sorted(self.requests.items()):
            if (request.base, request.branch) == (unquote(base), unquote(head)):
                return Reply(200, self.shown(request))
        return _NOT_FOUND

    def edit_pull(self, call: Call, number: str) -> Reply:
        """`repoEditPullRequest`: 201; 412 for the state of one that was merged."""
        content = self.content(call, {}, {"title": str, "body": str, "state": str, "labels": list, "base": str})
        request = self._request(number)
        changes: dict[str, Any] = {}
        if content.get("title"):
            changes["title"], changes["draft"] = _split(content["title"])
        if "body" in content:
            changes["body"] = content["body"]
        if "state" in content:
            if request.state == "merged":
                return Reply(412, {"message": "cannot change state of this pull request, it was already merged"})
            changes["state"] = content["state"]
        self._set(request, **changes)
        return Reply(201, self.shown(request))

    def merge_pull(self, call: Call, number: str) -> Reply:
        """`repoMergePullRequest`."""
        optional = {"head_commit_id": str, "merge_when_checks_succeed": bool, "delete_branch_after_merge": bool}
        content = self.content(call, {"Do": str}, optional)
        request = self._request(number)
        if request.state == "closed":
            return _NOT_FOUND
        if request.state == "merged" or request.draft:
            return Reply(405, {"message": "Work in progress PRs cannot be merged" if request.draft else ""})
        if self._lacking(request):
            return Reply(405, {"message": "not ready to be merged: Does not have enough approvals or checks"})
        if content["Do"] not in self.styles:
            return Reply(405, {"message": f"{content['Do']} is not allowed an allowed merge style for this repository"})
        if content.get("head_commit_id", request.head) != request.head:
            return Reply(409, {"message": "head out of date"})
        try:
            self._merge(request, content["Do"])
        except history.MergeRefused:
            return Reply(409, {"message": "merge conflicts"})
        return Reply(200)

    def request_reviewers(self, call: Call, number: str) -> Reply:
        """`repoCreatePullReviewRequests`."""
        content = self.content(call, {}, {"reviewers": list, "team_reviewers": list})
        request = self._request(number)
        people, teams = content.get("reviewers", []), content.get("team_reviewers", [])
        if unknown := [name for name in people if name not in (*PEOPLE, BOT)]:
            return Reply(404, {"message": f"reviewer not exist: user does not exist [uid: 0, name: {unknown[0]}]"})
        if request.author in people:
            return Reply(422, {"message": "poster of pr can't be reviewer [user_id: 1, repo_id: 1]"})
        if unknown := [name for name in teams if name not in TEAMS]:
            return Reply(404, {"message": f"team does not exist [org_id: 1, team_id: 0, name: {unknown[0]}]"})
        request.reviewers += [name for name in people if name not in request.reviewers]
        request.teams += [name for name in teams if name not in request.teams]
        request.updated = self.now()
        return Reply(201, [])

    # --- labels, comments, statuses

    def list_labels(self, call: Call) -> Reply:
        """`issueListLabels`."""
        return self._page(self.query(call, ("page", "limit")), [self.shown_label(name) for name in self.labels])

    def organization(self, call: Call, name: str) -> Reply:
        """`orgListLabels`: 404 where the owner is a person."""
        if unquote(name) != self.owner or not self.organization_labels:
            return _NOT_FOUND
        labels = [{"id": number, "name": label} for label, number in self.organization_labels.items()]
        return self._page(self.query(call, ("page", "limit")), labels)

    def create_label(self, call: Call) -> Reply:
        """`issueCreateLabel`."""
        content = self.content(call, {"name": str, "color": str}, {"description": str})
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", content["color"]):
            raise self.problem(call, "color")
        self.labels[content["name"]] = len(self.labels) + 1
        return Reply(201, self.shown_label(content["name"]))

    def add_labels(self, call: Call, number: str) -> Reply:
        """`issueAddLabel`: ids."""
        content = self.content(call, {"labels": list})
        request = self._request(number)
        known = {number: name for name, number in {**self.organization_labels, **self.labels}.items()}
        if not set(content["labels"]) <= set(known):
            raise self.problem(call, "labels must be ids that exist")
        for label in content["labels"]:
            if known[label] not in request.labels:
                request.labels.append(known[label])
        request.updated = self.now()
        return Reply(200, [self.shown_label(name) for name in request.labels])

    def create_comment(self, call: Call, number: str) -> Reply:
        """`issueCreateComment`."""
        content = self.content(call, {"body": str})
        request = self._request(number)
        request.comments.append((BOT, content["body"]))
        request.updated = self.now()
        return Reply(201, {"id": len(request.comments), "body": content["body"]})

    def combined_status(self, call: Call, commit: str) -> Reply:
        """`repoGetCombinedStatusByRef`."""
        self.query(call, ("page", "limit"))
        found = self.checks.get(commit, {})
        states = set(found.values())
        state = "failure" if "failure" in states else "pending" if "pending" in states or not states else "success"
        statuses = [{"context": name, "status": value} for name, value in sorted(found.items())]
        return Reply(200, {"state": state, "sha": commit, "total_count": len(found), "statuses": statuses})

    # --- what is shown

    def shown(self, request: FakeRequest) -> dict[str, Any]:
        """A pull request as the documentation's schema has it."""
        repository = {"full_name": f"{self.owner}/{self.repository_name}"}
        exists = self.repository.head(request.branch) is not None
        head = {"label": request.branch, "ref": request.branch if exists else f"refs/pull/{request.number}/head"}
        base = {"label": request.base, "ref": request.base, "sha": self.repository.head(request.base), "repo": repository}
        merged = request.state == "merged"
        return {
            "id": 100 + request.number,
            "number": request.number,
            "html_url": self.front.url(f"{self.owner}/{self.repository_name}/pulls/{request.number}"),
            "state": "open" if request.state == "open" else "closed",
            "title": f"{_PREFIX}{request.title}" if request.draft else request.title,
            "body": request.body,
            "draft": request.draft,
            "user": {"login": request.author},
            "labels": [self.shown_label(name) for name in request.labels],
            "requested_reviewers": [{"login": name} for name in request.reviewers] or None,
            "requested_reviewers_teams": [{"name": name} for name in request.teams] or None,
            "head": {**head, "sha": request.head, "repo": repository},
            "base": base,
            "merged": merged,
            "merged_at": stamp(request.updated) if merged else None,
            "merge_commit_sha": request.merge_commit if merged else None,
            "created_at": stamp(request.created),
            "updated_at": stamp(request.updated),
        }

    def shown_label(self, name: str) -> dict[str, Any]:
        """A label."""
        return {"id": {**self.organization_labels, **self.labels}[name], "name": name, "color": "ededed"}

    def _page(self, query: Any, items: list[Any]) -> Reply:
        size, page = min(int(query.get("limit", 30)), self.most_items), int(query.get("page", 1))
        return Reply(200, items[(page - 1) * size : page * size], {"X-Total-Count": str(len(items))})

    def _request(self, number: str) -> FakeRequest:
        found = self.requests.get(int(number))
        if found is None:
            raise Refused(_NOT_FOUND)
        return found


def _split(title: str) -> tuple[str, bool]:
    """A title that starts so is that of a draft, by Gitea's setting WORK_IN_PROGRESS_PREFIXES."""
    return title.removeprefix(_PREFIX), title.startswith(_PREFIX)
