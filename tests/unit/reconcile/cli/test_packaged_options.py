"""Options that packages bring: on the command, in its help, in the settings."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from reconcile.cli import service
from reconcile.cli.packaged import HEADING, PackagedCommand
from reconcile.cli.service import run
from reconcile.settings import Settings


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two options of a package on `imagebot run`."""
    brought = (
        click.Option(["--colour"], default="red", help="Which colour."),
        click.Option(["--token"], envvar="COLOUR_TOKEN", default="", show_envvar=True, help="A secret."),
    )
    monkeypatch.setattr(run, "packaged", brought)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings with which the service would have been started."""
    found: list[Settings] = []

    async def start(settings: Settings, options: dict[str, Any]) -> None:
        found.append(settings)

    monkeypatch.setattr(service, "_run_cluster", start)
    return found


def test_values_reach_the_settings_untouched(options: None, started: list[Settings]) -> None:
    answer = CliRunner().invoke(run, ["--colour=blue"], env={"COLOUR_TOKEN": "s3cret"}, catch_exceptions=False)
    assert (answer.exit_code, answer.output) == (0, "")
    assert started[0].packages == {"colour": "blue", "token": "s3cret"}
    assert "s3cret" not in repr(started[0])


def test_defaults_are_those_of_the_package(options: None, started: list[Settings]) -> None:
    CliRunner().invoke(run, [], catch_exceptions=False)
    assert started[0].packages == {"colour": "red", "token": ""}


def test_help_has_them_last_under_a_heading_and_shows_no_value(options: None) -> None:
    text = CliRunner().invoke(run, ["--help"], env={"COLOUR_TOKEN": "s3cret"}).output
    own, _, theirs = text.partition(f"{HEADING}:")
    assert "--colour" in theirs
    assert "--colour" not in own
    assert "--kubeconfig" in own
    assert "--help" in own
    assert "COLOUR_TOKEN" in theirs
    assert "s3cret" not in text


def test_without_packages_there_is_no_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "packaged", ())
    assert HEADING not in CliRunner().invoke(run, ["--help"]).output


def test_a_wrong_value_is_wrong_usage() -> None:
    command = PackagedCommand("x", callback=lambda **_: None)
    command.packaged = (click.Option(["--many"], type=int),)
    answer = CliRunner().invoke(command, ["--many=few"])
    assert (answer.exit_code, "--many" in answer.output) == (2, True)
