"""What kustomize calls an object in its messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def resource_id(obj: Mapping[str, Any]) -> str:
    """`<Kind>.<version>.<group or [noGrp]>/<name>`, as in the messages of Flux's kustomize-controller."""
    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{obj.get('kind') or ''}.{version}.{group or '[noGrp]'}/{name or ''}"


def marked(obj: Mapping[str, Any], key: str, *, labels: bool) -> bool:
    """Whether the annotation `key`, or the label if `labels`, is exactly `disabled`."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, Mapping):
        return False
    maps = [metadata.get("annotations"), metadata.get("labels") if labels else None]
    return any(isinstance(found, Mapping) and found.get(key) == "disabled" for found in maps)
