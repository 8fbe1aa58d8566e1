"""What the clients of all forges share: conditional requests, redirects, bounds, time-outs, credentials that stay secret."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError, TimedOut
from reconcile.forges.session import ANSWER_LIMIT, Answer, Answers
from reconcile.ports.forge import RequestState, Wanted
from tests.support.forges import FakeForge, Gitea, GitHub, GitLab
from tests.support.forges.clients import BRANCH, client_of, hasty, opened


async def test_unchanged_answers_are_asked_for_conditionally(github: GitHub) -> None:
    shared = hasty()
    async with client_of(github, shared) as client:
        request = await opened(github, client)
        assert await client.get(1) == request
        assert await client.find(request.branch, "main") == request
    github.quiet()
    async with client_of(github, shared) as client:
        assert await client.get(1) == request
        assert await client.find(request.branch, "main") == request
        assert (github.conditional, len(github.log)) == (2, 2)
        github.close(1)
        assert (await client.get(1)).state is RequestState.CLOSED
        assert github.conditional == 2


async def test_answers_for_one_token_are_not_shown_to_another(github: GitHub) -> None:
    shared = hasty()
    github.tokens.add("another-token-0123")
    async with client_of(github, shared) as client:
        request = await opened(github, client)
        await client.get(1)
    async with client_of(github, shared, secret={"token": b"another-token-0123"}) as client:
        assert await client.get(1) == request
    assert github.conditional == 0


def test_kept_answers_are_bounded() -> None:
    kept = Answers(most=2, largest=100)
    for number in range(4):
        kept.put(("me", str(number)), Answer(200, {"etag": f'"{number}"'}, {}), 10)
    assert len(kept) == 2
    assert kept.get(("me", "1")) is None
    assert kept.get(("you", "3")) is None
    kept.put(("me", "3"), Answer(200, {"etag": '"new"'}, {}), 101)
    assert kept.get(("me", "3")) is None
    kept.put(("me", "9"), Answer(200, {}, {}), 10)
    assert len(kept) == 1


async def test_follows_the_same_server_to_a_renamed_repository(github: GitHub) -> None:
    async with client_of(github) as client:
        await opened(github, client)
        await opened(github, client, branch="other")
        target = f"{github.address}/repos/acme/fleet/pulls/2"
        github.fail(301, match="GET /api/v3/repos/acme/fleet/pulls/1", headers={"Location": target})
        assert (await client.get(1)).number == 2
        github.fail(
            307, match="POST .*/issues/1/comments", headers={"Location": f"{github.address}/repos/acme/fleet/issues/2/comments"}
        )
        await client.comment(1, "moved")
    assert github.requests[2].comments == [("fleet-bot", "moved")]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_the_token_goes_to_no_other_server(github: GitHub, gitlab: GitLab, status: int) -> None:
    elsewhere = f"{gitlab.address}/users?username=alice"
    async with client_of(github) as client:
        for method in ("GET", "POST"):
            github.fail(status, match=f"^{method}", headers={"Location": elsewhere})
        with pytest.raises(ReconcileError):
            await client.get(1)
        with pytest.raises(ReconcileError):
            await client.comment(1, "text")
    assert gitlab.log == []


async def test_a_redirect_on_a_write_that_would_become_a_read_is_refused(github: GitHub) -> None:
    async with client_of(github) as client:
        await opened(github, client)
        github.fail(302, match="^POST", headers={"Location": f"{github.address}/repos/acme/fleet/pulls/1"})
        with pytest.raises(Invalid, match="another address"):
            await client.comment(1, "text")


async def test_redirects_end(github: GitHub) -> None:
    async with client_of(github) as client:
        for number in (2, 3, 4, 5, 6, 7):
            there = f"{github.address}/repos/acme/fleet/pulls/{number}"
            github.fail(301, match=f"/pulls/{number - 1}$", headers={"Location": there})
        with pytest.raises(Invalid, match="another address"):
            await client.get(1)
    assert len(github.log) == 4


async def test_an_answer_without_end_is_refused(anyone: FakeForge) -> None:
    async with client_of(anyone) as client:
        anyone.fail(200, body=b'{"title": "' + b"x" * ANSWER_LIMIT + b'"}')
        with pytest.raises(ReconcileError, match="larger than the limit"):
            await client.get(1)


async def test_a_server_that_says_nothing_is_given_up(anyone: FakeForge) -> None:
    async with client_of(anyone, hasty(timeout=0.2)) as client:
        anyone.fail("hang", times=5)
        with pytest.raises(TimedOut):
            await client.get(1)
        anyone.fail("hang", times=1)
        with pytest.raises(ReconcileError):
            await client.comment(1, "text")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Invalid), (404, NotFound), (409, Conflict), (412, Conflict), (422, Invalid), (502, ReconcileError)]
)
async def test_statuses_become_errors_that_tell_what_was_tried(gitea: Gitea, status: int, kind: type[Exception]) -> None:
    async with client_of(gitea) as client:
        gitea.fail(status, times=3, body={"message": "because"})
        with pytest.raises(kind, match=r"127\.0\.0\.1:\d+/acme/fleet: cannot comment on pull request #1: because \(\d+\)"):
            await client.comment(1, "text")


async def test_answers_that_lack_what_they_should_have(anyone: FakeForge) -> None:
    async with client_of(anyone) as client:
        bodies: tuple[Any, ...] = ({}, [], {"number": "one", "iid": None}, {"state": "open", "merged": 3}, 7)
        for body in bodies:
            anyone.fail(200, match="^GET", body=body)
            with pytest.raises(ReconcileError, match="is the address that of its API"):
                await client.get(1)
        for body in ("text", {"number": 1}, [3], [{}])[: 2 if anyone.provider == "github" else 4]:
            anyone.fail(200, match="^GET", body=body)
            with pytest.raises(ReconcileError):
                await client.find(BRANCH, "main")


async def test_a_body_of_any_length_can_be_proposed(anyone: FakeForge) -> None:
    async with client_of(anyone) as client:
        wanted = Wanted("word " * 200, "| podinfo | 1.0.0 | 2.0.0 |\n" * 9000)
        request = await opened(anyone, client, wanted)
        anyone.quiet()
        assert await client.update(request, wanted) == request
    assert anyone.log == []


@pytest.mark.parametrize("provider", ["github", "gitea"])
async def test_a_label_that_cannot_be_set_does_not_lose_the_request(provider: str, request: pytest.FixtureRequest) -> None:
    anyone: FakeForge = request.getfixturevalue(provider)
    async with client_of(anyone) as client:
        anyone.fail(403, match="POST .*/labels", body={"message": "no"})
        made = await opened(anyone, client, Wanted("a", "b", labels=("images",)))
        assert made.number == anyone.only().number
        assert len(made.warnings) == 1
        assert "cannot label pull request" in made.warnings[0]
        assert (await client.update(made, Wanted("a", "b", labels=("images",)))).labels == ("images",)
