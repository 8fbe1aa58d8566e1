"""plan on a folder, as a person and a CI job use it: the program itself beside a registry and a Git server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import program
from tests.support.forges import fake_forge
from tests.support.lab import Lab, automation, eventually, git_repository, image_policy, image_repository, lab, marked, secret

PATHS = "{{ .AutomationObject }}:{{ range $path, $_ := .Changed.FileChanges }} {{ $path }}{{ end }}"
MESSAGE = "Update images\n\n{{ range .Changed.Changes }}{{ .OldValue }} -> {{ .NewValue }}\n{{ end }}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        for tag in ("1.0.0", "1.1.0", "2.0.0"):
            made.registry.push_image("web", tag)
        yield made


async def plan(world: Lab, *arguments: str) -> tuple[int, str, str]:
    return await program("plan", str(world.folder), "--state", str(world.state), *arguments)


async def planned(world: Lab, code: int) -> dict[str, Any]:
    found, out, _ = await plan(world, "-o", "json")
    data: dict[str, Any] = json.loads(out)
    assert (found, data["problems"] if code != 1 else []) == (code, [])
    return data


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("state.db-")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}  # without what SQLite has for its readers


async def test_a_plan_says_what_a_pass_then_does_and_writes_nothing(world: Lab) -> None:
    bare = world.declare_app(commit={"messageTemplate": MESSAGE})
    before, head = contents(world.root), bare.head("main")
    code, out, err = await plan(world)
    image = world.image("web")
    assert (code, err) == (2, "")
    assert f"  apps/web  {image}:2.0.0  highest of 3 versions in >=0.0.0\n" in out
    diff = (
        f'-          image: {image}:0.9.0 # {{"$imagepolicy": "apps:web"}}\n'
        f'+          image: {image}:2.0.0 # {{"$imagepolicy": "apps:web"}}\n'
    )
    assert "--- a/deploy.yaml\n+++ b/deploy.yaml\n@@ -7,4 +7,4 @@\n" in out
    assert diff in out
    assert f"  commit:\n    Update images\n\n    {image}:0.9.0 -> {image}:2.0.0\n" in out
    assert out.endswith("\n1 commit would be pushed, with 1 changed file\n")
    assert (contents(world.root), bare.head("main")) == (before, head)

    assert (await world.once()).changed
    assert bare.file("deploy.yaml").decode() == marked(image, "web", "2.0.0")
    code, out, _ = await plan(world)
    assert code == 0
    assert "  nothing to change\n" in out
    world.registry.push_image("web", "2.1.0")
    state = contents(world.state)
    data = await planned(world, 2)
    assert data["decisions"] == [
        {"policy": "apps/web", "image": f"{image}:2.1.0", "before": f"{image}:2.0.0", "why": "highest of 4 versions in >=0.0.0",
         "failed": False}
    ]  # fmt: skip
    assert data["automations"][0]["commit"]["message"] == f"Update images\n\n{image}:2.0.0 -> {image}:2.1.0\n"
    assert data["automations"][0]["base"] == bare.head("main")
    assert contents(world.state) == state


async def test_automations_of_one_branch_build_on_each_other(world: Lab) -> None:
    world.registry.push_image("api", "7.0.0")
    both = marked(world.image("web"), "web", "0.9.0") + "---\n" + marked(world.image("api"), "api", "0.9.0")
    world.repository("app.git", {"deploy.yaml": both})
    world.declare(git_repository("app", world.url("app.git")))
    for name, tier in (("web", "front"), ("api", "back")):
        world.declare(
            image_repository(name, world.image(name)),
            image_policy(name, labels={"tier": tier}),
            automation(name, "app", policySelector={"matchLabels": {"tier": tier}}),
        )
    world.declare(automation("again", "app"), automation("resting", "app", suspend=True))
    data = await planned(world, 2)
    found = {item["automation"]: item for item in data["automations"]}
    assert found["apps/again"]["commit"]["files"][0]["diff"].count("\n+ ") == 2
    assert "commit" not in found["apps/api"]  # what the first one has done need not be done again
    assert found["apps/resting"]["note"].startswith("suspended")
    assert found["apps/api"]["base"] != found["apps/again"]["base"]
    assert [item["automations"] for item in data["automations"]] == [["apps/again"], ["apps/api"], ["apps/web"], ["apps/resting"]]


class Fleet:
    """A repository with some folders of one image each, and an automation for each folder."""

    def __init__(self, world: Lab, names: Sequence[str]) -> None:
        self.world = world
        images = {name: f"{name}-app" for name in names}
        files = {f"{name}/app.yaml": marked(world.image(image), image, "0.9.0") for name, image in images.items()}
        self.bare = world.repository("fleet.git", {**files, "none/readme.yaml": "about: nothing\n"})
        world.declare(git_repository("fleet", world.url("fleet.git")))
        for image in images.values():
            world.registry.push_image(image, "1.0.0")
            world.declare(image_repository(image, world.image(image)), image_policy(image))

    def automation(self, name: str, quiet: str | None = "1h", path: str | None = None, **more: Any) -> None:
        """Declare the automation of a folder."""
        commit = {"messageTemplate": PATHS, **more.pop("commit", {}), **({"quietPeriod": quiet} if quiet else {})}
        annotations = more.pop("annotations", {})
        update = {"strategy": "Setters", "path": path or name}
        body = automation(name, "fleet", commit=commit, update=update, interval="1000h", **more)
        body["metadata"]["annotations"] = annotations
        self.world.declare(body)

    def commits(self) -> list[str]:
        """The messages of the bot's commits, oldest first."""
        log = self.bare.git("log", "--reverse", "--format=%s", "main").split("\n")
        return [subject for subject in log if subject.startswith("apps/")]


