"""`imagebot suspend` and `imagebot resume`: let controllers leave objects of a cluster alone, and let them work again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from reconcile.api.meta import Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import say
from reconcile.cli.place import Object, Place
from reconcile.cli.target import DURATION, PATIENCE, Subject, finish, open_cluster_of, place_options, subjects
from reconcile.errors import NotFound, ReconcileError
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

Chosen = list[tuple[KindInfo, Key]]

MAX_AT_ONCE = 16
"""Objects that are waited for at once."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--all", "everything", is_flag=True, help="All objects of the kind in the namespace.")(command)
    return click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME]...")(command)


@click.command()
@_options
@place_options(folder=False)
def suspend(words: tuple[str, ...], everything: bool, place: Place) -> int:
    """Suspend objects: their controllers leave them as they are. A pass under way is not stopped."""
    configure("error")
    scheme = load_packages().scheme
    return finish(_suspend(scheme, _wanted(scheme, words, everything), place))


async def _suspend(scheme: Scheme, wanted: Sequence[Subject], place: Place) -> int:
    async with open_cluster_of(place, scheme) as cluster:
        chosen, missing = await _choose(cluster, wanted)
        done = [await _patch(cluster, info, key, suspended=True) for info, key in chosen]
        return 0 if all(done) and not missing else 1


@click.command()
@_options
@place_options(folder=False)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until each is Ready or has failed.")
@click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Most time to wait for each.")
def resume(words: tuple[str, ...], everything: bool, place: Place, wait: bool, timeout: float) -> int:
    """Resume objects that are suspended, and wait until they are Ready.

    Exit code 0: all are; 1: one is not, and stderr has the reason.
    """
    configure("error")
    scheme = load_packages().scheme
    return finish(_resume(scheme, _wanted(scheme, words, everything), place, timeout if wait else 0.0), 10 * timeout + PATIENCE)


async def _resume(scheme: Scheme, wanted: Sequence[Subject], place: Place, timeout: float) -> int:
    async with open_cluster_of(place, scheme) as cluster:
        chosen, missing = await _choose(cluster, wanted)
        resumed = [(info, key) for info, key in chosen if await _patch(cluster, info, key, suspended=False)]
        if not timeout:
            return 0 if len(resumed) == len(chosen) and not missing else 1
        for kind in dict.fromkeys(info.kind for info, _ in resumed):
            say("◎", f"waiting for {kind} reconciliation")
        slots = asyncio.Semaphore(MAX_AT_ONCE)
        fine = await asyncio.gather(*(_wait(cluster, info, key, timeout, slots) for info, key in resumed))
        return 0 if all(fine) and len(resumed) == len(chosen) and not missing else 1


async def _wait(cluster: ClusterObjects, info: KindInfo, key: Key, timeout: float, slots: asyncio.Semaphore) -> bool:
    from reconcile.cli.wait import outcome, until_done

    async with slots:
        try:
            found, said = await until_done(cluster, info, key, lambda _: True, timeout)
        except ReconcileError as error:
            say("✗", str(error))
            return False
    if said.state == "failed":
        say("✗", f"{info.kind} {key} reconciliation failed: {said.message}")
        return False
    say("✔", f"{info.kind} {key} reconciliation completed")
    say("✔", outcome(found))
    return True


def _wanted(scheme: Scheme, words: Sequence[str], everything: bool) -> list[Subject]:
    wanted = subjects(scheme, words)
    if everything and any(subject.name for subject in wanted):
        raise click.UsageError("names and --all exclude each other.")
    if not everything and not all(subject.name for subject in wanted):
        raise click.UsageError("name the objects, or say --all.")
    return wanted


async def _choose(cluster: ClusterObjects, wanted: Sequence[Subject]) -> tuple[Chosen, bool]:
    """The objects that are meant, and whether one of them is not there."""
    chosen: Chosen = []
    missing = False
    for subject in wanted:
        try:
            found = await (cluster.all_of(subject.info) if subject.name is None else cluster.find(subject.info, subject.name))
        except NotFound as error:
            say("✗", str(error))
            missing = True
            continue
        if not found:
            say("✗", f"no {subject.info.kind} objects {cluster.where}")
            missing = True
        chosen += [(subject.info, _key(item)) for item in found]
    return chosen, missing


async def _patch(cluster: ClusterObjects, info: KindInfo, key: Key, *, suspended: bool) -> bool:
    doing, done = ("suspending", "suspended") if suspended else ("resuming", "resumed")
    say("►", f"{doing} {info.kind} {key.name} in {key.namespace} namespace")
    try:
        await cluster.patch(info, key, {"spec": {"suspend": True if suspended else None}})
    except ReconcileError as error:
        say("✗", str(error))
        return False
    say("✔", f"{info.kind} {done}")
    return True


def _key(found: Object) -> Key:
    return Key(found["metadata"]["namespace"], found["metadata"]["name"])
