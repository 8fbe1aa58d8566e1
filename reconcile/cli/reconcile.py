"""`imagebot reconcile KIND NAME`: ask for a pass of one object in a cluster and wait for what comes of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconcile.api.meta import REQUESTED_AT, Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import say
from reconcile.cli.place import Object, Place
from reconcile.cli.target import DURATION, PATIENCE, finish, one_subject, open_cluster_of, place_options
from reconcile.errors import Invalid
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects


@click.command("reconcile")
@click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME]")
@place_options(folder=False)
@click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Most time to wait for the outcome.")
def reconcile_command(words: tuple[str, ...], place: Place, timeout: float) -> int:
    """Ask for a pass of an object now, and wait for it.

    Exit code 0: it is Ready, and stderr has what was found; 1: it failed, and stderr has the reason.
    """
    configure("error")
    scheme = load_packages().scheme
    info, name = one_subject(scheme, words)
    return finish(_reconcile(scheme, info, name, place, timeout), timeout + PATIENCE)


async def _reconcile(scheme: Scheme, info: KindInfo, name: str, place: Place, timeout: float) -> int:
    from reconcile.cli.wait import outcome, until_done

    async with open_cluster_of(place, scheme) as cluster:
        found = await only(cluster, info, name)
        key = Key(found["metadata"]["namespace"], name)
        refuse_unfit(info, found)
        before = _handled(found)
        say("►", f"annotating {info.kind} {name} in {key.namespace} namespace")
        await cluster.patch(info, key, {"metadata": {"annotations": {REQUESTED_AT: now_nano()}}})
        say("✔", f"{info.kind} annotated")
        say("◎", f"waiting for {info.kind} reconciliation")
        found, said = await until_done(cluster, info, key, lambda seen: _handled(seen) != before, timeout)
        if said.state == "failed":
            say("✗", f"{info.kind} {key}: {said.message}")
            return 1
        say("✔", outcome(found))
        return 0


async def only(cluster: ClusterObjects, info: KindInfo, name: str) -> Object:
    """The one object of this name; raises NotFound, and Invalid when several namespaces have one."""
    found = await cluster.find(info, name)
    if len(found) > 1:
        spaces = ", ".join(str(item["metadata"].get("namespace")) for item in found)
        raise Invalid(f"{info.kind} {name} is in the namespaces {spaces}: say with -n which one is meant")
    return found[0]


def refuse_unfit(info: KindInfo, found: Object) -> None:
    """Raise Invalid for an object that nobody will reconcile."""
    meta = found["metadata"]
    who = f"{info.kind} {meta['namespace']}/{meta['name']}"
    if (found.get("spec") or {}).get("suspend"):
        command = f"imagebot resume {info.singular} {meta['name']} -n {meta['namespace']}"
        raise Invalid(f"{who}: resource is suspended; end that with: {command}")
    if meta.get("deletionTimestamp"):
        raise Invalid(f"{who} is being deleted")


def now_nano() -> str:
    """The moment, RFC 3339 with nanoseconds: two requests are never the same."""
    nanos = time.time_ns()
    return f"{datetime.fromtimestamp(nanos // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{nanos % 1_000_000_000:09d}Z"


def _handled(found: Object) -> str:
    return str((found.get("status") or {}).get("lastHandledReconcileAt") or "")
