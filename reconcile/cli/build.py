"""`imagebot build kustomization NAME --path DIR`: what a folder of this machine would be applied as."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.cli.building import Plan, built, from_cluster, from_file
from reconcile.cli.kindgroup import KindGroup, kustomization_name, name_of, one_namespace
from reconcile.cli.output import clean
from reconcile.cli.place import Place
from reconcile.cli.target import APPLIED, DURATION, finish, open_cluster_of, place_options
from reconcile.runtime.logs import configure
from reconcile.yamlio import dump

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

NO_CLUSTER = (
    "there is no kubeconfig to read the Kustomization from: name one with --kubeconfig, KUBECONFIG or ~/.kube/config, "
    "or build without a cluster with --kustomization-file FILE --dry-run"
)


def build_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what is built; the command is given `plan`."""

    @wraps(command)
    def with_plan(name: str, folder: Path, file: Path | None, strict: bool, ignore: tuple[str, ...], **options: Any) -> Any:
        return command(plan=Plan(name_of(name), folder, file, strict=strict, ignore=ignore), **options)

    path = click.Path(path_type=Path)
    for option in reversed(
        [
            click.option("--path", "folder", type=path, required=True, metavar="DIR", help="Folder that stands for spec.path."),
            click.option("--kustomization-file", "file", type=path, metavar="FILE", help="Take the Kustomization of this file."),
            click.option("--strict-substitute", "strict", is_flag=True, help="A variable that is not set is an error."),
            click.option("--ignore-paths", "ignore", multiple=True, metavar="PATTERN", help="Leave out files, as .sourceignore."),
            click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Most time for all of it."),
        ]
    ):
        with_plan = option(with_plan)
    decorated: Callable[..., Any] = kustomization_name(with_plan)
    return decorated


@click.group(cls=KindGroup)
def build() -> None:
    """Build a folder of this machine as a controller would."""


@build.command("kustomization")
@build_options
@click.option("--dry-run", is_flag=True, help="Ask no cluster: needs --kustomization-file, leaves out substituteFrom.")
@place_options(folder=False, refusal=APPLIED)
def build_kustomization(plan: Plan, dry_run: bool, timeout: float, place: Place) -> int:
    """Build a folder with the spec of a Kustomization, and print the objects that would be applied.

    The Kustomization is the one in the cluster, or that of --kustomization-file. What SOPS has encrypted is not decrypted: its
    values are shown as **SOPS**.
    """
    configure("error")
    one_namespace(place, "build")
    if dry_run and plan.file is None:
        raise click.UsageError(
            "--dry-run asks no cluster: name the file that defines the Kustomization with --kustomization-file."
        )
    return finish(_build(replace(plan, dry_run=dry_run), place), timeout)


async def _build(plan: Plan, place: Place) -> int:
    scheme = load_packages().scheme
    async with contextlib.AsyncExitStack() as stack:
        cluster = None if plan.dry_run else await stack.enter_async_context(open_cluster_of(place, scheme, NO_CLUSTER))
        for found in await built(await wanted(scheme, plan, place, cluster), plan, cluster):
            click.echo("---")
            click.echo(clean(dump(found)), nl=False)
    return 0


async def wanted(scheme: Scheme, plan: Plan, place: Place, cluster: ClusterObjects | None) -> AnyResource:
    """The Kustomization that is to be built: that of the file if there is one, else that of the cluster."""
    if plan.file is not None:
        return from_file(scheme, plan.file, plan.name, place.namespace, cluster.namespace if cluster is not None else "default")
    assert cluster is not None  # noqa: S101 - a dry run has a file
    return await from_cluster(cluster, scheme, Key(cluster.namespace, plan.name))
