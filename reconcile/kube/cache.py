"""The objects of one of our kinds in memory, typed and trimmed.

Whatever of an object our model does not have (managed fields, last-applied annotation, unknown fields) is not kept.
Changes go to the watchers of the store. An object that the model cannot read is left out and reported once per version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.kube.kindcache import KindCache
from reconcile.ports.store import Change, ChangeType
from reconcile.runtime.feed import Feed

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NEVER_OBSERVED = -1
"""`status.observedGeneration` of an object without one, as the default in the schema of kinds that have it."""


class Cache(KindCache[AnyResource]):
    """Objects of one kind by namespace and name."""

    def __init__(self, info: KindInfo, scheme: Scheme, feed: Feed) -> None:
        super().__init__(info.kind)
        self.info = info
        self._scheme = scheme
        self._feed = feed

    def _state(self, held: AnyResource) -> tuple[str, str]:
        return held.meta.uid, held.meta.resource_version

    def _publish(self, _: Key, old: AnyResource | None, new: AnyResource | None) -> None:
        if new is not None:
            self._feed.publish(Change(ChangeType.MODIFIED if old else ChangeType.ADDED, old, new))
        elif old is not None:
            self._feed.publish(Change(ChangeType.DELETED, old, old))

    def _decode(self, body: Mapping[str, Any]) -> AnyResource:
        metadata = dict(body.get("metadata") or {})
        annotations = metadata.get("annotations")
        if annotations and LAST_APPLIED in annotations:
            metadata["annotations"] = {name: text for name, text in annotations.items() if name != LAST_APPLIED}
        resource = self._scheme.decode(self.info, {**body, "metadata": metadata}, strict=False)
        if self.info.observes and resource.status.observed_generation is None:
            resource = replace(resource, status=resource.status.model_copy(update={"observed_generation": NEVER_OBSERVED}))
        return resource