async def test_those_who_wait_together_are_one_entry_behind_those_who_do_not_wait(world: Lab) -> None:
    fleet = Fleet(world, "abcdef")
    for name in "acf":
        fleet.automation(name)
    fleet.automation("b", quiet=None)
    fleet.automation("d", annotations={"reconcile.fluxcd.io/requestedAt": "now"})
    fleet.automation("e", commit={"author": {"name": "other", "email": "other@example.com"}})
    world.declare(automation("nothing", "fleet", commit={"quietPeriod": "1h"}, update={"strategy": "Setters", "path": "none"}))
    data = await planned(world, 2)
    found = [(item["automations"], item["commit"]["message"]) for item in data["automations"] if "commit" in item]
    assert found == [
        (["apps/b"], "apps/b: app.yaml"),
        (["apps/d"], "apps/d: app.yaml"),
        (["apps/a", "apps/c", "apps/f"], "apps/a: a/app.yaml c/app.yaml f/app.yaml"),
        (["apps/e"], "apps/e: app.yaml"),
    ]
    together = next(item for item in data["automations"] if len(item["automations"]) > 1)
    assert together["automation"] == "apps/a"
    files = together["commit"]["files"]
    assert [file["path"] for file in files] == ["a/app.yaml", "c/app.yaml", "f/app.yaml"]
    assert all(file["diff"].count("\n+ ") == 1 for file in files)
    bases = [item["base"] for item in data["automations"] if "commit" in item]
    assert (bases[0], len(set(bases))) == (fleet.bare.head("main"), 4)
    assert [item["automation"] for item in data["automations"] if "commit" not in item] == ["apps/nothing"]

    _, out, _ = await plan(world)
    assert out.count("\nImageUpdateAutomations apps/a, apps/c, apps/f\n") == 1
    assert out.endswith("\n4 commits would be pushed, with 6 changed files\n")


async def test_the_service_commits_what_was_planned(world: Lab) -> None:
    fleet = Fleet(world, "abc")
    fleet.automation("a", quiet=None)
    for name in "bc":
        fleet.automation(name, quiet="1s")
    data = await planned(world, 2)
    expected = [item["commit"]["message"] for item in data["automations"]]
    async with world.start():
        await eventually(lambda: len(fleet.commits()) == len(expected), "all commits")
    assert expected == ["apps/a: app.yaml", "apps/b: b/app.yaml c/app.yaml"]
    assert fleet.commits() == expected


async def test_each_policy_has_an_entry_that_is_the_request_which_the_service_then_opens(world: Lab) -> None:
    folder = world.root / "forge"
    folder.mkdir()
    with fake_forge("github", folder) as forge:
        both = marked(world.image("web"), "web", "1.0.0") + "---\n" + marked(world.image("api"), "api", "1.0.0")
        forge.repository.commit({"deploy.yaml": both.encode(), "lost.yaml": b'tag: "1" # {"$imagepolicy": "apps:lost:tag"}\n'})
        world.registry.push_image("api", "7.0.0")
        for name in ("web", "api"):
            world.declare(image_repository(name, world.image(name)), image_policy(name))
        world.declare(git_repository("fleet", forge.url), secret("forge", {k: v.decode() for k, v in forge.secret.items()}))
        request = {
            "provider": "github",
            "secretRef": {"name": "forge"},
            "address": forge.address,
            "groupBy": "policy",
            "maxOpen": 2,
        }
        push = {"branch": "bot", "pullRequest": request}
        world.declare(automation("fleet", "fleet", push=push, commit={"messageTemplate": MESSAGE}))
        data = await planned(world, 2)
        _, out, _ = await plan(world)
        entries, base = data["automations"], forge.repository.head()
        assert [(e["policy"], e["branch"], e["base"], e["requests"]) for e in entries] == [
            ("api", "bot/api", base, []),
            ("web", "bot/web", base, []),
        ]
        assert {(e["automation"], e["pullRequest"], e["groupBy"]) for e in entries} == {("apps/fleet", "main", "policy")}
        assert [len(e["skipped"]) for e in entries] == [1, 0]
        assert (
            f", branch bot/web, on {str(base)[:12]}\n  by pull request into main, for policy web\n  titled: Update web to 2.0.0\n"
            in out
        )
        assert out.endswith("\n2 commits would be proposed by pull requests, with 2 changed files\n")
        assert (forge.log, forge.repository.head("bot/web")) == ([], None)

        await world.once()
        opened = {request.branch: request.title for request in forge.opened()}
        assert opened == {e["branch"]: e["title"] for e in entries}
        for entry in entries:
            message = forge.repository.git("log", "-1", "--format=%P%n%B", entry["branch"]).rstrip()
            assert message == f"{base}\n{entry['commit']['message'].rstrip()}"
            diff = forge.repository.git("diff", "--no-ext-diff", f"main...{entry['branch']}")
            (file,) = entry["commit"]["files"]
            assert changed_lines(diff) == changed_lines(file["diff"])
        data = await planned(world, 2)
        assert [[(r["group"], r["state"]) for r in e["requests"]] for e in data["automations"]] == [
            [("api", "Open")],
            [("web", "Open")],
        ]


def changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line.startswith(("+", "-"))]


async def test_one_who_cannot_does_not_concern_those_who_wait_with_it(world: Lab) -> None:
    fleet = Fleet(world, "abc")
    fleet.automation("a", commit={"messageTemplate": "{{ .Nothing.There }}"})
    for name in "bc":
        fleet.automation(name)
    fleet.automation("all", path="./", commit={"author": {"name": "late", "email": "late@example.com"}})
    code, out, _ = await plan(world, "-o", "json")
    data = json.loads(out)
    assert code == 1
    assert [item["automations"] for item in data["automations"]] == [["apps/all"], ["apps/a"], ["apps/b"], ["apps/c"]]
    everything, failed, *others = data["automations"]
    assert [file["path"] for file in everything["commit"]["files"]] == ["a/app.yaml", "b/app.yaml", "c/app.yaml"]
    assert failed["problem"].startswith("GitOperationFailed: failed to update source: ")
    assert data["problems"] == [f"ImageUpdateAutomation apps/a: {failed['problem']}"]
    assert all("commit" not in item and "problem" not in item for item in others)


async def test_a_joined_entry_has_each_marker_without_effect_once(world: Lab) -> None:
    fleet = Fleet(world, "ab")
    fleet.bare.commit({"a/bad.yaml": b'x: 1 # {"$imagepolicy": "apps:nobody"}\n'}, force=False)
    fleet.automation("a")
    fleet.automation("b", path="./")
    (entry,) = (await planned(world, 2))["automations"]
    assert (entry["automations"], entry["commit"]["message"]) == (["apps/a", "apps/b"], "apps/a: a/app.yaml b/app.yaml")
    assert [(marker["path"], marker["line"]) for marker in entry["skipped"]] == [("a/bad.yaml", 1)]


async def test_what_cannot_be_done_is_a_problem_and_the_rest_is_still_planned(world: Lab) -> None:
    world.declare_app()
    world.declare(
        image_policy("none", "^9.0.0", "web"),
        image_policy("lost", "^9.0.0", "nothing"),
        git_repository("gone", world.url("gone.git")),
        automation("gone", "gone"),
        secret("unused", {"password": "hunter2"}),
    )
    (world.folder / "broken.yaml").write_text("kind: ImagePolicy\napiVersion: image.toolkit.fluxcd.io/v1\nspec: [\n")
    code, out, err = await plan(world)
    assert (code, err) == (1, "")
    assert "1 commit would be pushed, with 1 changed file; 4 problems" in out
    assert "✗ broken.yaml:4: " in out
    assert "✗ ImagePolicy apps/none: Failure: unable to determine latest version from provided list" in out
    assert "✗ ImagePolicy apps/lost: DependencyNotReady: " in out
    assert "✗ ImageUpdateAutomation apps/gone: GitOperationFailed: failed to checkout source: " in out
    assert "hunter2" not in out


async def test_markers_without_effect_are_shown(world: Lab) -> None:
    world.declare_app()
    bare = world.repository("other.git", {"bad.yaml": 'x: 1 # {"$imagepolicy": "apps:nobody"}\n'})
    world.declare(git_repository("other", world.url("other.git")), automation("other", "other"))
    data = await planned(world, 2)
    other = next(item for item in data["automations"] if item["automation"] == "apps/other")
    assert other["skipped"] == [{"path": "bad.yaml", "line": 1, "marker": "apps:nobody", "message": "no policy apps:nobody"}]
    assert other["base"] == bare.head("main")


async def test_a_folder_that_is_not_there(world: Lab) -> None:
    code, out, err = await program("plan", str(world.root / "missing"))
    assert (code, out) == (1, "")
    assert "is not a folder" in err
