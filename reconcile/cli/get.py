"""`imagebot get [KIND[/NAME]]`: the objects with their status."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import DATABASE_NAME, load_packages, state_folder
from reconcile.cli.output import Format, as_list, print_data, print_table
from reconcile.errors import Invalid, NotFound
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore, decode_row
from reconcile.ports.clock import SystemClock
from reconcile.runtime.logs import configure


@click.command()
@click.argument("what", required=False, metavar="[KIND[/NAME]]")
@click.argument("name", required=False)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=Path(), show_default=True, help="Folder of manifests."
)
@click.option("--state", type=click.Path(path_type=Path), help="Folder with the state. [default: per user and DIR]")
@click.option("-n", "--namespace", help="Only this namespace.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml", "name"]), default="table", show_default=True)
def get(what: str | None, name: str | None, directory: Path, state: Path | None, namespace: str | None, output: Format) -> None:
    """Show objects: Ready, reason, age, message; with -o json or yaml a v1 List of the objects with their status."""
    configure("error")
    scheme = load_packages().scheme
    kind, wanted = _parse(scheme, what, name)
    path = state_folder(directory, state) / DATABASE_NAME
    if not directory.is_dir():
        raise Invalid(f"{directory} is not a folder: give the folder with your manifests with --dir")
    found = _stored(scheme, path) if path.exists() else asyncio.run(_declared(scheme, directory))
    chosen = [
        r
        for r in found
        if (kind is None or r.kind == kind.kind)
        and (wanted is None or r.key.name == wanted)
        and namespace in (None, r.key.namespace)
    ]
    if wanted is not None and kind is not None and not chosen:
        raise NotFound(f'{kind.plural}.{kind.group} "{wanted}" not found in {directory}')
    if output == "table":
        print_table(chosen)
    else:
        print_data(as_list(chosen), output)


def _parse(scheme: Scheme, what: str | None, name: str | None) -> tuple[KindInfo | None, str | None]:
    if what is None or what == "all":
        return None, None
    word, _, inside = what.partition("/")
    return scheme.by_word(word), inside or name or None


def _stored(scheme: Scheme, path: Path) -> Sequence[AnyResource]:
    database = Database(path, read_only=True)
    try:
        found = [decode_row(scheme, row) for row in database.objects() if row.kind in scheme.kinds]
    finally:
        database.close()
    order = {info.kind: n for n, info in enumerate(scheme)}
    return sorted(found, key=lambda r: (order[r.kind], r.key))


async def _declared(scheme: Scheme, directory: Path) -> Sequence[AnyResource]:
    """What the folder declares when no service has run on it yet."""
    with tempfile.TemporaryDirectory(prefix="imagebot-get-") as scratch:
        async with LocalStore(Folder(directory, scheme), Database(Path(scratch) / DATABASE_NAME), scheme, SystemClock()) as store:
            return [r for info in scheme for r in await store.list(info.kind)]
