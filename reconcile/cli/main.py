"""The command `imagebot`: its verbs, those that packages add, and how it ends.

stdout holds results only; logs, progress and errors go to stderr. Exit codes: 0 done (for `once`: nothing to change), 1 failed,
2 (`once`) something was changed, 64 wrong usage.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from reconcile import __version__
from reconcile.app import load_packages
from reconcile.cli.build import build
from reconcile.cli.check import check_cluster
from reconcile.cli.crds import crds
from reconcile.cli.delete import delete
from reconcile.cli.diff import diff
from reconcile.cli.events import events
from reconcile.cli.get import get
from reconcile.cli.install import install
from reconcile.cli.output import clean
from reconcile.cli.reconcile import reconcile_command
from reconcile.cli.service import once, run
from reconcile.cli.suspend import resume, suspend
from reconcile.cli.trace import trace
from reconcile.cli.tree import tree
from reconcile.errors import ReconcileError

EXIT_USAGE = 64


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "IMAGEBOT", "max_content_width": 110})
def cli() -> None:
    """From a pushed image to a signed commit: image automation as Flux does it, with or without a cluster."""


@cli.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def version(output: str) -> None:
    """Print the version."""
    if output == "json":
        import orjson

        python = sys.version.split()[0]
        click.echo(orjson.dumps({"version": __version__, "python": python}).decode())
    else:
        click.echo(f"imagebot {__version__}")


cli.add_command(run)
cli.add_command(once)
cli.add_command(get)
cli.add_command(events)
cli.add_command(reconcile_command)
cli.add_command(suspend)
cli.add_command(resume)
cli.add_command(delete)
cli.add_command(tree)
cli.add_command(trace)
cli.add_command(build)
cli.add_command(diff)
cli.add_command(check_cluster)
cli.add_command(crds)
cli.add_command(install)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point; turns errors into one line on stderr and an exit code."""
    registry = load_packages()
    for command in registry.commands:
        cli.add_command(command)
    run.packaged = tuple(registry.run_options)
    try:
        result = cli.main(arguments, prog_name="imagebot", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except ReconcileError as error:
        click.echo(f"imagebot: {clean(error)}", err=True)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)
