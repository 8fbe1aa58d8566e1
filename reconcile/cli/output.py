"""Tables for people, lists for machines. Results go to stdout and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click
import orjson
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconcile.api import conditions as cond
from reconcile.api.resource import AnyResource
from reconcile.ports.clock import parse_timestamp

Format = Literal["table", "json", "yaml", "name"]


def as_list(resources: Sequence[AnyResource]) -> dict[str, Any]:
    """A Kubernetes `v1` List of the objects with their status."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [r.to_dict() for r in resources]}


def print_data(data: dict[str, Any], output: Format) -> None:
    """Write data to stdout as JSON, YAML or names."""
    if output == "name":
        for item in data["items"] if data.get("kind") == "List" else [data]:
            click.echo(f"{item['kind'].lower()}/{item['metadata']['name']}")
    elif output == "json":
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000), nl=False)


def print_table(resources: Sequence[AnyResource], now: datetime | None = None) -> None:
    """Write a table of objects to stdout: kind, name, Ready, reason, age, message."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAMESPACE", no_wrap=True)
    table.add_column("KIND/NAME", no_wrap=True)
    table.add_column("READY", no_wrap=True)
    table.add_column("REASON", no_wrap=True)
    table.add_column("AGE", no_wrap=True)
    table.add_column("MESSAGE", overflow="fold")
    moment = now or datetime.now(UTC)
    for resource in resources:
        ready = cond.get(resource.status.conditions, cond.READY)
        state, colour = _state(resource)
        table.add_row(
            resource.key.namespace,
            f"{resource.kind}/{resource.key.name}",
            Text(state, style=colour),
            ready.reason if ready else "",
            age(resource.meta.creation_timestamp, moment),
            Text(ready.message if ready else ""),
        )
    if not resources:
        console.print("no objects")
    elif console.is_terminal:
        console.print(table)
    else:  # one line per object for other programs, without the blanks that fill a column
        wide = Console(width=10_000, color_system=None)
        with wide.capture() as capture:
            wide.print(table)
        click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _state(resource: AnyResource) -> tuple[str, str]:
    if resource.spec.suspend:
        return "Suspended", "yellow"
    ready = cond.get(resource.status.conditions, cond.READY)
    status = ready.status if ready else "-"
    return status, {"True": "green", "False": "red"}.get(status, "yellow" if ready else "dim")


def age(created: str, now: datetime) -> str:
    """How long ago, as kubectl prints it: `12s`, `5m`, `3h`, `9d`."""
    if not created:
        return ""
    seconds = max(int((now - parse_timestamp(created)).total_seconds()), 0)
    for unit, size, limit in (("s", 1, 120), ("m", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"
