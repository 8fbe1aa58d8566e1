"""Commands that this package adds to `imagebot`."""

from __future__ import annotations

import click

commands: list[click.Command] = []
