"""In which stages and in which order the objects of a set are applied, and deleted: Flux's order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconcile.errors import Invalid
from reconcile.ports.cluster import Object, Reference

FIRST = (
    "CustomResourceDefinition", "Namespace", "ClusterRole", "ClusterClass", "RuntimeClass", "PriorityClass", "StorageClass",
    "VolumeSnapshotClass", "IngressClass", "GatewayClass", "ClusterRoleBinding", "ResourceQuota", "ServiceAccount", "Role",
    "RoleBinding", "ConfigMap", "Secret", "Service", "LimitRange", "Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget",
)  # fmt: skip
"""Kinds that come before all others, in this order."""
LAST = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
"""Kinds that come after all others: what they would judge is there by then."""

_RANK = {kind: rank for rank, kind in enumerate(FIRST)}
_OTHERS = len(FIRST)
_RANK.update({kind: _OTHERS + 1 + rank for rank, kind in enumerate(LAST)})

DEFINITIONS = frozenset({"CustomResourceDefinition", "Namespace", "ClusterRole"})
"""Kinds of the first stage: others need them to be there."""

GroupKind = tuple[str, str]
SortKey = tuple[int, str, str, str, str]


def sort_key(reference: Reference) -> SortKey:
    """By rank of the kind, then group, kind, namespace and name."""
    rank = _RANK.get(reference.kind, _OTHERS)
    return rank, reference.group, reference.kind, reference.namespace, reference.name


def apply_order(objects: Iterable[Object]) -> list[Object]:
    """Objects as they are applied. Raises Invalid for one that does not say what it is."""
    return sorted(objects, key=lambda each: sort_key(Reference.of(each)))


def delete_order(references: Iterable[Reference]) -> list[Reference]:
    """Exactly the reverse of the order in which they are applied."""
    return sorted(references, key=sort_key, reverse=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """Objects that are judged together, and applied before any of the next stage is looked at."""

    objects: tuple[Object, ...]
    awaited: bool
    """Whether the next stage waits until they are current."""


def stages(objects: Iterable[Object], custom: Sequence[GroupKind] = ()) -> list[Stage]:
    """The stages that have objects: definitions, classes, the kinds of `custom` (group, kind), and the rest."""
    staged: tuple[list[Object], ...] = ([], [], [], [])
    chosen = frozenset(custom)
    for each in apply_order(objects):
        reference = Reference.of(each)
        if reference.kind in DEFINITIONS:
            staged[0].append(each)
        elif reference.kind.lower().endswith("class"):
            staged[1].append(each)
        elif (reference.group, reference.kind) in chosen:
            staged[2].append(each)
        else:
            staged[3].append(each)
    return [Stage(tuple(found), awaited=index < 2) for index, found in enumerate(staged) if found]


def parse_kinds(text: str) -> tuple[GroupKind, ...]:
    """The kinds of `Group/Kind,…`, as the flag for further stages has them; raises Invalid."""
    found: list[GroupKind] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        group, slash, kind = part.partition("/")
        if not slash or not kind or "/" in kind:
            raise Invalid(f"{part!r} is not a kind with its group: write it like example.com/Widget, separated by commas")
        found.append((group, kind))
    return tuple(found)
