"""Facts, tables and sentences on stdout: folded to the width of a terminal, elsewhere one line per fact."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import click
from rich.console import Console

from canary.phases import Phase
from reconcile.cli.output import clean, print_rows

COLOURS = {
    Phase.SUCCEEDED: "green",
    Phase.INITIALIZED: "green",
    Phase.FAILED: "red",
    Phase.WAITING: "yellow",
    Phase.WAITING_PROMOTION: "yellow",
    Phase.PROGRESSING: "cyan",
    Phase.PROMOTING: "cyan",
    Phase.FINALISING: "cyan",
}

Facts = Sequence[tuple[str, str]]


def title(text: str, colour: str | None = None) -> None:
    """A headline."""
    click.secho(clean(text), bold=True, fg=colour)


def facts(found: Facts, *, indent: int = 2) -> None:
    """Labels and what belongs to them."""
    width = max((len(label) for label, _ in found), default=0)
    for label, text in found:
        line(f"{' ' * indent}{label:<{width}}  ", text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table without the columns that are empty."""
    used = [n for n in range(len(head)) if any(row[n] for row in rows)]
    if rows and used:
        print_rows([head[n] for n in used], [[row[n] for n in used] for row in rows], indent=2)


def line(start: str, text: str, *, sign: str = "") -> None:
    """A text behind its start, or behind a sign of one character; where it is folded the rest stands below the text."""
    console = Console()
    lines = clean(text).splitlines() or [""]
    if console.is_terminal:
        room = max(console.width - len(start), 20)
        lines = [part for each in lines for part in textwrap.wrap(each, room, break_on_hyphens=False) or [""]]
    first = f"{start[:-2]}{sign} " if sign else start
    for number, part in enumerate(lines):
        click.echo(((" " * len(start) if number else first) + part).rstrip())
