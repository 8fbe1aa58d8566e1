"""The table of sources and Kustomizations: what each holds, whether it is suspended, how it is doing. Printed by `output`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime

import click

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.scheme import KindInfo
from reconcile.api.source import SOURCES
from reconcile.cli.columns import age, find, present
from reconcile.cli.output import Object, print_rows
from reconcile.cli.verdict import condition

KINDS = frozenset(info.kind for info in (*SOURCES, KUSTOMIZATION))
"""Kinds that have this table, with columns as in the flux command."""

_HASH = re.compile(r"(?<![0-9A-Za-z])([0-9a-f]{8})[0-9a-f]{32,120}(?![0-9A-Za-z])")
_SELECTOR = re.compile(r"(?P<type>[A-Za-z]+)(?P<sign>!?=)(?P<value>[A-Za-z]+)")


def short(text: str) -> str:
    """A text with the hashes in it cut to eight digits: `main@sha1:696f056d`."""
    return _HASH.sub(r"\1", text)


def revision_of(found: Object) -> str:
    """The revision that a source holds, or that a Kustomization has applied last; empty when there is none."""
    path = ".status.lastAppliedRevision" if found["kind"] == KUSTOMIZATION.kind else ".status.artifact.revision"
    values = find(path, found)
    return str(values[0] or "") if values else ""


def origin_of(found: Object) -> str:
    """Where the content comes from: the address of a source, or the source of a Kustomization as `Kind/namespace/name`."""
    spec = found.get("spec") or {}
    reference = spec.get("sourceRef")
    if isinstance(reference, dict):
        namespace = reference.get("namespace") or found["metadata"].get("namespace", "")
        return f"{reference.get('kind')}/{namespace}/{reference.get('name')}"
    if spec.get("bucketName"):
        return f"{spec.get('endpoint')}/{spec['bucketName']}"
    return str(spec.get("url") or "")


def print_revisions(infos: Sequence[KindInfo], objects: Sequence[Object], *, namespaces: bool, wide: bool) -> None:
    """Write the table to stdout.

    Args:
        infos: The kinds that were asked for: where there are several, names have their kind in front.
        objects: Their objects.
        namespaces: Whether to show the namespace.
        wide: Show hashes whole, where the content comes from, and ages.
    """
    moment = present()
    several = len(infos) > 1
    rows = [_row(found, several=several, wide=wide, now=moment) for found in objects]
    head = ["NAME", "REVISION", "SUSPENDED", "READY", *(["SOURCE", "AGE"] if wide else []), "MESSAGE"]
    if namespaces:
        head = ["NAMESPACE", *head]
        rows = [[str(found["metadata"].get("namespace", "")), *row] for found, row in zip(objects, rows, strict=True)]
    print_rows(head, rows)


def _row(found: Object, *, several: bool, wide: bool, now: datetime) -> list[str]:
    meta = found["metadata"]
    name = f"{found['kind'].lower()}/{meta['name']}" if several else str(meta["name"])
    ready, message = _state(found)
    suspended = str(bool((found.get("spec") or {}).get("suspend")))
    cut: Callable[[str], str] = str if wide else short
    more = [origin_of(found), age(str(meta.get("creationTimestamp") or ""), now)] if wide else []
    return [name, cut(revision_of(found)), suspended, ready, *more, cut(message)]


def _state(found: Object) -> tuple[str, str]:
    if is_static(found):
        return "True", "Helm repository is Ready"
    entry = condition(found, "Ready")
    if entry is None:
        return "False", "waiting to be reconciled"
    return str(entry.get("status", "Unknown")), str(entry.get("message") or "")


def is_static(found: Object) -> bool:
    """Whether nothing is ever done for an object: a HelmRepository that only says where an OCI registry is."""
    return found["kind"] == "HelmRepository" and (found.get("spec") or {}).get("type") == "oci"


# --- --status-selector


def status_selector(text: str) -> Callable[[Object], bool]:
    """What `TYPE=STATUS` or `TYPE!=STATUS` chooses, in any case; a condition that is not there is `Unknown`, as for kubectl wait.

    Raises UsageError for anything else.
    """
    if not text:
        return lambda _: True
    parts = _SELECTOR.fullmatch(text.strip())
    if parts is None:
        raise click.UsageError("--status-selector is a condition and its status, such as ready=false or ready!=true.")

    def chooses(found: Object) -> bool:
        entries = (found.get("status") or {}).get("conditions") or ()
        wanted = parts["type"].lower()
        entry: Object = next((entry for entry in entries if str(entry.get("type")).lower() == wanted), {})
        same = str(entry.get("status", "Unknown")).lower() == parts["value"].lower()
        return same is (parts["sign"] == "=")

    return chooses
