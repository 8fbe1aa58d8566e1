"""`imagebot reconcile KIND NAME`: ask for a pass of one object in a cluster and wait for what comes of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import REQUESTED_AT, Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import say
from reconcile.cli.place import Object, Objects, Place
from reconcile.cli.revisions import is_static
from reconcile.cli.target import DURATION, PATIENCE, finish, one_subject, open_cluster_of, place_options
from reconcile.errors import Invalid
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

REQUESTED = ("GitRepository", "OCIRepository", "Bucket")
"""Kinds of sources that can be asked to fetch."""


@click.command("reconcile")
@click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME]")
@place_options(folder=False)
@click.option("--with-source", is_flag=True, help="Of a Kustomization: have its source fetched before.")
@click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Most time to wait for each outcome.")
def reconcile_command(words: tuple[str, ...], place: Place, with_source: bool, timeout: float) -> int:
    """Ask for a pass of an object now, and wait for it.

    Exit code 0: it is Ready, and stderr has what was found; 1: it failed, and stderr has the reason.
    """
    configure("error")
    scheme = load_packages().scheme
    info, name = one_subject(scheme, words)
    if with_source and info.kind != KUSTOMIZATION.kind:
        raise click.UsageError(f"--with-source is for Kustomizations: leave it out for the {info.kind}.")
    return finish(_reconcile(scheme, info, name, place, timeout, with_source=with_source), 2 * timeout + PATIENCE)


async def _reconcile(scheme: Scheme, info: KindInfo, name: str, place: Place, timeout: float, *, with_source: bool) -> int:
    async with open_cluster_of(place, scheme) as cluster:
        found = await only(cluster, info, name)
        refuse_unfit(info, found)
        if with_source:
            source, key = source_of(scheme, found)
            if not await _pass(cluster, source, await cluster.read(source, key), timeout):
                return 1
        return 0 if await _pass(cluster, info, found, timeout) else 1


async def _pass(cluster: ClusterObjects, info: KindInfo, found: Object, timeout: float) -> bool:
    """Ask for a pass and wait for it; whether it went well."""
    from reconcile.cli.wait import outcome, until_done

    key = Key(found["metadata"]["namespace"], found["metadata"]["name"])
    refuse_unfit(info, found)
    if is_static(found):
        say("✔", "reconciliation not supported by the object")
        return True
    before = _handled(found)
    say("►", f"annotating {info.kind} {key.name} in {key.namespace} namespace")
    await cluster.patch(info, key, {"metadata": {"annotations": {REQUESTED_AT: now_nano()}}})
    say("✔", f"{info.kind} annotated")
    say("◎", f"waiting for {info.kind} reconciliation")
    found, said = await until_done(cluster, info, key, lambda seen: _handled(seen) != before, timeout)
    if said.state == "failed":
        say("✗", f"{info.kind} {key}: {said.message}")
        return False
    say("✔", outcome(found))
    return True


def source_of(scheme: Scheme, found: Object) -> tuple[KindInfo, Key]:
    """The source of a Kustomization; raises Invalid when it is one that nothing can be asked of."""
    reference = found["spec"]["sourceRef"]
    info = scheme.kinds.get(reference["kind"])
    if info is None or info.kind not in REQUESTED:
        raise Invalid(f"cannot reconcile source of kind {reference['kind']}: leave out --with-source")
    return info, Key(reference.get("namespace") or found["metadata"]["namespace"], reference["name"])


async def only(cluster: Objects, info: KindInfo, name: str) -> Object:
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
