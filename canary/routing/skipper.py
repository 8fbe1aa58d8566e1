"""Traffic through Skipper: a second Ingress with a path to the primary and one to the canary for each path of the application's.

The weights of the two are an annotation; a predicate decides whether the second Ingress is looked at at all. Follows Flagger's
skipper provider and skipper-ingress' documentation of its annotations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from canary.ensure import Build
from canary.errors import Problem
from canary.routing.base import Weights
from canary.routing.common import no_routes, share
from canary.routing.ingress import IngressRouter, annotations_of, rerouted
from canary.site import Site
from reconcile.errors import ReconcileError
from reconcile.ports.cluster import Object

WEIGHTS = "zalando.org/backend-weights"
"""Annotation: a JSON object of relative weights by service."""
PREDICATE = "zalando.org/skipper-predicate"
"""Annotation: what must hold, besides host and path, for a route of the Ingress to be taken."""
ON = "Weight(100)"
"""The predicate that prefers these routes to those of the application's Ingress."""
OFF = "False()"
"""The predicate that never holds: the application's Ingress takes everything."""

_CONJUNCT = re.compile(r'(?:"(?:\\.|[^"\\])*"|`[^`]*`|/(?:\\.|[^/\\])*/|[^&]|&(?!&))+|&&')
"""One of several predicates, or the `&&` between two; in texts and patterns the two characters join nothing."""


class SkipperRouter(IngressRouter):
    """Weights by service, in an annotation of the canary Ingress."""

    word = "apexIngress"

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """See `SingleObjectRouter.builder`; weights are set without a look at the application's Ingress, be it broken or not."""
        apex = None
        if weights is None or await self.absent(site):
            apex = await self.apex(site)
        spec = None if apex is None else rerouted(site, apex, to=site.primary_service, also=site.canary_service)

        def build(present: Object | None) -> Object:
            if present is not None:
                wanted = present
            elif apex is not None:
                wanted = self.copied(site, apex, {})
            else:
                raise Problem(f"{self.shown(site)} not found")
            split = weights if weights is not None else self.live(site, present)
            annotations = annotations_of(wanted)
            annotations[WEIGHTS] = _with_weights(site, annotations.get(WEIGHTS), split)
            annotations[PREDICATE] = _predicate(annotations.get(PREDICATE) or "", None if weights is None else weights.canary > 0)
            wanted["metadata"]["annotations"] = annotations
            return wanted if spec is None else wanted | {"spec": spec}

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """See `SingleObjectRouter.parse`."""
        by_service = _weights(annotations_of(found).get(WEIGHTS))
        live = share(by_service.get(site.primary_service), by_service.get(site.canary_service))
        if live is None:
            raise no_routes(site, self.which(site))
        return live

    async def revert(self, site: Site) -> None:
        """Delete the canary Ingress, so that the application's has all traffic before the Services are gone."""
        if site.spec.ingress_ref is None:
            return
        try:
            await self._objects.delete(self.which(site))
        except ReconcileError as error:
            raise Problem(f"{self.shown(site)} delete error: {error}") from error


def _weights(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _with_weights(site: Site, text: str | None, weights: Weights) -> str:
    """The annotation with these weights; those of other services in it stay."""
    found = {**_weights(text), site.primary_service: weights.primary, site.canary_service: weights.canary}
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _predicate(text: str, on: bool | None) -> str:
    """The predicates with ours in front: on, off, or None as it is (on when it is neither, or both)."""
    every = [part.strip() for part in _CONJUNCT.findall(text)]
    if on is None:
        on = OFF not in every or ON in every
    return " && ".join([ON if on else OFF, *(part for part in every if part not in (ON, OFF, "", "&&"))])
