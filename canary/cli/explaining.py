"""`imagebot canary explain NAME`: why a Canary stands where it stands. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from canary.cli import show
from canary.cli.facts import Facts, Kind, Line, Said
from canary.cli.place import cluster_options, decoded, name_of, open_canaries, the_one
from canary.cli.reasons import explain
from canary.cli.view import View, view_of
from canary.options import DEFAULTS
from canary.settings import CanarySettings
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.columns import age, present
from reconcile.cli.events import last_seen
from reconcile.cli.output import Object, print_data, print_rows
from reconcile.cli.place import Place
from reconcile.cli.target import finish
from reconcile.errors import Invalid, ReconcileError
from reconcile.ports.clock import SystemClock
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

SHOWN_EVENTS = 8
_COLOURS = {Kind.GOOD: "green", Kind.BAD: "red", Kind.WAITS: "yellow", Kind.DO: "cyan"}


@click.command("explain")
@click.argument("name")
@click.option(
    "--mesh-provider",
    default=DEFAULTS.mesh_provider,
    show_default=True,
    metavar="TEXT",
    help="Traffic provider of Canaries that name none, as the service has it.",
)
@click.option(
    "--selector-labels",
    default=",".join(DEFAULTS.selector_labels),
    show_default=True,
    metavar="LABEL,...",
    help="Labels by which targets select their pods, as the service has them.",
)
@cluster_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain_command(name: str, mesh_provider: str, selector_labels: str, place: Place, output: str) -> int:
    """Explain why a Canary failed, waits, holds or does not start, and what can be done.

    Reads the Canary, its Events, the target, the primary and the routes with your own rights; writes nothing.
    """
    configure("none")
    scheme = load_packages().scheme
    labels = tuple(filter(None, (label.strip() for label in selector_labels.split(","))))
    settings = replace(DEFAULTS, mesh_provider=mesh_provider, selector_labels=labels)
    return finish(_explain(scheme, name_of(scheme, name), place, settings, output))


async def _explain(scheme: Scheme, name: str, place: Place, settings: CanarySettings, output: str) -> int:
    async with open_canaries(place, scheme) as cluster:
        found, now = await the_one(cluster, name), present()
        said, unread = await _said(cluster, found)
        try:
            view = view_of(decoded(scheme, found), settings.mesh_provider)
        except Invalid as error:
            lines = [Line(Kind.VERDICT, "The service cannot read this Canary, and leaves it alone."), Line(Kind.BAD, f"{error}.")]
        else:
            lines = [*explain(await _facts(cluster, view, settings, said, now)), *unread]
    if output == "json":
        print_data(_data(found, lines, said), "json")
    else:
        _print(found, lines, said, now)
    return 0


async def _facts(cluster: ClusterObjects, view: View, settings: CanarySettings, said: tuple[Said, ...], now: datetime) -> Facts:
    # Routers and workloads of every provider are much: only this command needs them.
    from canary.cli.reading import gather
    from reconcile.kube.objects import KubeObjects

    async with KubeObjects(cluster.client, SystemClock()) as objects:
        return await gather(objects, view, settings, said, now)


async def _said(cluster: ClusterObjects, found: Object) -> tuple[tuple[Said, ...], list[Line]]:
    """What was said of a Canary, oldest first; and a line where that may not be read."""
    try:
        events = await cluster.events()
    except ReconcileError as error:
        return (), [Line(Kind.NOTE, f"Its Events could not be read: {error}")]
    return events_of(events, found["metadata"]), []


def events_of(events: Sequence[Object], meta: Mapping[str, Any]) -> tuple[Said, ...]:
    """The Events of the Canary with this metadata, oldest first; those of an earlier one of its name are left out. Pure."""
    own = [
        event
        for event in events
        if (involved := event.get("involvedObject") or {}).get("kind") == "Canary"
        and (involved.get("namespace"), involved.get("name")) == (meta.get("namespace"), meta.get("name"))
        and involved.get("uid") in {None, "", meta.get("uid")}
    ]
    # Moments are whole seconds; names are made from finer ones.
    own.sort(key=lambda event: (last_seen(event), str(event["metadata"].get("name", ""))))
    return tuple(
        Said(last_seen(e), str(e.get("type", "")), str(e.get("message", "")).rstrip(), int(e.get("count") or 1)) for e in own
    )


def _print(found: Object, lines: Sequence[Line], said: Sequence[Said], now: datetime) -> None:
    meta = found["metadata"]
    phase = str((found.get("status") or {}).get("phase") or "new")
    show.title(f"Canary {meta['namespace']}/{meta['name']}  {phase}")
    for line in lines:
        sign = click.style(line.kind.value, fg=_COLOURS.get(line.kind))
        if line.kind is Kind.VERDICT:
            show.line("  ", line.text)
        else:
            show.line("    ", line.text, sign=sign)
    if not said:
        return
    click.echo()
    show.title("Last events")
    rows = [[age(each.at, now), each.type, f"{each.message}{f'  (x{each.count})' if each.count > 1 else ''}"] for each in said]
    print_rows(["SEEN", "TYPE", "MESSAGE"], rows[-SHOWN_EVENTS:], indent=2)


def _data(found: Object, lines: Sequence[Line], said: Sequence[Said]) -> Object:
    return {
        "object": found,
        "explanation": [{"kind": line.kind.name.lower(), "text": line.text} for line in lines],
        "events": [{"time": e.at, "type": e.type, "message": e.message, "count": e.count} for e in said[-SHOWN_EVENTS:]],
    }
