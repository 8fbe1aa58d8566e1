"""Stories of requests that go wrong, and of people who work on them while imagebot does, told by the whole service."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconcile.ports.clock import timestamp
from reconcile.settings import RetrySettings
from tests.scenario.test_pull_request_stories import HEAD, Team, ready, states, status
from tests.support.forges import PROVIDERS, GitHub, fake_forge
from tests.support.lab import automation, eventually, git_repository, image_policy, image_repository, lab, marked, obj, secret
from tests.support.service_facts import told

HOLDS = "imagebot.dev/v1alpha1"


@pytest.fixture(params=["github"])
async def team(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Team]:
    folder = tmp_path / "forge"
    folder.mkdir()
    with fake_forge(request.param, folder) as forge:
        async with lab(tmp_path) as world:
            made = Team(world, forge)
            made.begin()
            yield made
        assert forge.problems == []


every_forge = pytest.mark.parametrize("team", PROVIDERS, indirect=True)
github_and_gitlab = pytest.mark.parametrize("team", ["github", "gitlab"], indirect=True)


def set_by_hand(team: Team, name: str, tag: str) -> None:
    """A person's commit to the base."""
    team.repository.commit({f"{name}/deploy.yaml": marked(team.world.image(name), name, tag).encode()}, message="By hand")


