"""A command with options that packages bring; they come last in its help, and their values reach the packages untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

HEADING = "Options of other controllers"


class PackagedCommand(click.Command):
    """A command to whose own options those of packages are added.

    Attributes:
        packaged: The options of packages, in the order in which they are shown.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packaged: Sequence[click.Option] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters; those of packages last."""
        return [*super().get_params(ctx), *self.packaged]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Our own options, then those of packages under a heading of their own."""
        own = [param for param in super().get_params(ctx) if isinstance(param, click.Option)]
        for heading, options in (("Options", own), (HEADING, self.packaged)):
            rows = [row for row in (option.get_help_record(ctx) for option in options) if row is not None]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def values(self, options: dict[str, Any]) -> dict[str, Any]:
        """What was given for the options of packages, by their Python names."""
        return {str(option.name): options[str(option.name)] for option in self.packaged}
