"""`imagebot delete KIND NAME`: delete an object of a cluster, or one that the service on a folder has made itself."""

from __future__ import annotations

import click

from reconcile.api.meta import Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import say
from reconcile.cli.place import Place
from reconcile.cli.reconcile import only
from reconcile.cli.target import finish, one_subject, open_cluster_of, open_objects, place_options
from reconcile.errors import Invalid
from reconcile.runtime.logs import configure


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME]")
@place_options()
def delete(words: tuple[str, ...], place: Place) -> int:
    """Delete an object, such as an ImageHold that ends.

    With --dir, one that the service made itself; what a file declares is deleted by removing it from the file.
    """
    configure("error")
    scheme = load_packages().scheme
    info, name = one_subject(scheme, words)
    return finish(_delete(scheme, info, name, place))


async def _delete(scheme: Scheme, info: KindInfo, name: str, place: Place) -> int:
    if place.directory is not None:
        key = await _delete_from_state(scheme, info, name, place)
    else:
        async with open_cluster_of(place, scheme) as cluster:
            meta = (await only(cluster, info, name))["metadata"]
            key = Key(meta["namespace"], meta["name"])
            await cluster.delete(info, key, str(meta.get("uid") or ""))
    say("✔", f"{info.kind} {key} deleted")
    return 0


async def _delete_from_state(scheme: Scheme, info: KindInfo, name: str, place: Place) -> Key:
    """Delete an object of the service from its state; a service that is running notices. Raises NotFound and Invalid."""
    from reconcile.cli.folder import state_path
    from reconcile.local.database import MADE, Database

    async with open_objects(place, scheme) as objects:
        meta = (await only(objects, info, name))["metadata"]
    key = Key(meta["namespace"], meta["name"])
    assert place.directory is not None  # noqa: S101 - the caller has looked
    path = state_path(place.directory, place.state)
    if path is None:
        raise Invalid(f"{info.kind} {key} is declared in a file of {place.directory}: remove it there")
    database = Database(path)
    try:
        row = database.find(info.kind, key)
        if row is not None and row.source != MADE:
            raise Invalid(f"{info.kind} {key} is declared in {place.directory / row.source}: remove it there")
        if row is not None and row.finalizers != "[]":
            raise Invalid(f"{info.kind} {key} is still in use: something has to be put back before it can go")
        database.delete(info.kind, key)
    finally:
        database.close()
    return key
