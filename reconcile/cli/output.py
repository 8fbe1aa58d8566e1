"""Tables for people, lists for machines. Results go to stdout and nothing else does; progress and errors go to stderr."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import click
import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo
from reconcile.cli.columns import age, cell, find, present
from reconcile.yamlio import dump

Format = Literal["table", "wide", "json", "yaml", "name"]
Object = dict[str, Any]

FOLDED = frozenset({"STATUS", "MESSAGE", "IMAGE", "URL", "WHY"})
"""Columns that take several lines on a narrow terminal."""
LEAST_FOLDED = 20
"""Characters that such a column must have; a terminal with less room breaks the lines of the table itself, and nothing is cut."""

_COLOURS = {"True": "green", "False": "red", "Unknown": "yellow", "Suspended": "yellow", "Warning": "yellow"}
_READY = '.status.conditions[?(@.type=="Ready")]'
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(0x7F, 0xA0)) if code != ord("\n")} | {9: " "}

_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON allows in a text and terminals obey."""


def as_list(objects: Sequence[AnyResource | Object]) -> Object:
    """A Kubernetes `v1` List of the objects with their status."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [_plain(found) for found in objects]}


def print_data(data: Object, output: Format) -> None:
    """Write data to stdout as JSON, YAML or names."""
    if output == "name":
        for item in data["items"] if data.get("kind") == "List" else [data]:
            click.echo(f"{item['kind'].lower()}/{item['metadata']['name']}")
    elif output == "json":
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode().translate(_ESCAPED))
    else:
        click.echo(dump(data), nl=False)


def print_table(objects: Sequence[AnyResource | Object], now: datetime | None = None) -> None:
    """Write a table of objects of any kind to stdout: namespace, kind, name, Ready, reason, age, message."""
    moment = now or present()
    rows = []
    for found in map(_plain, objects):
        ready = _first(f"{_READY}", found) or {}
        meta = found["metadata"]
        state = "Suspended" if _first(".spec.suspend", found) else str(ready.get("status", "-"))
        name = f"{found['kind']}/{meta['name']}"
        created = age(str(meta.get("creationTimestamp") or ""), moment)
        rows.append([meta.get("namespace", ""), name, state, ready.get("reason", ""), created, ready.get("message", "")])
    if rows:
        print_rows(["NAMESPACE", "KIND/NAME", "READY", "REASON", "AGE", "MESSAGE"], rows)
    else:
        click.echo("no objects")


def print_kind(info: KindInfo, objects: Sequence[Object], *, namespaces: bool, wide: bool, now: datetime | None = None) -> None:
    """Write a table of objects of one kind to stdout, with its printer columns, as `kubectl get` has them."""
    moment = now or present()
    columns = [column for column in info.columns if wide or column.priority == 0]
    head = [*(["NAMESPACE"] if namespaces else []), "NAME", *(column.name.upper() for column in columns)]
    rows = []
    for found in objects:
        meta = found["metadata"]
        first = [meta.get("namespace", ""), meta["name"]] if namespaces else [meta["name"]]
        rows.append([*first, *(cell(column, found, moment) for column in columns)])
    print_rows(head, rows)


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0) -> None:
    """Write a table to stdout: folded to the width of a terminal, elsewhere one line per row and without colours."""
    console = Console(highlight=False, markup=False, emoji=False)
    texts = [[clean(shown) for shown in row] for row in rows]
    fold = console.is_terminal and _room(head, texts, console.width - indent) >= LEAST_FOLDED
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(title, no_wrap=not (fold and title in FOLDED), overflow="fold")
    for row in texts:
        table.add_row(*(Text(shown, style=_colour(title, shown)) for title, shown in zip(head, row, strict=True)))
    if fold:
        console.print(Padding(table, (0, 0, 0, indent)) if indent else table)
        return
    wide = Console(
        width=100_000, color_system="auto" if console.is_terminal else None, highlight=False, markup=False, emoji=False
    )
    with wide.capture() as capture:
        wide.print(table)
    click.echo("\n".join(f"{' ' * indent}{line}".rstrip() for line in capture.get().splitlines()))


def _colour(title: str, shown: str) -> str:
    if title == "SUSPENDED":
        return "yellow" if shown == "True" else ""
    return _COLOURS.get(shown, "")


def _room(head: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> float:
    """Characters that each folded column has beside the others."""
    widest = [max(cell_len(line) for text in column for line in text.split("\n")) for column in zip(head, *texts, strict=True)]
    fixed = sum(size + 2 for title, size in zip(head, widest, strict=True) if title not in FOLDED)
    folded = [size + 2 for title, size in zip(head, widest, strict=True) if title in FOLDED]
    if sum(folded) <= width - fixed:
        return float(width)
    return (width - fixed) / len(folded)


def clean(text: object) -> str:
    """A text from outside as a terminal may have it: without escapes and other control characters, line ends kept."""
    return str(text).translate(_CONTROLS)


def say(sign: str, text: str) -> None:
    """One line of progress on stderr, behind ►, ◎, ✔ or ✗."""
    colour = {"✔": "green", "✗": "red"}.get(sign, "cyan")
    click.echo(f"{click.style(sign, fg=colour)} {clean(text)}", err=True)


def _plain(found: AnyResource | Object) -> Object:
    return found if isinstance(found, dict) else found.to_dict()


def _first(path: str, found: Object) -> Any:
    values = find(path, found)
    return values[0] if values else None
