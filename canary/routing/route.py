"""The way of providers that keep all routing in one object of ours: read what is live, build what is wanted, write what differs.

A provider says what its object is, what it means (`read`) and what it should be (`fields`), both pure. The rest is the same for
all of them: an edit or drift is put right around the live weights (Flagger sends them back to 0 instead), objects that people
had before are taken over and given back, and weights count as written when the answer of the API server has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canary.api import SessionAffinity
from canary.ensure import ensure
from canary.errors import Problem
from canary.routing.base import ALL_PRIMARY, Affinity, Weights
from canary.routing.common import named, no_routes
from canary.routing.cookies import Rand, advanced, kept
from canary.routing.takeover import give_back, is_known, take
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Objects
from reconcile.runtime.logs import get_logger

NO_COOKIES = Affinity()

_log = get_logger("canary.routing")


@dataclass(frozen=True, slots=True)
class Live:
    """What an object says about traffic.

    Attributes:
        weights: None when it does not route to both services.
        cookies: Those that it sets and deletes.
        matched: Whether the weights are those of the audience of an A/B test, all others going to the primary.
    """

    weights: Weights | None = None
    cookies: Affinity = NO_COOKIES
    matched: bool = False


class RouteRouter(ABC):
    """A provider with one route object."""

    mirrors = True
    weighted = True

    unread = "get query error"
    """What messages call a failed read of the route, in Flagger's words."""
    annotations_stay = False
    """Whether annotations that other people put on an object of ours stay."""

    def __init__(self, objects: Objects, rand: Rand) -> None:
        self._objects = objects
        self._rand = rand

    @abstractmethod
    def reference(self, site: Site) -> Reference:
        """The route object."""

    @abstractmethod
    def read(self, site: Site, spec: Mapping[str, Any]) -> Live:
        """What the spec of the object says about traffic. Pure."""

    @abstractmethod
    def fields(self, site: Site, weights: Weights, cookies: Affinity) -> dict[str, Any]:
        """What our fields of the spec are to be, None for absent. Pure; raises Problem when the Canary cannot be expressed."""

    def canonical(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """`fields` with the defaults that an API server fills in: equal in meaning is equal. Pure."""
        return fields

    def affinity(self, site: Site) -> SessionAffinity | None:
        """Session affinity, if it is in force: the audience of an A/B test is on one side anyway."""
        analysis = site.spec.analysis
        return None if analysis.match else analysis.session_affinity

    async def reconcile(self, site: Site) -> None:
        """Put the route object right; new ones send all traffic to the primary, present ones keep their weights."""
        await self.ensure_route(site)

    async def weights(self, site: Site) -> Weights:
        """The live weights; raises Problem when the object does not route to both services."""
        weights = self.read(site, (await self.present(site)).get("spec") or {}).weights
        if weights is None:
            raise no_routes(site, self.reference(site))
        return weights

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:
        """Make `weights` live; raises Problem when the answer of the API server has others.

        A route that is not there is made, so that a rollback does not depend on what went well before.
        """
        which, wanted, cookies = self.reference(site), self.affinity(site), NO_COOKIES

        def build(found: Object | None) -> Object:
            nonlocal cookies
            if wanted is not None:
                live = self.read(site, (found or {}).get("spec") or {})
                cookies = advanced(wanted, live.cookies, status_cookies(site), weights.canary, self._rand)
            return self._taken(site, which, found, weights, cookies)

        answer = await ensure(self._objects, which, build, shown=self.shown(site))
        found = self.read(site, (answer or {}).get("spec") or {}).weights
        if found != weights:
            raise Problem(f"{self.shown(site)} update error: {_said(found)} after {_said(weights)} was written")
        return None if wanted is None else cookies

    async def revert(self, site: Site) -> None:
        """Give back a route object that was there before the Canary; others are left alone."""
        which, unknown = self.reference(site), False

        def build(found: Object | None) -> Object | None:
            nonlocal unknown
            if found is None:
                return None
            unknown = not is_known(site, found)
            routed = self.read(site, found.get("spec") or {}).weights is not None
            return give_back(site, found, routed=routed)

        await ensure(self._objects, which, build, shown=self.shown(site))
        if unknown:
            _log.warning("no original configuration to give back", object=str(which))

    async def ensure_route(self, site: Site) -> None:
        """Create or put right the route object around its live weights."""
        which = self.reference(site)

        def build(found: Object | None) -> Object:
            live = self.read(site, (found or {}).get("spec") or {})
            return self._taken(site, which, found, self._lasting(site, live), kept(live.cookies, status_cookies(site)))

        await ensure(self._objects, which, build, shown=self.shown(site))

    async def present(self, site: Site) -> Object:
        """The route object; raises Problem when it is not there or cannot be read."""
        try:
            return await self._objects.get(self.reference(site))
        except ReconcileError as error:
            raise Problem(f"{self.shown(site)} {self.unread} {error}") from error

    def shown(self, site: Site) -> str:
        """How messages name the route object."""
        return named(self.reference(site))

    def _lasting(self, site: Site, live: Live) -> Weights:
        """The weights that an edit leaves as they are.

        Those of an A/B test's audience mean something else once there is no test, and the other way round: then all traffic goes
        back to the primary.
        """
        if live.weights is None or live.matched != bool(site.spec.analysis.match):
            return ALL_PRIMARY
        return live.weights

    def _taken(self, site: Site, which: Reference, found: Object | None, weights: Weights, cookies: Affinity) -> Object:
        fields = self.fields(site, weights, cookies)
        there = (found or {}).get("spec") or {}
        for name, value in fields.items():
            if value is not None and name in there and self.canonical({name: value}) == self.canonical({name: there[name]}):
                fields[name] = there[name]
        return take(site, which, found, fields, annotations_stay=self.annotations_stay)


def status_cookies(site: Site) -> Affinity:
    """The cookies that the status has."""
    status = site.status
    return Affinity(
        status.session_affinity_cookie or "",
        status.previous_session_affinity_cookie or "",
        status.primary_session_affinity_cookie or "",
    )


def _said(weights: Weights | None) -> str:
    if weights is None:
        return "no weights"
    return f"weights {weights.primary}/{weights.canary}{' with mirroring' if weights.mirrored else ''}"
