"""Commands that this package adds to `imagebot`."""

from __future__ import annotations

from typing import Any, cast

import click

from imagebot.check.command import check
from imagebot.explain.command import explain
from imagebot.plan.command import plan


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and say how to look around.")
@click.option("--signing", type=click.Choice(["ssh", "gpg", "none"]), help="How commits are signed. [default: what is installed]")
@click.option(
    "--speed",
    type=click.Choice(["slow", "normal", "fast"]),
    help="How long to pause for reading. [default: normal on a terminal, else fast]",
)
def demo(keep: bool, signing: str | None, speed: str | None) -> int:
    """Watch a new tag become a signed commit: a registry, a Git server and the real service, all on this machine.

    Needs git; signs with ssh-keygen or gpg if one of them is installed. Nothing is left behind.
    """
    # Here, because servers are needed by this command only.
    from imagebot.demo.run import Options, run_demo

    return run_demo(Options(keep, cast(Any, signing), speed))


commands: list[click.Command] = [check, demo, explain, plan]
