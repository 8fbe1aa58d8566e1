"""get, events and explain on a folder, as a person uses them: the program itself beside a registry, a Git server, a service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab, automation, git_repository, image_policy, image_repository, lab, marked, secret

TAGS = ("v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v1.2.0", "v2.0.0", "latest", "v1.0.0.sig")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        for tag in TAGS:
            made.registry.push_image("web", tag)
        made.repository(
            "app.git",
            {"deploy.yaml": marked(made.image("web"), "web", "v0.9.0"), "bad.yaml": 'x: 1 # {"$imagepolicy": "apps:nobody"}\n'},
        )
        made.declare(
            image_repository("web", made.image("web")),
            image_policy("web", ">=1.0.0 <2.0.0", filterTags={"pattern": "^v(?P<v>.*)$", "extract": "$v"}),
            image_policy("other", "^7.0.0", "web", labels={"tier": "back"}),
            git_repository("web", made.url("app.git")),
            automation("web", "web"),
        )
        yield made


async def cli(world: Lab, *arguments: str, place: bool = True) -> tuple[int, str, str]:
    """The program as its own process: exit code, stdout, stderr."""
    where = ["--dir", str(world.folder), "--state", str(world.state)] if place else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reconcile", *arguments, *where,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"\x1b" not in out + err
    return process.returncode or 0, out.decode(), err.decode()


async def explained(world: Lab, *arguments: str) -> dict[str, Any]:
    code, out, err = await cli(world, "explain", *arguments, "-o", "json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- explain


async def test_a_policy_is_explained_tag_by_tag(world: Lab) -> None:
    await world.once()
    found = await explained(world, "imgpol/web")
    image = world.image("web")
    assert [(row["rank"], row["tag"], row["compared"], row["verdict"]) for row in found["tags"]["rows"]] == [
        ("1", "v1.2.0", "1.2.0", "chosen"),
        ("2", "v1.1.0", "1.1.0", "candidate"),
        ("3", "v1.0.0", "1.0.0", "candidate"),
        ("", "v2.0.0", "2.0.0", "outside the range"),
        ("", "v1.2.0-rc.1", "1.2.0-rc.1", "outside the range"),
        ("", "latest", "", "filtered out"),
        ("", "v1.0.0.sig", "", "excluded"),
    ]
    why = {row["tag"]: row["why"] for row in found["tags"]["rows"]}
    assert why["v1.2.0"] == "highest of 3 versions in >=1.0.0 <2.0.0, of the tags that match ^v(?P<v>.*)$"
    assert why["v1.2.0-rc.1"].startswith("a pre-release that is not in >=1.0.0 <2.0.0")
    assert why["latest"] == "does not match the pattern ^v(?P<v>.*)$"
    assert why["v1.0.0.sig"] == r"excluded by ^.*\.sig$"
    assert found["repository"]["inTheRegistry"] == "7 tags, 6 kept"
    assert found["choice"]["image"] == f"{image}:v1.2.0"
    assert [row["automation"] for row in found["automations"]["rows"]] == ["web"]
    assert found["object"]["status"]["latestRef"] == {"name": image, "tag": "v1.2.0"}


async def test_a_tag_that_no_scan_has_seen_is_announced(world: Lab) -> None:
    await world.once()
    world.registry.push_image("web", "v1.3.0")
    found = await explained(world, "imgpol/web")
    assert found["repository"]["notes"] == ["The registry has changed since the last scan: a scan now would keep 7 tags, not 6."]
    assert found["choice"]["image"] == f"{world.image('web')}:v1.2.0"
    assert found["choice"]["notes"][0].startswith("The next scan and pass would choose v1.3.0: highest of 4 versions")


async def test_a_policy_without_a_choice(world: Lab) -> None:
    await world.once()
    found = await explained(world, "imgpol/other")
    assert found["state"]["ready"].startswith("False, Failure, since ")
    assert found["choice"]["notes"] == [
        "From the tags of now nothing can be chosen: unable to determine latest version from provided list."
    ]
    assert {row["verdict"] for row in found["tags"]["rows"]} == {"outside the range", "not comparable", "excluded"}


async def test_an_automation_says_what_it_wrote_skipped_and_waits_for(world: Lab) -> None:
    await world.once()
    found = await explained(world, "image", "update", "web")
    assert found["skipped"]["rows"] == [{"file": "bad.yaml:1", "marker": "apps:nobody", "why": "no policy apps:nobody"}]
    assert {row["policy"]: row["why"] for row in found["policies"]["rows"]} == {
        "other": "has not chosen yet: its markers are left alone",
        "web": "",
    }
    assert found["source"]["url"] == world.url("app.git")
    assert found["waitsFor"]["notes"][-1] == "A first choice of other: see imagebot explain imagepolicy/other."


async def test_policies_that_are_not_selected_are_named(world: Lab) -> None:
    world.declare(automation("web", "web", policySelector={"matchLabels": {"tier": "front"}}))
    await world.once()
    found = await explained(world, "iua/web")
    assert {row["why"] for row in found["policies"]["rows"]} == {"not selected: its labels do not match policySelector"}
    found = await explained(world, "imgpol/web")
    assert found["automations"]["notes"] == [
        "Nobody writes this image into Git: the namespace has no ImageUpdateAutomation that selects this policy."
    ]


async def test_a_repository_and_who_uses_it(world: Lab) -> None:
    await world.once()
    found = await explained(world, "imgrepo/web")
    assert [row["policy"] for row in found["policies"]["rows"]] == ["apps/other", "apps/web"]
    assert (found["tags"]["kept"], found["tags"]["excluded"]) == ("6", "1")


async def test_the_table_of_tags_is_bounded(world: Lab) -> None:
    world.registry.put_tags("web", [f"v1.0.{number}" for number in range(60)])
    code, out, _ = await cli(world, "explain", "imgpol/web", "--tags", "3")
    rows = [line.split() for line in out.splitlines() if line.split()[1:2] and line.split()[1].startswith("v1.")]
    assert code == 0
    assert [row[:2] for row in rows if row[0].isdigit()] == [["1", "v1.2.0"], ["2", "v1.1.0"], ["3", "v1.0.59"]]
    assert "and 63 more: see --tags and --all-tags" in out
    assert len((await explained(world, "imgpol/web", "--all-tags"))["tags"]["rows"]) == 66


async def test_without_the_registry_the_status_explains(world: Lab) -> None:
    await world.once()
    await world.registry.stop()
    found = await explained(world, "imgpol/web")
    assert found["repository"]["notes"][0].startswith("The registry was not read: ")
    assert found["tags"]["rows"][0]["tag"] == "v1.2.0"
    found = await explained(world, "imgpol/web", "--no-scan")
    assert found["repository"]["notes"][0] == "The registry was not read: --no-scan was given."


async def test_a_secret_that_is_missing_is_said_and_one_that_is_there_is_not_shown(world: Lab) -> None:
    world.declare(image_repository("web", world.image("web"), secretRef={"name": "pull"}))
    found = await explained(world, "imgrepo/web")
    assert 'secrets "pull" not found' in found["repository"]["notes"][0]
    login = {"auths": {world.registry.host: {"username": "bot", "password": "hush-hush-hush"}}}
    world.declare(secret("pull", {".dockerconfigjson": json.dumps(login)}, "kubernetes.io/dockerconfigjson"))
    code, out, err = await cli(world, "explain", "imgrepo/web")
    assert code == 0
    assert "7 tags, 6 kept" in out
    assert "hush" not in out + err


async def test_nothing_is_written_by_looking(world: Lab) -> None:
    code, out, _ = await cli(world, "explain", "imgpol/web")
    assert code == 0
    assert "No controller has looked at it yet." in out
    assert not world.state.exists()
    await world.once()
    before = contents(world.folder), contents(world.state)
    for arguments in (("explain", "imgpol/web"), ("explain", "iua/web"), ("get",), ("events",)):
        assert (await cli(world, *arguments))[0] == 0
    after = contents(world.state)
    assert contents(world.folder) == before[0]
    assert {name: data for name, data in after.items() if not name.endswith(("-wal", "-shm"))} == {
        name: data for name, data in before[1].items() if not name.endswith(("-wal", "-shm"))
    }


async def test_an_edit_is_explained_before_a_service_has_seen_it(world: Lab) -> None:
    await world.once()
    world.declare(image_policy("web", ">=2.0.0", filterTags={"pattern": "^v(?P<v>.*)$", "extract": "$v"}))
    found = await explained(world, "imgpol/web")
    assert found["state"]["notes"] == ["Its spec is newer than the last pass that came to an end."]
    assert found["choice"]["notes"][0].startswith("The next scan and pass would choose v2.0.0")


async def test_what_cannot_be_explained(world: Lab) -> None:
    world.declare({**image_policy("web"), "metadata": {"name": "web", "namespace": "elsewhere"}})
    for arguments, text in (
        (("gitrepo/web",), "there is nothing to explain of a GitRepository"),
        (("imgpol/none",), 'imagepolicies.image.toolkit.fluxcd.io "none" not found in '),
        (("imgpol/web",), "ImagePolicy web is in the namespaces apps, elsewhere: say with -n which one is meant"),
    ):
        code, out, err = await cli(world, "explain", *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert text in err
    assert (await cli(world, "explain", "imgpol/web", "-n", "apps"))[0] == 0
    assert (await cli(world, "explain", "imgpol"))[0] == 64


async def test_a_bad_pattern_and_a_bad_rule_are_explained(world: Lab) -> None:
    world.declare(image_policy("web", filterTags={"pattern": "v("}), image_policy("other", "one", "web"))
    found = await explained(world, "imgpol/web")
    assert found["tags"]["notes"][0].startswith("They cannot be told apart: invalid regular expression pattern 'v('")
    found = await explained(world, "imgpol/other")
    assert found["rule"]["notes"][0].startswith("Nobody can follow it: ")


# --- events and get


async def test_events_of_an_object_and_of_what_it_refers_to(world: Lab) -> None:
    await world.once()
    _, out, _ = await cli(world, "events", "-o", "json")
    kinds = {event["involvedObject"]["kind"] for event in json.loads(out)["items"]}
    assert kinds == {
        "ImageRepository",
        "ImagePolicy",
        "ImageUpdateAutomation",
    }
    _, out, _ = await cli(world, "events", "--for", "imgpol/web", "-o", "json")
    about = {(event["involvedObject"]["kind"], event["involvedObject"]["name"]) for event in json.loads(out)["items"]}
    assert about == {("ImagePolicy", "web"), ("ImageRepository", "web")}
    code, out, _ = await cli(world, "events", "-n", "apps", "--types", "warning")
    head, *rows = out.splitlines()
    assert (code, head.split()) == (0, ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"])
    assert rows
    assert {row.split()[1] for row in rows} == {"Warning"}


async def test_events_that_are_not_there(world: Lab) -> None:
    code, out, err = await cli(world, "events")
    assert (code, out, err) == (0, "", f"no events in {world.folder}\n")
    code, _, err = await cli(world, "events", "--for", "imgpol/none")
    assert (code, err.count("\n")) == (1, 1)
    assert (await cli(world, "events", "--types", "Loud"))[0] == 64


async def test_one_kind_with_its_columns_and_labels(world: Lab) -> None:
    await world.once()
    code, out, _ = await cli(world, "get", "imgpol", "-l", "!tier", "-n", "apps")
    head, row = out.splitlines()
    assert (code, head.split()) == (0, ["NAME", "IMAGE", "TAG", "READY", "STATUS", "AGE"])
    assert row.split()[:4] == ["web", world.image("web"), "v1.2.0", "True"]
    code, out, _ = await cli(world, "get", "imgpol", "-l", "tier in (back, front),tier!=front,tier", "-o", "name")
    assert (code, out) == (0, "imagepolicy/other\n")
    code, _, err = await cli(world, "get", "imgpol", "-l", "tier in")
    assert (code, "is not a label selector" in err) == (1, True)


async def test_what_is_for_a_cluster_only_says_so(world: Lab) -> None:
    for command in ("reconcile", "suspend", "resume"):
        code, out, err = await cli(world, command, "imgpol/web")
        assert (code, out) == (64, "")
        assert "edit the manifest" in err
    code, _, err = await cli(world, "get", place=False)
    assert (code, err.count("\n")) == (1, 1)
    assert "--dir" in err
    assert "--kubeconfig" in err
    assert (await cli(world, "get", "--kubeconfig", "x"))[0] == 64
