"""What becomes of the objects of a Kustomization that is deleted: its deletion policy says."""

from __future__ import annotations

from reconcile.api import conditions as cond
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.apply.changeset import Action
from reconcile.apply.inventory import Entry
from reconcile.apply.owner import Owner
from reconcile.apply.prune import wait_gone
from reconcile.errors import Invalid, NotFound, ReconcileError
from reconcile.kustomize.sources import OUR_GROUP
from reconcile.kustomize.times import Times
from reconcile.kustomize.tools import Tools
from reconcile.ports.events import EventType


class Deletion:
    """Takes back what was applied."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self, resource: AnyResource) -> None:
        """Delete the objects if the policy says so. Raises ReconcileError when that is to be tried again."""
        spec, inventory = resource.spec, resource.status.inventory
        if spec.suspend or inventory is None or not inventory.entries or not _deletes(spec):
            return
        references = [Entry(one.id, one.v).reference for one in inventory.entries]
        try:
            target = await self._tools.targets.find(resource, 0.0)
            if target.account and target.local and not await self._exists(Key(resource.key.namespace, target.account)):
                listed = "\n".join(map(str, references))
                self._tell(resource, EventType.WARNING, f"unable to prune objects: \n{listed}")
                return
            changes = await self._tools.applier(target).prune(references, owner=Owner(resource.key.name, resource.key.namespace))
        except ReconcileError as error:
            self._tell(resource, EventType.WARNING, f"pruning for deleted resource failed: {error}")
            raise
        lines = changes.lines((Action.DELETED, Action.SKIPPED))
        if lines:
            self._tell(resource, EventType.NORMAL, "\n".join(lines))
        if spec.deletion_policy == "WaitForTermination":
            gone = [change.reference for change in changes if change.action is Action.DELETED]
            try:
                await wait_gone(target.cluster, self._tools.clock, gone, Times.of(spec).timeout)
            except ReconcileError as error:
                self._tell(resource, EventType.WARNING, f"failed to wait for resources termination: {error}")

    async def _exists(self, account: Key) -> bool:
        try:
            await self._tools.store.service_account(account)
        except (NotFound, Invalid):  # or none can have such a name
            return False
        return True

    def _tell(self, resource: AnyResource, kind: EventType, message: str) -> None:
        ready = cond.get(resource.status.conditions, cond.READY)
        reason = ready.reason if ready is not None else ("error" if kind is EventType.WARNING else "info")
        revision = resource.status.last_applied_revision
        self._tools.teller.tell(resource, kind, reason, message, {f"{OUR_GROUP}/revision": revision} if revision else {})


def _deletes(spec: object) -> bool:
    policy = getattr(spec, "deletion_policy", None) or "MirrorPrune"
    return policy in {"Delete", "WaitForTermination"} or (policy == "MirrorPrune" and bool(getattr(spec, "prune", False)))
