"""Route objects that may have been people's before they were ours: what we write into them, and how they are given back. Pure.

An object that the Canary controls (its owner reference says so) is ours: its labels and annotations are what the Canary says. One
that was there before is taken over: only our fields, labels and annotations are written into it, and a note of the spec as it
was goes into Flagger's annotation `flagger.kubernetes.io/original-configuration`, once and complete, unless kubectl keeps such a
note already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from canary.routing.common import apex_annotations, apex_labels
from canary.site import Site
from reconcile.ports.cluster import Object, Reference

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ORIGINAL_SPEC = "flagger.kubernetes.io/original-configuration"
"""The spec of an object as it was when it was taken over, as compact JSON."""
ORIGINAL_METADATA = "flagger.kubernetes.io/original-metadata"
"""Labels and annotations that we set over ones that were there, with the values that they had; only where there are any."""
NOTES = (APPLIED, ORIGINAL_SPEC, ORIGINAL_METADATA)

_SETS = ("labels", "annotations")
Metadata = Mapping[str, Mapping[str, str]]


def metadata_of(site: Site) -> Metadata:
    """Labels and annotations of the route."""
    return {"labels": apex_labels(site), "annotations": apex_annotations(site)}


def take(site: Site, which: Reference, present: Object | None, fields: Mapping[str, Any], *, annotations_stay: bool) -> Object:
    """The object with our fields, made if there is none.

    Args:
        site: Whose route it is.
        which: The object.
        present: As it is; changed.
        fields: What the spec's fields of ours are to be; None for one that is to be absent.
        annotations_stay: Whether annotations that other people put on an object of ours stay.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    wanted = metadata_of(site)
    if present is None:
        named = {"name": which.name, "namespace": which.namespace, "ownerReferences": [site.owner]}
        sets = {name: dict(values) for name, values in wanted.items() if values}
        return {"apiVersion": which.api_version, "kind": which.kind, "metadata": named | sets, "spec": given}
    meta = present["metadata"]
    if site.owns(present):
        found = meta.get("annotations") or {}
        stays = {name: value for name, value in found.items() if annotations_stay or name in NOTES}
        _put(meta, "labels", wanted["labels"])
        _put(meta, "annotations", {**stays, **wanted["annotations"]})
    else:
        notes = _notes(present, wanted)
        _put(meta, "labels", {**(meta.get("labels") or {}), **wanted["labels"]})
        _put(meta, "annotations", {**(meta.get("annotations") or {}), **wanted["annotations"], **notes})
    others = {name: value for name, value in (present.get("spec") or {}).items() if name not in fields}
    present["spec"] = {**others, **given}
    return present


def give_back(site: Site, present: Object, *, routed: bool) -> Object:
    """A taken-over object as it was: its spec, and its metadata without what we added. One of ours stays as it is.

    Args:
        site: Whose route it is.
        present: As it is; changed.
        routed: Whether its spec has our routes. One that has not is somebody else's by now, or was never ours, and stays.
    """
    meta = present["metadata"]
    annotations = meta.get("annotations") or {}
    if site.owns(present) or not (routed or ORIGINAL_SPEC in annotations):
        return present
    applied = _parsed(annotations.get(APPLIED))
    original = _parsed(annotations.get(ORIGINAL_METADATA)) or _mapping(applied.get("metadata"))
    spec = _mapping(applied.get("spec")) or _parsed(annotations.get(ORIGINAL_SPEC))
    if routed and spec:
        present["spec"] = spec
    for name, ours in metadata_of(site).items():
        found = {key: value for key, value in (meta.get(name) or {}).items() if ours.get(key) != value}
        before = _mapping(original.get(name))
        found |= {key: value for key, value in before.items() if key in ours and key not in found}
        _put(meta, name, {key: value for key, value in found.items() if key not in (ORIGINAL_SPEC, ORIGINAL_METADATA)})
    return present


def is_known(site: Site, present: Object) -> bool:
    """Whether it is known what the object was before it was ours; of no meaning for one that always was."""
    annotations = present["metadata"].get("annotations") or {}
    original = _mapping(_parsed(annotations.get(APPLIED)).get("spec")) or _parsed(annotations.get(ORIGINAL_SPEC))
    return site.owns(present) or bool(original)


def _notes(present: Object, wanted: Metadata) -> dict[str, str]:
    """The notes that are to be written when an object is met for the first time."""
    meta = present["metadata"]
    annotations = meta.get("annotations") or {}
    if ORIGINAL_SPEC in annotations or APPLIED in annotations:
        return {}
    before = {name: {key: meta[name][key] for key in wanted[name] if key in (meta.get(name) or {})} for name in _SETS}
    before = {name: values for name, values in before.items() if values}
    notes = {ORIGINAL_SPEC: _compact(present.get("spec") or {})}
    return {**notes, ORIGINAL_METADATA: _compact(before)} if before else notes


def _put(meta: Object, name: str, values: Mapping[str, str]) -> None:
    if values:
        meta[name] = dict(values)
    else:
        meta.pop(name, None)


def _compact(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _parsed(text: str | None) -> dict[str, Any]:
    """The JSON object of an annotation; empty for none and for what is none: people can write there too."""
    try:
        return _mapping(json.loads(text or "{}"))
    except (ValueError, RecursionError):
        return {}


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}
