"""`imagebot canary`: the group of commands that this package brings."""

from __future__ import annotations

import click

from canary.cli.actions import pause, promote, resume, retry, rollback
from canary.cli.details import status_command
from canary.cli.explaining import explain_command
from canary.cli.listing import list_command
from canary.cli.watching import watch_command


@click.group()
def canary() -> None:
    """Look at Canaries and steer their runs."""


for command in (list_command, status_command, watch_command, explain_command, promote, rollback, retry, pause, resume):
    canary.add_command(command)
