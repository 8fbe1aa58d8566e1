"""`imagebot diff kustomization NAME --path DIR`: what applying a folder of this machine would change in the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from reconcile.app import load_packages
from reconcile.cli.build import build_options, wanted
from reconcile.cli.building import Plan, built, from_cluster
from reconcile.cli.comparing import Comparison, Difference
from reconcile.cli.kindgroup import KindGroup, one_namespace
from reconcile.cli.output import clean, say
from reconcile.cli.place import Place
from reconcile.cli.target import APPLIED, finish, open_cluster_of, place_options
from reconcile.errors import Invalid, NotFound, ReconcileError
from reconcile.ports.clock import SystemClock
from reconcile.runtime.logs import configure

SAME, CHANGED, FAILED = 0, 1, 2
"""Exit codes, as those of diff(1)."""

_COLOURS = {"created": "green", "drifted": "yellow", "recreated": "yellow", "deleted": "red", "skipped": "bright_black"}
_LINES = {"+": "green", "-": "red", "@": "cyan"}


@click.group(cls=KindGroup)
def diff() -> None:
    """Show what applying a folder of this machine would change in the cluster."""


@diff.command("kustomization")
@build_options
@click.option("--ignore-not-found", is_flag=True, help="Without the Kustomization in the cluster take that of the file.")
@place_options(folder=False, refusal=APPLIED)
def diff_kustomization(plan: Plan, ignore_not_found: bool, timeout: float, place: Place) -> int:
    """Build a folder with the spec of a Kustomization and compare each object with the live one, by a server-side dry run.

    Nothing is written. Values of Secrets are shown as stars, and what SOPS has encrypted is compared by its keys alone.

    Exit code 0: nothing would change; 1: something would; 2: it cannot be told, and stderr has the reason.
    """
    configure("error")
    one_namespace(place, "diff")
    try:
        return finish(_diff(plan, place, ignore_not_found=ignore_not_found), timeout)
    except ReconcileError as error:
        click.echo(f"imagebot: {clean(error)}", err=True)
        return FAILED


async def _diff(plan: Plan, place: Place, *, ignore_not_found: bool) -> int:
    scheme = load_packages().scheme
    async with open_cluster_of(place, scheme) as cluster:
        resource = await wanted(scheme, plan, place, cluster)
        if plan.file is not None:
            try:
                live = await from_cluster(cluster, scheme, resource.key)
                resource = replace(resource, status=live.status)
            except NotFound as error:
                if not ignore_not_found:
                    raise NotFound(f"{error}: compare with the file alone by --ignore-not-found") from None
        if resource.spec.kube_config is not None:
            raise Invalid(
                f"Kustomization {resource.key} is applied to another cluster (spec.kubeConfig): diff compares with the cluster "
                "of the kubeconfig alone"
            )
        objects = await built(resource, plan, cluster)
        found = await Comparison(cluster.anything, SystemClock(), resource, objects).run()
    return show(found)


def show(found: Sequence[Difference]) -> int:
    """Write differences to stdout and problems to stderr; the exit code."""
    for each in found:
        if each.what:
            click.echo(f"► {each.reference} {click.style(each.what, fg=_COLOURS[each.what])}")
        for line in each.lines:
            click.secho(clean(line), fg=_LINES.get(line[:1]))
    problems = [each.problem for each in found if each.problem]
    for problem in problems:
        say("✗", problem)
    if problems:
        return FAILED
    if any(each.changes for each in found):
        say("⚠️", "identified at least one change, exiting with non-zero exit code")
        return CHANGED
    return SAME
