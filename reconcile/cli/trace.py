"""`imagebot trace`: from an object to the commit that it comes from, and from an image to the objects that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import Key
from reconcile.api.scheme import Scheme
from reconcile.app import load_packages
from reconcile.apply.owner import KUSTOMIZE, labels_of
from reconcile.cli.output import clean, print_data
from reconcile.cli.place import Object, Place
from reconcile.cli.target import APPLIED, finish, open_cluster_of, place_options
from reconcile.cli.verdict import condition
from reconcile.errors import Invalid, NotFound, ReconcileError
from reconcile.ports.cluster import Reference
from reconcile.redact import redact
from reconcile.runtime.logs import configure

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

HELM = "helm.toolkit.fluxcd.io"
ORIGIN = "org.opencontainers.image."
REFS = ("branch", "tag", "semver", "name", "commit", "digest")
"""What a source may follow."""
MAX_OWNERS = 10
"""Owners of owners that are looked at."""

Section = dict[str, str]
"""Labels and texts of one step, in order; the first one is the kind and name of the object."""


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND[/NAME] [NAME] | IMAGE:TAG")
@place_options(folder=False, refusal=APPLIED)
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
def trace(words: tuple[str, ...], place: Place, output: str) -> int:
    """Show where an object comes from: its Kustomization, the source of that, revision and messages.

    Of an image: the policy that chose it, the commit that brought it, the sources and Kustomizations that have it, and the
    objects whose pods run it, each with its time. With -A in all namespaces.

    Exit code 0: the way is known to its end; 1: it is not, and stderr says where it ends.
    """
    configure("error")
    image = image_of(words)
    if image is not None:
        from reconcile.cli.imagetrace import trace_image

        return finish(trace_image(*image, place, output))
    kind, name = subject_of(words)
    if place.everywhere:
        raise click.UsageError("an object has one namespace: name it with -n.")
    return finish(_trace(kind, name, place, output))


def image_of(words: Sequence[str]) -> tuple[str, str] | None:
    """Image and tag, when that is what the words are: one word with a tag behind its last slash."""
    if len(words) != 1 or ":" not in words[0].rpartition("/")[2]:
        return None
    image, _, tag = words[0].partition("@")[0].rpartition(":")
    return image, tag


def subject_of(words: Sequence[str]) -> tuple[str, str]:
    """Kind and name, as two words or one with a slash; raises UsageError for anything else."""
    parts = words[0].split("/") if len(words) == 1 else list(words)
    if len(parts) != 2 or not all(parts) or any("/" in part for part in parts):
        raise click.UsageError("name one object, as KIND/NAME or KIND NAME, or an image with its tag, as IMAGE:TAG.")
    return parts[0], parts[1]


async def _trace(kind: str, name: str, place: Place, output: str) -> int:
    from reconcile.cli.anykind import find_kind

    scheme = load_packages().scheme
    async with open_cluster_of(place, scheme) as cluster:
        reference = (await find_kind(cluster.client, kind)).reference(cluster.namespace, name)
        sections, problem = await sections_of(cluster, scheme, reference)
    if output == "text":
        width = max(len(label) for section in sections for label, text in section.items() if text)
        for number, section in enumerate(sections):
            if number:
                click.echo("---")
            for line in section_lines(section, width):
                click.echo(line)
    else:
        print_data({"steps": sections}, "json" if output == "json" else "yaml")
    if problem:
        click.echo(f"imagebot: {clean(problem)}", err=True)
    return 1 if problem else 0


def section_lines(section: Section, width: int) -> list[str]:
    """A step as people read it: labels in a column of this width."""
    return [clean(f"{label + ':':<{width + 1}}  {text}".replace("\n", " ")).rstrip() for label, text in section.items() if text]


async def sections_of(cluster: ClusterObjects, scheme: Scheme, reference: Reference) -> tuple[list[Section], str]:
    """The steps from an object back to its source, and why there are no more; empty when that is the end.

    Raises:
        NotFound: There is no such object.
    """
    found = await _read(cluster, reference)
    first = {"Object": f"{reference.kind}/{reference.name}", "Namespace": reference.namespace}
    owner = await _owner(cluster, found)
    if owner is None:
        return [{**first, "Status": "Not managed"}], f"{reference} was applied by no Kustomization and no HelmRelease"
    sections = [{**first, "Status": "Managed by Flux"}]
    group, key = owner
    try:
        if group == HELM:
            release = await _read(cluster, Reference(f"{HELM}/v2", "HelmRelease", key.namespace, key.name))
            revision = str((release.get("status") or {}).get("lastAttemptedRevision") or "")
            section = {"HelmRelease": key.name, "Namespace": key.namespace, "Revision": revision, **_outcome(release)}
            return [*sections, section], ""
        applier = await cluster.read(KUSTOMIZATION, key)
        sections.append(kustomization_section(applier))
        source = source_reference(scheme, applier)
        sections.append(source_section(await cluster.read(*source)))
    except ReconcileError as error:
        return sections, str(error)
    return sections, ""


async def _read(cluster: ClusterObjects, reference: Reference) -> Object:
    return await cluster.anything.get(reference.api_version, reference.kind, reference.namespace, reference.name)


async def _owner(cluster: ClusterObjects, found: Object) -> tuple[str, Key] | None:
    """Who applied an object, or the one that it belongs to: by labels, those of Kustomizations first."""
    for _ in range(MAX_OWNERS):
        owner = owner_by_labels(found)
        if owner is not None:
            return owner
        above = next((one for one in found["metadata"].get("ownerReferences") or () if one.get("controller")), None)
        if above is None:
            return None
        namespace = str(found["metadata"].get("namespace") or "")
        reference = Reference(str(above["apiVersion"]), str(above["kind"]), namespace, str(above["name"]))
        try:
            found = await _read(cluster, reference)
        except NotFound:
            return None
    return None


def owner_by_labels(found: Object) -> tuple[str, Key] | None:
    """Group of the labels, and the name of the Kustomization or HelmRelease that they name."""
    labels = labels_of(found)
    for group in (KUSTOMIZE, HELM):
        name, namespace = labels.get(f"{group}/name"), labels.get(f"{group}/namespace")
        if name and namespace:
            return group, Key(str(namespace), str(name))
    return None


def source_reference(scheme: Scheme, found: Object) -> tuple[Any, Key]:
    """Kind and name of the source of a Kustomization; raises Invalid for a kind that is not ours."""
    reference = found["spec"]["sourceRef"]
    info = scheme.kinds.get(str(reference.get("kind")))
    if info is None:
        raise Invalid(f"the source of Kustomization {found['metadata']['name']} is of a kind that is not known")
    return info, Key(reference.get("namespace") or found["metadata"]["namespace"], reference["name"])


def kustomization_section(found: Object) -> Section:
    """The step of a Kustomization."""
    meta, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    return {
        "Kustomization": meta["name"],
        "Namespace": meta["namespace"],
        "Target": str(spec.get("targetNamespace") or ""),
        "Path": str(spec.get("path") or "./"),
        "Revision": str(status.get("lastAppliedRevision") or ""),
        "Origin Revision": str(status.get("lastAppliedOriginRevision") or ""),
        **_outcome(found),
    }


def source_section(found: Object) -> Section:
    """The step of a source."""
    meta, spec = found["metadata"], found.get("spec") or {}
    artifact: Mapping[str, Any] = (found.get("status") or {}).get("artifact") or {}
    noted: Mapping[str, Any] = artifact.get("metadata") or {}
    ref: Mapping[str, Any] = spec.get("ref") or {}
    return {
        found["kind"]: meta["name"],
        "Namespace": meta["namespace"],
        "URL": redact(str(spec.get("url") or spec.get("endpoint") or "")),
        "Bucket": str(spec.get("bucketName") or ""),
        **{name.capitalize(): str(ref[name]) for name in REFS if ref.get(name)},
        "Revision": str(artifact.get("revision") or ""),
        "Fetched": str(artifact.get("lastUpdateTime") or ""),
        "Origin Source": str(noted.get(f"{ORIGIN}source") or ""),
        "Origin Revision": str(noted.get(f"{ORIGIN}revision") or ""),
        **_outcome(found),
    }


def _outcome(found: Object) -> Section:
    ready = condition(found, "Ready")
    suspended = {"Suspended": "True"} if (found.get("spec") or {}).get("suspend") else {}
    if ready is None:
        return {**suspended, "Status": "Unknown"}
    since = ready.get("lastTransitionTime")
    status = f"Last reconciled at {since}" if ready.get("status") == "True" else f"{ready.get('reason')} since {since}"
    return {**suspended, "Status": status, "Message": str(ready.get("message") or "")}
