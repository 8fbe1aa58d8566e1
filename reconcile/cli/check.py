"""`imagebot check-cluster`: whether a cluster has what the service needs, and whether the service is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import load_packages
from reconcile.cli.output import clean
from reconcile.cli.place import Object, Place
from reconcile.cli.target import APPLIED, finish, open_cluster_of, place_options
from reconcile.errors import Invalid, MissingProgram, NotFound, ReconcileError
from reconcile.runtime.logs import configure
from reconcile.versions.version import InvalidVersion, parse_version

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

LEAST: Final = (1, 33)
"""The oldest Kubernetes that is supported, as by Flux."""
PROGRAMS: Final = {
    "git": "clones repositories",
    "kustomize": "builds Kustomizations",
    "sops": "decrypts",
    "gpg": "decrypts, signs and verifies",
}
"""What the service starts, and what for."""
SELECTOR: Final = "app.kubernetes.io/name=imagebot"
"""Finds the Deployments of the chart."""

_SIGNS = {"ok": ("✔", "green"), "bad": ("✗", "red"), "note": ("►", "cyan")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer; a `bad` one makes the check fail."""

    kind: Literal["ok", "bad", "note"]
    text: str


@click.command("check-cluster")
@click.option("--pre", is_flag=True, help="Only whether the service could be installed: the version of Kubernetes.")
@click.option("--programs/--no-programs", default=None, help="Look for the programs that the service starts. [default: in a pod]")
@click.option("-l", "--selector", default=SELECTOR, show_default=True, metavar="LABELS", help="Labels of the Deployments.")
@place_options(folder=False, refusal=APPLIED)
def check_cluster(pre: bool, programs: bool | None, selector: str, place: Place) -> int:
    """Check a cluster: the version of Kubernetes, the definitions of our kinds, the Deployments of the service.

    Where the service runs (kubectl exec) also the programs that it starts. Deployments are looked for in all namespaces, or in
    that of -n.

    Exit code 0: all is well; 1: something is missing, and the line with ✗ says what to do.
    """
    configure("error")
    inside = "KUBERNETES_SERVICE_HOST" in os.environ if programs is None else programs
    return finish(_check(place, selector, pre=pre, programs=inside))


async def _check(place: Place, selector: str, *, pre: bool, programs: bool) -> int:
    scheme = load_packages().scheme
    well = True
    async with open_cluster_of(place, scheme) as cluster:
        async for finding in _findings(cluster, scheme, place, selector, pre=pre, programs=programs):
            sign, colour = _SIGNS[finding.kind]
            click.echo(f"{click.style(sign, fg=colour)} {clean(finding.text)}")
            well = well and finding.kind != "bad"
    click.echo(f"{click.style('✔', fg='green')} all checks passed" if well else f"{click.style('✗', fg='red')} check failed")
    return 0 if well else 1


async def _findings(
    cluster: ClusterObjects, scheme: Scheme, place: Place, selector: str, *, pre: bool, programs: bool
) -> AsyncIterator[Finding]:
    answer = await cluster.client.raw("/version")
    yield version_finding(str(answer.get("gitVersion") or ""))
    if pre:
        return
    yield Finding("note", "checking definitions")
    served = {info.kind: await _served(cluster, info) for info in scheme}
    for finding in definition_findings(list(scheme), served):
        yield finding
    yield Finding("note", "checking Deployments")
    for finding in await _deployments(cluster, place, selector):
        yield finding
    if programs:
        yield Finding("note", "checking programs")
        for name in PROGRAMS:
            yield await program_finding(name)


# --- Kubernetes


def version_finding(text: str) -> Finding:
    """Whether the API server is new enough, by its `gitVersion`."""
    wanted = ".".join(map(str, LEAST))
    try:
        version = parse_version(text)
    except InvalidVersion:
        return Finding("bad", f"the API server does not say its version ({text!r}): Kubernetes {wanted} or newer is needed")
    shown = f"{version.major}.{version.minor}.{version.patch}"
    if (version.major, version.minor) < LEAST:
        return Finding("bad", f"Kubernetes {shown} is older than {wanted}: update the cluster")
    return Finding("ok", f"Kubernetes {shown} >={wanted}.0-0")


