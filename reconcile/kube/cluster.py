"""Cluster on an API server: discovery is shared and remembered, each verb is one request besides."""

from __future__ import annotations

from collections.abc import Sequence

from reconcile.errors import LimitExceeded
from reconcile.kube import connect
from reconcile.kube.client import PAGE, Client
from reconcile.kube.errors import Expired, KindMissing, ObjectMissing, Target
from reconcile.kube.resources import Resources
from reconcile.kube.waiting import Wait
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Health, Healthy, Impersonation, Object, Propagation, Reference

MAX_OBJECTS = 50_000
"""Objects of one list."""


class KubeCluster:
    """The Cluster of one user at one API server.

    Args:
        client: Who we are at which server.
        clock: Time.
        resources: Where kinds are, to share what is remembered.
        page: Objects of one page of a list.
        most: Objects of one list.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        resources: Resources | None = None,
        page: int = PAGE,
        most: int = MAX_OBJECTS,
    ) -> None:
        self._client, self._clock = client, clock
        self._page, self._most = page, most
        self._resources = resources or Resources(client, clock)

    def acting_as(self, whom: Impersonation) -> KubeCluster:
        """The same server, limits and discovery with somebody else's rights."""
        client = self._client.acting_as(connect.Impersonation(whom.user, whom.groups))
        return KubeCluster(client, self._clock, resources=self._resources, page=self._page, most=self._most)

    # --- reading

    async def known(self, api_version: str, kind: str) -> bool:
        """Whether the server serves this kind in this version."""
        try:
            await self._resources.find(api_version, kind)
        except KindMissing:
            return False
        return True

    async def namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of this kind are in namespaces; raises KindMissing."""
        return (await self._resources.find(api_version, kind)).namespaced

    async def find(self, which: Reference) -> Object | None:
        """The object, in another version of its group if this one is not served any more; None when there is none."""
        try:
            return await self.get(which.api_version, which.kind, which.namespace, which.name)
        except ObjectMissing:
            return None
        except KindMissing:
            other = await self._resources.elsewhere(which.group, which.kind)
        try:
            return None if other is None else await self._client.get(other.named(which))
        except (ObjectMissing, KindMissing):
            return None

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """The object; raises NotFound with the server's words, KindMissing when it does not serve this kind."""
        reference = Reference(api_version, kind, namespace, name)
        target = (await self._resources.find(api_version, kind)).named(reference)
        try:
            return await self._client.get(target)
        except KindMissing:
            self._resources.forget(api_version)
            raise

    async def list(self, api_version: str, kind: str, namespace: str | None = None, selector: str = "") -> Sequence[Object]:
        """Objects of a kind, of one namespace if given, by label selector.

        Raises:
            LimitExceeded: There are too many; none is left out in silence.
            KindMissing: The server does not serve this kind.
        """
        target = (await self._resources.find(api_version, kind)).target(namespace or "")
        try:
            found = await self._all(target, selector)
        except Expired:
            # The server has dropped the version that the pages were of.
            found = await self._all(target, selector)
        except KindMissing:
            self._resources.forget(api_version)
            raise
        return [{"apiVersion": api_version, "kind": kind, **each} for each in found]

    async def some(self, api_version: str, kind: str, namespace: str, selector: str, most: int) -> Sequence[Object]:
        """The first objects of a list, at most so many."""
        target = (await self._resources.find(api_version, kind)).target(namespace)
        page = await self._client.page(target, selector=selector, limit=most)
        return [{"apiVersion": api_version, "kind": kind, **each} for each in page.items]

    async def _all(self, target: Target, selector: str) -> Sequence[Object]:
        return await _pages(self._client, target, selector, self._page, self._most)

    # --- writing

    async def dry_run(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
        """The object as the server would have it after `apply`. Raises what `apply` raises."""
        return await self._apply(wanted, manager, force, dry_run=True)

    async def apply(self, wanted: Object, *, manager: str, force: bool = False) -> Object:
        """Server-side apply; the object as it is then.

        Raises:
            Outdated: Another manager owns a field, and `force` is not set.
            Refused: The object does not pass validation.
            Invalid: It says not what it is.
            ObjectMissing: Its namespace does not exist.
            KindMissing: The server does not serve this kind.
            Denied: RBAC or admission refuses.
        """
        return await self._apply(wanted, manager, force, dry_run=False)

    async def _apply(self, wanted: Object, manager: str, force: bool, *, dry_run: bool) -> Object:
        reference = Reference.of(wanted)
        target = (await self._resources.find(reference.api_version, reference.kind)).named(reference)
        try:
            return await self._client.apply(target, wanted, manager=manager, force=force, dry_run=dry_run)
        except KindMissing:
            self._resources.forget(reference.api_version)
            raise

    async def json_patch(self, which: Object | Reference, operations: Sequence[Object], *, manager: str) -> Object:
        """JSON patch (RFC 6902); the object as it is then. Raises Outdated when it sets a `resourceVersion` that has passed."""
        reference = which if isinstance(which, Reference) else Reference.of(which)
        target = (await self._resources.find(reference.api_version, reference.kind)).named(reference)
        return await self._client.json_patch(target, operations, manager=manager)

    async def delete(
        self, which: Object | Reference, *, propagation: Propagation = Propagation.BACKGROUND, uid: str = ""
    ) -> bool:
        """Ask for an object's end; False when there was none.

        A kind that is not served in this version any more is looked for in the other versions of its group, so that an
        object is not forgotten because its version is.

        Raises:
            Outdated: There is an object of this name, but its uid is not `uid`.
        """
        reference = which if isinstance(which, Reference) else Reference.of(which)
        try:
            return await self._delete(reference, propagation, uid)
        except KindMissing:
            # What was remembered of this kind was wrong; it is forgotten, and asked for again.
            return await self._delete(reference, propagation, uid)

    async def _delete(self, reference: Reference, propagation: Propagation, uid: str) -> bool:
        try:
            resource = await self._resources.find(reference.api_version, reference.kind)
        except KindMissing:
            other = await self._resources.elsewhere(reference.group, reference.kind)
            if other is None:
                return False
            resource = other
        try:
            await self._client.delete(resource.named(reference), propagation=propagation, uid=uid)
        except ObjectMissing:
            return False
        except KindMissing:
            self._resources.forget(resource.api_version)
            raise
        return True

    # --- waiting

    async def wait(
        self,
        which: Sequence[Object | Reference],
        *,
        timeout: float,
        healthy: Healthy | None = None,
        fail_fast: bool = False,
    ) -> Sequence[Health]:
        """Look at objects until all are current; how each is doing then.

        Raises:
            NotReady: The time is over or no wait helps; names each object that is not current, and why.
        """
        return await Wait(self, self._clock, which, healthy).run(timeout, fail_fast=fail_fast)


async def _pages(client: Client, target: Target, selector: str, size: int, most: int) -> list[Object]:
    found: list[Object] = []
    more = ""
    while True:
        page = await client.page(target, selector=selector, limit=size, more=more)
        found += page.items
        if len(found) > most:
            raise LimitExceeded(f"list {target}: there are more than {most} objects")
        if not page.more:
            return found
        more = page.more
