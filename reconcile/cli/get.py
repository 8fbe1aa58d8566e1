"""`imagebot get [KIND[/NAME]]`: the objects of a cluster or of a folder, with their status."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import Format, Object, as_list, clean, print_data, print_kind, print_table
from reconcile.cli.place import Objects, Place, UnknownKind
from reconcile.cli.revisions import KINDS, print_revisions
from reconcile.cli.revisions import status_selector as in_state
from reconcile.cli.target import Subject, finish, open_objects, place_options, subjects
from reconcile.errors import NotFound, ReconcileError
from reconcile.kube.errors import Denied
from reconcile.runtime.logs import configure


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND[/NAME]] [NAME]...")
@place_options()
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only objects with these labels, such as app=web,tier!=old.")
@click.option("--status-selector", default="", metavar="TYPE=STATUS", help="Only objects in this state, such as ready=false.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json", "yaml", "name"]), default="table", show_default=True)
def get(words: tuple[str, ...], place: Place, selector: str, status_selector: str, output: Format) -> int:
    """Show objects: of one kind with its columns, of all kinds with Ready, reason, age and message.

    Sources and Kustomizations are shown with their revisions: get sources, get kustomizations, get source git.

    With -o json or yaml it prints a v1 List of the objects with their status. KIND is a kind, its plural or short name, also as
    flux has it (image policy), or all.
    """
    configure("error")
    scheme = load_packages().scheme
    chosen = in_state(status_selector)
    return finish(_get(scheme, subjects(scheme, words), place, selector, chosen, output))


async def _get(
    scheme: Scheme, wanted: Sequence[Subject], place: Place, selector: str, chosen: Callable[[Object], bool], output: Format
) -> int:
    if selector and any(subject.name for subject in wanted):
        raise click.UsageError("a name and --selector exclude each other.")
    async with open_objects(place, scheme) as objects:
        found, problems = await collect(objects, wanted, selector)
        infos = list({subject.info.kind: subject.info for subject in wanted}.values())
        if not found and problems:
            raise problems[0]
        found = [each for each in found if chosen(each)]
        if output in ("json", "yaml", "name"):
            print_data(as_list(found), output)
        elif not found:
            click.echo(f"no objects {objects.where}", err=True)
        elif KINDS.issuperset(info.kind for info in infos):
            print_revisions(infos, found, namespaces=not objects.namespaced, wide=output == "wide")
        elif len(infos) == 1:
            print_kind(wanted[0].info, found, namespaces=not objects.namespaced, wide=output == "wide")
        else:
            print_table(found)
        for problem in problems:
            click.echo(f"imagebot: {clean(problem)}", err=True)
        return 1 if problems else 0


async def collect(objects: Objects, wanted: Sequence[Subject], selector: str = "") -> tuple[list[Object], list[ReconcileError]]:
    """What is wanted, in this order, and what kept the rest from being read.

    Of several kinds those that a cluster does not have are left out, unless it has none of them.
    """
    found: list[Object] = []
    problems: list[ReconcileError] = []
    unknown: dict[str, ReconcileError] = {}
    for subject in wanted:
        try:
            found += await _of(objects, subject, selector)
        except UnknownKind as error:
            unknown[subject.info.kind] = error
        except (NotFound, Denied) as error:  # anything else would come again for the next kind
            problems.append(error)
    kinds = {subject.info.kind for subject in wanted}
    if unknown and len(unknown) == len(kinds):
        problems.append(next(iter(unknown.values())))
    return found, problems


async def _of(objects: Objects, subject: Subject, selector: str) -> list[Object]:
    info: KindInfo = subject.info
    return await objects.all_of(info, selector) if subject.name is None else await objects.find(info, subject.name)
