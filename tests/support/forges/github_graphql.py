"""The GraphQL half of the fake GitHub: the two mutations for which the REST API has no call."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from tests.support.forges.http import Call, Reply
from tests.support.gitrepo import Blob

if TYPE_CHECKING:
    from tests.support.forges.github import GitHub
    from tests.support.forges.interface import FakeRequest

_MUTATION = re.compile(
    r"\s*mutation\s*\((?P<variables>[^)]*)\)\s*\{\s*(?P<name>\w+)\s*\(input:\s*(?P<input>\$\w+|\{[^}]*\})\)\s*\{"
)
_DECLARED = re.compile(r"\$(\w+)\s*:\s*([\w!]+)")
_GIVEN = re.compile(r"(\w+)\s*:\s*\$(\w+)")
_AUTO_MERGE = {"pullRequestId": "ID!", "expectedHeadOid": "GitObjectID!", "mergeMethod": "PullRequestMergeMethod!"}


class GraphQL:
    """`POST /graphql` («Forming calls with GraphQL»)."""

    def __init__(self, forge: GitHub) -> None:
        self._forge = forge

    def answer(self, call: Call) -> Reply:
        """Data, or errors with status 200."""
        if call.method != "POST":
            raise self._forge.problem(call, "GraphQL takes POST alone")
        content = self._forge.content(call, {"query": str, "variables": dict})
        found = _MUTATION.match(content["query"])
        if found is None:
            raise self._forge.problem(call, "not a mutation that this fake reads")
        declared, variables = dict(_DECLARED.findall(found["variables"])), content["variables"]
        if set(declared) != set(variables):
            raise self._forge.problem(call, f"variables {sorted(variables)} for {sorted(declared)}")
        if found["name"] == "enablePullRequestAutoMerge":
            given = dict(_GIVEN.findall(found["input"]))
            if {name: declared.get(variable) for name, variable in given.items()} != _AUTO_MERGE:
                raise self._forge.problem(call, f"fields and types of the input: {given} of {declared}")
            return self.enable_auto_merge(call, {name: variables[variable] for name, variable in given.items()})
        if found["name"] == "createCommitOnBranch" and declared == {"input": "CreateCommitOnBranchInput!"}:
            return self.create_commit(call, variables["input"])
        raise self._forge.problem(call, f"unknown mutation {found['name']}")

    def enable_auto_merge(self, call: Call, given: dict[str, Any]) -> Reply:
        """GraphQL reference, mutations, «enablePullRequestAutoMerge»."""
        name = "enablePullRequestAutoMerge"
        number = str(given["pullRequestId"]).removeprefix("PR_")
        request = self._forge.requests.get(int(number)) if number.isdigit() else None
        how = str(given["mergeMethod"]).lower()
        if how not in ("merge", "squash", "rebase"):
            raise self._forge.problem(call, "mergeMethod")
        if request is None:
            return _error(name, "NOT_FOUND", f"Could not resolve to a node with the global id of '{given['pullRequestId']}'.")
        if reason := self._against(request, how, str(given["expectedHeadOid"])):
            return _error(name, "UNPROCESSABLE", reason)
        self._forge._set(request, auto_merge=how)
        return Reply(200, {"data": {name: {"pullRequest": {"number": request.number}}}})

    def _against(self, request: FakeRequest, how: str, head: str) -> str:
        """«Automatically merging a pull request»: the setting, a protected base, and something that is still missing."""
        forge = self._forge
        if not forge.allowed["allow_auto_merge"]:
            return "Auto merge is not allowed for this repository"
        if not forge.allowed[forge.switch(how)]:
            return "Merge method is not allowed on this repository"
        if request.head != head:
            return "Head sha didn't match expected value"
        if request.base not in forge.protected:
            return "Pull request Protected branch rules not configured for this branch"
        return "" if forge._lacking(request) else "Pull request Pull request is in clean status"

    def create_commit(self, call: Call, given: Any) -> Reply:
        """GraphQL reference, mutations, «createCommitOnBranch»: on the head that is expected, signed by GitHub."""
        name = "createCommitOnBranch"
        shape = {"branch": dict, "message": dict, "fileChanges": dict, "expectedHeadOid": str}
        if not isinstance(given, dict) or {field: type(value) for field, value in given.items()} != shape:
            raise self._forge.problem(call, "fields of CreateCommitOnBranchInput")
        parts = (
            ("branch", {"repositoryNameWithOwner", "branchName"}),
            ("message", {"headline", "body"}),
            ("fileChanges", {"additions"}),
        )
        for part, fields in parts:
            if set(given[part]) != fields:
                raise self._forge.problem(call, f"fields of {part}")
        forge, branch, expected = self._forge, given["branch"]["branchName"], given["expectedHeadOid"]
        if given["branch"]["repositoryNameWithOwner"] != forge.full_name:
            return _error(name, "NOT_FOUND", "Could not resolve to a Repository.")
        head = forge.repository.head(branch)
        if head is None:
            return _error(name, "NOT_FOUND", f"No such branch '{branch}'")
        if head != expected:
            return _error(name, "STALE_DATA", f'Expected branch to point to "{expected}" but it did not. Pull and try again.')
        if branch in forge.protected:
            return _error(name, "UNPROCESSABLE", "Changes must be made through a pull request.")
        files = {item["path"]: base64.b64decode(item["contents"], validate=True) for item in given["fileChanges"]["additions"]}
        return Reply(200, {"data": {name: {"commit": {"oid": self._commit(branch, head, files, given["message"])}}}})

    def _commit(self, branch: str, head: str, files: dict[str, bytes], message: dict[str, str]) -> str:
        repository = self._forge.repository
        modes = {path: mode for path, (mode, _) in repository.tree(head).items()}
        text = "\n\n".join(part for part in (message["headline"], message["body"]) if part) + "\n"
        blobs = {path: Blob(data, modes.get(path, "100644")) for path, data in files.items()}
        commit = repository.commit(blobs, branch=branch, message=text)
        self._forge.verified.add(commit)
        self._forge.sync()
        return commit


def _error(name: str, kind: str, message: str) -> Reply:
    error = {"type": kind, "path": [name], "locations": [{"line": 2, "column": 3}], "message": message}
    return Reply(200, {"data": {name: None}, "errors": [error]})
