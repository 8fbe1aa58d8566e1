"""What `check` finds in ImageHolds: whom they concern, whether they have ended, whether anybody would choose what they name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagebot.check.findings import Finding
from imagebot.check.run import check_folder
from reconcile.app import load_packages
from tests.support.lab import image_policy, image_repository, obj

NOW = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)
IMAGE = "registry.example.com/acme/web"
BUILDS = {"policy": {"numerical": {}}, "filterTags": {"pattern": "^main-(?P<n>[0-9]+)$", "extract": "$n"}}
RULES = {"useless-hold", "expired-hold", "idle-hold"}


def hold(ref: dict[str, str], namespace: str = "apps", **spec: Any) -> dict[str, Any]:
    body = {"imageRef": ref, "mode": "Reject", **({} if spec.get("mode") == "Pin" else {"tags": ["1.5.0"]}), **spec}
    return obj("imagebot.dev/v1alpha1", "ImageHold", "stop", body, namespace)


def found(
    folder: Path, *objects: dict[str, Any], policy: dict[str, Any] | None = None, exclusions: list[str] | None = None
) -> list[Finding]:
    """The findings about holds beside a repository and a policy `web` in namespace `apps`."""
    repository = image_repository("web", IMAGE, exclusionList=exclusions or [r"\.sig$"])
    bodies = [repository, policy or image_policy("web", "1.x"), *objects]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(bodies, sort_keys=False))
    report = check_folder(folder, load_packages().scheme, now=NOW)
    return [finding for finding in report.findings if finding.rule.id in RULES]


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule.id, finding.message) for finding in findings]


@pytest.mark.parametrize(
    "good",
    [
        hold({"policy": "web"}),
        hold({"name": IMAGE}),
        hold({"name": IMAGE, "policy": "web"}, expiresAt="2024-06-01T12:00:01Z"),
        hold({"policy": "web"}, mode="Pin"),
        hold({"policy": "web"}, tags=["1.5.0", "1.0.0"], fallback=""),
        hold({"policy": "web"}, tags=[], digests=["sha256:" + "a" * 64]),
    ],
)
def test_a_hold_of_a_policy_that_could_choose_the_tag_is_clean(good: dict[str, Any], tmp_path: Path) -> None:
    assert told(found(tmp_path, good)) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (hold({"policy": "wep"}), "namespace apps has no ImagePolicy wep"),
        (
            hold({"policy": "web"}, "prod"),
            "namespace prod has no ImagePolicy web; there is one in namespace apps, and a hold counts for its own namespace only",
        ),
        (
            hold({"name": "registry.example.com/acme/wep"}),
            "no ImagePolicy of namespace apps chooses from registry.example.com/acme/wep, and no ImageRepository has that image",
        ),
        (
            hold({"name": IMAGE}, "prod"),
            f"no ImagePolicy of namespace prod chooses from {IMAGE}; it is scanned by ImageRepository apps/web",
        ),
        (
            hold({"name": "registry.example.com/acme/api", "policy": "web"}),
            "ImagePolicy apps/web does not choose from registry.example.com/acme/api",
        ),
    ],
)
def test_a_hold_that_concerns_nobody_says_whom_it_misses(bad: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert told(found(tmp_path, bad)) == [("useless-hold", message)]


def test_a_policy_whose_repository_is_elsewhere_may_be_meant(tmp_path: Path) -> None:
    policy = image_policy("web", "1.x", repository="other")
    assert told(found(tmp_path, hold({"name": "registry.example.com/any"}), policy=policy)) == []


def test_a_hold_ends_at_its_moment(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, hold({"policy": "web"}, expiresAt="2024-06-01T12:00:00Z"))
    assert finding.rule.id == "expired-hold"
    assert finding.level == "note"
    assert finding.message == "it ended at 2024-06-01T12:00:00Z and has no effect any more"
    line = (tmp_path / "all.yaml").read_text().splitlines()[finding.line - 1]
    assert line[finding.column - 1 :] == "'2024-06-01T12:00:00Z'"


@pytest.mark.parametrize(
    ("policy", "exclusions", "idle"),
    [
        (image_policy("web", "1.x"), None, {"2.0.0", "latest", "1.5.0-rc.1", "main-7", "1.5.0.sig"}),
        (image_policy("web", "1.x"), ["^1"], {"1.5.0", "2.0.0", "latest", "1.5.0-rc.1", "main-7", "1.5.0.sig"}),
        (image_policy("web", **BUILDS), None, {"1.5.0", "2.0.0", "latest", "1.5.0-rc.1", "1.5.0.sig"}),
        (image_policy("web", policy={"alphabetical": {}}), None, {"1.5.0.sig"}),
        (image_policy("web", "not a range"), None, {"1.5.0.sig"}),
        (image_policy("web", **{**BUILDS, "filterTags": {"pattern": "("}}), None, {"1.5.0.sig"}),
    ],
)
def test_tags_that_nobody_would_choose_are_noted(
    policy: dict[str, Any], exclusions: list[str] | None, idle: set[str], tmp_path: Path
) -> None:
    tags = ["1.5.0", "2.0.0", "latest", "1.5.0-rc.1", "main-7", "1.5.0.sig"]
    findings = found(tmp_path, hold({"policy": "web"}, tags=tags), policy=policy, exclusions=exclusions)
    assert {f.rule.id for f in findings} <= {"idle-hold"}
    assert {f.message.removeprefix("the rule of web never chooses ") for f in findings} == idle
    lines = (tmp_path / "all.yaml").read_text().splitlines()
    assert {lines[f.line - 1][f.column - 1 :].strip("'") for f in findings} == idle


def test_a_fallback_is_to_be_a_tag_that_can_be_chosen(tmp_path: Path) -> None:
    assert told(found(tmp_path, hold({"policy": "web"}, fallback="0.9.0"))) == [
        ("idle-hold", "the rule of web never chooses 0.9.0")
    ]


def test_one_policy_that_could_choose_the_tag_is_enough(tmp_path: Path) -> None:
    builds = image_policy("builds", repository="web", **BUILDS)
    both = hold({"name": IMAGE}, tags=["main-7", "1.5.0", "latest"])
    assert told(found(tmp_path, both, builds)) == [("idle-hold", "the rule of web, builds never chooses latest")]
