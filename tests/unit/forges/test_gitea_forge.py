"""Gitea alone: labels by id, of the organization too; requests that its list hides; ways to merge."""

from __future__ import annotations

import pytest

from reconcile.errors import Conflict
from reconcile.ports.forge import Merge, RequestState, Wanted
from tests.support.forges import Gitea
from tests.support.forges.clients import BRANCH, client_of, opened


async def test_labels_are_looked_up_page_by_page_and_made_once(gitea: Gitea) -> None:
    gitea.labels = {f"label-{number}": number for number in range(1, 121)}
    wanted = Wanted("a", "b", labels=("label-120", "fresh"))
    async with client_of(gitea) as client:
        request = await opened(gitea, client, wanted)
        assert set(request.labels) == {"label-120", "fresh"}
        await opened(gitea, client, wanted, branch="other")
    assert len(gitea.labels) == 121


async def test_a_label_of_the_organization_is_not_made_again(gitea: Gitea) -> None:
    gitea.organization_labels = {"Images": 900}
    async with client_of(gitea) as client:
        request = await opened(gitea, client, Wanted("a", "b", labels=("images",)))
    assert request.labels == ("Images",)
    assert gitea.labels == {}


async def test_an_open_request_that_the_list_hides_is_found_when_it_is_opened_again(gitea: Gitea) -> None:
    async with client_of(gitea) as client:
        first = await opened(gitea, client)
        gitea.close(first.number)
        second = await client.open(BRANCH, "main", Wanted("a", "b"))
        gitea.most_items = 3
        for number in range(4):
            gitea.repository.git("branch", f"b{number}", BRANCH)
            await client.open(f"b{number}", "main", Wanted("a", "b"))
        again = await client.open(BRANCH, "main", Wanted("a", "b"))
        assert again.number == second.number


async def test_the_newer_of_two_closed_requests_is_found(gitea: Gitea) -> None:
    async with client_of(gitea) as client:
        for _ in range(2):
            request = await opened(gitea, client)
            gitea.close(request.number)
        gitea.delete_branch(BRANCH)
        gitea.quiet()
        found = await client.find(BRANCH, "main")
        assert found is not None
        assert (found.number, found.state, found.branch) == (request.number, RequestState.CLOSED, BRANCH)
    assert len(gitea.log) == 2


@pytest.mark.parametrize("style", ["squash", "rebase"])
async def test_merges_in_a_way_that_the_repository_has(gitea: Gitea, style: str) -> None:
    gitea.styles = {style}
    async with client_of(gitea) as client:
        request = await opened(gitea, client)
        gitea.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.DONE
    assert gitea.only().merged_how == style


async def test_missing_approvals_and_conflicts_are_waited_for(gitea: Gitea) -> None:
    gitea.protect("main", approvals=1)
    async with client_of(gitea) as client:
        request = await opened(gitea, client)
        gitea.set_checks(request.head, "success")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING
        gitea.approve(1)
        gitea.repository.commit({"app.yaml": b"image: app:9\n"}, message="meanwhile")
        assert await client.merge_when_checks_pass(request) is Merge.WAITING


async def test_a_push_between_look_and_merge_is_a_conflict(gitea: Gitea) -> None:
    async with client_of(gitea) as client:
        request = await opened(gitea, client)
        gitea.set_checks(request.head, "success")
        gitea.fail(409, match="POST .*/merge$", body={"message": "head out of date"})
        with pytest.raises(Conflict, match="head out of date"):
            await client.merge_when_checks_pass(request)


async def test_teams_are_asked(gitea: Gitea) -> None:
    async with client_of(gitea) as client:
        request = await opened(gitea, client, Wanted("a", "b", reviewers=("team:platform", "team:ghosts")))
    assert gitea.only().teams == ["platform"]
    assert len(request.warnings) == 1
    assert "team:ghosts" in request.warnings[0]
