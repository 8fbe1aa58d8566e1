"""Stories that Flux's source-controller played on a real API server: the same steps come to the same objects and events here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconcile.api.meta import REQUESTED_AT
from reconcile.api.resource import AnyResource
from tests.support.gitrepo import ENV, BareRepository, Blob
from tests.support.sourceworld import KIND, NAMESPACE, SourceWorld, conditions, source_world

FACTS = Path(__file__).parents[3] / "facts" / "reconcile"


def recorded(name: str) -> list[dict[str, Any]]:
    """The stories of a set with what concerns GitRepositories."""
    stories = []
    for entry in json.loads((FACTS / f"{name}.json").read_text("utf-8"))["stories"]:
        seen = entry["seen"]
        stories.append(
            {
                "name": entry["story"]["name"],
                "steps": [step for step in map(about_git, entry["story"]["steps"]) if step],
                "observations": {
                    label: {name.split("/")[2]: told(status) for name, status in objects.items() if name.startswith(f"{KIND}/")}
                    for label, objects in seen["observations"].items()
                },
                "events": [event[:4] for event in seen["events"] if event[0].startswith(f"{KIND}/")],
                "posted": [event[:5] for event in seen["posted"] if event[0].startswith(f"{KIND}/")],
            }
        )
    return stories


def about_git(step: dict[str, Any]) -> dict[str, Any]:
    """A step without Kustomizations; nothing has to be waited for in a world whose clock stands still."""
    if "sleep" in step or "until" in step:
        return {}
    if "apply" in step:
        return {"apply": [body for body in step["apply"] if body["kind"] != "Kustomization"]}
    if "settle" in step:
        return {"settle": [reference for reference in step["settle"] if reference.startswith(f"{KIND}/")]}
    return step


def told(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "managers"}


STORIES = recorded("sources") + recorded("signing")


@pytest.fixture
def gpg_home() -> Iterator[Path]:
    # Not in pytest's folder: the agent's socket needs a short path.
    home = Path(tempfile.mkdtemp(prefix="gpgtest-"))
    yield home
    subprocess.run(["gpgconf", "--kill", "all"], env={**ENV, "GNUPGHOME": str(home)}, check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


class Player:
    """Plays the steps of one story."""

    def __init__(self, world: SourceWorld, story: dict[str, Any], gpg_home: Path) -> None:
        self.world, self.story, self.gpg_home = world, story, gpg_home
        self.repositories: dict[str, BareRepository] = {}
        self.commits: dict[str, str] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.requests = 0
        self.waiting: set[str] = set()
        """Whom the controller has to look at; nobody else is looked at before his time."""

    async def run(self) -> None:
        for step in self.story["steps"]:
            verb = next(word for word in step if hasattr(self, f"do_{word}"))
            await getattr(self, f"do_{verb}")(step)
        for name in sorted(self.waiting):
            await self.look_at(name)
        await self.do_observe({"observe": "end"})

    async def do_commit(self, step: dict[str, Any]) -> None:
        name = step["commit"]
        repository = self.repositories.get(name)
        if repository is None:
            repository = self.repositories[name] = self.world.repository(f"{self.story['name']}-{name}")
        files = {
            path: None if text is None else Blob(text["text"].encode(), text["mode"]) if isinstance(text, dict) else text.encode()
            for path, text in step["files"].items()
        }
        branch, start = step.get("branch", "main"), step.get("start")
        when = 1_700_000_000 + 60 * len(self.commits)
        made = repository.commit(
            files,
            branch=branch,
            message=step.get("message", "change"),
            when=when,
            start=repository.head(start) if start else None,
        )
        tag, sign = step.get("tag"), step.get("sign")
        if sign:
            made = self.sign(repository, made, sign, branch, tag)
        elif tag:
            plain = isinstance(tag, str)
            repository.tag(tag if plain else tag["name"], made, annotated=not plain)
        self.commits[made] = f"{name}#{len(self.commits) + 1}"

    def sign(self, repository: BareRepository, commit: str, sign: dict[str, Any], branch: str, tag: str | None) -> str:
        env = {**ENV, "GNUPGHOME": str(self.gpg_home), "GIT_DIR": str(repository.path)}
        subprocess.run(["gpg", "--batch", "-q", "--import"], input=sign["key"].encode(), env=env, check=True, capture_output=True)

        def git(*words: str) -> str:
            return subprocess.run(["git", *words], env=env, check=True, capture_output=True).stdout.decode().strip()

        if sign.get("commit"):
            commit = git("commit-tree", f"-S{sign['id']}", "-m", "signed", f"{commit}^{{tree}}")
            git("update-ref", f"refs/heads/{branch}", commit)
        if tag:
            git("tag", "-f", "-u", sign["id"], "-m", "signed tag", tag, commit) if sign.get("tag") else git("tag", tag, commit)
        return commit

    async def do_apply(self, step: dict[str, Any]) -> None:
        for body in json.loads(json.dumps(step["apply"]).replace("GITURL/", self.world.git.url(""))):
            body["metadata"]["namespace"] = NAMESPACE
            await self.change(body)

    async def do_patch(self, step: dict[str, Any]) -> None:
        body = self.objects[step["patch"].rpartition("/")[2]]
        body["spec"].update(step["with"]["spec"])
        await self.change(body)

    async def change(self, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        self.objects[name] = body
        await self.world.put(body)
        if body["kind"] == KIND:
            self.waiting.add(name)

    async def do_reconcile(self, step: dict[str, Any]) -> None:
        self.requests += 1
        for reference in step["reconcile"]:
            body = self.objects[reference.rpartition("/")[2]]
            body["metadata"]["annotations"] = {REQUESTED_AT: f"request-{self.requests}"}
            await self.change(body)

    async def do_settle(self, step: dict[str, Any]) -> None:
        for reference in step["settle"]:
            await self.look_at(reference.rpartition("/")[2])

    async def look_at(self, name: str) -> None:
        if name in self.waiting:
            self.waiting.remove(name)
            await self.world.step(name)

    async def do_observe(self, step: dict[str, Any]) -> None:
        names = sorted(name for name, body in self.objects.items() if body["kind"] == KIND)
        self.seen[step["observe"]] = {name: self.look(await self.world.get(name)) for name in names}

    # --- what is seen, in the words of the record

    def look(self, resource: AnyResource) -> dict[str, Any]:
        status = resource.to_dict()["status"]
        seen: dict[str, Any] = {
            "conditions": sorted(conditions(resource)),
            "finalizers": resource.meta.finalizers,
            "generation": resource.meta.generation,
            "observedGeneration": status.get("observedGeneration", -1),
        }
        for name in ("observedIgnore", "observedInclude", "observedSparseCheckout", "lastHandledReconcileAt"):
            if name in status:
                seen[name] = status[name]
        if "sourceVerificationMode" in status:
            seen["sourceVerificationMode"] = status["sourceVerificationMode"]
        if resource.status.artifact is not None:
            seen["artifact"] = {
                "files": self.world.names(resource),
                "keys": sorted(status["artifact"]),
                "metadata": None,
                "revision": resource.status.artifact.revision,
            }
        return self.masked(seen)

    def masked(self, value: Any) -> Any:
        text = json.dumps(value)
        for commit, name in self.commits.items():
            text = text.replace(commit, name)
        text = text.replace(self.world.git.url("").rstrip("/"), "HOST")
        text = re.sub(r"\bsha256:[0-9a-f]{64}\b", "sha256:DIGEST", text)
        return json.loads(re.sub(r"\b[0-9a-f]{40}\b", "HEX40", text))


def expected(value: Any) -> Any:
    """What was recorded; there is no temporary folder here whose name could be in a message."""
    return json.loads(json.dumps(value).replace("TMPDIR/", ""))


def test_all_recorded_stories_are_here() -> None:
    assert len(STORIES) == 27


@pytest.mark.needs("gpg")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story["name"])
async def test_a_recorded_story(tmp_path: Path, story: dict[str, Any], gpg_home: Path) -> None:
    async with source_world(tmp_path) as world:
        player = Player(world, story, gpg_home)
        await player.run()
        wanted = expected(story["observations"])
        for objects in wanted.values():
            for seen in objects.values():
                seen["conditions"] = sorted(seen.get("conditions", []))
        assert player.seen == wanted
        events = [
            [f"{KIND}/{e.resource.key.name}", "Normal" if e.type == "Trace" else e.type.value, e.reason, e.message]
            for e in world.sink.events
        ]
        assert {tuple(e) for e in player.masked(events)} == {tuple(e) for e in expected(story["events"])}
        posted = [
            [f"{KIND}/{e.resource.key.name}", "error" if e.type == "Warning" else "info", e.reason, e.message, dict(e.metadata)]
            for e in world.sink.events
            if e.type != "Trace"
        ]
        # As recorded, but for a second event of the same text that the recorder's API server merged into the first.
        assert unique(player.masked(posted)) == unique(expected(story["posted"]))


def unique(events: list[list[Any]]) -> list[str]:
    return list(dict.fromkeys(json.dumps(event, sort_keys=True) for event in events))
