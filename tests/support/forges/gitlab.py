"""A fake GitLab: REST API, version 4, below `/api/v4`, and Git on the same host. Requests are merge requests.

Each endpoint names its page of GitLab's documentation.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.forges import history
from tests.support.forges.base import Forge, stamp
from tests.support.forges.http import Call, Refused, Reply
from tests.support.forges.interface import BOT, PEOPLE, FakeRequest

_PREFIX = "Draft: "
_IDS = {name: 10 + index for index, name in enumerate((BOT, *PEOPLE))}
_STATES = {"open": "opened", "closed": "closed", "merged": "merged"}


class GitLab(Forge):
    """Sees a request as merged whose commits are pushed to its target, and forgets auto-merge when its branch moves."""

    provider = "gitlab"
    prefixes = ("/api/v4",)
    notices_merges = True
    refusal = "GitLab: You are not allowed to push code to protected branches on this project."

    def __init__(self, folder: Path, owner: str = "acme", name: str = "fleet") -> None:
        super().__init__(folder, owner, name)
        self.most_reviewers = 100

    def limit(self, seconds: int, times: int = 1, match: str = "") -> None:
        """«User and IP rate limits»: 429, plain text."""
        reset = str(int(self.now().timestamp()) + seconds)
        headers = {"Retry-After": str(seconds), "RateLimit-Remaining": "0", "RateLimit-Reset": reset}
        self.fail(429, times, match, headers=headers, body=b"Retry later\n")

    def _moved(self, request: FakeRequest) -> None:
        request.auto_merge = ""

    def _auto_may(self, request: FakeRequest) -> bool:
        states = self._states(request.head)
        return bool(states) and set(states) == {"success"}

    # --- every call

    def _api(self, call: Call) -> Reply:
        """«REST API authentication»: personal, project and group access tokens as Bearer."""
        if call.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(Reply(401, {"message": "401 Unauthorized"}))
        if call.path == "/users" and call.method == "GET":
            return self.tagged(call, self.list_users(call))
        found = re.fullmatch(r"/projects/([^/]+)/merge_requests(/.*)?", call.path)
        if found is None:
            raise self.problem(call, "no such endpoint")
        if unquote(found[1]) != f"{self.owner}/{self.repository_name}":
            return Reply(404, {"message": "404 Project Not Found"})
        routes = (
            ("GET", r"", self.list_requests),
            ("POST", r"", self.create),
            ("GET", r"/(\d+)", self.single),
            ("PUT", r"/(\d+)", self.update),
            ("PUT", r"/(\d+)/merge", self.accept),
            ("POST", r"/(\d+)/notes", self.create_note),
        )
        for method, pattern, answer in routes:
            match = re.fullmatch(pattern, found[2] or "")
            if match is not None and call.method == method:
                return self.tagged(call, answer(call, *match.groups()))
        raise self.problem(call, "no such endpoint")

    # --- endpoints

    def list_users(self, call: Call) -> Reply:
        """Users API, «List users», with `username`."""
        name = self.query(call, ("username",))["username"]
        return Reply(200, [_user(known) for known in _IDS if known.lower() == name.lower()])

    def list_requests(self, call: Call) -> Reply:
        """Merge requests API, «List project merge requests»."""
        query = self.query(call, ("source_branch", "target_branch", "state", "order_by", "sort", "per_page", "page"))
        state = query.get("state", "all")
        if state not in ("all", *_STATES.values()):
            return Reply(400, {"error": "state does not have a valid value"})
        found = [
            request
            for request in self.requests.values()
            if state in ("all", _STATES[request.state])
            and query.get("source_branch", request.branch) == request.branch
            and query.get("target_branch", request.base) == request.base
        ]
        found.sort(key=lambda request: request.number, reverse=query.get("sort", "desc") == "desc")
        size, page = min(int(query.get("per_page", 20)), 100), int(query.get("page", 1))
        shown = [self.shown(request, whole=False) for request in found[(page - 1) * size : page * size]]
        more = str(page + 1) if len(found) > page * size else ""
        return Reply(200, shown, {"X-Page": str(page), "X-Per-Page": str(size), "X-Next-Page": more, "X-Total": str(len(found))})

    def create(self, call: Call) -> Reply:
        """Merge requests API, «Create a merge request»; a label that is not there is made."""
        required = {"source_branch": str, "target_branch": str, "title": str}
        optional = {"description": str, "labels": str, "reviewer_ids": list, "remove_source_branch": bool, "squash": bool}
        content = self.content(call, required, optional)
        source, target = content["source_branch"], content["target_branch"]
        branches = history.branches(self.repository)
        for what, branch in (("Source", source), ("Target", target)):
            if branch not in branches:
                return Reply(422, {"message": [f'{what} branch "{branch}" does not exist']})
        for request in self.requests.values():
            if (request.branch, request.base, request.state) == (source, target, "open"):
                said = f"Another open merge request already exists for this source branch: !{request.number}"
                return Reply(409, {"message": [said]})
        title, draft = _split(content["title"])
        request = self._open(source, target, title, content.get("description", ""), draft=draft)
        self._label(request, _names(content.get("labels", "")))
        self._set_reviewers(request, content.get("reviewer_ids", []))
        return Reply(201, self.shown(request))

    def single(self, call: Call, number: str) -> Reply:
        """Merge requests API, «Get single merge request»."""
        self.query(call, ())
        return Reply(200, self.shown(self._request(number)))

    def update(self, call: Call, number: str) -> Reply:
        """Merge requests API, «Update a merge request»: at least one field."""
        optional = {"title": str, "description": str, "add_labels": str, "state_event": str, "reviewer_ids": list}
        content = self.content(call, {}, optional)
        if not content:
            return Reply(400, {"error": "title, description, state_event are missing, at least one parameter must be provided"})
        request = self._request(number)
        changes: dict[str, Any] = {}
        if "title" in content:
            changes["title"], changes["draft"] = _split(content["title"])
        if "description" in content:
            changes["body"] = content["description"]
        if content.get("state_event", "close") != "close":
            raise self.problem(call, "state_event")
        if "state_event" in content and request.state == "open":
            changes |= {"state": "closed", "auto_merge": ""}
        self._set(request, **changes)
        self._label(request, _names(content.get("add_labels", "")))
        if "reviewer_ids" in content:
            request.reviewers.clear()
            self._set_reviewers(request, content["reviewer_ids"])
        return Reply(200, self.shown(request))

    def accept(self, call: Call, number: str) -> Reply:
        """Merge requests API, «Merge a merge request»; with `auto_merge` GitLab waits for the pipeline that runs."""
        optional = {"sha": str, "auto_merge": bool, "merge_when_pipeline_succeeds": bool, "squash": bool}
        content = self.content(call, {}, optional)
        request = self._request(number)
        waits = content.get("auto_merge", False) or content.get("merge_when_pipeline_succeeds", False)
        if request.state != "open" or request.draft:
            return Reply(405, {"message": "405 Method Not Allowed"})
        if content.get("sha", request.head) != request.head:
            return Reply(409, {"message": f"SHA does not match HEAD of source branch: {request.head}"})
        status = self._pipeline_status(request.head)
        approvals, checks = self.protected.get(request.base, (0, False))
        if len(request.approvals) < approvals or (checks and status in ("", "failed")) or (waits and status == "failed"):
            return Reply(405 if waits else 422, {"message": "Branch cannot be merged"})
        if waits and status == "running":
            self._set(request, auto_merge="merge")
            return Reply(200, self.shown(request))
        if checks and status != "success":
            return Reply(405, {"message": "405 Method Not Allowed"})
        try:
            self._merge(request, "merge")
        except history.MergeRefused:
            return Reply(422, {"message": "Branch cannot be merged"})
        return Reply(200, self.shown(request))

    def create_note(self, call: Call, number: str) -> Reply:
        """Notes API, «Create new merge request note»."""
        content = self.content(call, {"body": str})
        request = self._request(number)
        request.comments.append((BOT, content["body"]))
        request.updated = self.now()
        return Reply(201, {"id": len(request.comments), "body": content["body"], "author": _user(BOT)})

    # --- what is shown

    def shown(self, request: FakeRequest, *, whole: bool = True) -> dict[str, Any]:
        """A merge request as the documentation shows it; `whole` as one alone, with its pipeline."""
        merged = request.state == "merged"
        commits: dict[str, str | None] = {"merge": None, "squash": None}
        if merged and request.merged_how in commits:
            commits[request.merged_how] = request.merge_commit
        title = f"{_PREFIX}{request.title}" if request.draft else request.title
        shown = {
            "id": 1000 + request.number,
            "iid": request.number,
            "source_project_id": 4 if request.fork else 3,
            "target_project_id": 3,
            "source_branch": request.branch,
            "target_branch": request.base,
            "title": title,
            "description": request.body or None,
            "state": _STATES[request.state],
            "draft": request.draft,
            "work_in_progress": request.draft,
            "sha": request.merge_commit if merged and request.merged_how == "rebase" else request.head,
            "merge_commit_sha": commits["merge"],
            "squash_commit_sha": commits["squash"],
            "labels": request.labels,
            "author": _user(request.author),
            "reviewers": [_user(name) for name in request.reviewers],
            "merge_when_pipeline_succeeds": bool(request.auto_merge),
            "detailed_merge_status": "checking",
            "created_at": stamp(request.created),
            "updated_at": stamp(request.updated),
            "web_url": self.front.url(f"{self.owner}/{self.repository_name}/-/merge_requests/{request.number}"),
        }
        if not whole:
            return shown
        status = self._pipeline_status(request.head)
        pipeline = {"id": 7, "sha": request.head, "ref": request.branch, "status": status, "source": "push"}
        return {**shown, "head_pipeline": pipeline if status else None}

    def _pipeline_status(self, commit: str) -> str:
        states = set(self._states(commit))
        if not states:
            return ""
        return "failed" if "failure" in states else "running" if "pending" in states else "success"

    def _set_reviewers(self, request: FakeRequest, ids: list[int]) -> None:
        known = {number: name for name, number in _IDS.items()}
        request.reviewers += [known[number] for number in ids if number in known][: self.most_reviewers]

    def _request(self, number: str) -> FakeRequest:
        found = self.requests.get(int(number))
        if found is None:
            raise Refused(Reply(404, {"message": "404 Not found"}))
        return found


def _user(name: str) -> dict[str, Any]:
    return {"id": _IDS[name], "username": name, "state": "active"}


def _split(title: str) -> tuple[str, bool]:
    """«Draft merge requests»: a title that starts so."""
    return title.removeprefix(_PREFIX), title.startswith(_PREFIX)


def _names(labels: str) -> list[str]:
    return [label.strip() for label in labels.split(",") if label.strip()]
