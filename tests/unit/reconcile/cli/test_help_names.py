"""Help answers to -h and --help, however a command was used before."""

from __future__ import annotations

import click
import pytest

from reconcile.cli.service import once, run


@pytest.mark.parametrize("command", [run, once])
def test_a_use_without_the_group_does_not_change_the_help_option(command: click.Command) -> None:
    with command.make_context(command.name, ["folder"]) as context:
        option = command.get_help_option(context)
    assert option is not None
    assert option.opts == ["-h", "--help"]
