"""Compares built objects with those of a cluster by server-side dry runs, for `imagebot diff`."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconcile.api.resource import AnyResource
from reconcile.apply.changeset import Action
from reconcile.apply.drift import Ignored, drifted
from reconcile.apply.inventory import Entry, entries_of, references_of, stale
from reconcile.apply.judge import Judge, Plan, Refusal, Terms
from reconcile.apply.memory import Memory
from reconcile.apply.owner import Owner
from reconcile.apply.prepare import CRD, group_kind
from reconcile.cli.masking import AFTER, BEFORE, hidden, masks_in, with_live_values
from reconcile.errors import NotFound
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Cluster, Object, Reference, UnknownKind
from reconcile.yamlio import dump

MANAGER = "kustomize-controller"
AT_ONCE = 8
"""Objects that are compared at once."""
CONTEXT = 3
"""Lines around a change that are shown."""

_SERVERS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation with a copy of the whole object."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What applying would do to one object.

    Attributes:
        reference: The object.
        what: `created`, `drifted`, `recreated`, `skipped`, `deleted`, or empty when nothing would be done.
        lines: The change as a unified diff without its head.
        problem: Why it cannot be told.
    """

    reference: Reference
    what: str
    lines: Sequence[str] = ()
    problem: str = ""

    @property
    def changes(self) -> bool:
        """Whether something would be another thing afterwards."""
        return self.what in {"created", "drifted", "recreated", "deleted"}


class Comparison:
    """Compares the objects of one Kustomization."""

    def __init__(self, cluster: Cluster, clock: Clock, resource: AnyResource, objects: Sequence[Object]) -> None:
        self._cluster, self._resource, self._objects = cluster, resource, objects
        self._owner = Owner(resource.key.name, resource.key.namespace)
        self._ignored = Ignored(resource.spec.ignore or ())
        terms = Terms(self._owner, MANAGER, force=bool(resource.spec.force), ignored=self._ignored, thorough=True)
        self._judge = Judge(cluster, clock, terms, Memory().of(self._owner), None, frozenset())
        self._marks = terms.marks
        self._namespaces = {each["metadata"]["name"] for each in objects if group_kind(each) == ("", "Namespace")}
        self._groups = {each["spec"]["group"] for each in objects if group_kind(each) == CRD and _has_group(each)}

    async def run(self) -> list[Difference]:
        """What would be done to each object, in the order of the build; then what would be deleted."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(found: Object) -> Difference:
            async with slots:
                return await self._compared(found)

        result = list(await asyncio.gather(*(one(found) for found in self._objects)))
        if not self._resource.spec.prune or any(each.problem for each in result):
            return result
        return result + await self._pruned([each.reference for each in result])

    # --- one object

    async def _compared(self, found: Object) -> Difference:
        reference, places = Reference.of(found), tuple(masks_in(found))
        try:
            if places:
                live = await self._cluster.find(reference)
                found = with_live_values(found, live) if live is not None else found
            plan = await self._judge.judge(found)
            if plan.action is Action.SKIPPED:
                return Difference(plan.reference, "skipped")
            if plan.recreate:
                return Difference(plan.reference, "recreated")
            if plan.action is Action.CREATED:
                return Difference(plan.reference, "created")
            if plan.action is Action.CONFIGURED and plan.live is not None:
                return await self._drifted(plan, plan.live, places)
        except Refusal as refusal:
            if self._comes_first(reference, refusal.__cause__):
                return Difference(reference, "created")
            return Difference(reference, "", problem=str(refusal))
        return Difference(plan.reference, "")

    async def _drifted(self, plan: Plan, live: Object, places: tuple[tuple[str, ...], ...]) -> Difference:
        merged = await self._cluster.dry_run(plan.payload, manager=MANAGER, force=True)
        if not drifted(live, merged, self._ignored.paths(plan.desired)):
            return Difference(plan.reference, "")  # fields change hands, and nothing else
        one, other = _shown(live), _shown(merged)
        before = hidden(one, other, mark=BEFORE, places=places)
        after = hidden(other, one, mark=AFTER, places=places)
        return Difference(plan.reference, "drifted", unified(before, after))

    def _comes_first(self, reference: Reference, cause: BaseException | None) -> bool:
        """Whether a dry run failed only because nothing has been applied yet: its namespace or its kind is in the set as well."""
        if isinstance(cause, UnknownKind):
            return reference.group in self._groups
        return isinstance(cause, NotFound) and reference.namespace in self._namespaces

    # --- what left the set

    async def _pruned(self, kept: Sequence[Reference]) -> list[Difference]:
        inventory = self._resource.status.inventory
        entries = [Entry(one.id, one.v) for one in inventory.entries] if inventory is not None else []
        result = []
        for reference in references_of(stale(entries, entries_of(kept)))[0]:
            live = await self._cluster.find(reference)
            if live is not None and self._owner.owns(live) and not self._marks.kept(live):
                result.append(Difference(reference, "deleted"))
        return result


def _has_group(found: Object) -> bool:
    return isinstance(found.get("spec"), dict) and bool(found["spec"].get("group"))


def _shown(found: Object) -> Object:
    """An object without what only the server says of it."""
    metadata: dict[str, Any] = {name: value for name, value in found["metadata"].items() if name not in _SERVERS}
    notes = {name: value for name, value in (metadata.pop("annotations", None) or {}).items() if name != _LAST_APPLIED}
    if notes:
        metadata["annotations"] = notes
    return {**{name: value for name, value in found.items() if name != "status"}, "metadata": metadata}


def unified(before: Object, after: Object) -> list[str]:
    """What differs between two objects as lines of a unified diff of their YAML, without the head; maps are sorted by key."""
    one, other = (dump(_sorted(each)).splitlines() for each in (before, after))
    return list(difflib.unified_diff(one, other, n=CONTEXT, lineterm=""))[2:]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
