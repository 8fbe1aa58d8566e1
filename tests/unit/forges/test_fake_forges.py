"""The fakes themselves: what they refuse, and that their Git repositories behave as those of the forges."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.forges import FakeForge, Gitea, GitHub, GitLab, MergeRefused
from tests.support.forges.clients import BRANCH, client_of, opened
from tests.support.gitrepo import ENV

REFUSALS = {
    "github": "GH006: Protected branch update failed for refs/heads/main",
    "gitlab": "You are not allowed to push code to protected branches on this project",
    "gitea": "Not allowed to push to protected branch main",
}


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Plain git in a checkout."""
    return subprocess.run(["git", *arguments], cwd=folder, env=ENV, capture_output=True, text=True, check=False)


async def test_protected_branches_refuse_pushes_in_the_words_of_the_forge(anyone: FakeForge, tmp_path: Path) -> None:
    anyone.protect("main")
    folder = tmp_path / "checkout"
    assert git(tmp_path, "clone", "-q", anyone.url, str(folder)).returncode == 0
    (folder / "app.yaml").write_text("image: app:2\n")
    git(folder, "commit", "-qam", "Update")
    refused = git(folder, "push", "origin", "HEAD:main")
    assert refused.returncode != 0
    assert REFUSALS[anyone.provider] in refused.stderr
    assert git(folder, "push", "origin", f"HEAD:refs/heads/{BRANCH}").returncode == 0
    assert anyone.repository.head(BRANCH) is not None


async def test_a_branch_that_is_deleted_and_pushed_again_has_closed_its_request(anyone: FakeForge, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    async with client_of(anyone) as client:
        await opened(anyone, client)
    git(tmp_path, "clone", "-q", anyone.url, str(folder))
    git(folder, "push", "origin", f":refs/heads/{BRANCH}")
    assert anyone.only().state == "closed"
    git(folder, "push", "origin", f"origin/{BRANCH}:refs/heads/{BRANCH}")
    assert anyone.only().state == "closed"


@pytest.mark.parametrize("how", ["merge", "squash", "rebase"])
async def test_merges_make_real_commits(anyone: FakeForge, how: str) -> None:
    async with client_of(anyone) as client:
        await opened(anyone, client)
    anyone.push(BRANCH, {"second.yaml": b"2\n"}, "second")
    meanwhile = anyone.repository.commit({"other.yaml": b"1\n"}, message="meanwhile")
    anyone.delete_merged = True
    commit = anyone.merge(1, how)
    assert anyone.repository.head() == commit
    assert set(anyone.repository.tree()) == {"app.yaml", "second.yaml", "other.yaml"}
    parents = anyone.repository.git("log", "-1", "--format=%P", commit).split()
    assert len(parents) == (2 if how == "merge" else 1)
    assert (
        anyone.repository.git("rev-list", "--count", f"{meanwhile}..{commit}")
        == {"merge": "3", "squash": "1", "rebase": "2"}[how]
    )
    assert anyone.repository.head(BRANCH) is None
    anyone.repository.check()


async def test_a_conflict_is_not_merged(anyone: FakeForge) -> None:
    async with client_of(anyone) as client:
        await opened(anyone, client)
    head = anyone.repository.commit({"app.yaml": b"image: app:9\n"}, message="meanwhile")
    for how in ("merge", "squash", "rebase"):
        with pytest.raises(MergeRefused):
            anyone.merge(1, how)
    assert anyone.repository.head() == head


def ask(fake: FakeForge, method: str, path: str, headers: dict[str, str], **content: object) -> int:
    """A call as no client of ours makes it; what the fake notes is taken back."""
    before = len(fake.problems)
    status = httpx.request(method, f"{fake.address}{path}", headers=headers, **content).status_code  # type: ignore[arg-type]
    noted = len(fake.problems) > before
    del fake.problems[before:]
    assert noted == (status == 400), "what is against the documentation is noted"
    return status


def test_github_takes_nothing_but_what_is_documented(github: GitHub) -> None:
    good = {
        "Authorization": f"Bearer {github.token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    pulls = "/repos/acme/fleet/pulls"
    assert ask(github, "GET", pulls, good) == 200
    assert ask(github, "GET", pulls, {**good, "Authorization": "Bearer other"}) == 401
    assert ask(github, "GET", pulls, {**good, "Authorization": f"token {github.token}"}) == 400
    assert ask(github, "GET", pulls, {**good, "Accept": "*/*"}) == 400
    assert ask(github, "GET", pulls, {**good, "X-GitHub-Api-Version": "1"}) == 400
    assert ask(github, "GET", f"{pulls}?branch=x", good) == 400
    assert ask(github, "DELETE", pulls, good) == 400
    assert ask(github, "GET", "/repos/acme/other/pulls", good) == 404
    content = {"head": "main", "base": "main", "title": "a"}
    assert ask(github, "POST", pulls, good, json={**content, "labels": ["x"]}) == 400
    assert ask(github, "POST", pulls, good, json={**content, "draft": "yes"}) == 400
    assert ask(github, "POST", pulls, good, json={"head": "main"}) == 400
    assert ask(github, "POST", pulls, good, content=b"title=a") == 400
    assert ask(github, "POST", pulls, good, json=content) == 422


def test_gitlab_takes_nothing_but_what_is_documented(gitlab: GitLab) -> None:
    good = {"Authorization": f"Bearer {gitlab.token}"}
    requests = "/projects/acme%2Fapps%2Feu%2Ffleet/merge_requests"
    assert ask(gitlab, "GET", requests, good) == 200
    assert ask(gitlab, "GET", requests, {}) == 401
    assert ask(gitlab, "GET", requests.replace("%2F", "/"), good) == 400
    assert ask(gitlab, "GET", requests.replace("fleet", "other"), good) == 404
    assert ask(gitlab, "POST", requests, good, json={"source_branch": "a", "target_branch": "b"}) == 400
    assert (
        ask(gitlab, "POST", requests, good, json={"source_branch": "a", "target_branch": "b", "title": "c", "draft": True}) == 400
    )
    assert ask(gitlab, "POST", requests, good, json={"source_branch": "a", "target_branch": "main", "title": "c"}) == 422


def test_gitea_takes_nothing_but_what_is_documented(gitea: Gitea) -> None:
    good = {"Authorization": f"token {gitea.token}"}
    pulls = "/repos/acme/fleet/pulls"
    assert ask(gitea, "GET", pulls, good) == 200
    assert ask(gitea, "GET", pulls, {"Authorization": f"Bearer {gitea.token}"}) == 400
    assert ask(gitea, "GET", pulls, {"Authorization": "token other"}) == 401
    assert ask(gitea, "GET", f"{pulls}?head=x", good) == 400
    assert ask(gitea, "POST", pulls, good, json={"head": "a", "base": "main", "title": "t", "draft": True}) == 400
    assert ask(gitea, "POST", "/repos/acme/fleet/labels", good, json={"name": "x", "color": "red"}) == 400
    assert ask(gitea, "POST", pulls, good, json={"head": "a", "base": "main", "title": "t"}) == 404
