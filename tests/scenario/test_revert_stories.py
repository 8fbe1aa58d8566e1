"""Stories of people who take an image back in Git after the bot wrote it; told by the whole service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.app import DATABASE_NAME
from reconcile.local.database import Database
from tests.support.commands import program
from tests.support.gitrepo import ENV, BareRepository
from tests.support.lab import Lab, Pass, automation, eventually, image_policy, image_repository, lab, marked, obj
from tests.support.service_facts import told

FILE = "deploy.yaml"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        for tag in ("1.3.0", "1.4.0"):
            made.registry.push_image("web", tag)
        yield made


class Person:
    """Somebody with a clone."""

    def __init__(self, world: Lab, name: str = "Ada") -> None:
        self.bare = BareRepository(world.root / "git" / "app.git")
        self.folder = world.root / name
        self.env = {**ENV, "GIT_AUTHOR_NAME": name, "GIT_COMMITTER_NAME": name}
        self._run("clone", "-q", str(self.bare.path), str(self.folder), cwd=world.root)

    def git(self, *arguments: str) -> str:
        return self._run(*arguments, cwd=self.folder)

    def _run(self, *arguments: str, cwd: Path) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def pull(self) -> None:
        self.git("pull", "-q", "--ff-only")

    def push(self, *arguments: str) -> str:
        self.git("push", "-q", *arguments)
        return self.git("rev-parse", "--short=7", "HEAD")

    def revert(self) -> str:
        """git revert of the last commit; its short id."""
        self.pull()
        self.git("revert", "--no-edit", "HEAD")
        return self.push()

    def edit(self, old: str, new: str, *paths: str, message: str = "by hand") -> str:
        """Set a value in files."""
        self.pull()
        for path in paths or (FILE,):
            file = self.folder / path
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
        self.git("commit", "-q", "-am", message)
        return self.push()


async def brought(world: Lab, tag: str = "1.5.0", **more: Any) -> BareRepository:
    """An application of which the bot wrote 1.4.0, and then this tag."""
    bare = world.declare_app(**more)
    await world.once()
    assert written(bare) == "1.4.0"
    await pushed(world, tag)
    assert written(bare) == tag
    return bare


async def pushed(world: Lab, tag: str) -> Pass:
    """A new tag, and the pass that sees it."""
    world.registry.push_image("web", tag)
    return await world.once()


def written(bare: BareRepository, path: str = FILE) -> str:
    """The tag in a file."""
    line = next(line for line in bare.file(path).decode().splitlines() if "image: " in line)
    return line.partition("#")[0].strip().rpartition(":")[2]


def hold(done: Pass) -> dict[str, Any]:
    """The spec of the hold of the policy web; empty without one."""
    found = done.objects.get(("ImageHold", "apps/web-reverted"))
    return found.to_dict()["spec"] if found is not None else {}


def held(done: Pass) -> tuple[str, str]:
    """Reason and message of the condition Held of the policy web."""
    found = cond.get(done.objects["ImagePolicy", "apps/web"].status.conditions, "Held")
    return (found.reason, found.message) if found else ("", "")


def events(world: Lab, reason: str) -> list[str]:
    return [row.message for row in told(world.state) if row.reason == reason]


async def calm(world: Lab, bare: BareRepository) -> None:
    """Another pass changes nothing."""
    commits = bare.log()
    done = await world.once()
    assert not done.changed
    assert bare.log() == commits


async def test_git_revert_holds_until_something_newer_comes(world: Lab) -> None:
    bare = await brought(world)
    commit = Person(world).revert()
    done = await world.once()
    assert written(bare) == "1.4.0"
    reason = f'reverted by {commit} of Ada on deploy.yaml: Revert "Update from image update automation"'
    assert hold(done) == {
        "imageRef": {"policy": "web"},
        "mode": "Reject",
        "tags": ["1.5.0"],
        "fallback": "1.4.0",
        "reason": reason,
    }
    assert held(done) == ("Rejected", f"1.5.0 is rejected by ImageHold web-reverted ({reason})")
    assert done.ready("ImagePolicy", "web")[:2] == ("True", "Succeeded")
    assert done.ready("ImageUpdateAutomation", "web")[:2] == ("True", "Succeeded")
    said = events(world, "Reverted")
    assert len(said) == 1
    for part in (
        "apps/web",
        f"{world.image('web')}:1.5.0",
        "to 1.4.0",
        commit,
        "Ada",
        "apps/web-reverted",
        "delete",
        "1.5.0 again",
    ):
        assert part in said[0]
    await calm(world, bare)
    await pushed(world, "1.4.5")
    assert written(bare) == "1.4.0"
    await pushed(world, "1.6.0")
    assert written(bare) == "1.6.0"
    assert len(events(world, "Reverted")) == 1


async def test_an_edit_of_a_person_is_a_revert_too_and_one_to_a_newer_tag_is_none(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    person.edit("web:1.5.0", "web:1.9.0")
    done = await world.once()
    assert (written(bare), hold(done)) == ("1.5.0", {})
    person.edit("web:1.5.0", "web:1.3.0", message="back to what worked")
    done = await world.once()
    assert (written(bare), hold(done)["fallback"]) == ("1.3.0", "1.3.0")
    assert "back to what worked" in hold(done)["reason"]


async def test_a_squash_and_a_merge_of_a_branch_with_the_revert_are_reverts(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    person.git("checkout", "-q", "-b", "undo")
    person.git("revert", "--no-edit", "HEAD")
    person.git("checkout", "-q", "main")
    person.git("merge", "-q", "--squash", "undo")
    person.git("commit", "-q", "-m", "Undo (#12)")
    commit = person.push()
    done = await world.once()
    assert (written(bare), hold(done)["tags"]) == ("1.4.0", ["1.5.0"])
    assert hold(done)["reason"] == f"reverted by {commit} of Ada on deploy.yaml: Undo (#12)"
    await pushed(world, "1.6.0")
    other = Person(world, "Grace")
    other.git("checkout", "-q", "-b", "undo")
    other.git("revert", "--no-edit", "HEAD")
    other.git("checkout", "-q", "main")
    other.git("commit", "-q", "--allow-empty", "-m", "meanwhile")
    other.git("merge", "-q", "--no-ff", "-m", "Merge request 13", "undo")
    merge = other.push()
    done = await world.once()
    assert (written(bare), hold(done)["tags"]) == ("1.4.0", ["1.6.0", "1.5.0"])
    assert hold(done)["reason"] == f"reverted by {merge} of Grace on deploy.yaml: Merge request 13"


async def test_a_push_that_takes_the_branch_back_is_a_revert(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    person.git("reset", "-q", "--hard", "HEAD~1")
    commit = person.push("--force")
    done = await world.once()
    assert (written(bare), hold(done)["tags"], hold(done)["fallback"]) == ("1.4.0", ["1.5.0"], "1.4.0")
    assert hold(done)["reason"] == f"reverted at {commit} of bot on deploy.yaml: Update from image update automation"
    await calm(world, bare)


async def test_one_of_several_markers_set_back_counts_for_the_policy(world: Lab) -> None:
    bare = world.declare_app()
    Person(world, "Grace").git("version")
    bare.commit({"more.yaml": marked(world.image("web"), "web", "0.9.0").encode()})
    await world.once()
    await pushed(world, "1.5.0")
    Person(world).edit("web:1.5.0", "web:1.4.0", "more.yaml")
    done = await world.once()
    assert hold(done)["fallback"] == "1.4.0"
    assert (written(bare), written(bare, "more.yaml")) == ("1.4.0", "1.4.0")
    await calm(world, bare)


async def test_markers_set_back_to_several_tags_are_all_left_alone(world: Lab) -> None:
    bare = world.declare_app()
    bare.commit({name: marked(world.image("web"), "web", "0.9.0").encode() for name in ("more.yaml", "third.yaml")})
    await world.once()
    await pushed(world, "1.5.0")
    person = Person(world)
    person.edit("web:1.5.0", "web:1.4.0", "more.yaml")
    person.edit("web:1.5.0", "web:1.3.0", "third.yaml")
    done = await world.once()
    assert hold(done)["fallback"] == ""
    tags = [written(bare, name) for name in (FILE, "more.yaml", "third.yaml")]
    assert tags == ["1.5.0", "1.4.0", "1.3.0"]
    assert done.ready("ImagePolicy", "web")[:2] == ("False", "Rejected")
    await world.once()
    await pushed(world, "1.6.0")
    assert {written(bare, name) for name in (FILE, "more.yaml", "third.yaml")} == {"1.6.0"}


async def test_a_hotfix_that_the_rule_cannot_choose_stays_until_something_newer_comes(world: Lab) -> None:
    bare = world.declare_app()
    strict = image_policy("web", filterTags={"pattern": r"^\d+\.\d+\.\d+$"})
    world.declare(strict)
    await world.once()
    await pushed(world, "1.5.0")
    person = Person(world)
    person.edit("web:1.5.0", "web:1.4.2-hotfix")
    world.registry.push_image("web", "1.4.2-hotfix")
    done = await world.once()
    assert (written(bare), hold(done)["fallback"]) == ("1.4.2-hotfix", "1.4.2-hotfix")
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    person.edit("hotfix", "hotfix2")
    done = await world.once()
    assert (written(bare), hold(done)["fallback"]) == ("1.4.2-hotfix2", "1.4.2-hotfix2")
    await calm(world, bare)
    await pushed(world, "1.5.1")
    assert written(bare) == "1.5.1"


async def test_a_new_file_with_an_old_value_is_brought_up_to_date(world: Lab) -> None:
    bare = await brought(world)
    old = marked(world.image("web"), "web", "1.4.0")
    twice = bare.file(FILE).decode() + "---\n" + old.replace("name: web", "name: other", 1)
    bare.commit({"new.yaml": old.encode(), FILE: twice.encode()})
    done = await world.once()
    assert hold(done) == {}
    assert written(bare, "new.yaml") == "1.5.0"
    assert b"1.4.0" not in bare.file(FILE)


async def test_setting_the_rejected_image_again_ends_the_hold(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    person.revert()
    assert hold(await world.once())["tags"] == ["1.5.0"]
    person.revert()
    done = await world.once()
    assert (written(bare), hold(done), held(done)) == ("1.5.0", {}, ("", ""))
    assert done.objects["ImagePolicy", "apps/web"].status.latest_ref.tag == "1.5.0"
    assert len(events(world, "RevertEnded")) == 1
    await calm(world, bare)


async def test_a_deleted_hold_ends_and_the_image_is_written_again(world: Lab) -> None:
    bare = await brought(world)
    Person(world).revert()
    assert hold(await world.once())["tags"] == ["1.5.0"]
    async with world.start() as running:
        await running.until_ready("ImageUpdateAutomation", "web")
        database = Database(world.state / DATABASE_NAME)
        database.delete("ImageHold", Key("apps", "web-reverted"))
        database.close()
        await eventually(lambda: written(bare) == "1.5.0", "the image to be written again", 40)
    done = await world.once()
    assert hold(done) == {}
    assert held(done) == ("", "")


async def test_two_reverts_in_a_row_go_back_to_the_same(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    person.revert()
    await world.once()
    await pushed(world, "1.6.0")
    assert written(bare) == "1.6.0"
    person.revert()
    done = await world.once()
    assert (hold(done)["tags"], hold(done)["fallback"], written(bare)) == (["1.6.0", "1.5.0"], "1.4.0", "1.4.0")
    person.edit("web:1.4.0", "web:1.5.0")
    done = await world.once()
    assert (hold(done)["tags"], hold(done)["fallback"], written(bare)) == (["1.6.0"], "1.5.0", "1.5.0")
    await calm(world, bare)


async def test_a_running_service_holds_and_goes_on_with_what_is_newer(world: Lab) -> None:
    bare = await brought(world)
    world.declare(automation("web", "web", interval="1s"))
    async with world.start() as running:
        await running.until_ready("ImageUpdateAutomation", "web")
        Person(world).revert()

        async def rejected() -> bool:
            policy = await running.get("ImagePolicy", "web")
            return bool(policy.status.latest_ref and policy.status.latest_ref.tag == "1.4.0")

        await eventually(rejected, "the policy to go back", 40)
        world.registry.push_image("web", "1.6.0")
        asked = image_repository("web", world.image("web"))
        asked["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "now"}
        world.declare(asked)
        await eventually(lambda: written(bare) == "1.6.0", "the newer image", 40)
    assert len(bare.log()) == 5


async def test_with_overwrite_the_image_is_written_again_as_flux_does(world: Lab) -> None:
    bare = await brought(world, update={"onRevert": "Overwrite"})
    Person(world).revert()
    done = await world.once()
    assert (written(bare), hold(done)) == ("1.5.0", {})


async def test_when_the_status_is_lost_trailers_say_what_was_written(world: Lab) -> None:
    bare = await brought(world, commit={"trailers": True})
    person = Person(world)
    person.pull()
    person.git("commit", "-q", "--allow-empty", "-m", "meanwhile")
    person.push()
    commit = person.edit("web:1.5.0", "web:1.4.0")
    for path in world.state.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    done = await world.once()
    assert (written(bare), hold(done)["tags"], hold(done)["fallback"]) == ("1.4.0", ["1.5.0"], "1.4.0")
    assert commit in hold(done)["reason"]


async def test_without_trailers_a_lost_status_knows_of_nothing(world: Lab) -> None:
    bare = await brought(world)
    Person(world).revert()
    for path in world.state.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    done = await world.once()
    assert (written(bare), hold(done)) == ("1.5.0", {})


async def test_a_service_that_was_killed_after_it_made_the_hold_finishes(world: Lab) -> None:
    bare = await brought(world)
    Person(world).revert()
    before = world.root / "before.db"
    shutil.copy(world.state / DATABASE_NAME, before)
    first = hold(await world.once())
    made = Database(world.state / DATABASE_NAME, read_only=True)
    row = made.find("ImageHold", Key("apps", "web-reverted"))
    made.close()
    assert row is not None
    for path in world.state.glob(f"{DATABASE_NAME}-*"):
        path.unlink()
    shutil.copy(before, world.state / DATABASE_NAME)
    old = Database(world.state / DATABASE_NAME)
    old.save(row, None)
    old.close()
    done = await world.once()
    assert (hold(done), written(bare)) == (first, "1.4.0")
    assert done.objects["ImagePolicy", "apps/web"].status.latest_ref.tag == "1.4.0"
    await calm(world, bare)


async def test_what_cannot_be_held_is_not_overwritten(world: Lab) -> None:
    bare = await brought(world)
    other = {"imageRef": {"policy": "web"}, "mode": "Reject", "tags": ["9.9.9"]}
    world.declare(obj("imagebot.dev/v1alpha1", "ImageHold", "web-reverted", other))
    Person(world).revert()
    for _ in range(2):
        done = await world.once()
        status, reason, message = done.ready("ImageUpdateAutomation", "web")
        assert (status, reason) == ("False", "RevertHoldFailed")
        assert "made by somebody else" in message
        assert "onRevert" in message
        assert written(bare) == "1.4.0"
    world.withdraw(obj("imagebot.dev/v1alpha1", "ImageHold", "web-reverted", other))
    done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    assert (hold(done)["tags"], written(bare)) == (["1.5.0"], "1.4.0")


async def test_plan_and_explain_say_what_is_kept(world: Lab) -> None:
    bare = await brought(world)
    commit = Person(world).revert()
    place = ["--state", str(world.state)]
    code, out, _ = await program("plan", str(world.folder), *place, "-o", "json")
    kept = json.loads(out)["automations"][0]["kept"]
    assert code == 0
    assert kept["web"].startswith(f"reverted by {commit} of Ada on deploy.yaml")
    done = await world.once()
    assert hold(done)["tags"] == ["1.5.0"]
    code, out, _ = await program("explain", "imgpol/web", "--dir", str(world.folder), *place)
    assert code == 0
    assert f"by ImageHold web-reverted (reverted by {commit} of Ada" in out.partition("Kept back")[2]
    code, out, _ = await program("get", "imageholds", "--dir", str(world.folder), *place)
    assert "web-reverted" in out
    code, _, _ = await program("delete", "imagehold", "web-reverted", "-n", "apps", "--dir", str(world.folder), *place)
    assert code == 0
    await world.once()
    assert written(bare) == "1.5.0"


async def test_commits_of_others_after_the_last_look_do_not_hide_a_revert(world: Lab) -> None:
    bare = await brought(world)
    person = Person(world)
    commit = person.revert()
    for number in range(60):
        person.git("commit", "-q", "--allow-empty", "-m", f"other {number}")
    person.push()
    done = await world.once()
    assert written(bare) == "1.4.0"
    assert hold(done)["reason"].startswith(f"reverted by {commit} of Ada")
