"""Counts Canaries by namespace, and notes whose target is whose."""

from __future__ import annotations

from canary.exported import Exported
from reconcile.api.meta import Key
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.logs import get_logger

log = get_logger("canary")

_Target = tuple[str, str, str]


class Census:
    """All Canaries that there are, whoever looks after them."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported
        self._counts: dict[str, set[Key]] = {}
        self._target_of: dict[Key, _Target] = {}
        self._owners: dict[_Target, set[Key]] = {}

    def note(self, change: Change) -> None:
        """A Canary has come, changed or gone."""
        key = change.new.key
        known = self._counts.setdefault(key.namespace, set())
        if change.type is ChangeType.DELETED:
            known.discard(key)
        else:
            known.add(key)
        self._exported.total(key.namespace, len(known))
        if not known:
            del self._counts[key.namespace]
        self._share(change)

    def _share(self, change: Change) -> None:
        """Note whose target this is. Two Canaries of one target undo each other's work: that is said, as Flagger says it."""
        key, ref = change.new.key, change.new.spec.target_ref
        target = (key.namespace, ref.kind, ref.name)
        before = self._target_of.pop(key, None)
        if before is not None:
            self._owners[before].discard(key)
            if not self._owners[before]:
                del self._owners[before]
        if change.type is ChangeType.DELETED:
            return
        self._target_of[key] = target
        owners = self._owners.setdefault(target, set())
        owners.add(key)
        if len(owners) > 1 and before != target:
            names = ", ".join(sorted(map(str, owners)))
            log.error("canaries have the same target", target="/".join(target), canaries=names)