# --- definitions


async def _served(cluster: ClusterObjects, info: KindInfo) -> str:
    """The version in which a kind is used; empty when it is not served in any that we can use."""
    try:
        return await cluster.version(info)
    except Invalid:
        return ""


def definition_findings(infos: Sequence[KindInfo], served: Mapping[str, str]) -> list[Finding]:
    """Which kinds are installed. A group of which there is none is one that nobody wants; one with gaps is broken.

    Args:
        infos: Our kinds.
        served: The version in which each kind is used, by kind; empty where there is none.
    """
    groups: dict[str, list[KindInfo]] = {}
    for info in infos:
        groups.setdefault(info.group, []).append(info)
    fix = "install the definitions with: imagebot crds | kubectl apply --server-side -f -"
    if not any(served.values()):
        return [Finding("bad", f"none of our kinds is installed: {fix}")]
    found = []
    for group, members in groups.items():
        if not any(served[info.kind] for info in members):
            found.append(Finding("note", f"{group}: not installed"))
            continue
        for info in members:
            name, version = f"{info.plural}.{group}", served[info.kind]
            if version:
                found.append(Finding("ok", f"{name}/{version}"))
            else:
                found.append(Finding("bad", f"{name} is not served as {' or '.join(info.versions)}: {fix}"))
    return found


# --- Deployments


async def _deployments(cluster: ClusterObjects, place: Place, selector: str) -> list[Finding]:
    try:
        found = await cluster.anything.list("apps/v1", "Deployment", place.namespace, selector)
    except ReconcileError as error:
        return [Finding("bad", f"Deployments cannot be listed: {error}")]
    if not found:
        where = f'namespace "{place.namespace}"' if place.namespace else "any namespace"
        return [Finding("bad", f"no Deployment with the labels {selector} in {where}: install the service, or say -l and -n")]
    return [finding for each in found for finding in deployment_findings(each)]


def deployment_findings(found: Object) -> list[Finding]:
    """Whether a Deployment is available, and its images."""
    meta, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    name = f"{meta.get('namespace', '')}/{meta['name']}"
    wanted, ready = int(spec.get("replicas", 1)), int(status.get("readyReplicas") or 0)
    available: Object = next((one for one in status.get("conditions") or () if one.get("type") == "Available"), {})
    pod = (spec.get("template") or {}).get("spec") or {}
    images = [Finding("note", str(one.get("image"))) for one in pod.get("containers") or ()]
    if wanted == 0:
        return [Finding("note", f"{name}: scaled to zero"), *images]
    if status.get("observedGeneration") == meta.get("generation") and available.get("status") == "True":
        return [Finding("ok", f"{name}: deployment ready"), *images]
    why = available.get("message") or "the pods have not come up yet"
    return [Finding("bad", f"{name}: {ready} of {wanted} pods ready: {why}"), *images]


# --- programs


async def program_finding(name: str) -> Finding:
    """Whether a program is there; of kustomize also its version, since only one major version will do."""
    found = shutil.which(name)
    if found is None:
        return Finding("bad", f"{name} is not installed ({PROGRAMS[name]}): install it and put it on PATH")
    if name != "kustomize":
        return Finding("ok", f"{name}: {found}")
    from reconcile.kustomize.build import Builder

    with tempfile.TemporaryDirectory(prefix="imagebot-check-") as folder:
        builder = Builder(Path(folder), program=Path(found))
        try:
            return Finding("ok", f"kustomize {await builder.version()}: {found}")
        except (MissingProgram, NotFound) as error:
            return Finding("bad", str(error))
        finally:
            await asyncio.to_thread(builder.close)
