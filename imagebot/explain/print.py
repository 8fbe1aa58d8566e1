"""An explanation for people and as data."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from imagebot.explain.sections import Section, Table
from reconcile.api.resource import AnyResource
from reconcile.cli.output import clean, print_rows


def print_sections(found: Sequence[Section]) -> None:
    """Write the explanation to stdout: folded to the width of a terminal, elsewhere one line per fact."""
    console = Console()
    width = console.width if console.is_terminal else None
    for number, section in enumerate(found):
        if number:
            click.echo()
        click.secho(clean(section.title), bold=True)
        label_width = max((len(label) for label, _ in section.facts), default=0)
        for label, text in section.facts:
            _echo(f"  {label:<{label_width}}  ", text, width)
        if section.table is not None and section.table.rows:
            print_rows(*_filled(section.table), indent=2)
            if section.table.more:
                _echo("  ", f"and {section.table.more} more: see --tags and --all-tags", width)
        for note in section.notes:
            _echo("  ", note, width)


def _filled(table: Table) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that are empty."""
    used = [n for n in range(len(table.head)) if any(row[n] for row in table.rows)]
    return [table.head[n] for n in used], [[row[n] for n in used] for row in table.rows]


def _echo(start: str, text: str, width: int | None) -> None:
    lines = clean(text).splitlines() or [""]
    if width is not None:
        room = max(width - len(start), 20)
        lines = [part for line in lines for part in textwrap.wrap(line, room, break_on_hyphens=False) or [""]]
    for number, line in enumerate(lines):
        click.echo((start if not number else " " * len(start)) + line)


def as_data(resource: AnyResource, found: Sequence[Section]) -> dict[str, Any]:
    """The explanation as plain data: the object itself with its status, then each section by its title in camelCase."""
    data: dict[str, Any] = {"object": resource.to_dict()}
    for number, section in enumerate(found):
        body: dict[str, Any] = {_camel(label): text for label, text in section.facts}
        if section.table is not None:
            head = [_camel(title.lower()) for title in section.table.head]
            body["rows"] = [dict(zip(head, row, strict=True)) for row in section.table.rows]
            if section.table.more:
                body["moreRows"] = section.table.more
        if section.notes:
            body["notes"] = list(section.notes)
        # The names of objects are in the values, so that programs find the sections by constant names.
        data["state" if not number else _camel(re.sub(r" \S*/\S*$", "", section.title).lower())] = body
    return data


def _camel(words: str) -> str:
    first, *rest = words.split()
    return first[:1].lower() + first[1:] + "".join(word.capitalize() for word in rest)
