"""A fake GitHub: REST API, version 2022-11-28, below `/api/v3` and GraphQL at `/api/graphql`, as on GitHub Enterprise Server.

Each endpoint names its page of GitHub's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from tests.support.forges import history
from tests.support.forges.base import Forge, stamp
from tests.support.forges.github_app import App
from tests.support.forges.github_graphql import GraphQL
from tests.support.forges.http import Call, Refused, Reply
from tests.support.forges.interface import BOT, PEOPLE, TEAMS, FakeRequest

DOCS = "https://docs.github.com/rest"
_NOT_FOUND = Reply(404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"})


class GitHub(Forge):
    """Closes a request whose branch is reset to its base, and sees one as merged whose commits are pushed to the base."""

    provider = "github"
    prefixes = ("/api",)
    serves_git = False
    closes_empty = True
    notices_merges = True
    refusal = (
        "error: GH006: Protected branch update failed for refs/heads/{branch}.\n"
        "error: Changes must be made through a pull request."
    )
    settings: ClassVar[dict[str, bool]] = {
        "allow_merge_commit": True,
        "allow_squash_merge": True,
        "allow_rebase_merge": True,
        "allow_auto_merge": False,
    }

    def __init__(self, folder: Path, owner: str = "acme", name: str = "fleet") -> None:
        super().__init__(folder, owner, name)
        self.allowed = dict(self.settings)
        self.drafts = True
        self.verified: set[str] = set()
        self.tokens = {self.token}
        self.graphql = GraphQL(self)
        self.app = App(self)

    @property
    def address(self) -> str:
        """Address of the REST API."""
        return self.api.url("api/v3")

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.repository_name}"

    def limit(self, seconds: int, times: int = 1, match: str = "") -> None:
        """«Rate limits for the REST API»: a secondary limit, 403 with `retry-after`."""
        body = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
        self.fail(403, times, match, headers={"Retry-After": str(seconds)}, body=body)

    def spend(self, seconds: int, times: int = 1, match: str = "") -> None:
        """«Rate limits for the REST API»: the primary limit is spent until `seconds` from now."""
        reset = str(int(self.now().timestamp()) + seconds)
        headers = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
        self.fail(403, times, match, headers=headers, body={"message": "API rate limit exceeded for user ID 1."})

    # --- every call

    def _api(self, call: Call) -> Reply:
        token = self._token(call)
        if re.match(r"/v3/(app|orgs|users)/", call.path):
            return self.app.answer(call, token)
        if token not in self.tokens and not self.app.knows(token):
            raise Refused(Reply(401, {"message": "Bad credentials", "documentation_url": DOCS, "status": "401"}))
        if call.path == "/graphql":
            return self.graphql.answer(call)
        if call.headers.get("accept") != "application/vnd.github+json":
            raise self.problem(call, "Accept must be application/vnd.github+json")
        if call.headers.get("x-github-api-version") != "2022-11-28":
            raise self.problem(call, "X-GitHub-Api-Version must be 2022-11-28")
        found = re.fullmatch(r"/v3/repos/([^/]+)/([^/]+)(/.*)", call.path)
        if found is None:
            raise self.problem(call, "no such endpoint")
        if (unquote(found[1]), unquote(found[2])) != (self.owner, self.repository_name):
            return _NOT_FOUND
        return self.tagged(call, self._routed(call, found[3]))

    def _token(self, call: Call) -> str:
        """«Authenticating to the REST API»; «Troubleshooting the REST API»: a User-Agent is required."""
        if not call.headers.get("user-agent"):
            raise self.problem(call, "no User-Agent")
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise self.problem(call, "Authorization must be Bearer")
        return token

    def _routed(self, call: Call, path: str) -> Reply:
        routes = (
            ("GET", r"/pulls", self.list_pulls),
            ("POST", r"/pulls", self.create_pull),
            ("GET", r"/pulls/(\d+)", self.get_pull),
            ("PATCH", r"/pulls/(\d+)", self.update_pull),
            ("PUT", r"/pulls/(\d+)/merge", self.merge_pull),
            ("POST", r"/pulls/(\d+)/requested_reviewers", self.request_reviewers),
            ("POST", r"/issues/(\d+)/labels", self.add_labels),
            ("POST", r"/issues/(\d+)/comments", self.create_comment),
            ("GET", r"/commits/([0-9a-f]{40})/status", self.combined_status),
            ("GET", r"/commits/([0-9a-f]{40})/check-runs", self.check_runs),
            ("GET", r"/git/ref/heads/(.+)", self.get_ref),
            ("POST", r"/git/refs", self.create_ref),
        )
        for method, pattern, answer in routes:
            found = re.fullmatch(pattern, path)
            if found is not None and call.method == method:
                return answer(call, *found.groups())
        raise self.problem(call, "no such endpoint")

    # --- pull requests

    def list_pulls(self, call: Call) -> Reply:
        """REST API endpoints for pull requests, «List pull requests»."""
        query = self.query(call, ("state", "head", "base", "sort", "direction", "per_page", "page"))
        state = query.get("state", "open")
        if state not in ("open", "closed", "all"):
            raise self._invalid("state")
        owner, colon, branch = query.get("head", "").partition(":")
        found = [
            request
            for request in self.requests.values()
            if state in ("all", "open" if request.state == "open" else "closed")
            # A head without its owner filters nothing.
            and (not colon or (owner, branch) == (self.owner, request.branch))
            and query.get("base", request.base) == request.base
        ]
        found.sort(key=lambda request: request.number, reverse=query.get("direction", "desc") == "desc")
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        shown = [self.pull(request, whole=False) for request in found[(page - 1) * size : page * size]]
        more = {"Link": f'<{self.address}/next?page={page + 1}>; rel="next"'} if len(found) > page * size else {}
        return Reply(200, shown, more)

    def create_pull(self, call: Call) -> Reply:
        """REST API endpoints for pull requests, «Create a pull request»."""
        optional = {"title": str, "body": str, "draft": bool, "maintainer_can_modify": bool}
        content = self.content(call, {"head": str, "base": str}, optional)
        head = content["head"].removeprefix(f"{self.owner}:")
        branches = history.branches(self.repository)
        for name, branch in (("head", head), ("base", content["base"])):
            if branch not in branches:
                raise self._invalid(name)
        if not content.get("title"):
            raise self._invalid("title", "missing_field")
        self._bounded(content)
        if any((r.branch, r.base, r.state) == (head, content["base"], "open") for r in self.requests.values()):
            raise self._custom(f"A pull request already exists for {self.owner}:{head}.")
        if history.contains(self.repository, branches[content["base"]], branches[head]):
            raise self._custom(f"No commits between {content['base']} and {head}")
        if content.get("draft") and not self.drafts:
            raise Refused(Reply(422, {"message": "Draft pull requests are not supported in this repository."}))
        draft = content.get("draft", False)
        request = self._open(head, content["base"], content["title"], content.get("body", ""), draft=draft)
        return Reply(201, self.pull(request))

    def get_pull(self, call: Call, number: str) -> Reply:
        """REST API endpoints for pull requests, «Get a pull request»."""
        self.query(call, ())
        return Reply(200, self.pull(self._request(number)))

    def update_pull(self, call: Call, number: str) -> Reply:
        """REST API endpoints for pull requests, «Update a pull request»."""
        content = self.content(call, {}, {"title": str, "body": str, "state": str, "base": str, "maintainer_can_modify": bool})
        request = self._request(number)
        if content.get("state", "open") not in ("open", "closed"):
            raise self._invalid("state")
        self._bounded(content)
        texts: dict[str, str] = {name: content[name] for name in ("title", "body") if name in content}
        if content.get("state") == "closed" and request.state == "open":
            texts |= {"state": "closed", "auto_merge": ""}
        self._set(request, **texts)
        return Reply(200, self.pull(request))

    def merge_pull(self, call: Call, number: str) -> Reply:
        """REST API endpoints for pull requests, «Merge a pull request»."""
        optional = {"commit_title": str, "commit_message": str, "sha": str, "merge_method": str}
        content = self.content(call, {}, optional)
        request = self._request(number)
        how = content.get("merge_method", "merge")
        if how not in ("merge", "squash", "rebase"):
            raise self._invalid("merge_method")
        if request.state != "open" or request.draft or self._lacking(request) or not self.allowed[self.switch(how)]:
            return Reply(405, {"message": "Pull Request is not mergeable", "documentation_url": DOCS})
        if content.get("sha", request.head) != request.head:
            return Reply(409, {"message": "Head branch was modified. Review and try the merge again."})
        try:
            commit = self._merge(request, how)
        except history.MergeRefused:
            return Reply(405, {"message": "Pull Request is not mergeable", "documentation_url": DOCS})
        return Reply(200, {"sha": commit, "merged": True, "message": "Pull Request successfully merged"})

    def request_reviewers(self, call: Call, number: str) -> Reply:
        """REST API endpoints for review requests, «Request reviewers for a pull request»."""
        content = self.content(call, {}, {"reviewers": list, "team_reviewers": list})
        request = self._request(number)
        people, teams = content.get("reviewers", []), content.get("team_reviewers", [])
        if request.author in people:
            raise Refused(Reply(422, {"message": "Review cannot be requested from pull request author."}))
        if not (set(people) <= set(PEOPLE) and set(teams) <= set(TEAMS)):
            said = "Reviews may only be requested from collaborators. One or more of the users or teams you specified is not a "
            raise Refused(Reply(422, {"message": f"{said}collaborator of the {self.full_name} repository."}))
        request.reviewers += [name for name in people if name not in request.reviewers]
        request.teams += [name for name in teams if name not in request.teams]
        request.updated = self.now()
        return Reply(201, self.pull(request, whole=False))

    # --- issues

    def add_labels(self, call: Call, number: str) -> Reply:
        """REST API endpoints for labels, «Add labels to an issue»; a label that is not there is made, in grey."""
        content = self.content(call, {"labels": list})
        request = self._request(number)
        self._label(request, content["labels"])
        return Reply(200, [self.shown_label(name) for name in request.labels])

    def create_comment(self, call: Call, number: str) -> Reply:
        """REST API endpoints for issue comments, «Create an issue comment»."""
        content = self.content(call, {"body": str})
        request = self._request(number)
        request.comments.append((BOT, content["body"]))
        request.updated = self.now()
        return Reply(201, {"id": len(request.comments), "body": content["body"], "user": {"login": BOT}})

    # --- commits and references

    def combined_status(self, call: Call, commit: str) -> Reply:
        """REST API endpoints for commit statuses, «Get the combined status for a specific reference».

        Checks whose name starts with `status/` are commit statuses; without any the state is `pending`.
        """
        self.query(call, ("per_page", "page"))
        found = {name: state for name, state in self.checks.get(commit, {}).items() if name.startswith("status/")}
        states = set(found.values())
        state = "failure" if "failure" in states else "success" if states == {"success"} else "pending"
        statuses = [{"context": name, "state": value} for name, value in sorted(found.items())]
        return Reply(200, {"state": state, "sha": commit, "total_count": len(found), "statuses": statuses})

    def check_runs(self, call: Call, commit: str) -> Reply:
        """REST API endpoints for check runs, «List check runs for a Git reference»."""
        query = self.query(call, ("check_name", "status", "filter", "per_page", "page", "app_id"))
        found = {name: state for name, state in self.checks.get(commit, {}).items() if not name.startswith("status/")}
        runs = [
            {
                "name": name,
                "head_sha": commit,
                "status": "in_progress" if state == "pending" else "completed",
                "conclusion": None if state == "pending" else state,
            }
            for name, state in sorted(found.items())
        ]
        return Reply(200, {"total_count": len(runs), "check_runs": runs[: min(int(query.get("per_page", 30)), 100)]})

    def get_ref(self, call: Call, branch: str) -> Reply:
        """REST API endpoints for Git references, «Get a reference»."""
        self.query(call, ())
        commit = self.repository.head(unquote(branch))
        if commit is None:
            return _NOT_FOUND
        return Reply(200, {"ref": f"refs/heads/{unquote(branch)}", "object": {"type": "commit", "sha": commit}})

    def create_ref(self, call: Call) -> Reply:
        """REST API endpoints for Git references, «Create a reference»."""
        content = self.content(call, {"ref": str, "sha": str})
        branch = content["ref"].removeprefix("refs/heads/")
        if self.repository.head(branch) is not None:
            raise Refused(Reply(422, {"message": "Reference already exists", "documentation_url": DOCS}))
        if self.repository.git("cat-file", "-t", content["sha"], check=False) != "commit":
            raise Refused(Reply(422, {"message": "Object does not exist", "documentation_url": DOCS}))
        history.move(self.repository, branch, content["sha"], None)
        return Reply(201, {"ref": content["ref"], "object": {"type": "commit", "sha": content["sha"]}})

    # --- what is shown

    @staticmethod
    def switch(how: str) -> str:
        """Setting of the repository that allows a way to merge."""
        return "allow_merge_commit" if how == "merge" else f"allow_{how}_merge"

    def pull(self, request: FakeRequest, *, whole: bool = True) -> dict[str, Any]:
        """A pull request as the documentation's schema has it; `whole` as one alone is shown, with `merged`."""
        repository = {"full_name": self.full_name, **(self.allowed if whole else {})}
        ends = {
            "head": {"ref": request.branch, "sha": request.head, "repo": repository},
            "base": {"ref": request.base, "sha": self.repository.head(request.base), "repo": repository},
        }
        merged = request.state == "merged"
        shown = {
            "url": f"{self.address}/repos/{self.full_name}/pulls/{request.number}",
            "html_url": self.front.url(f"{self.full_name}/pull/{request.number}"),
            "node_id": f"PR_{request.number}",
            "number": request.number,
            "state": "open" if request.state == "open" else "closed",
            "title": request.title,
            "body": request.body or None,
            "draft": request.draft,
            "user": {"login": request.author},
            "labels": [self.shown_label(name) for name in request.labels],
            "requested_reviewers": [{"login": name} for name in request.reviewers],
            "requested_teams": [{"slug": name} for name in request.teams],
            "auto_merge": {"merge_method": request.auto_merge} if request.auto_merge else None,
            "created_at": stamp(request.created),
            "updated_at": stamp(request.updated),
            "merged_at": stamp(request.updated) if merged else None,
            # Before a merge: the trial merge that GitHub makes in the background.
            "merge_commit_sha": request.merge_commit if merged else "e" * 40,
            **ends,
        }
        return {**shown, "merged": merged, "mergeable": None, "mergeable_state": "unknown"} if whole else shown

    def shown_label(self, name: str) -> dict[str, Any]:
        """A label."""
        return {"id": self.labels[name], "name": name, "color": "ededed", "description": None}

    def _request(self, number: str) -> FakeRequest:
        found = self.requests.get(int(number))
        if found is None:
            raise Refused(_NOT_FOUND)
        return found

    def _bounded(self, content: Mapping[str, Any]) -> None:
        for name, most in (("title", 256), ("body", 65536)):
            if len(content.get(name, "")) > most:
                raise self._custom(f"{name} is too long (maximum is {most} characters)")

    def _invalid(self, name: str, code: str = "invalid") -> Refused:
        error = {"resource": "PullRequest", "field": name, "code": code}
        return Refused(Reply(422, {"message": "Validation Failed", "errors": [error], "documentation_url": DOCS}))

    def _custom(self, message: str) -> Refused:
        error = {"resource": "PullRequest", "code": "custom", "message": message}
        return Refused(Reply(422, {"message": "Validation Failed", "errors": [error], "documentation_url": DOCS}))