@pytest.mark.slow
@github_and_gitlab
async def test_texts_that_could_not_be_brought_up_to_date_are_at_the_next_pass(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.release("web", "1.2.0")
    team.forge.fail(500, times=20, match="^(PATCH|PUT)")
    done = await team.once()
    assert ready(done)[:2] == ("False", "PullRequestFailed")
    team.forge.api.faults.clear()  # type: ignore[attr-defined]
    done = await team.once()
    assert ready(done)[0] == "True"
    request = team.forge.only()
    assert request.title == "Update web to 1.2.0"
    assert "1.2.0" in request.body
    head = team.repository.head(HEAD)
    assert (await team.once()).changed is False
    assert team.repository.head(HEAD) == head


@every_forge
async def test_a_title_that_a_person_set_stays_until_there_are_other_changes(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.edit(1, title="Look at this on Monday")
    assert not (await team.once()).changed
    team.repository.commit({"README.md": b"by hand\n"}, message="a person's")
    done = await team.once()
    assert status(done).pull_requests[0].base_commit == team.repository.head()
    assert team.forge.only().title == "Look at this on Monday"
    team.release("web", "1.2.0")
    await team.once()
    assert team.forge.only().title == "Update web to 1.2.0"


@every_forge
async def test_a_branch_that_a_person_puts_back_to_the_base_declines_like_a_deleted_one(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    base = str(team.repository.head())
    team.repository.git("update-ref", f"refs/heads/{HEAD}", base)
    for _ in range(2):
        done = await team.once()
        assert (ready(done)[0], states(done)) == ("True", ["Closed"])
        assert not team.forge.opened()
        assert team.forge.only().comments == []
    team.release("web", "1.2.0")
    done = await team.once()
    assert states(done) == ["Closed", "Open"]
    assert "web:1.2.0" in team.file("web", HEAD)
    assert not (await team.once()).changed


async def test_those_that_waited_for_room_come_before_those_that_did_not(team: Team) -> None:
    team.world.registry.push_image("job", "1.0.0")
    team.world.declare(image_repository("job", team.world.image("job")), image_policy("job"))
    set_by_hand(team, "job", "1.0.0")
    team.propose(groupBy="policy", maxOpen=1)
    for name in ("api", "job", "web"):
        team.release(name, "1.1.0")
    assert states(await team.once()) == ["Open", "Waiting", "Waiting"]
    for number, group in ((1, "api"), (2, "job"), (3, "web")):
        (request,) = team.forge.opened()
        assert (request.number, request.branch) == (number, f"{HEAD}/{group}")
        team.forge.merge(number)
        team.release("api", f"1.{number + 1}.0")
        await team.once()
    (request,) = team.forge.opened()
    assert request.branch == f"{HEAD}/api"
    assert request.title == "Update api to 1.4.0"


async def test_two_automations_of_one_repository_have_a_request_each(team: Team) -> None:
    wanted = {"provider": "github", "secretRef": {"name": "forge"}, "address": team.forge.address}
    for name in team.images:
        push = {"pullRequest": wanted}
        team.world.declare(automation(f"bot-{name}", "fleet", push=push, update={"path": f"./{name}"}))
        team.release(name, "1.1.0")
    await team.once()
    branches = {f"imagebot/apps/bot-{name}" for name in team.images}
    assert {request.branch for request in team.forge.opened()} == branches
    assert not (await team.once()).changed
    first = team.forge.requests[1].branch
    team.forge.merge(1)
    done = await team.once()
    (left,) = team.forge.opened()
    assert team.repository.git("rev-list", "--count", f"main..{left.branch}") == "1"
    assert team.repository.git("rev-list", "--count", f"{left.branch}..main") == "0", "built again on the base that moved"
    assert team.repository.head(first) is None
    assert done.ready("ImageUpdateAutomation", left.branch.rpartition("/")[2])[0] == "True"


async def test_two_automations_do_not_fight_for_one_branch(team: Team) -> None:
    wanted = {"provider": "github", "secretRef": {"name": "forge"}, "address": team.forge.address}
    for name in team.images:
        push = {"branch": "bot/images", "pullRequest": wanted}
        team.world.declare(automation(f"bot-{name}", "fleet", push=push, update={"path": f"./{name}"}))
        team.release(name, "1.1.0")
    await team.once()
    head = team.repository.head("bot/images")
    again = await team.once()
    assert team.repository.head("bot/images") == head
    assert len(team.forge.requests) == 1
    assert len(team.forge.only().comments) <= 1
    found = [again.objects["ImageUpdateAutomation", f"apps/bot-{name}"].status.pull_requests[0] for name in team.images]
    assert sorted(entry.state for entry in found) == ["Foreign", "Open"]
    comments = len(team.forge.only().comments)
    await team.once()
    assert len(team.forge.only().comments) == comments


@github_and_gitlab
async def test_an_image_that_is_rejected_closes_its_request_and_comes_back_with_the_end_of_the_hold(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    spec = {"imageRef": {"policy": "web"}, "mode": "Reject", "tags": ["1.1.0"], "reason": "it leaks"}
    hold = obj(HOLDS, "ImageHold", "leaks", spec)
    team.world.declare(hold)
    done = await team.once()
    assert (team.forge.only().state, states(done)) == ("closed", ["Superseded"])
    assert team.repository.head(HEAD) is None
    assert not (await team.once()).changed
    team.world.withdraw(hold)
    await team.once()
    (request,) = team.forge.opened()
    assert (request.number, request.title) == (2, "Update web to 1.1.0")


async def test_a_hold_that_ends_while_a_request_is_open_adds_its_image_to_it(team: Team) -> None:
    spec = {"imageRef": {"policy": "web"}, "mode": "Reject", "tags": ["1.1.0"]}
    hold = obj(HOLDS, "ImageHold", "leaks", spec)
    team.world.declare(hold)
    team.propose()
    for name in team.images:
        team.release(name, "1.1.0")
    await team.once()
    assert team.forge.only().title == "Update api to 1.1.0"
    team.world.withdraw(hold)
    await team.once()
    assert (team.forge.only().title, team.forge.only().state) == ("Update 2 images", "open")


@github_and_gitlab
async def test_a_revert_that_is_merged_by_a_request_is_understood(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.merge(1, "squash")
    await team.once()
    revert = team.repository.head()
    team.forge.push("revert-1", {"web/deploy.yaml": marked(team.world.image("web"), "web", "1.0.0").encode()})
    team.repository.git("update-ref", "refs/heads/main", str(team.repository.head("revert-1")))
    assert team.repository.head() != revert
    done = await team.once()
    assert not team.forge.opened()
    assert ("ImageHold", "apps/web-reverted") in done.objects or ("ImageHold", "apps/web-reverted") in (await team.once()).objects
    assert not (await team.once()).changed
    assert not team.forge.opened()


async def test_a_revert_while_a_quiet_period_is_running_is_not_written_over(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.merge(1)
    await team.once()
    team.propose(commit={"quietPeriod": "1h"})
    team.release("api", "1.1.0")
    assert "1 change waits until" in ready(await team.once())[2]
    set_by_hand(team, "web", "1.0.0")
    done = await team.once()
    assert "1 change waits until" in ready(done)[2]
    team.propose()
    done = await team.once()
    (request,) = team.forge.opened()
    assert request.title == "Update api to 1.1.0"
    assert "web:1.0.0" in team.file("web", request.branch)


@github_and_gitlab
async def test_a_merge_is_seen_while_other_changes_wait(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.propose(commit={"quietPeriod": "1h"})
    team.release("api", "1.1.0")
    done = await team.once()
    assert (states(done), team.forge.only().title) == (["Open"], "Update web to 1.1.0")
    assert "wait until" in ready(done)[2]
    team.forge.merge(1)
    done = await team.once()
    assert states(done) == ["Merged"]
    assert team.repository.head(HEAD) is None
    assert "1 change waits until" in ready(done)[2]
    assert not (await team.once()).changed
    team.propose()
    await team.once()
    assert [request.title for request in team.forge.opened()] == ["Update api to 1.1.0"]


async def test_what_waits_to_be_pushed_waits_no_longer_for_the_sake_of_old_requests(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.propose(when="PushRefused", commit={"quietPeriod": "1h"})
    async with team.world.start() as running:
        found = await running.until_ready("ImageUpdateAutomation", "fleet", "wait")
        since = found.status.pending_since
        await eventually(lambda: timestamp(datetime.now(UTC)) > since, "the next second")
        base = team.repository.commit({"README.md": b"by hand\n"}, message="a person's")
        running.request("ImageUpdateAutomation", "fleet")

        async def followed() -> Any:
            found = (await running.get("ImageUpdateAutomation", "fleet")).status
            return found if found.pull_requests[0].base_commit == base else None

        seen = await eventually(followed, "the branch of the request on the new base")
    assert (seen.pending_since, [entry.state for entry in seen.pull_requests]) == (since, ["Open"])


async def test_a_github_app_serves_git_and_the_api(team: Team) -> None:
    assert isinstance(team.forge, GitHub)
    app = team.forge.app
    team.forge.tokens.clear()
    front: Any = team.forge.front
    allowed = front.intercept

    def intercept(handler: Any) -> bool:
        front.expected = [f"Basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}" for token in app.issued] or [
            "-"
        ]
        return bool(allowed(handler))

    front.intercept = intercept
    data = {key: value.decode() for key, value in app.secret.items()}
    team.world.declare(
        secret("forge", data), git_repository("fleet", team.forge.url, provider="github", secretRef={"name": "forge"})
    )
    team.propose(commitThrough="API")
    team.release("web", "1.1.0")
    done = await team.once()
    assert ready(done) == ("True", "Succeeded", "repository up-to-date")
    assert team.forge.only().state == "open"
    assert "web:1.1.0" in team.file("web", HEAD)
    assert team.repository.head(HEAD) in team.forge.verified
    state = b"".join(path.read_bytes() for path in team.world.state.rglob("*") if path.is_file())
    assert not [token for token in app.issued if token.encode() in state]
    assert b"PRIVATE KEY" not in state


@pytest.mark.slow
async def test_a_forge_that_is_down_is_asked_with_growing_pauses_and_told_of_once(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    team.forge.fail(500, times=100_000)
    team.world.settings = replace(team.world.settings, retry=RetrySettings(0.05, 3600.0, 0.0))
    async with team.world.start() as running:
        await running.until_failed("ImageUpdateAutomation", "fleet", "PullRequestFailed")
        await eventually(lambda: len(team.forge.log) >= 9, "three tries", 60)
    assert {call.partition(" ")[0] for call in team.forge.log} == {"GET"}
    assert team.repository.head(HEAD) is None, "nothing is pushed as long as the forge cannot be asked"
    assert [row.reason for row in told(team.world.state)].count("PullRequestFailed") == 1
