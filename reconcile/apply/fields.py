"""Who owns which field of a live object, and the clean-up by which an applier takes over from others. Pure.

managedFields are sets of field paths as nested maps (FieldsV1): `f:<name>` for fields, `k:{…}` for items of lists with keys,
`v:…` for items of sets, `i:<n>` for places in lists, `.` for the thing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconcile.apply.owner import annotations_of, labels_of
from reconcile.apply.pointers import Path, text_of
from reconcile.ports.cluster import Object

Fields = Mapping[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
STALE_ANNOTATIONS = (LAST_APPLIED, "kustomize.toolkit.fluxcd.io/checksum", "fluxcd.io/sync-checksum")
"""Annotations by which others kept track of what they applied."""
STALE_LABELS = ("fluxcd.io/sync-gc-mark",)


def entries_of(found: Object) -> list[dict[str, Any]]:
    """The managedFields entries of an object."""
    entries = (found.get("metadata") or {}).get("managedFields")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def union(one: Fields, other: Fields) -> dict[str, Any]:
    """All paths of two sets."""
    merged = dict(one)
    for name, inner in other.items():
        held = merged.get(name)
        both = isinstance(held, dict) and isinstance(inner, dict)
        merged[name] = union(held, inner) if both else inner  # type: ignore[arg-type]
    return merged


def taken_over(entries: Sequence[dict[str, Any]], manager: str, others: Iterable[str] = ()) -> list[dict[str, Any]] | None:
    """The managedFields in which our Apply entry owns what these managers own; None when there is nothing to take over.

    Taken over are the entries, not those of subresources, of managers whose name begins with `kubectl`, of `before-first-apply`
    (Update), of ourselves (Update), and of `others`. Without an Apply entry of ours the first of them becomes it.
    """
    named = frozenset(others)
    ours: dict[str, Any] | None = None
    rest: list[dict[str, Any]] = []
    taken: list[dict[str, Any]] = []
    for entry in entries:
        name, operation = str(entry.get("manager") or ""), entry.get("operation")
        if entry.get("subresource"):
            rest.append(entry)
        elif name == manager and operation == "Apply" and ours is None:
            ours = entry
            rest.append(entry)
        elif name.startswith("kubectl") or name in named or (operation == "Update" and name in {"before-first-apply", manager}):
            taken.append(entry)
        else:
            rest.append(entry)
    if not taken:
        return None
    if ours is None:
        ours, taken = taken[0], taken[1:]
        rest.append(ours)
    owned = dict(ours.get("fieldsV1") or {})
    for entry in taken:
        owned = union(owned, entry.get("fieldsV1") or {})
    mine = {**ours, "manager": manager, "operation": "Apply", "fieldsV1": owned}
    return [mine if entry is ours else entry for entry in rest]


def clean_up(live: Object, manager: str, others: Iterable[str] = ()) -> list[Object]:
    """The JSON patch that makes a live object ours alone where tools for the command line were before; empty: nothing to do.

    It sets the resource version that was read, so that it fails with a conflict when the object has changed since.
    """
    operations: list[Object] = []
    notes, labels = annotations_of(live), labels_of(live)
    operations += [_removal("annotations", name) for name in STALE_ANNOTATIONS if name in notes]
    operations += [_removal("labels", name) for name in STALE_LABELS if name in labels]
    entries = taken_over(entries_of(live), manager, others)
    if entries is not None:
        operations.append(_entries(entries))
    return [*operations, _unmoved(live)] if operations else []


def entries_patch(live: Object, entries: Sequence[dict[str, Any]]) -> list[Object]:
    """The JSON patch that gives an object these managedFields, unless it has changed since it was read."""
    return [_entries(entries), _unmoved(live)]


def _entries(entries: Sequence[dict[str, Any]]) -> Object:
    return {"op": "replace", "path": "/metadata/managedFields", "value": list(entries)}


def _unmoved(live: Object) -> Object:
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": str(live["metadata"].get("resourceVersion") or "")}


def _removal(field: str, name: str) -> Object:
    return {"op": "remove", "path": text_of(("metadata", field, name))}


def migrated(entries: Sequence[dict[str, Any]], api_version: str) -> list[dict[str, Any]] | None:
    """Entries that all are of this version; None when they are already."""
    if all(entry.get("apiVersion") == api_version for entry in entries):
        return None
    return [{**entry, "apiVersion": api_version} for entry in entries]


# --- who owns a field


def owners(live: Object, path: Path, *, without: str = "", operation: str = "") -> tuple[str, ...]:
    """The managers that own a field or something in it, in order and each once.

    Args:
        live: The object with its managedFields.
        path: Steps to the field, list items by their place.
        without: A manager that does not count.
        operation: Count entries of this operation only: `Apply` or `Update`.
    """
    found: dict[str, None] = {}
    for entry in entries_of(live):
        name = str(entry.get("manager") or "")
        if entry.get("subresource") or name == without or (operation and entry.get("operation") != operation):
            continue
        fields = entry.get("fieldsV1")
        if name and isinstance(fields, dict) and _owns(fields, live, path):
            found[name] = None
    return tuple(found)


def _owns(fields: Fields, value: Any, path: Path) -> bool:
    for step in path:
        if not any(name != "." for name in fields):
            return True  # a leaf to its manager: everything in it is its own
        inner = _step(fields, value, step)
        if inner is None:
            return False
        fields, value = inner
    return True


def _step(fields: Fields, value: Any, step: str) -> tuple[Fields, Any] | None:
    if isinstance(value, list):
        index = int(step) if step.isascii() and step.isdigit() else len(value)
        item = value[index] if index < len(value) else None
        for name, inner in fields.items():
            if _is_item(name, item, index):
                return inner if isinstance(inner, dict) else {}, item
        return None
    inner = fields.get(f"f:{step}")
    if not isinstance(inner, dict):
        return None
    return inner, value.get(step) if isinstance(value, dict) else None


def _is_item(name: str, item: Any, index: int) -> bool:
    kind, _, rest = name.partition(":")
    if kind == "i":
        return rest == str(index)
    if kind not in {"k", "v"}:
        return False
    try:
        wanted = json.loads(rest)
    except ValueError:
        return False
    if kind == "v":
        return bool(wanted == item)
    return isinstance(item, dict) and isinstance(wanted, dict) and all(item.get(key) == value for key, value in wanted.items())
