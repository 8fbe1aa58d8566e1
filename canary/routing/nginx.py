"""Traffic through ingress-nginx: a second Ingress with the `canary` annotations beside that of the application.

The controller takes all other annotations of a canary Ingress from the one that it stands beside, so only the spec is kept like
that one's. Follows Flagger's nginx provider and ingress-nginx' documentation of its canary annotations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from canary.api import AnalysisMatch, HeaderMatch
from canary.ensure import Build
from canary.errors import Problem
from canary.routing.base import TOTAL, Affinity, Weights
from canary.routing.common import begun, matches_of
from canary.routing.ingress import IngressRouter, annotations_of, rerouted
from canary.settings import CanarySettings
from canary.site import FLUX_OFF, Site
from reconcile.ports.cluster import Object
from reconcile.ports.objects import Objects


class NginxRouter(IngressRouter):
    """Weights are an annotation; an A/B test is on or off, by annotations that name one header and one cookie."""

    def __init__(self, objects: Objects, settings: CanarySettings) -> None:
        super().__init__(objects)
        self._canary = f"{settings.ingress_annotations_prefix}/canary"

    async def set_weights(self, site: Site, weights: Weights) -> Affinity | None:
        """Write the weight; of an A/B test, any weight above 0 switches it on."""
        return await super().set_weights(site, Weights.at(TOTAL) if weights.canary and matches_of(site) else weights)

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """See `SingleObjectRouter.builder`; weights are set without a look at the application's Ingress, be it broken or not."""
        apex = None
        if weights is None or await self.absent(site):
            apex = await self.apex(site)
        spec = None if apex is None else rerouted(site, apex, to=site.canary_service)

        def build(present: Object | None) -> Object:
            if present is not None:
                wanted = begun(site, self.which(site), present, annotations=FLUX_OFF)
            elif apex is not None:
                wanted = self.copied(site, apex, FLUX_OFF, left_out=self._canary)
            else:
                raise Problem(f"{self.shown(site)} not found")
            annotations = annotations_of(wanted)
            annotations = self._mended(annotations) if weights is None else self._annotated(site, annotations, weights.canary)
            wanted["metadata"]["annotations"] = annotations
            return wanted if spec is None else wanted | {"spec": spec}

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """See `SingleObjectRouter.parse`; in an A/B test everything or nothing."""
        annotations = annotations_of(found)
        if matches_of(site) and any(f"{self._canary}-by-{what}" in annotations for what in ("header", "cookie")):
            return Weights.at(TOTAL)
        weight = _weight(annotations.get(f"{self._canary}-weight"))
        if weight is None:
            raise Problem(f"{self.shown(site)} has no weight in its annotation {self._canary}-weight")
        return Weights.at(weight)

    async def revert(self, site: Site) -> None:
        """Nothing was taken over; the canary Ingress goes with the Canary, which owns it."""

    def _base(self, weight: int) -> dict[str, str]:
        return {self._canary: "true", f"{self._canary}-weight": str(weight)}

    def _mended(self, annotations: dict[str, str]) -> dict[str, str]:
        """Annotations that make it a canary Ingress, whose weight is in percent; what is live stays."""
        annotations.pop(f"{self._canary}-weight-total", None)
        return {**annotations, **self._base(_weight(annotations.get(f"{self._canary}-weight")) or 0)}

    def _annotated(self, site: Site, annotations: dict[str, str], canary: int) -> dict[str, str]:
        """Annotations that make a weight live. Those that let some people in for good go when nothing is left for the canary."""
        matches = matches_of(site)
        if canary == 0:
            annotations = {name: value for name, value in annotations.items() if not name.startswith(self._canary)}
        elif matches:
            annotations = {name: value for name, value in annotations.items() if not name.startswith(f"{self._canary}-by-")}
            return self._mended(annotations) | self._base(0) | _tests(self._canary, matches)
        return self._mended(annotations) | self._base(canary)


def _weight(text: str | None) -> int | None:
    """The weight that an annotation says; None when it says none."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= TOTAL else None


def _tests(prefix: str, matches: Sequence[AnalysisMatch]) -> dict[str, str]:
    """The annotations that tell clients of the canary from others: by one header and one cookie, the last of several.

    Raises:
        Problem: There is no header, and no cookie with an exact value: nobody would get the canary.
    """
    cookie: dict[str, str] = {}
    header: dict[str, str] = {}
    for name, match in ((name, match) for each in matches for name, match in (each.headers or {}).items()):
        if name != "cookie":
            header = {f"{prefix}-by-header": name, **_value(prefix, match)}
        elif match.exact:
            cookie = {f"{prefix}-by-cookie": match.exact}
    if not header and not cookie:
        raise Problem("analysis.match has neither a header nor a cookie with an exact value, which is what nginx can go by")
    return {**header, **cookie}


def _value(prefix: str, match: HeaderMatch) -> dict[str, str]:
    if match.exact is not None:
        return {f"{prefix}-by-header-value": match.exact}
    if match.regex is not None:
        pattern = match.regex
    else:
        pattern = f"^{re.escape(match.prefix)}" if match.prefix is not None else f"{re.escape(match.suffix or '')}$"
    return {f"{prefix}-by-header-pattern": pattern}
