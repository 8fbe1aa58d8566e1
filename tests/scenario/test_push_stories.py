"""Stories about where and how commits are pushed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import asyncssh
import pytest

from tests.support.gitrepo import BareRepository
from tests.support.lab import Lab, automation, eventually, git_repository, image_policy, image_repository, lab, marked, secret
from tests.support.sshserver import SshGitServer


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        made.registry.push_image("web", "1.0.0")
        yield made


class Human:
    """Somebody who pushes a commit of their own every 100 ms until told to stop, and slower when nobody stops them.

    On a busy machine nobody else might ever get a turn.
    """

    def __init__(self, bare: BareRepository, branch: str = "main") -> None:
        self.bare, self.branch, self.count = bare, branch, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._stop.is_set():
            with suppress(AssertionError):  # the bot was quicker: again, on top of its commit
                self.bare.commit(
                    {f"human-{self.count}.txt": b"by hand\n"}, branch=self.branch, message=f"human {self.count}", force=False
                )
                self.count += 1
            self._stop.wait(0.1 * 2 ** (self.count // 20))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def test_a_race_against_a_human_loses_no_edit_and_forces_nothing(world: Lab) -> None:
    bare = world.declare_app()
    bare.git("config", "receive.denyNonFastForwards", "true")
    with Human(bare) as human:
        await asyncio.sleep(0.3)
        done = await world.once()
        await asyncio.sleep(0.3)
    assert done.ready("ImageUpdateAutomation", "web") == ("True", "Succeeded", "repository up-to-date")
    assert b"web:1.0.0" in bare.file("deploy.yaml")
    tree = bare.tree()
    assert all(f"human-{n}.txt" in tree for n in range(human.count))
    assert len(bare.log()) == human.count + 2


async def test_a_commit_that_lands_between_reading_and_pushing_survives(world: Lab) -> None:
    """Once with a plain branch, once with a full name, which upstream pushes by force."""
    for number, reference in enumerate(({"branch": "main"}, {"name": "refs/heads/main"})):
        name = f"race{number}"
        bare = world.repository(f"{name}.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
        world.declare(
            image_repository("web", world.image("web")),
            image_policy("web"),
            git_repository(name, world.url(f"{name}.git")),
            automation(name, name, checkout={"ref": reference}, push={"branch": "main"}),
        )
        pushed = []

        def intercept(handler: object, bare: BareRepository = bare, name: str = name, pushed: list[int] = pushed) -> bool:
            path = handler.path  # type: ignore[attr-defined]
            if not pushed and f"{name}.git" in path and "service=git-receive-pack" in path:
                pushed.append(1)
                bare.commit({"human.txt": b"by hand\n"}, message="human", force=False)
            return False

        world.git.intercept = intercept
        await world.once()
        world.git.intercept = None
        assert pushed
        assert bare.file("human.txt") == b"by hand\n"
        assert b"web:1.0.0" in bare.file("deploy.yaml")
        assert len(bare.log()) == 3


async def test_a_branch_that_does_not_exist_is_made_and_then_built_upon(world: Lab) -> None:
    bare = world.declare_app(push={"branch": "updates"})
    await world.once()
    assert b"web:0.9.0" in bare.file("deploy.yaml", "main")
    assert b"web:1.0.0" in bare.file("deploy.yaml", "updates")
    bare.commit({"review.txt": b"seen\n"}, branch="updates", message="review")
    world.registry.push_image("web", "1.1.0")
    await world.once()
    assert b"web:1.1.0" in bare.file("deploy.yaml", "updates")
    assert bare.file("review.txt", "updates") == b"seen\n"
    assert len(bare.log("updates")) == 4
    assert len(bare.log("main")) == 1


async def test_an_up_to_date_push_branch_gets_no_commit(world: Lab) -> None:
    bare = world.declare_app(push={"branch": "updates"})
    await world.once()
    again = await world.once()
    assert not again.changed
    assert len(bare.log("updates")) == 2


async def test_branch_and_refspec_are_pushed_together_or_not_at_all(world: Lab) -> None:
    bare = world.declare_app(push={"branch": "main", "refspec": "refs/heads/main:refs/heads/mirror"})
    bare.hook("update", '#!/bin/sh\n[ "$1" != refs/heads/mirror ]\n')
    refused = await world.once()
    assert refused.ready("ImageUpdateAutomation", "web")[:2] == ("False", "GitOperationFailed")
    assert b"web:0.9.0" in bare.file("deploy.yaml")
    bare.hook("update", "#!/bin/sh\nexit 0\n")
    done = await world.once()
    assert done.changed
    assert bare.head("main") == bare.head("mirror")
    assert b"web:1.0.0" in bare.file("deploy.yaml", "mirror")


async def test_a_refspec_target_is_moved_forward_only(world: Lab) -> None:
    """Somebody committed to the target: their commit stays, and nothing is pushed; once merged, all goes on."""
    bare = world.declare_app(push={"branch": "main", "refspec": "refs/heads/main:refs/heads/extra"})
    base = bare.head()
    bare.commit({"human.txt": b"by hand\n"}, branch="extra", start=base, message="human")
    human = bare.head("extra")
    refused = await world.once()
    status, reason, message = refused.ready("ImageUpdateAutomation", "web")
    assert (status, reason) == ("False", "GitOperationFailed")
    assert message.endswith("non-fast-forward update: refs/heads/extra")
    assert bare.head("extra") == human
    assert bare.head() == base
    bare.git("update-ref", "refs/heads/main", str(human))
    done = await world.once()
    assert done.changed
    assert bare.head("extra") == bare.head()
    assert bare.file("human.txt", "extra") == b"by hand\n"


async def test_a_refspec_target_that_is_only_behind_catches_up(world: Lab) -> None:
    bare = world.declare_app(push={"branch": "main", "refspec": "refs/heads/main:refs/heads/extra"})
    bare.git("update-ref", "refs/heads/extra", str(bare.head()))
    bare.commit({"more.txt": b"1"}, message="one")
    bare.commit({"more.txt": b"2"}, message="two")
    assert (await world.once()).changed
    assert bare.head("extra") == bare.head()


async def test_a_hook_that_declines_is_said_so(world: Lab) -> None:
    bare = world.declare_app()
    bare.hook("pre-receive", "#!/bin/sh\necho 'no commits on Fridays' >&2\nexit 1\n")
    refused = await world.once()
    status, reason, message = refused.ready("ImageUpdateAutomation", "web")
    assert (status, reason) == ("False", "GitOperationFailed")
    assert message.startswith(
        "failed to update source: failed to push to remote: command error on refs/heads/main: pre-receive hook declined"
    )


async def test_one_bad_commit_in_a_common_push_does_not_stop_the_others(world: Lab) -> None:
    """Two automations share a branch; a hook refuses the commits of one of them."""
    bare = world.repository(
        "shared.git", {f"{n}/deploy.yaml": marked(world.image("web"), "web", "0.9.0") for n in ("good", "bad")}
    )
    bare.hook(
        "pre-receive",
        "#!/bin/sh\nwhile read old new ref; do git log --format=%s $old..$new | grep -q bad && exit 1; done; exit 0\n",
    )
    world.declare(
        image_repository("web", world.image("web")),
        image_policy("web"),
        git_repository("shared", world.url("shared.git")),
        *(automation(n, "shared", update={"path": n}, commit={"messageTemplate": n}) for n in ("good", "bad")),
    )
    done = await world.once()
    assert done.ready("ImageUpdateAutomation", "good")[0] == "True"
    assert done.ready("ImageUpdateAutomation", "bad")[1] == "GitOperationFailed"
    assert b"web:1.0.0" in bare.file("good/deploy.yaml")
    assert b"web:0.9.0" in bare.file("bad/deploy.yaml")


async def test_the_digest_is_followed_when_the_tag_moves(world: Lab) -> None:
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
    world.declare(
        image_repository("web", world.image("web")),
        image_policy("web", digestReflectionPolicy="Always", interval="1h"),
        git_repository("web", world.url("app.git")),
        automation("web", "web"),
    )
    await world.once()
    first = bare.file("deploy.yaml")
    assert b"web:1.0.0@sha256:" in first
    digest = world.registry.push_image("web", "1.0.0", labels={"build": "2"})
    done = await world.once()
    assert done.objects["ImagePolicy", "apps/web"].status.latest_ref.digest == digest
    assert f"web:1.0.0@{digest} #".encode() in bare.file("deploy.yaml")
    assert len(bare.log()) == 3


async def test_checkout_by_tag_semver_name_and_commit(world: Lab) -> None:
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.1.0")})
    first = bare.head()
    assert first is not None
    bare.tag("v1.0.0", first)
    bare.commit({"deploy.yaml": marked(world.image("web"), "web", "0.2.0").encode()}, message="second")
    second = bare.head()
    assert second is not None
    bare.tag("v1.2.0", second, annotated=True)
    bare.commit({"later.txt": b"x"}, message="third")
    references = {
        "tag": ({"tag": "v1.0.0"}, first),
        "semver": ({"semver": ">=1.0.0"}, second),
        "name": ({"name": "refs/tags/v1.0.0"}, first),
        "commit": ({"commit": second}, second),
    }
    world.declare(image_repository("web", world.image("web")), image_policy("web"), git_repository("web", world.url("app.git")))
    for name, (reference, _) in references.items():
        world.declare(automation(name, "web", checkout={"ref": reference}, push={"branch": f"from-{name}"}))
    await world.once()
    for name, (_, base) in references.items():
        assert bare.git("rev-parse", f"from-{name}^").strip() == base, name
        assert b"web:1.0.0" in bare.file("deploy.yaml", f"from-{name}")


async def test_over_ssh_with_a_strict_host_key(world: Lab) -> None:
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
    key = asyncssh.generate_private_key("ssh-ed25519")
    other = asyncssh.generate_private_key("ssh-ed25519")
    with SshGitServer(world.root / "git", authorized=[key.export_public_key().decode()]) as server:
        good = {"identity": key.export_private_key().decode(), "known_hosts": server.known_hosts().decode()}
        bad = {**good, "known_hosts": server.known_hosts(other).decode()}
        world.declare(
            image_repository("web", world.image("web")),
            image_policy("web"),
            git_repository("web", server.url("app.git"), secretRef={"name": "ssh"}),
            automation("web", "web"),
            secret("ssh", bad),
        )
        refused = await world.once()
        assert refused.ready("ImageUpdateAutomation", "web")[1] == "GitOperationFailed"
        assert b"web:0.9.0" in bare.file("deploy.yaml")
        world.declare(secret("ssh", good))
        done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    assert b"web:1.0.0" in bare.file("deploy.yaml")


async def test_an_idle_interval_costs_one_ls_remote_and_no_write(world: Lab) -> None:
    bare = world.declare_app()
    async with world.start() as running:
        await eventually(lambda: len(bare.log()) == 2, "the commit")
        controller = next(c for c in running.service.controllers if c.kind == "ImageUpdateAutomation")
        await controller.queue.drained()
        world.git.traffic.clear()
        writes = running.writes("ImageUpdateAutomation")
        running.request("ImageUpdateAutomation", "web")
        await controller.queue.drained()
        assert running.writes("ImageUpdateAutomation") == writes
    refs = [r for r in world.git.traffic.requests if "info/refs" in r]
    assert len(refs) == 1
    assert not any("receive-pack" in r for r in world.git.traffic.requests)


async def test_an_unchanged_scan_costs_one_request_and_no_write(world: Lab) -> None:
    world.declare(image_repository("web", world.image("web"), interval="1s"), image_policy("web"))
    async with world.start() as running:
        await running.until_ready("ImagePolicy", "web")
        writes, tags = running.writes("ImageRepository"), world.registry.requests["tags"]
        other = sum(world.registry.requests.values()) - tags
        deadline = time.monotonic() + 20
        while world.registry.requests["tags"] < tags + 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert world.registry.requests["tags"] >= tags + 3
        assert running.writes("ImageRepository") == writes
        assert running.writes("ImagePolicy") == 2
        assert sum(world.registry.requests.values()) - world.registry.requests["tags"] == other
