"""GitHub alone: auto-merge, ways to merge, commits that GitHub signs, the App's tokens, spent limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconcile.errors import Conflict, Invalid, NotFound
from reconcile.forges.open import Shared
from reconcile.ports.forge import AccessRefused, Merge, RateLimited, RequestState, Wanted
from tests.support.clock import VirtualClock
from tests.support.forges import GitHub
from tests.support.forges.clients import BRANCH, WANTED, client_of, opened


async def test_sets_auto_merge_where_something_is_missing(github: GitHub) -> None:
    github.allowed["allow_auto_merge"] = True
    github.protect("main", approvals=1, checks=True)
    async with client_of(github) as client:
        request = await opened(github, client)
        assert await client.merge_when_checks_pass(request) is Merge.SET
        assert github.only().auto_merge == "merge"
        github.quiet()
        assert await client.merge_when_checks_pass(request) is Merge.SET
        assert len(github.log) == 1
        github.approve(1)
        assert github.only().state == "open"
        github.set_checks(request.head, "success")
        assert github.only().state == "merged"
        assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_merges_itself_where_nothing_is_missing(github: GitHub) -> None:
    github.allowed["allow_auto_merge"] = True
    github.protect("main", checks=True)
    async with client_of(github) as client:
        request = await opened(github, client)
        github.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_a_protected_branch_without_auto_merge_is_waited_for(github: GitHub) -> None:
    github.protect("main", approvals=1)
    async with client_of(github) as client:
        request = await opened(github, client)
        github.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING
        github.approve(1)
        assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_statuses_count_as_check_runs_do(github: GitHub) -> None:
    async with client_of(github) as client:
        request = await opened(github, client)
        github.set_checks(request.head, "success")
        github.set_checks(request.head, "pending", "status/jenkins")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING
        github.set_checks(request.head, "success", "status/jenkins")
        assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_more_checks_than_anybody_looks_through_are_left_to_people(github: GitHub) -> None:
    async with client_of(github) as client:
        request = await opened(github, client)
        for number in range(101):
            github.set_checks(request.head, "success", f"job-{number:03d}")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING


@pytest.mark.parametrize(("allowed", "how"), [("squash", "squash"), ("rebase", "rebase")])
async def test_merges_in_a_way_that_the_repository_has(github: GitHub, allowed: str, how: str) -> None:
    for way in ("merge", "squash", "rebase"):
        github.allowed[github.switch(way)] = way == allowed
    async with client_of(github) as client:
        request = await opened(github, client)
        github.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.DONE
    assert github.only().merged_how == how


async def test_a_conflict_is_waited_for(github: GitHub) -> None:
    async with client_of(github) as client:
        request = await opened(github, client)
        github.repository.commit({"app.yaml": b"image: app:9\n"}, message="meanwhile")
        github.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING


async def test_graphql_says_that_it_is_busy(github: GitHub) -> None:
    async with client_of(github) as client:
        request = await opened(github, client)
        error = {"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}
        github.fail(200, match="/graphql", body={"data": None, "errors": [error]})
        with pytest.raises(RateLimited):
            await client.merge_when_checks_pass(request)


async def test_a_repository_without_drafts_gets_an_ordinary_request(github: GitHub) -> None:
    github.drafts = False
    async with client_of(github) as client:
        request = await opened(github, client, Wanted("a", "b", draft=True))
    assert not request.draft
    assert request.warnings == ("the repository has no draft pull requests: it was opened as an ordinary one",)


async def test_teams_are_asked_and_unknown_ones_told(github: GitHub) -> None:
    wanted = Wanted("a", "b", reviewers=("team:platform", "team:ghosts", "bob"))
    async with client_of(github) as client:
        request = await opened(github, client, wanted)
    assert (github.only().reviewers, github.only().teams) == (["bob"], ["platform"])
    assert len(request.warnings) == 1
    assert request.warnings[0].startswith("'team:ghosts' was not asked")


async def test_no_commits_between_is_told_in_the_words_of_github(github: GitHub) -> None:
    github.repository.git("branch", BRANCH, "main")
    async with client_of(github) as client:
        with pytest.raises(Invalid, match="No commits between main and imagebot/podinfo"):
            await client.open(BRANCH, "main", WANTED)


async def test_a_branch_that_is_reset_to_its_base_closes_the_request(github: GitHub) -> None:
    async with client_of(github) as client:
        await opened(github, client)
        github.repository.git("update-ref", f"refs/heads/{BRANCH}", "main")
        assert (await client.get(1)).state is RequestState.CLOSED


async def test_commits_that_are_pushed_to_the_base_merge_the_request(github: GitHub) -> None:
    async with client_of(github) as client:
        request = await opened(github, client)
        github.repository.git("update-ref", "refs/heads/main", request.head)
        now = await client.get(1)
        assert (now.state, now.merge_commit) == (RequestState.MERGED, request.head)


# --- commits through the API


async def test_github_makes_the_commit(github: GitHub) -> None:
    github.repository.commit({"bin/run.sh": b"true\n"})
    github.repository.git("branch", BRANCH, "main")
    head = github.repository.head()
    assert head is not None
    files = {"app.yaml": b"image: app:2\n\xff\x00", "new/file.yaml": b"a: 1\n"}
    async with client_of(github) as client:
        commit = await client.commit(BRANCH, head, files, "Update podinfo\n\nWhy.\n\nImagebot-Policy: apps/podinfo\n")
    assert github.repository.head(BRANCH) == commit
    assert commit in github.verified
    assert github.repository.git("log", "-1", "--format=%P %B", commit).rstrip() == (
        f"{head} Update podinfo\n\nWhy.\n\nImagebot-Policy: apps/podinfo"
    )
    assert {path: github.repository.file(path, commit) for path in files} == files
    assert len(github.log) == 1


async def test_a_branch_that_is_not_there_is_made(github: GitHub) -> None:
    head = github.repository.head()
    assert head is not None
    async with client_of(github) as client:
        commit = await client.commit(BRANCH, head, {"app.yaml": b"2\n"}, "Update")
    assert github.repository.head(BRANCH) == commit


async def test_a_branch_that_is_elsewhere_is_a_conflict(github: GitHub) -> None:
    head = github.repository.head()
    assert head is not None
    other = github.repository.commit({"app.yaml": b"person\n"}, branch=BRANCH, start=head)
    async with client_of(github) as client:
        with pytest.raises(Conflict, match="Expected branch to point to"):
            await client.commit(BRANCH, head, {"app.yaml": b"2\n"}, "Update")
    assert github.repository.head(BRANCH) == other


async def test_commits_to_a_protected_branch_are_refused(github: GitHub) -> None:
    github.protect("main")
    head = github.repository.head()
    assert head is not None
    async with client_of(github) as client:
        with pytest.raises(Invalid, match="through a pull request"):
            await client.commit("main", head, {"app.yaml": b"2\n"}, "Update")
    assert github.repository.head() == head


async def test_a_repository_that_graphql_does_not_know(github: GitHub) -> None:
    head = github.repository.head()
    assert head is not None
    error = {"type": "NOT_FOUND", "message": "Could not resolve to a Repository with the name 'acme/fleet'."}
    github.repository.git("branch", BRANCH, "main")
    github.fail(200, match="/graphql", times=2, body={"data": None, "errors": [error]})
    async with client_of(github) as client:
        with pytest.raises(NotFound, match="Could not resolve"):
            await client.commit(BRANCH, head, {"a": b""}, "Update")


async def test_a_missing_right_to_commit_is_named(github: GitHub) -> None:
    head = github.repository.head()
    assert head is not None
    error = {"type": "FORBIDDEN", "message": "Resource not accessible by integration"}
    github.fail(200, match="/graphql", body={"data": None, "errors": [error]})
    async with client_of(github) as client:
        with pytest.raises(AccessRefused, match="Contents: write"):
            await client.commit(BRANCH, head, {"a": b""}, "Update")


# --- credentials and limits


async def test_an_app_gets_a_new_token_before_the_old_one_expires(github: GitHub) -> None:
    clock = VirtualClock(datetime.now(UTC))
    shared = Shared(clock)
    async with client_of(github, shared, secret=github.app.secret) as client:
        request = await opened(github, client)
        assert await client.get(request.number) == request
        assert len(github.app.issued) == 1
        clock.advance(3000)
        github.pass_time(3000)
        assert await client.get(request.number) == request
    async with client_of(github, shared, secret=github.app.secret) as client:
        assert await client.get(request.number) == request
    assert len(github.app.issued) == 2
    assert github.only().author == "fleet-bot"


async def test_the_signature_of_an_app_goes_to_its_own_server_alone(github: GitHub) -> None:
    for base in (b"https://github.corp.example", b""):
        with pytest.raises(Invalid, match=r"'apps/forge'.*'githubAppBaseURL'"):
            client_of(github, secret={**github.app.secret, "githubAppBaseURL": base})
    assert github.log == []


async def test_an_app_that_is_not_installed(github: GitHub) -> None:
    secret = {**github.app.secret, "githubAppInstallationID": b"1"}
    async with client_of(github, secret=secret) as client:
        with pytest.raises(Invalid, match=r"token was refused.*404"):
            await client.find(BRANCH, "main")


async def test_tokens_of_an_app_are_shown_nowhere(github: GitHub) -> None:
    async with client_of(github, secret=github.app.secret) as client:
        await client.find(BRANCH, "main")
        token = github.app.issued[0]
        github.fail(403, match="^GET", body={"message": f"not for {token}"})
        with pytest.raises(AccessRefused) as caught:
            await client.get(1)
    assert token not in str(caught.value)
    assert "*****" in str(caught.value)


async def test_a_spent_limit_says_when_it_is_renewed(github: GitHub) -> None:
    github.spend(500)
    async with client_of(github) as client:
        with pytest.raises(RateLimited) as caught:
            await client.find(BRANCH, "main")
    assert 480 <= caught.value.after <= 500


async def test_a_secret_of_an_app_that_lacks_a_key(github: GitHub) -> None:
    secret = {name: value for name, value in github.app.secret.items() if name != "githubAppPrivateKey"}
    with pytest.raises(Invalid, match="'apps/forge': key 'githubAppPrivateKey'"):
        client_of(github, secret=secret)
