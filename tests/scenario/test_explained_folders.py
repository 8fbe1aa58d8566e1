"""explain on a folder: every tag with its rule, every marker with file, line, old value, new value and why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import program
from tests.support.lab import Lab, automation, git_repository, image_policy, image_repository, lab, obj, secret

HELM = 'a: [\n# {"$imagepolicy": "apps:web"}\n'


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        for tag in ("1.0.0", "1.1.0", "2.0.0", "latest"):
            made.registry.push_image("web", tag)
        image = made.image("web")
        made.repository(
            "app.git",
            {
                "apps/a.yaml": f'a: {image}:1.0.0 # {{"$imagepolicy": "apps:web"}}\n'
                'b: 1.1.0 # {"$imagepolicy": "apps:web:tag"}\n',
                "apps/b.yaml": 'c: x # {"$imagepolicy": "apps:web:digest"}\nd: x # {"$imagepolicy": "apps:web:tga"}\n',
                "apps/c.yaml": HELM,
                "apps/d.yaml": 'e: x # {"$imagepolicy": "apps:webber"}\n',
                "elsewhere/a.yaml": 'f: 1.0.0 # {"$imagepolicy": "apps:web:tag"}\n',
            },
        )
        made.declare(
            image_repository("web", image),
            image_policy("web", "1.x", labels={"tier": "front"}),
            image_policy("newest", "*", "web", labels={"tier": "back"}),
            git_repository("app", made.url("app.git")),
            automation("app", "app", update={"path": "./apps"}, policySelector={"matchLabels": {"tier": "front"}}),
        )
        yield made


async def explain(world: Lab, *words: str) -> tuple[int, str, str]:
    return await program("explain", str(world.folder), *words, "--state", str(world.state))


async def explained(world: Lab, *words: str) -> tuple[int, list[dict[str, Any]]]:
    code, out, err = await explain(world, *words, "-o", "json")
    assert err == ""
    return code, json.loads(out)["explained"]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("state.db-")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}  # without what SQLite has for its readers


async def test_a_policy_tag_by_tag_and_marker_by_marker(world: Lab) -> None:
    before = contents(world.root)
    code, (found,) = await explained(world, "web")
    image = world.image("web")
    assert code == 0
    assert [(row["rank"], row["tag"], row["verdict"]) for row in found["tags"]["rows"]] == [
        ("1", "1.1.0", "chosen"),
        ("2", "1.0.0", "candidate"),
        ("", "2.0.0", "outside the range"),
        ("", "latest", "not comparable"),
    ]
    rows = [(r["file"], r["line"], r["old"], r["new"], r["verdict"], r["why"]) for r in found["markers"]["rows"]]
    assert rows[:5] == [
        ("apps/a.yaml", "1", f"{image}:1.0.0", f"{image}:1.1.0", "would change", "by app"),
        ("apps/a.yaml", "2", "1.1.0", "1.1.0", "unchanged", "has the value already"),
        ("apps/b.yaml", "1", "x", "", "skipped", "the policy has no value for this marker; the old value stays"),
        ("apps/b.yaml", "2", "x", "", "skipped", "unknown suffix :tga; did you mean apps:web:tag?"),
        ("apps/c.yaml", rows[4][1], "", "", "skipped", rows[4][5]),
    ]
    assert rows[4][5].startswith("the file is not read: ")
    assert rows[5:] == [("elsewhere/a.yaml", "1", "1.0.0", "1.1.0", "skipped", "automations look only below apps")]
    assert {r["repository"] for r in found["markers"]["rows"]} == {"apps/app"}
    assert contents(world.root) == before
    code, out, _ = await explain(world, "apps/newest")
    assert code == 0
    assert "\n  No marker names the policy there.\n" in out


async def test_one_tag(world: Lab) -> None:
    code, (found,) = await explained(world, "web", "1.1.0")
    assert (code, found["tag"]) == (
        0,
        {
            "tag": "1.1.0",
            "inTheRegistry": "yes",
            "verdict": "chosen",
            "why": "highest of 2 versions in 1.x",
            "compared": "1.1.0",
            "rank": "1",
        },
    )
    assert "tags" not in found
    code, out, _ = await explain(world, "web", "2.0.0")
    assert code == 2
    assert "  verdict          outside the range\n  why              not in 1.x\n" in out
    assert "  A pass now chooses 1.1.0.\n" in out
    code, out, _ = await explain(world, "web", "1.5.0")
    assert code == 2
    assert "  in the registry  no: this is what would become of it\n  verdict          chosen\n" in out


async def test_an_image_means_all_policies_that_choose_from_it(world: Lab) -> None:
    image = world.image("web")
    code, found = await explained(world, f"{image}:2.0.0")
    assert code == 2  # one of the two does not choose it
    assert [item["object"]["metadata"]["name"] for item in found] == ["newest", "web"]
    assert (await explained(world, "newest", "2.0.0"))[0] == 0
    assert (await explained(world, image))[0] == 0


async def test_the_registry_is_asked_once_for_all_policies_of_an_image(world: Lab) -> None:
    world.registry.requests.clear()
    code, found = await explained(world, world.image("web"))
    assert (code, len(found)) == (0, 2)
    assert {entry["tags"]["rows"][0]["tag"] for entry in found} == {"1.1.0", "2.0.0"}
    assert world.registry.requests["tags"] == 1


async def test_the_registry_is_asked_for_each_credential(world: Lab) -> None:
    login = {"auths": {world.registry.host: {"username": "ada", "password": "s3cret"}}}
    world.declare(
        secret("login", {".dockerconfigjson": json.dumps(login)}, "kubernetes.io/dockerconfigjson"),
        image_repository("other", world.image("web"), secretRef={"name": "login"}),
        image_policy("other", "1.x", "other"),
    )
    code, found = await explained(world, world.image("web"))
    assert (code, len(found)) == (0, 3)
    assert all(len(entry["tags"]["rows"]) == 4 for entry in found)


async def test_what_a_service_has_stored_counts_and_stays(world: Lab) -> None:
    await world.once()
    world.registry.push_image("web", "1.2.0")
    before = contents(world.state)
    code, (found,) = await explained(world, "web", "1.2.0")
    assert code == 0
    assert found["choice"]["image"] == f"{world.image('web')}:1.1.0"
    assert found["choice"]["notes"][0].startswith("The next scan and pass would choose 1.2.0")
    assert [(row["old"], row["new"]) for row in found["markers"]["rows"] if row["verdict"] == "would change"] == [
        (f"{world.image('web')}:1.1.0", f"{world.image('web')}:1.2.0"),
        ("1.1.0", "1.2.0"),
    ]
    assert contents(world.state) == before
    code, (found,) = await explained(world, "web", "1.2.0", "--no-scan")
    assert code == 1
    assert [row["verdict"] for row in found["markers"]["rows"]][:2] == ["unchanged", "unchanged"]


async def test_a_hold_is_told_with_what_it_leads_to(world: Lab) -> None:
    spec = {"imageRef": {"policy": "web"}, "mode": "Reject", "tags": ["1.1.0"], "reason": "breaks logins"}
    world.declare(obj("imagebot.dev/v1alpha1", "ImageHold", "web", spec))
    code, (found,) = await explained(world, "web", "1.1.0")
    assert code == 2
    assert found["held"]["why"].startswith("Rejected: ")
    assert "breaks logins" in found["held"]["why"]
    assert found["held"]["aPassNowHas"] == f"{world.image('web')}:1.0.0"
    assert {row["new"] for row in found["markers"]["rows"] if (row["file"], row["line"]) == ("apps/a.yaml", "1")} == {
        f"{world.image('web')}:1.0.0"
    }
    code, out, _ = await program("plan", str(world.folder), "--state", str(world.state), "-o", "json")
    decisions = {decision["policy"]: decision for decision in json.loads(out)["decisions"]}
    assert decisions["apps/web"]["why"] == found["held"]["why"]


async def test_words_that_mean_nothing(world: Lab) -> None:
    code, out, err = await explain(world, "nobody")
    assert (code, out) == (1, "")
    assert "has no ImagePolicy and no image nobody; there are: apps/newest, apps/web, " in err
    assert (await explain(world))[0] == 64
    assert (await explain(world, "web", "--kubeconfig", "x"))[0] == 64


async def test_repositories_that_cannot_be_read_are_said(world: Lab) -> None:
    world.declare(git_repository("gone", world.url("gone.git")), automation("gone", "gone"))
    code, out, _ = await explain(world, "web")
    assert code == 0
    assert "  ImageUpdateAutomation apps/gone: failed to checkout source: " in out
    assert "would change" in out
