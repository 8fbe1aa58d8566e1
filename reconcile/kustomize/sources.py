"""The source of a Kustomization: found, allowed, with an artifact. Pure but for one read of the store.

Tenants must not reach what is not theirs: references to other namespaces can be forbidden, artifacts of strangers need a gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconcile.api.duration import format_duration
from reconcile.api.resource import AnyResource
from reconcile.api.source import GROUP, Artifact
from reconcile.errors import Failed, NotFound, Stalled, Waiting
from reconcile.kustomize.dependencies import SourceName
from reconcile.ports.store import Store

ORIGIN = "org.opencontainers.image.revision"
"""Key of an artifact's metadata that has the revision that it was made from."""
OUR_GROUP = "kustomize.toolkit.fluxcd.io"


@dataclass(frozen=True, slots=True)
class Input:
    """The artifact that a pass works on."""

    name: SourceName
    artifact: Artifact

    @property
    def revision(self) -> str:
        """Its revision."""
        return self.artifact.revision

    @property
    def origin(self) -> str | None:
        """The revision that it was made from, where it says so."""
        return (self.artifact.metadata or {}).get(ORIGIN)

    def metadata(self) -> Mapping[str, str]:
        """What every event of the pass carries."""
        found = {f"{OUR_GROUP}/revision": self.revision}
        if self.origin:
            found[f"{OUR_GROUP}/originRevision"] = self.origin
        return found


def plain_metadata(given: Input) -> dict[str, str]:
    """What the history keeps of it."""
    found = {"revision": given.revision}
    return {**found, "originRevision": given.origin} if given.origin else found


class SourceFinder:
    """Finds sources by the rules in force."""

    def __init__(self, store: Store, *, no_cross_namespace: bool, external: bool, requeue: float) -> None:
        """`requeue` is in seconds: when to look again for an artifact that is not there yet."""
        self._store, self._no_cross, self._external, self._requeue = store, no_cross_namespace, external, requeue

    async def find(self, resource: AnyResource, retry: float) -> Input:
        """The artifact of the source.

        Raises:
            Stalled: It may not be used.
            Failed: There is no such source; to be looked for after `retry` seconds.
            Waiting: It has no artifact yet.
        """
        name = SourceName.of(resource)
        if self._no_cross and name.key.namespace != resource.key.namespace:
            raise _denied(name, "cross-namespace references have been blocked")
        if name.kind == "ExternalArtifact" and not self._external:
            raise _denied(name, "ExternalArtifact feature gate is disabled")
        try:
            found = await self._store.get(name.kind, name.key)
        except NotFound:
            raise Failed("ArtifactFailed", f'{name.kind}.{GROUP} "{name.key.name}" not found', told="", after=retry) from None
        artifact = found.status.artifact
        if artifact is None:
            text = f"Source artifact not found, retrying in {format_duration(self._requeue)}"
            raise Waiting("ArtifactFailed", text, self._requeue, told="")
        return Input(name, artifact)


def _denied(name: SourceName, why: str) -> Stalled:
    return Stalled("AccessDenied", f"can't access '{name}', {why}", observed=False)
