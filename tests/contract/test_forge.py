"""The contract of a forge's client, over the three forges: each against its strict fake on a socket and a real repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconcile.errors import Conflict, Invalid, NotFound, ReconcileError
from reconcile.forges.open import OpenForge, Shared, open_forge
from reconcile.ports.clock import SystemClock
from reconcile.ports.forge import AccessRefused, Forge, Merge, RateLimited, Request, RequestState, Wanted
from tests.support.forges import BOT, PROVIDERS, FakeForge, fake_forge

BRANCH = "imagebot/apps/podinfo"
WANTED = Wanted("Update podinfo", "| old | new |\n", labels=("images", "Bot"), reviewers=("alice",))


@pytest.fixture(params=PROVIDERS)
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeForge]:
    with fake_forge(request.param, tmp_path) as forge:
        forge.repository.commit({"app.yaml": b"image: app:1\n", "run.sh": b"true\n"}, message="first")
        yield forge
    assert forge.problems == []


class Hasty(SystemClock):
    """Waits for nothing."""

    async def sleep(self, seconds: float) -> None:
        pass


@pytest.fixture
async def client(fake: FakeForge) -> AsyncIterator[OpenForge]:
    shared = Shared(Hasty())
    async with open_forge(fake.provider, fake.url, fake.address, fake.secret, secret="apps/forge", shared=shared) as forge:
        yield forge


def proposed(fake: FakeForge, branch: str = BRANCH, content: bytes = b"image: app:2\n") -> str:
    """The bot's commit on its branch."""
    return fake.repository.commit({"app.yaml": content}, branch=branch, start=fake.repository.head(), message="Update")


async def opened(fake: FakeForge, client: Forge, wanted: Wanted = WANTED, branch: str = BRANCH) -> Request:
    proposed(fake, branch)
    return await client.open(branch, "main", wanted)


async def test_opens_a_request_with_labels_and_reviewers(fake: FakeForge, client: Forge) -> None:
    head = proposed(fake)
    request = await client.open(BRANCH, "main", WANTED)
    assert (request.state, request.branch, request.base, request.head) == (RequestState.OPEN, BRANCH, "main", head)
    assert (request.title, request.body, request.draft, request.warnings) == (WANTED.title, WANTED.body, False, ())
    assert set(request.labels) == set(WANTED.labels)
    assert request.url.startswith("http")
    assert str(request.number) in request.url
    kept = fake.only()
    assert (kept.title, kept.body, set(kept.labels), kept.reviewers) == (WANTED.title, WANTED.body, set(WANTED.labels), ["alice"])
    assert await client.get(request.number) == request


async def test_finds_nothing_where_there_was_never_a_request(fake: FakeForge, client: Forge) -> None:
    assert await client.find(BRANCH, "main") is None
    assert len(fake.log) == 1


