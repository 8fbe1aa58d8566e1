"""Stories about changes that are proposed: the real service, a real registry, and strict forges over real Git."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import program
from tests.support.forges import PROVIDERS, FakeForge, fake_forge
from tests.support.lab import (
    Lab,
    Pass,
    Running,
    automation,
    eventually,
    git_repository,
    image_policy,
    image_repository,
    lab,
    marked,
    secret,
)

HEAD = "imagebot/apps/fleet"


only_github = pytest.mark.parametrize("team", ["github"], indirect=True)
only_gitlab = pytest.mark.parametrize("team", ["gitlab"], indirect=True)
only_gitea = pytest.mark.parametrize("team", ["gitea"], indirect=True)


class Team:
    """A repository on a forge, three images in it, and an automation that proposes."""

    def __init__(self, world: Lab, forge: FakeForge) -> None:
        self.world = world
        self.forge = forge
        self.repository = forge.repository
        self.images = ("web", "api")

    def begin(self) -> None:
        """Everything at 1.0.0, with nothing to do."""
        files = {f"{name}/deploy.yaml": marked(self.world.image(name), name, "1.0.0").encode() for name in self.images}
        self.repository.commit(files)
        for name in self.images:
            self.world.registry.push_image(name, "1.0.0")
            self.world.declare(image_repository(name, self.world.image(name)), image_policy(name))
        token = {key: value.decode() for key, value in self.forge.secret.items()}
        self.world.declare(git_repository("fleet", self.forge.url), secret("forge", token))

    def propose(
        self,
        *,
        push: dict[str, Any] | None = None,
        commit: dict[str, Any] | None = None,
        on_revert: str = "Hold",
        **request: Any,
    ) -> None:
        """Declare the automation."""
        wanted = {"provider": self.forge.provider, "secretRef": {"name": "forge"}, "address": self.forge.address, **request}
        git = {"commit": commit or {}, "push": {**(push or {}), "pullRequest": wanted}}
        self.world.declare(automation("fleet", "fleet", update={"onRevert": on_revert}, **git))

    def release(self, name: str, tag: str) -> None:
        """A new image."""
        self.world.registry.push_image(name, tag)

    def lose_status(self) -> None:
        """Everything that the service remembers is gone."""
        for path in self.world.state.glob("*.db*"):
            path.unlink()

    async def once(self) -> Pass:
        """One pass, as a fresh process makes it."""
        return await self.world.once()

    def file(self, name: str, branch: str = "main") -> str:
        """A marked file."""
        return self.repository.file(f"{name}/deploy.yaml", branch).decode()


@pytest.fixture(params=PROVIDERS)
async def team(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Team]:
    folder = tmp_path / "forge"
    folder.mkdir()
    with fake_forge(request.param, folder) as forge:
        async with lab(tmp_path) as world:
            made = Team(world, forge)
            made.begin()
            yield made
        assert forge.problems == []


def status(done: Pass) -> Any:
    """Status of the automation."""
    return done.objects["ImageUpdateAutomation", "apps/fleet"].status


def states(done: Pass) -> list[str]:
    return [entry.state for entry in status(done).pull_requests or []]


def ready(done: Pass) -> tuple[str, str, str]:
    return done.ready("ImageUpdateAutomation", "fleet")


async def test_a_change_is_proposed_once(team: Team) -> None:
    team.propose(labels=["images"], reviewers=["alice"])
    team.release("web", "1.1.0")
    done = await team.once()
    assert ready(done) == ("True", "Succeeded", "repository up-to-date")
    request = team.forge.only()
    assert (request.branch, request.base, request.state, request.title) == (HEAD, "main", "open", "Update web to 1.1.0")
    assert (request.labels, request.reviewers, request.draft) == (["images"], ["alice"], False)
    assert "1.0.0" in request.body
    assert "1.1.0" in request.body
    assert "semver" in request.body
    assert "web:1.1.0" in team.file("web", HEAD)
    assert "web:1.0.0" in team.file("web")
    (entry,) = status(done).pull_requests
    assert (entry.number, entry.state, entry.head) == (request.number, "Open", team.repository.head(HEAD))
    assert entry.images == [f"web: {team.world.image('web')}:1.1.0"]
    assert entry.base_commit == team.repository.head()
    again = await team.once()
    assert not again.changed
    assert status(again).pull_requests == status(done).pull_requests
    assert len(team.forge.requests) == 1


@only_gitlab
async def test_a_second_image_and_a_moved_base_renew_the_branch_in_place(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    first = team.repository.head(HEAD)
    team.release("api", "2.0.0")
    team.repository.commit({"README.md": b"by hand\n"}, message="a person's")
    done = await team.once()
    request = team.forge.only()
    assert (request.title, states(done)) == ("Update 2 images", ["Open"])
    assert "2.0.0" in request.body
    assert team.repository.head(HEAD) != first
    assert team.repository.git("rev-list", "--count", f"main..{HEAD}") == "1"
    assert team.repository.file("README.md", HEAD) == b"by hand\n"
    assert "web:1.1.0" in team.file("web", HEAD)
    assert "api:2.0.0" in team.file("api", HEAD)


async def test_a_merge_of_any_kind_is_understood(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.merge(1, {"github": "squash", "gitlab": "merge", "gitea": "rebase"}[team.forge.provider])
    done = await team.once()
    assert states(done) == ["Merged"]
    assert team.repository.head(HEAD) is None
    assert "web:1.1.0" in team.file("web")
    team.release("web", "1.2.0")
    done = await team.once()
    assert states(done) == ["Merged", "Open"]
    assert [request.number for request in team.forge.opened()] == [2]


async def test_a_closed_request_declines_its_changes(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.close(1)
    done = await team.once()
    assert states(done) == ["Closed"]
    assert ready(done)[0] == "True"
    team.lose_status()
    done = await team.once()
    assert states(done) == ["Closed"], "the request itself says what was declined, also when the status is lost"
    assert not team.forge.opened()
    team.release("web", "1.2.0")
    done = await team.once()
    assert states(done) == ["Closed", "Open"]
    (request,) = team.forge.opened()
    assert request.number == 2
    assert "1 was closed without being merged" in request.body


async def test_a_request_that_is_opened_again_is_kept_up_to_date(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.close(1)
    await team.once()
    team.forge.reopen(1)
    team.release("web", "1.2.0")
    done = await team.once()
    assert states(done) == ["Open"]
    assert team.forge.only().title == "Update web to 1.2.0"
    assert "web:1.2.0" in team.file("web", HEAD)


async def test_a_deleted_branch_declines_like_a_closed_request(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.delete_branch(HEAD)
    for _ in range(2):
        done = await team.once()
        assert states(done) == ["Closed"]
    assert not team.forge.opened()
    assert team.repository.head(HEAD) is None
    team.release("web", "1.2.0")
    done = await team.once()
    assert states(done) == ["Closed", "Open"]


async def test_commits_of_people_on_the_branch_are_left_alone(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    ours = team.repository.head(HEAD)
    theirs = team.forge.push(HEAD, {"fix.txt": b"by hand\n"})
    team.release("web", "1.2.0")
    for _ in range(2):
        done = await team.once()
        assert states(done) == ["Foreign"]
        assert team.repository.head(HEAD) == theirs
    request = team.forge.only()
    assert len(request.comments) == 1
    assert "commits that imagebot did not make" in request.comments[0][1]
    team.repository.git("update-ref", f"refs/heads/{HEAD}", str(ours))
    done = await team.once()
    assert states(done) == ["Open"]
    assert "web:1.2.0" in team.file("web", HEAD)
    theirs = team.forge.push(HEAD, {"fix.txt": b"by hand\n"})
    team.forge.merge(1)
    done = await team.once()
    assert states(done) == ["Merged"]
    assert team.repository.head(HEAD) == theirs, "a branch with commits of others is not deleted"


async def test_a_request_without_anything_left_to_change_is_closed(team: Team) -> None:
    team.propose(on_revert="Overwrite")
    team.release("web", "1.1.0")
    await team.once()
    team.repository.commit({"web/deploy.yaml": marked(team.world.image("web"), "web", "1.1.0").encode()})
    done = await team.once()
    request = team.forge.only()
    assert (request.state, states(done)) == ("closed", ["Superseded"])
    assert "Nothing is left to change" in request.comments[-1][1]
    assert team.repository.head(HEAD) is None
    team.repository.commit({"web/deploy.yaml": marked(team.world.image("web"), "web", "1.0.0").encode()})
    done = await team.once()
    assert states(done) == ["Superseded", "Open"], "what we closed ourselves declines nothing"


async def test_other_settings_supersede_requests(team: Team) -> None:
    team.propose()
    for name in team.images:
        team.release(name, "1.1.0")
    await team.once()
    team.propose(groupBy="policy")
    done = await team.once()
    assert states(done) == ["Superseded", "Open", "Open"]
    assert {request.branch for request in team.forge.opened()} == {f"{HEAD}/api", f"{HEAD}/web"}
    assert team.forge.requests[1].state == "closed"
    assert "Superseded by http" in team.forge.requests[1].comments[-1][1]
    assert "web:1.0.0" in team.file("web", f"{HEAD}/api")
    assert "api:1.1.0" in team.file("api", f"{HEAD}/api")
    team.world.declare(automation("fleet", "fleet"))
    done = await team.once()
    assert not team.forge.opened()
    assert [branch for branch in (f"{HEAD}/api", f"{HEAD}/web") if team.repository.head(branch)] == []
    assert "does not propose changes by requests any more" in team.forge.requests[2].comments[-1][1]
    assert "web:1.1.0" in team.file("web"), "without pullRequest, changes are pushed"
    assert status(done).observed_forge is None


@only_gitea
async def test_requests_beyond_the_limit_wait_for_room(team: Team) -> None:
    team.propose(groupBy="policy", maxOpen=1)
    for name in team.images:
        team.release(name, "1.1.0")
    done = await team.once()
    assert states(done) == ["Open", "Waiting"]
    assert len(team.forge.opened()) == 1
    assert team.repository.head(f"{HEAD}/web") is None
    team.forge.merge(1)
    done = await team.once()
    assert states(done) == ["Merged", "Open"]
    assert [request.branch for request in team.forge.opened()] == [f"{HEAD}/web"]


async def test_a_request_is_merged_when_its_checks_pass(team: Team) -> None:
    team.forge.protect("main", checks=True)
    team.propose(autoMerge="WhenChecksPass")
    team.release("web", "1.1.0")
    await team.once()
    team.forge.set_checks(str(team.repository.head(HEAD)), "pending")
    await team.once()
    assert team.forge.only().state == "open"
    team.forge.set_checks(str(team.repository.head(HEAD)), "success")
    await team.once()
    assert team.forge.only().state == "merged"
    done = await team.once()
    assert states(done) == ["Merged"]
    assert "web:1.1.0" in team.file("web")


async def test_a_protected_branch_gets_a_request_instead_of_a_push(team: Team) -> None:
    team.propose(when="PushRefused")
    team.release("web", "1.1.0")
    await team.once()
    assert "web:1.1.0" in team.file("web")
    assert not team.forge.requests
    team.forge.protect("main")
    team.release("web", "1.2.0")
    done = await team.once()
    assert ready(done)[0] == "True"
    assert states(done) == ["Open"]
    assert "web:1.1.0" in team.file("web")
    assert "web:1.2.0" in team.file("web", HEAD)
    refused = team.repository.path / "refused"
    hook = team.repository.path / "hooks" / "pre-receive"
    hook.write_text(hook.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\necho asked >> '{refused}'\n", 1))
    again = await team.once()
    assert status(again).push_refused_time == status(done).push_refused_time
    assert not refused.exists(), "no push is tried in vain"


async def test_a_failure_between_push_and_request_opens_no_second_one(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    team.forge.fail(500, times=10, match="POST")
    done = await team.once()
    assert ready(done)[:2] == ("False", "PullRequestFailed")
    head = team.repository.head(HEAD)
    assert head is not None
    team.forge.api.faults.clear()  # type: ignore[attr-defined]
    team.lose_status()
    await team.once()
    assert team.repository.head(HEAD) == head
    assert len(team.forge.requests) == 1
    team.lose_status()
    done = await team.once()
    assert states(done) == ["Open"]
    assert len(team.forge.requests) == 1


@only_gitlab
async def test_a_rate_limit_and_refused_credentials_are_told(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    team.forge.limit(1800, times=5)
    done = await team.once()
    assert ready(done)[:2] == ("False", "RateLimited")
    team.forge.api.faults.clear()  # type: ignore[attr-defined]
    team.world.declare(secret("forge", {"token": "wrong-token-0123456789"}))
    done = await team.once()
    assert ready(done)[:2] == ("False", "PullRequestFailed")
    assert "wrong-token" not in ready(done)[2]
    assert team.forge.repository.head() is not None


@only_github
async def test_github_makes_the_commits_where_it_is_asked_to(team: Team) -> None:
    team.propose(commitThrough="API")
    team.release("web", "1.1.0")
    await team.once()
    first = team.repository.head(HEAD)
    team.release("web", "1.2.0")
    done = await team.once()
    request = team.forge.only()
    assert (request.state, states(done)) == ("open", ["Open"])
    assert request.head == team.repository.head(HEAD) != first
    assert "web:1.2.0" in team.file("web", HEAD)
    assert team.repository.git("rev-list", "--count", f"main..{HEAD}") == "1"
    assert team.repository.head(f"{HEAD}.next") is None
    assert sum("graphql" in call for call in team.forge.log) == 2
    assert not (await team.once()).changed


@pytest.mark.parametrize("team", [p for p in PROVIDERS if p != "github"], indirect=True)
async def test_other_forges_make_no_commits(team: Team) -> None:
    team.propose(commitThrough="API")
    team.release("web", "1.1.0")
    done = await team.once()
    assert ready(done)[:2] == ("False", "InvalidPullRequest")
    assert "commitThrough API is for provider github" in ready(done)[2]
    assert not team.forge.log


async def test_an_idle_interval_costs_one_ls_remote_and_one_look_at_each_request(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    async with team.world.start() as running:
        await eventually(team.forge.opened, "the request")
        controller = next(c for c in running.service.controllers if c.kind == "ImageUpdateAutomation")
        for _ in range(2):  # the pass after the one that opened it finds everything in order
            await controller.queue.drained()
            running.request("ImageUpdateAutomation", "fleet")
        await controller.queue.drained()
        mirrors = controller.reconciler._mirrors
        processes, writes = mirrors.counters.processes.copy(), running.writes("ImageUpdateAutomation")
        team.forge.quiet()
        running.request("ImageUpdateAutomation", "fleet")
        await controller.queue.drained()
        assert mirrors.counters.processes - processes == Counter({"ls-remote": 1})
        assert running.writes("ImageUpdateAutomation") == writes
        assert len(team.forge.log) == 1
        assert team.forge.log[0].startswith("GET ")


@only_github
async def test_a_plan_opens_nothing_and_says_what_would_be(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    code, out, _ = await program("plan", str(team.world.folder), "--state", str(team.world.state))
    assert code == 2
    assert f"branch {HEAD}, on {str(team.repository.head())[:12]}\n  by pull request into main\n" in out
    assert "web:1.1.0" in out
    assert out.endswith("\n1 commit would be proposed by pull requests, with 1 changed file\n")
    assert (team.repository.head(HEAD), team.forge.log) == (None, [])
    await team.once()
    _, out, _ = await program("plan", str(team.world.folder), "--state", str(team.world.state))
    assert f"  by pull request into main\n    open, {status(await team.once()).pull_requests[0].url}\n" in out
    team.propose(groupBy="policy")
    _, out, _ = await program("plan", str(team.world.folder), "--state", str(team.world.state))
    assert f", branch {HEAD}/web, on " in out
    assert "  by pull request into main, for policy web\n    open for all policies, http" in out


@only_github
async def test_a_hook_that_refuses_for_other_reasons_is_no_cause_for_a_request(team: Team) -> None:
    team.propose(when="PushRefused")
    team.release("web", "1.1.0")
    team.repository.hook("pre-receive", "echo 'no commits on Fridays' >&2\nexit 1\n")
    done = await team.once()
    assert ready(done)[:2] == ("False", "GitOperationFailed")
    assert (team.forge.log, status(done).pull_requests) == ([], None)


@only_github
@pytest.mark.parametrize(
    ("push", "request_", "words"),
    [
        ({"branch": "main"}, {}, "the branch to merge into"),
        ({"branch": "a..b"}, {}, "invalid reference name"),
        ({"refspec": "refs/heads/main:refs/heads/other"}, {}, "refspec cannot be used together"),
    ],
)
async def test_settings_that_do_not_fit_are_named(team: Team, push: dict[str, str], request_: dict[str, str], words: str) -> None:
    team.propose(push=push, **request_)
    done = await team.once()
    assert ready(done)[:2] == ("False", "InvalidPullRequest")
    assert words in ready(done)[2]


@only_github
async def test_what_a_person_takes_back_after_the_merge_is_not_proposed_again(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.forge.merge(1)
    await team.once()
    team.repository.commit({"web/deploy.yaml": marked(team.world.image("web"), "web", "1.0.0").encode()}, message="Take it back")
    done = await team.once()
    assert states(done) == ["Merged"]
    assert not team.forge.opened()
    team.release("web", "1.2.0")
    await team.once()
    assert [request.title for request in team.forge.opened()] == ["Update web to 1.2.0"]


@only_github
async def test_a_quiet_period_holds_for_requests_too(team: Team) -> None:
    team.propose(commit={"quietPeriod": "1h"})
    team.release("web", "1.1.0")
    done = await team.once()
    assert "1 change waits until" in ready(done)[2]
    assert (team.repository.head(HEAD), team.forge.requests, status(done).pull_requests) == (None, {}, None)
    team.propose(commit={"quietPeriod": "1s"})
    async with team.world.start() as running:
        await eventually(team.forge.opened, "the request")
        found = await running.until_ready("ImageUpdateAutomation", "fleet", "repository up-to-date")
    assert found.status.pending_until is None


@only_github
async def test_a_branch_that_is_not_protected_any_more_is_pushed_to_again(team: Team) -> None:
    team.forge.protect("main")
    team.propose(when="PushRefused")
    team.release("web", "1.1.0")
    assert states(await team.once()) == ["Open"]
    team.repository.hook("pre-receive", "exit 0\n")
    team.propose(when="PushRefused", labels=["images"])  # an edited spec tries the push again
    await team.once()
    assert "web:1.1.0" in team.file("web")
    done = await team.once()
    assert states(done) == ["Superseded"]
    assert status(done).push_refused_time is None
    assert not team.forge.opened()


@only_github
async def test_without_its_secret_nothing_is_closed_and_pushes_go_on(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    await team.once()
    team.world.withdraw(secret("forge", {}))
    team.world.declare(automation("fleet", "fleet"))
    done = await team.once()
    assert ready(done)[0] == "True"
    assert "web:1.1.0" in team.file("web")
    assert states(done) == ["Superseded"]
    assert status(done).observed_forge is None


def counted(running: Running) -> dict[tuple[str, str], int]:
    """Requests to forges by provider and code, as the metric has them."""
    families = running.service.metrics.registry.collect()
    samples = next(family.samples for family in families if family.name == "imagebot_forge_requests")
    return {(sample.labels["provider"], sample.labels["code"]): int(sample.value) for sample in samples}


async def test_requests_to_the_forge_are_counted(team: Team) -> None:
    team.propose()
    team.release("web", "1.1.0")
    async with team.world.start() as running:
        await eventually(team.forge.opened, "the request")
        await running.until_ready("ImageUpdateAutomation", "fleet", "repository up-to-date")
        await running.service.manager.drained()
        found = counted(running)
        assert {provider for provider, _ in found} == {team.forge.provider}
        assert found[team.forge.provider, "201"] == 1
        assert sum(found.values()) == len(team.forge.log)
