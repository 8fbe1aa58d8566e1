"""What `check` finds in how automations commit: waits, commits that cannot be shared, pull requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from imagebot.check.findings import Finding
from imagebot.check.run import check_folder
from reconcile.app import load_packages
from tests.support.lab import automation, git_repository

URL = "https://git.example.com/acme/fleet.git"
RULES = {
    "invalid-pull-request",
    "doubtful-wait",
    "separate-commits",
    "invalid-template",
    "invalid-push",
    "overlapping-automations",
}
QUIET = {"quietPeriod": "1m", "maxWait": "10m"}
AUTHOR = {"email": "other@example.com"}
KEY = {"secretRef": {"name": "key"}}


def found(folder: Path, *objects: dict[str, Any], ref: dict[str, str] | None = None) -> list[Finding]:
    """The findings about these automations of a GitRepository `fleet`."""
    fleet = git_repository("fleet", URL)
    fleet["spec"]["ref"] = ref or {"branch": "main"}
    (folder / "all.yaml").write_text(yaml.safe_dump_all([fleet, *objects], sort_keys=False))
    report = check_folder(folder, load_packages().scheme)
    return [finding for finding in report.findings if finding.rule.id in RULES]


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule.id, finding.message) for finding in findings]


# --- waits


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        ({"maxWait": "10m"}, "without quietPeriod nothing waits, so maxWait has no effect"),
        (
            {"quietPeriod": "5m", "maxWait": "90s"},
            "nothing waits for longer than maxWait 1m30s, so a quietPeriod of 5m0s never comes to its end",
        ),
    ],
)
def test_waits_without_the_effect_that_they_promise(commit: dict[str, str], message: str, tmp_path: Path) -> None:
    assert told(found(tmp_path, automation("web", "fleet", commit=commit))) == [("doubtful-wait", message)]


@pytest.mark.parametrize("commit", [QUIET, {"quietPeriod": "1m"}, {"quietPeriod": "1m", "maxWait": "1m"}, {}])
def test_good_waits(commit: dict[str, str], tmp_path: Path) -> None:
    assert told(found(tmp_path, automation("web", "fleet", commit=commit))) == []


# --- commits that are shared


def pair(one: dict[str, Any], other: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [
        automation("one", "fleet", commit=one, update={"path": "one"}),
        automation("other", "fleet", commit=other, update={"path": "other"}, **more),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"author": AUTHOR}, "author is"),
        ({"messageTemplate": "new"}, "messageTemplate is"),
        ({"messageTemplateValues": {"a": "b"}}, "messageTemplateValues is"),
        ({"signingKey": KEY}, "signingKey is"),
        ({"trailers": True}, "trailers is"),
        ({"author": AUTHOR, "messageTemplate": "new", "trailers": True}, "author, messageTemplate and trailers are"),
    ],
)
def test_automations_that_wait_but_cannot_share_a_commit(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    (finding,) = found(tmp_path, *pair(QUIET, {**QUIET, **change}))
    assert finding.rule.id == "separate-commits"
    assert finding.subject == "ImageUpdateAutomation apps/other"
    first = f"ImageUpdateAutomation apps/one ({tmp_path}/all.yaml:12)"
    assert finding.message == (f"{words} not as in {first}, which writes to branch main too: each makes commits of its own")


def test_an_automation_that_does_not_wait_beside_one_that_does(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, *pair({}, QUIET))
    assert finding.subject == "ImageUpdateAutomation apps/one"
    assert finding.message.startswith("it has no quietPeriod, unlike ImageUpdateAutomation apps/other")


@pytest.mark.parametrize(
    "objects",
    [
        pair(QUIET, QUIET),
        pair(QUIET, {"quietPeriod": "30s"}),
        pair(QUIET, {**QUIET, "trailers": False}),
        pair({}, {"author": AUTHOR}),
        pair(QUIET, {**QUIET, "author": AUTHOR}, push={"branch": "elsewhere"}),
    ],
)
def test_what_can_share_a_commit_or_is_not_to_is_clean(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    assert told(found(tmp_path, *objects)) == []


def test_keys_of_two_namespaces_are_two_keys(tmp_path: Path) -> None:
    one, other = pair({**QUIET, "signingKey": KEY}, {**QUIET, "signingKey": KEY})
    other["metadata"]["namespace"] = "prod"
    other["spec"]["sourceRef"]["namespace"] = "apps"
    (finding,) = found(tmp_path, one, other)
    assert finding.message.startswith("signingKey is not as in")


# --- pull requests


def proposing(name: str = "web", push: dict[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    asked = {"provider": "github", "secretRef": {"name": "forge"}, **request}
    return automation(name, "fleet", push={**(push or {}), "pullRequest": asked})


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        (
            proposing(provider="gitea", commitThrough="API"),
            "API",
            "commitThrough API is for provider github; gitea has no such call",
        ),
        (
            proposing(push={"branch": "main"}, groupBy="policy"),
            "main",
            "main is the branch to merge into, so no request can be made of it",
        ),
        (
            proposing(push={"branch": "next"}, base="next"),
            "next",
            "next is the branch to merge into, so no request can be made of it",
        ),
        (
            proposing(push={"branch": "bot", "refspec": "refs/heads/bot:refs/heads/copy"}),
            "refs/heads/bot:refs/heads/copy",
            "a refspec cannot be pushed together with pull requests",
        ),
    ],
)
def test_requests_that_cannot_be_made(body: dict[str, Any], place: str, message: str, tmp_path: Path) -> None:
    (finding,) = found(tmp_path, body)
    assert (finding.rule.id, finding.level, finding.message) == ("invalid-pull-request", "error", message)
    line = (tmp_path / "all.yaml").read_text().splitlines()[finding.line - 1]
    assert line[finding.column - 1 :] == place


def test_something_to_merge_into_is_needed(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, proposing(), ref={"tag": "v1"})
    assert finding.message == "what is checked out is no branch, so it is not known what to merge into"
    assert told(found(tmp_path, proposing(base="main"), ref={"tag": "v1"})) == []


@pytest.mark.parametrize("name", ["title", "body"])
def test_templates_of_requests_are_looked_at(name: str, tmp_path: Path) -> None:
    (finding,) = found(tmp_path, proposing(**{name: "{{ .Wrong"}))
    assert finding.rule.id == "invalid-template"
    line = (tmp_path / "all.yaml").read_text().splitlines()[finding.line - 1]
    assert line.strip().startswith(f"{name}: ")


@pytest.mark.parametrize(
    "body",
    [
        proposing(),
        proposing(commitThrough="API"),
        proposing(provider="gitlab", commitThrough="Git"),
        proposing(
            push={"branch": "bot"}, groupBy="policy", base="main", title="{{ range .Changed.Changes }}{{ .NewValue }}{{ end }}"
        ),
    ],
)
def test_good_requests(body: dict[str, Any], tmp_path: Path) -> None:
    assert told(found(tmp_path, body)) == []


def test_requests_of_two_automations_have_branches_of_their_own(tmp_path: Path) -> None:
    assert told(found(tmp_path, proposing("one"), proposing("two"))) == []
    again = found(tmp_path, proposing("one", {"branch": "bot"}), proposing("two", {"branch": "bot"}))
    assert [finding.rule.id for finding in again] == ["overlapping-automations"]