async def test_finds_the_open_request_with_one_call(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    await opened(fake, client, branch="imagebot/other")
    fake.quiet()
    assert await client.find(BRANCH, "main") == request
    assert len(fake.log) == 1


async def test_finds_the_open_request_among_closed_ones(fake: FakeForge, client: Forge) -> None:
    first = await opened(fake, client)
    fake.close(first.number)
    second = await client.open(BRANCH, "main", WANTED)
    fake.close(second.number)
    fake.reopen(first.number)
    found = await client.find(BRANCH, "main")
    assert found is not None
    assert (found.number, found.state) == (first.number, RequestState.OPEN)


async def test_finds_the_newest_of_closed_ones(fake: FakeForge, client: Forge) -> None:
    for _ in range(3):
        request = await opened(fake, client)
        fake.close(request.number)
    found = await client.find(BRANCH, "main")
    assert found is not None
    assert (found.number, found.state) == (request.number, RequestState.CLOSED)


async def test_requests_into_other_branches_are_others(fake: FakeForge, client: Forge) -> None:
    fake.repository.git("branch", "stable", "main")
    request = await opened(fake, client)
    assert await client.find(BRANCH, "stable") is None
    other = await client.open(BRANCH, "stable", WANTED)
    assert other.number != request.number
    assert other.base == "stable"
    assert await client.find(BRANCH, "main") == await client.get(request.number)


async def test_opening_again_returns_the_open_one_in_line(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client, Wanted("Update podinfo", "old"))
    again = await client.open(BRANCH, "main", replace(WANTED, title="Update podinfo to 2"))
    assert again.number == request.number == fake.only().number
    assert (again.title, again.body, set(again.labels)) == ("Update podinfo to 2", WANTED.body, set(WANTED.labels))
    assert fake.only().reviewers == ["alice"]


async def test_an_answer_that_is_lost_opens_no_second_request(fake: FakeForge, client: Forge) -> None:
    proposed(fake)
    fake.fail("lost", match="^POST .*(pulls|merge_requests)$")
    with pytest.raises(ReconcileError):
        await client.open(BRANCH, "main", WANTED)
    request = await client.open(BRANCH, "main", WANTED)
    assert fake.only().number == request.number
    assert (set(fake.only().labels), fake.only().reviewers) == (set(WANTED.labels), ["alice"])


async def test_an_update_without_a_change_costs_no_call(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.quiet()
    assert await client.update(request, WANTED) == request
    assert fake.log == []


async def test_an_update_brings_texts_and_labels_in_line_and_leaves_those_of_people(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.label(request.number, "urgent")
    now = await client.get(request.number)
    updated = await client.update(now, replace(WANTED, title="Update to 3", body="new", labels=("images", "third")))
    assert (updated.title, updated.body) == ("Update to 3", "new")
    assert set(updated.labels) == {"images", "Bot", "urgent", "third"} == set(fake.only().labels)
    assert await client.get(request.number) == updated


async def test_a_label_in_other_letters_is_there_already(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.quiet()
    await client.update(request, replace(WANTED, labels=("IMAGES",)))
    assert fake.log == []


async def test_a_draft_is_one_until_people_say_it_is_ready(fake: FakeForge, client: Forge) -> None:
    wanted = replace(WANTED, draft=True)
    request = await opened(fake, client, wanted)
    assert request.draft
    assert request.title == WANTED.title
    assert fake.only().draft
    assert await client.merge_when_checks_pass(request) is Merge.WAITING
    changed = await client.update(request, replace(wanted, title="Other"))
    assert changed.draft
    assert changed.title == "Other"
    assert fake.only().draft
    fake.make_ready(request.number)
    ready = await client.get(request.number)
    assert not ready.draft
    assert ready.title == "Other"
    fake.quiet()
    assert await client.update(ready, replace(wanted, title="Other")) == ready
    assert fake.log == []
    assert not (await client.update(ready, replace(wanted, title="Third"))).draft


async def test_comments_and_closes(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    await client.comment(request.number, "Superseded by #2.")
    await client.close(request.number)
    assert fake.only().comments == [(BOT, "Superseded by #2.")]
    assert (await client.get(request.number)).state is RequestState.CLOSED
    await client.close(request.number)
    assert fake.only().state == "closed"


@pytest.mark.parametrize("how", ["merge", "squash", "rebase"])
async def test_what_people_merged_is_merged(fake: FakeForge, client: Forge, how: str) -> None:
    request = await opened(fake, client)
    fake.repository.commit({"other.yaml": b"meanwhile\n"}, message="meanwhile")
    commit = fake.merge(request.number, how)
    now = await client.get(request.number)
    assert (now.state, now.merge_commit) == (RequestState.MERGED, commit)
    assert fake.repository.file("app.yaml") == b"image: app:2\n"
    await client.close(request.number)
    assert fake.only().state == "merged"
    assert await client.merge_when_checks_pass(request) is Merge.DONE


async def test_an_open_request_tells_of_no_merge_commit_and_follows_its_branch(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    assert request.merge_commit == ""
    commit = fake.push(BRANCH, {"mine.yaml": b"by hand\n"})
    assert (await client.get(request.number)).head == commit


async def test_a_request_whose_branch_is_deleted_is_closed(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.delete_branch(BRANCH)
    found = await client.find(BRANCH, "main")
    assert found is not None
    assert (found.number, found.state) == (request.number, RequestState.CLOSED)


async def test_reviewers_that_the_forge_refuses_do_not_lose_the_request(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client, replace(WANTED, reviewers=("alice", "nobody", BOT, "bob")))
    assert [name for name in fake.only().reviewers if name != BOT] == ["alice", "bob"]
    # GitLab takes the author of a request as its reviewer, the others refuse.
    assert [warning.split(" was not asked")[0] for warning in request.warnings] == ["'nobody'", f"'{BOT}'"][
        : 1 if fake.provider == "gitlab" else 2
    ]


async def test_nothing_to_propose_is_refused_with_the_forge_words(fake: FakeForge, client: Forge) -> None:
    with pytest.raises(ReconcileError, match="cannot open"):
        await client.open("no/such/branch", "main", WANTED)
    assert fake.requests == {}


# --- merging by itself


async def test_no_merge_before_the_forge_had_time_to_begin_its_checks(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    assert await client.merge_when_checks_pass(request) is Merge.WAITING
    assert fake.only().state == "open"
    fake.pass_time(120)
    assert await client.merge_when_checks_pass(request) is Merge.DONE
    assert fake.only().state == "merged"


async def test_merges_at_once_when_checks_have_passed(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.set_checks(request.head, "success")
    assert await client.merge_when_checks_pass(request) is Merge.DONE
    assert (await client.get(request.number)).state is RequestState.MERGED


async def test_waits_for_checks_that_run(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.set_checks(request.head, "pending")
    assert await client.merge_when_checks_pass(request) in (Merge.SET, Merge.WAITING)
    assert fake.only().state == "open"
    assert await client.merge_when_checks_pass(request) in (Merge.SET, Merge.WAITING)
    fake.set_checks(request.head, "success")
    assert await client.merge_when_checks_pass(request) is Merge.DONE
    assert fake.only().state == "merged"


async def test_never_merges_what_failed(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.pass_time(3600)
    fake.set_checks(request.head, "success", "lint")
    fake.set_checks(request.head, "failure", "unit")
    assert await client.merge_when_checks_pass(request) in (Merge.SET, Merge.WAITING)
    assert fake.only().state == "open"


async def test_never_merges_commits_that_it_has_not_seen(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    commit = fake.push(BRANCH, {"mine.yaml": b"by hand\n"})
    fake.set_checks(commit, "success")
    with pytest.raises(Conflict):
        await client.merge_when_checks_pass(request)
    fake.close(request.number)
    with pytest.raises(Conflict):
        await client.merge_when_checks_pass(await client.get(request.number))
    assert fake.only().state == "closed"


async def test_a_push_between_the_look_and_the_merge_is_not_merged(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.set_checks(request.head, "success")
    fake.before("(PUT|POST) .*/merge$", lambda: fake.push(BRANCH, {"mine.yaml": b"by hand\n"}))
    with pytest.raises(Conflict):
        await client.merge_when_checks_pass(request)
    assert fake.only().state == "open"


# --- what goes wrong


async def test_a_refused_token_is_named_but_not_shown(fake: FakeForge) -> None:
    wrong = "wrong-token-0123456789"
    secret = {"token": wrong.encode()}
    async with open_forge(fake.provider, fake.url, fake.address, secret, secret="apps/forge") as client:
        with pytest.raises(AccessRefused, match="secret 'apps/forge'") as caught:
            await client.find(BRANCH, "main")
    assert wrong not in str(caught.value)
    assert "acme/fleet" in str(caught.value)


async def test_no_error_shows_the_token(fake: FakeForge, client: Forge) -> None:
    await opened(fake, client)
    texts = []
    for status in (400, 401, 403, 404, 405, 409, 418, 422, 429, 500):
        fake.fail(status, times=1, match="^GET", body={"message": f"bad token {fake.token}", "errors": [fake.token]})
        fake.fail(status, times=2 if status in (429, 500) else 0, match="^GET", body={"message": fake.token})
        with pytest.raises(ReconcileError) as caught:
            await client.get(1)
        texts.append(f"{caught.value!r} {caught.value} {caught.value.__cause__!r}")
        fake.fail(200, times=0, match="")
    assert not [text for text in texts if fake.token in text]
    assert all("acme/fleet" in text for text in texts)


async def test_a_repository_that_is_not_there(fake: FakeForge) -> None:
    url = fake.url.replace("fleet", "other")
    async with open_forge(fake.provider, url, fake.address, fake.secret) as client:
        with pytest.raises(NotFound, match="acme/other"):
            await client.get(1)


async def test_a_right_that_is_missing(fake: FakeForge, client: Forge) -> None:
    proposed(fake)
    fake.fail(403, match="^POST", body={"message": "Resource not accessible"})
    with pytest.raises(AccessRefused, match="need the right to write"):
        await client.open(BRANCH, "main", WANTED)


async def test_a_rate_limit_says_how_long(fake: FakeForge, client: Forge) -> None:
    fake.limit(77)
    with pytest.raises(RateLimited) as caught:
        await client.find(BRANCH, "main")
    assert 70 <= caught.value.after <= 77
    assert len(fake.log) == 1


async def test_reads_are_tried_again_and_writes_are_not(fake: FakeForge, client: Forge) -> None:
    request = await opened(fake, client)
    fake.quiet()
    fake.fail(500, match="^GET")
    assert await client.get(request.number) == request
    assert len(fake.log) == 2
    fake.quiet()
    fake.fail(500, match="^POST")
    with pytest.raises(ReconcileError, match="500"):
        await client.comment(request.number, "once")
    assert len(fake.log) == 1
    assert fake.only().comments == []


@pytest.mark.parametrize("kind", ["cut", "slow"])
async def test_answers_that_break_off_are_asked_for_again(fake: FakeForge, client: Forge, kind: str) -> None:
    request = await opened(fake, client)
    fake.fail(kind, match="^GET")
    try:
        assert await client.get(request.number) == request
    except ReconcileError:
        assert kind == "cut"
        assert await client.get(request.number) == request


async def test_an_address_that_is_no_api(fake: FakeForge, client: Forge) -> None:
    fake.fail(200, body=b"<html>Sign in</html>")
    with pytest.raises(ReconcileError, match="no JSON"):
        await client.get(1)


async def test_every_request_is_counted(fake: FakeForge) -> None:
    seen: list[tuple[str, str]] = []
    shared = Shared(observe=lambda provider, outcome: seen.append((provider, outcome)))
    async with open_forge(fake.provider, fake.url, fake.address, fake.secret, shared=shared) as client:
        await client.find(BRANCH, "main")
        with pytest.raises(NotFound):
            await client.get(4)
    assert seen[-1] == (fake.provider, "404")
    assert (fake.provider, "200" if fake.provider != "gitea" else "404") in seen


def test_a_secret_without_a_token_is_refused(fake: FakeForge) -> None:
    with pytest.raises(Invalid, match=f"'apps/forge'.*{fake.provider}.*'token'"):
        open_forge(fake.provider, fake.url, fake.address, {"password": b"x"}, secret="apps/forge")
