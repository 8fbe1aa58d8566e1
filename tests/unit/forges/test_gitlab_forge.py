"""GitLab alone: its auto-merge, ids of reviewers, labels with commas, sub-groups."""

from __future__ import annotations

import pytest

from reconcile.errors import Invalid
from reconcile.ports.forge import AccessRefused, Merge, RateLimited, Wanted
from tests.support.forges import GitLab
from tests.support.forges.clients import BRANCH, client_of, opened


async def test_gitlab_merges_by_itself_when_the_pipeline_succeeds(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client)
        gitlab.set_checks(request.head, "pending")
        assert await client.merge_when_checks_pass(request) is Merge.SET
        gitlab.quiet()
        assert await client.merge_when_checks_pass(request) is Merge.SET
        assert gitlab.counts == {"GET": 1}
        gitlab.set_checks(request.head, "success")
        assert gitlab.only().state == "merged"


async def test_a_push_takes_auto_merge_back(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client)
        gitlab.set_checks(request.head, "pending")
        assert await client.merge_when_checks_pass(request) is Merge.SET
        commit = gitlab.push(BRANCH, {"mine.yaml": b"by hand\n"})
        gitlab.set_checks(commit, "success")
        assert gitlab.only().state == "open"


async def test_a_project_that_wants_a_pipeline_is_waited_for(gitlab: GitLab) -> None:
    gitlab.protect("main", checks=True)
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client)
        gitlab.pass_time(3600)
        assert await client.merge_when_checks_pass(request) is Merge.WAITING


async def test_a_missing_approval_is_waited_for(gitlab: GitLab) -> None:
    gitlab.protect("main", approvals=1)
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client)
        gitlab.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING
        gitlab.approve(1)
        assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_a_missing_right_to_merge_is_no_wrong_token(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client)
        gitlab.set_checks(request.head, "success")
        gitlab.fail(401, match="^PUT .*/merge$", body={"message": "401 Unauthorized"})
        with pytest.raises(AccessRefused, match="merge into its target branch"):
            await client.merge_when_checks_pass(request)


async def test_what_gitlab_cannot_is_told_and_loses_nothing(gitlab: GitLab) -> None:
    gitlab.most_reviewers = 1
    wanted = Wanted("a", "b", labels=("one, two", "three"), reviewers=("alice", "bob", "ghost", "team:platform"))
    async with client_of(gitlab) as client:
        request = await opened(gitlab, client, wanted)
        assert request.labels == ("three",)
        assert gitlab.only().reviewers == ["alice"]
        told = [warning.split(":")[0] for warning in request.warnings]
        assert told == [
            "'team",
            "'ghost' was not asked to review",
            "label 'one, two' was not set",
            "'bob' was not asked to review",
        ]
        gitlab.quiet()
        assert await client.update(request, wanted) == request
    assert gitlab.log == []


async def test_opening_again_keeps_reviewers_that_people_chose(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        await opened(gitlab, client)
        gitlab.only().reviewers.append("bob")
        again = await client.open(BRANCH, "main", Wanted("a", "b", reviewers=("alice",)))
    assert again.warnings == ()
    assert sorted(gitlab.only().reviewers) == ["alice", "bob"]


async def test_a_request_out_of_a_fork_is_not_ours(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        await opened(gitlab, client)
        gitlab.only().fork = True
        assert await client.find(BRANCH, "main") is None


async def test_the_limit_of_gitlab(gitlab: GitLab) -> None:
    gitlab.limit(33)
    async with client_of(gitlab) as client:
        with pytest.raises(RateLimited) as caught:
            await client.open(BRANCH, "main", Wanted("a", "b", reviewers=("alice",)))
    assert caught.value.after == 33


async def test_gitlab_makes_no_commits_for_us(gitlab: GitLab) -> None:
    async with client_of(gitlab) as client:
        with pytest.raises(Invalid, match="commitThrough Git"):
            await client.commit(BRANCH, "0" * 40, {}, "Update")
    assert gitlab.log == []
