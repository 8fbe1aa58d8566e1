"""The words of `imagebot canary`: what is refused before any cluster is asked, and what is printed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import structlog

from canary.cli.details import print_details
from canary.cli.explaining import events_of
from canary.cli.place import NO_CLUSTER, NO_FOLDER, name_of
from canary.cli.view import View
from reconcile.app import load_packages
from reconcile.cli.main import EXIT_USAGE, main
from reconcile.errors import Invalid
from tests.support.canary_views import GATES, METRICS, NOW, at, view


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["canary", *words])
    structlog.reset_defaults()
    return int(ended.value.code or 0), capsys.readouterr().err


COMMANDS = [
    ["list"], ["watch"], *([verb, "web"] for verb in ("status", "explain", "promote", "rollback", "retry", "pause", "resume")),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_a_folder_has_no_canaries(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys, *words, "--dir", str(tmp_path))
    assert code == EXIT_USAGE
    assert NO_FOLDER in err


@pytest.mark.parametrize("words", COMMANDS)
def test_without_a_cluster_it_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *words) == (1, f"imagebot: {NO_CLUSTER}\n")


@pytest.mark.parametrize("word", ["web", "canary/web", "canaries/web"])
def test_names_may_have_their_kind(word: str) -> None:
    assert name_of(load_packages().scheme, word) == "web"


@pytest.mark.parametrize("word", ["imagepolicy/web", "Web", "canary/", "../web"])
def test_what_cannot_be_a_name(word: str) -> None:
    with pytest.raises((Invalid, click.UsageError)):
        name_of(load_packages().scheme, word)


def printed(shown: View, capsys: pytest.CaptureFixture[str], **more: bool) -> str:
    print_details(shown, NOW, **more)
    return capsys.readouterr().out


def test_all_of_a_run_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    check = {"metric": "errors", "query": "sum(x)", "value": "7", "threshold": "<= 5", "verdict": "Fail", "time": at(-5)}
    status = {"canaryWeight": 20, "failedChecks": 1, "nextStepTime": at(9), "checks": [check], "images": ["app=web:2"]}
    alerts = [{"name": "team", "providerRef": {"name": "chat"}}]
    shown = view(
        "Progressing", {**status, "trackedConfigs": {"configmap/web": "0a"}}, webhooks=GATES, alerts=alerts, gateDeadline="1h"
    )
    lines = printed(shown, capsys).splitlines()
    assert lines[:11] == [
        "Canary apps/web  Progressing for 5m",
        "  next step      in 9s",
        "  target         Deployment web",
        "  provider       istio",
        "  strategy       canary: by 20 up to 40 percent of the traffic, every 30s",
        "  ladder         [20] → 40 → promotion",
        "  progress       ━━━━━━━━──────────────────────────────── 20%",
        "  failed checks  1 of 2 that end the run",
        "  images         app=web:2",
        "  revision       454545454545; the primary has 666666666666",
        "  deadlines      pods ready in 10m, gates open in 1h",
    ]
    rest = "\n".join(lines[11:])
    for text in ("errors", "<= 5", "confirm-promotion", "http://gate.test/qa", "info  apps/chat", "configmap/web  0a"):
        assert text in rest
    assert "sum(x)" not in rest
    assert "errors: sum(x)" in printed(shown, capsys, queries=True)


def test_a_canary_at_rest_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(view("Succeeded", metrics=METRICS), capsys)
    assert "next step" not in out
    assert "454545454545, which the primary has" in out
    assert "None of this run yet. Metrics: request-success-rate." in out


def test_nothing_of_a_webhook_address_is_shown_that_is_secret(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = [{"name": "load", "url": "http://bot:hush-hush@load.test/?token=hush-hush"}]
    out = printed(view("Progressing", webhooks=hooks), capsys)
    assert "hush" not in out
    assert "load.test" in out


def test_events_are_those_of_this_very_canary() -> None:
    def event(message: str, second: int, **involved: str) -> dict[str, object]:
        whom = {"kind": "Canary", "namespace": "apps", "name": "web", **involved}
        return {"metadata": {}, "involvedObject": whom, "message": message, "type": "Normal", "lastTimestamp": at(second)}

    events = [
        event("second", -10),
        event("first", -20, uid="uid-of-web"),
        event("of one before", -5, uid="another"),
        event("of another kind", -4, kind="ImagePolicy"),
        event("of another name", -3, name="shop"),
        event("of another namespace", -2, namespace="test"),
    ]
    meta = {"namespace": "apps", "name": "web", "uid": "uid-of-web"}
    assert [said.message for said in events_of(events, meta)] == ["first", "second"]
