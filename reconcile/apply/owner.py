"""Whose objects they are, and the labels and annotations by which managed objects say so. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconcile.ports.cluster import Object

KUSTOMIZE = "kustomize.toolkit.fluxcd.io"
"""Prefix of the labels and annotations of objects that a Kustomization applies."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that asks for a set: a Kustomization, or another applier by the prefix of its labels."""

    name: str
    namespace: str
    prefix: str = KUSTOMIZE

    @property
    def labels(self) -> dict[str, str]:
        """The labels that each of its objects carries."""
        return {f"{self.prefix}/name": self.name, f"{self.prefix}/namespace": self.namespace}

    def owns(self, found: Object) -> bool:
        """Whether a live object carries both labels with our values."""
        labels = labels_of(found)
        return all(labels.get(name) == value for name, value in self.labels.items())


def labels_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of an object; none when they are no map."""
    return _map(found, "labels")


def annotations_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of an object; none when they are no map."""
    return _map(found, "annotations")


def _map(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    metadata = found.get("metadata")
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Marks:
    """The words by which an object opts out, as labels or annotations; values are compared without regard to case."""

    prefix: str = KUSTOMIZE

    def says(self, found: Mapping[str, Any] | None, name: str, value: str) -> bool:
        """Whether an object has this label or annotation with this value."""
        if found is None:
            return False
        key = f"{self.prefix}/{name}"
        wanted = value.lower()
        return any(str(marks.get(key, "")).lower() == wanted for marks in (labels_of(found), annotations_of(found)))

    def left_alone(self, desired: Mapping[str, Any]) -> bool:
        """Whether it is neither applied nor pruned: `reconcile: disabled`, `ssa: Ignore`."""
        return self.says(desired, "reconcile", "disabled") or self.says(desired, "ssa", "Ignore")

    def kept(self, live: Mapping[str, Any]) -> bool:
        """Whether it is not to be deleted: `prune: disabled`, or left alone."""
        return self.says(live, "prune", "disabled") or self.left_alone(live)

    def skipped(self, desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
        """Whether it is not applied, by what either says; `ssa: IfNotPresent` counts where there is a live one."""
        if self.left_alone(desired) or (live is not None and self.left_alone(live)):
            return True
        return live is not None and self.says(desired, "ssa", "IfNotPresent")

    def forced(self, desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
        """Whether it may be deleted and made anew where a field of it cannot be changed: `force: enabled`."""
        return self.says(desired, "force", "enabled") or self.says(live, "force", "enabled")

    def merges(self, desired: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
        """Whether fields that kubectl set stay as they are: `ssa: Merge`."""
        return self.says(desired, "ssa", "Merge") or self.says(live, "ssa", "Merge")
