"""Flagger's flags: names, defaults, and who wins when a flag and the environment differ."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from canary.options import OPTIONS, WORKERS, settings_from, workers
from canary.settings import CanarySettings


def given(*arguments: str, **environment: str) -> dict[str, Any]:
    """Values of the options for this command line."""
    found: dict[str, Any] = {}
    command = click.Command("run", callback=lambda **values: found.update(values), params=list(OPTIONS))
    answer = CliRunner(env=environment).invoke(command, list(arguments), auto_envvar_prefix="IMAGEBOT", catch_exceptions=False)
    assert (answer.exit_code, answer.output) == (0, "")
    return found


def test_the_defaults_are_those_of_the_settings() -> None:
    assert settings_from(given()) == settings_from({}) == CanarySettings()
    assert workers(given()) == workers({}) == WORKERS


def test_every_flag_reaches_its_setting() -> None:
    texts = {
        "mesh_provider": "linkerd",
        "metrics_server": "http://prom:1",
        "ingress_annotations_prefix": "n.example",
        "ingress_class": "c",
        "event_webhook": "http://hook",
        "slack_url": "http://slack",
        "slack_token": "t",
        "slack_proxy_url": "http://p1",
        "slack_user": "u",
        "slack_channel": "#c",
        "msteams_url": "http://teams",
        "msteams_proxy_url": "http://p2",
        "cluster_name": "east",
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in texts.items()]
    others = ["--selector-labels=app, team,", "--include-label-prefix=*", "--enable-config-tracking=false", "--canary-workers=3"]
    values = given(*flags, *others)
    assert settings_from(values, no_cross_namespace_refs=True) == CanarySettings(
        **texts,
        selector_labels=("app", "team"),
        include_label_prefix=("*",),
        enable_config_tracking=False,
        no_cross_namespace_refs=True,
    )
    assert workers(values) == 3
    assert set(CanarySettings.__slots__) - {"no_cross_namespace_refs"} <= set(values)


@pytest.mark.parametrize(
    ("flag", "variable"),
    [
        ("--event-webhook", "EVENT_WEBHOOK_URL"),
        ("--slack-url", "SLACK_URL"),
        ("--slack-token", "SLACK_TOKEN"),
        ("--slack-proxy-url", "SLACK_PROXY_URL"),
        ("--msteams-url", "MSTEAMS_URL"),
        ("--msteams-proxy-url", "MSTEAMS_PROXY_URL"),
    ],
)
def test_the_environment_beats_the_flag(flag: str, variable: str) -> None:
    name = flag.removeprefix("--").replace("-", "_")
    assert given(f"{flag}=flag", **{variable: "environment"})[name] == "environment"
    assert given(**{variable: "environment"})[name] == "environment"
    assert given(f"{flag}=flag", **{variable: ""})[name] == "flag"


def test_a_program_wide_variable_does_not_beat_a_flag() -> None:
    assert given("--slack-url=flag", IMAGEBOT_SLACK_URL="prefixed")["slack_url"] == "flag"
    assert given(IMAGEBOT_SLACK_URL="prefixed")["slack_url"] == "prefixed"


def test_help_names_the_variable_and_shows_no_secret() -> None:
    command = click.Command("run", params=list(OPTIONS))
    text = CliRunner(env={"SLACK_TOKEN": "xoxb-1"}).invoke(command, ["--help"]).output
    assert "SLACK_TOKEN" in text
    assert "xoxb-1" not in text
