"""`imagebot events`: what controllers have said about objects, in a cluster or on a folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import click

from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.columns import age, present
from reconcile.cli.output import Format, as_list, print_data, print_rows
from reconcile.cli.place import Object, Objects, Place
from reconcile.cli.target import finish, one_subject, open_objects, place_options
from reconcile.errors import NotFound
from reconcile.runtime.logs import configure

TYPES = ("Normal", "Warning")

Identity = tuple[str, str, str]
"""Kind, namespace and name of what an Event is about."""


@click.command()
@click.option("--for", "subject", metavar="KIND/NAME", help="Only those of this object and of what it refers to.")
@click.option("--types", default="", metavar="TYPE,...", help="Normal, Warning. [default: both]")
@place_options()
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def events(subject: str | None, types: str, place: Place, output: Format) -> int:
    """Show the Events of objects, oldest first; with -o json or yaml a v1 List of them."""
    configure("error")
    scheme = load_packages().scheme
    wanted = one_subject(scheme, subject.split()) if subject else None
    return finish(_events(scheme, wanted, _types(types), place, output))


async def _events(
    scheme: Scheme, wanted: tuple[KindInfo, str] | None, types: Collection[str], place: Place, output: Format
) -> int:
    async with open_objects(place, scheme) as objects:
        found = [event for event in await objects.events() if event.get("type") in types]
        if wanted is not None:
            found = await _about(scheme, objects, found, *wanted)
        found.sort(key=last_seen)
        if output != "table":
            print_data(as_list(found), output)
        elif found:
            print_events(found, namespaces=not objects.namespaced)
        else:
            click.echo(f"no events {objects.where}", err=True)
        return 0


async def _about(scheme: Scheme, objects: Objects, found: Sequence[Object], info: KindInfo, name: str) -> list[Object]:
    """The Events of the objects of this name and of what they refer to; raises NotFound without object and Event."""
    own = [event for event in found if _identity(event)[::2] == (info.kind, name)]
    try:
        related = {identity for item in await objects.find(info, name) for identity in referred(scheme, item)}
    except NotFound:
        if not own:
            raise
        return own  # of an object that is gone
    return own + [event for event in found if _identity(event) in related]


def referred(scheme: Scheme, found: Object) -> set[Identity]:
    """The objects of our kinds that an object names in fields such as `sourceRef` and `imageRepositoryRef`."""
    named: set[Identity] = set()
    for field, value in (found.get("spec") or {}).items():
        if not field.endswith("Ref") or not isinstance(value, dict) or not value.get("name"):
            continue
        kind = value.get("kind") or next((info.kind for info in scheme if info.singular == field[:-3].lower()), None)
        if kind is not None:
            named.add((str(kind), str(value.get("namespace") or found["metadata"]["namespace"]), str(value["name"])))
    return named


def print_events(found: Sequence[Object], *, namespaces: bool, now: datetime | None = None) -> None:
    """Write a table of Events to stdout."""
    moment = now or present()
    rows = []
    for event in found:
        kind, namespace, name = _identity(event)
        row = [_seen(event, moment), event.get("type", ""), event.get("reason", ""), f"{kind}/{name}"]
        rows.append([*([namespace] if namespaces else []), *row, str(event.get("message", "")).rstrip()])
    print_rows([*(["NAMESPACE"] if namespaces else []), "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows)


def last_seen(event: Object) -> str:
    """When an Event happened last, RFC 3339; empty when it does not say."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp"))
    return str(next((moment for moment in times if moment), event["metadata"].get("creationTimestamp") or ""))


def _seen(event: Object, now: datetime) -> str:
    """`5m`, or `5m (x12 over 2h)` of one that happened again and again, as kubectl has it."""
    last = age(last_seen(event), now)
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    first = event.get("firstTimestamp") or event.get("eventTime")
    return f"{last} (x{count} over {age(str(first), now)})" if count > 1 and first else last


def _identity(event: Object) -> Identity:
    involved = event.get("involvedObject") or {}
    return str(involved.get("kind", "")), str(involved.get("namespace", "")), str(involved.get("name", ""))


def _types(text: str) -> Collection[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = {known for known in TYPES for word in words if known.lower() == word.lower()}
    if len(found) != len({word.lower() for word in words}):
        raise click.UsageError(f"--types is {' or '.join(TYPES)}, or both with a comma between them.")
    return found or TYPES
