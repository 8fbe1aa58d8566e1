"""Routers whose weights live in one object: built anew from what is live, written, and looked at again."""

from __future__ import annotations

from abc import ABC, abstractmethod

from canary.ensure import Build, ensure
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Affinity, Weights
from canary.routing.common import look, named
from canary.site import Site
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects


class SingleObjectRouter(ABC):
    """A Router that keeps the weights of primary and canary in one object.

    An update keeps live weights, where Flagger writes 100/0 at each change of anything else that the object says. An object that
    is not there when weights are to be set is made, so that a rollback does not depend on an earlier success.
    """

    mirrors = False
    weighted = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @abstractmethod
    def which(self, site: Site) -> Reference:
        """The object; raises Problem when the Canary does not say enough."""

    @abstractmethod
    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """What makes the wanted object, with `weights`, or else with those that `live` says."""

    @abstractmethod
    def parse(self, site: Site, found: Object) -> Weights:
        """The weights that an object has; raises Problem when it has none."""

    def shown(self, site: Site) -> str:
        """How messages name the object."""
        return named(self.which(site))

    def live(self, site: Site, present: Object | None) -> Weights:
        """The weights to keep in an update: all on the primary when none can be read."""
        if present is None:
            return ALL_PRIMARY
        try:
            return self.parse(site, present)
        except Problem:
            return ALL_PRIMARY

    async def reconcile(self, site: Site) -> None:
        """See `Router.reconcile`."""
        await ensure(self._objects, self.which(site), await self.builder(site, None), shown=self.shown(site))

    async def weights(self, site: Site) -> Weights:
        """See `Router.weights`."""
        return self.parse(site, await look(self._objects, self.which(site), shown=self.shown(site)))

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:
        """See `Router.set_weights`; there is no session affinity."""
        build = await self.builder(site, weights)
        written = await ensure(self._objects, self.which(site), build, shown=self.shown(site))
        must_be(weights, self.parse(site, written or {}), self.shown(site))
        return None

    async def revert(self, site: Site) -> None:  # noqa: B027 - most routers have nothing to give back
        """Nothing to give back: the object goes with the Canary."""


def must_be(asked: Weights, live: Weights, shown: str) -> None:
    """Raises Problem when the object does not have what was written to it, as when admission changes it."""
    if (asked.primary, asked.canary) != (live.primary, live.canary):
        told = f"{asked.primary}/{asked.canary} was written, {live.primary}/{live.canary} is live"
        raise Problem(f"{shown} update error: {told}")
