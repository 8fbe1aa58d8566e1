"""`imagebot canary list`: all Canaries, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import click

from canary.api import CANARY
from canary.cli.place import cluster_options, open_canaries, readable
from canary.cli.view import countdown, progress, view_of, why
from canary.site import CanaryResource
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.columns import age, present
from reconcile.cli.output import Format, Object, as_list, print_data, print_rows
from reconcile.cli.place import Place
from reconcile.cli.target import finish
from reconcile.runtime.logs import configure

HEAD = ("NAME", "PHASE", "WEIGHT", "FAILED", "NEXT", "SINCE", "AGE", "TARGET", "WHY")


@click.command("list")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only Canaries with these labels, such as app=web.")
@cluster_options
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml", "name"]), default="table", show_default=True)
def list_command(selector: str, place: Place, output: Format) -> int:
    """Show Canaries: phase, weight, failed checks of those allowed, the next step, and what each waits for.

    WEIGHT is the canary's share of the traffic, or the iterations done of those to be done.
    """
    configure("error")
    return finish(_list(load_packages().scheme, place, selector, output))


async def _list(scheme: Scheme, place: Place, selector: str, output: Format) -> int:
    async with open_canaries(place, scheme) as cluster:
        found = await cluster.all_of(CANARY, selector)
        if output != "table":
            print_data(as_list(found), output)
        elif found:
            print_canaries(scheme, found, namespaces=not cluster.namespaced)
        else:
            click.echo(f"no Canaries {cluster.where}", err=True)
    return 0


def print_canaries(scheme: Scheme, found: Sequence[Object], *, namespaces: bool, now: datetime | None = None) -> None:
    """Write the table to stdout."""
    moment = now or present()
    rows = []
    for each, read in readable(scheme, found):
        cells = unreadable_row(each, read) if isinstance(read, str) else row(read, moment)
        rows.append([str(each["metadata"]["namespace"]), *cells] if namespaces else cells)
    print_rows([*(["NAMESPACE"] if namespaces else []), *HEAD], rows)


def row(canary: CanaryResource, now: datetime) -> list[str]:
    """The cells of a Canary, as HEAD has them."""
    view, target = view_of(canary), canary.spec.target_ref
    return [
        canary.meta.name,
        view.phase.value or "-",
        progress(view),
        f"{view.failed}/{view.plan.threshold}",
        countdown(view, now),
        age(canary.status.phase_since or "", now) or "-",
        age(canary.meta.creation_timestamp, now),
        f"{target.kind}/{target.name}",
        why(view, now),
    ]


def unreadable_row(found: Object, problem: str) -> list[str]:
    """The cells of a Canary that controllers cannot read either."""
    phase = str((found.get("status") or {}).get("phase") or "-")
    return [str(found["metadata"]["name"]), phase, "-", "-", "-", "-", "-", "-", f"not valid: {problem}"]
