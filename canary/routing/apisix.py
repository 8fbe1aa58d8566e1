"""Apache APISIX: a second ApisixRoute with a higher priority that splits the requests of one rule of the application's route.

Follows Flagger. The application's ApisixRoute is only read; whatever its rule says beside its backend is kept in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from canary.ensure import Build
from canary.errors import Problem
from canary.routing.base import Weights
from canary.routing.common import begun, inside, listed, look, named, no_routes, own, placed, share
from canary.routing.single import SingleObjectRouter
from canary.site import Site
from reconcile.ports.cluster import Object, Reference

API_VERSION = "apisix.apache.org/v2"
KIND = "ApisixRoute"
PRIORITY = 10000
"""Of the rule with the split: above that of the application's own, which stays for when ours is gone."""
CONTROLLER = "ingressClassName"
"""Field of the spec that says which controller is meant; some controllers take no notice of a route without it."""

_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", "toolkit.fluxcd.io")
"""Parts of names of labels and annotations by which kubectl and Flux would take a copy for the original."""


class ApisixRouter(SingleObjectRouter):
    """ApisixRoute `R-S-canary`, R being the application's."""

    def which(self, site: Site) -> Reference:
        """The route with the split."""
        return Reference(API_VERSION, KIND, site.namespace, f"{_source(site).name}-{site.apex}-canary")

    async def builder(self, site: Site, weights: Weights | None) -> Build:
        """Makes the route with the split from the application's.

        A split that exists gets its weights whatever has become of the application's route: a rollback must not wait for that.
        """
        which, source = self.which(site), _source(site)
        application: Object | None = None
        broken: Problem | None = None
        try:
            application = await look(self._objects, source)
            rule_of(site, application)
        except Problem as error:
            broken = error

        def build(present: Object | None) -> Object:
            if application is not None and broken is None:
                return route(site, which, application, present, weights or self.live(site, present))
            if present is not None and weights is not None:
                return reweighted(site, present, weights)
            raise broken or Problem(f"{named(source)} not found")

        return build

    def parse(self, site: Site, found: Object) -> Weights:
        """The weights of the rule with the split; raises Problem when there is none."""
        for rule in listed(found, "spec", "http"):
            if _is_split(site, rule):
                shares = {each.get("serviceName"): each.get("weight") for each in listed(rule, "backends")}
                live = share(shares.get(site.primary_service), shares.get(site.canary_service))
                if live is not None:
                    return live
        raise no_routes(site, self.which(site))


def route(site: Site, which: Reference, application: Object, present: Object | None, weights: Weights) -> Object:
    """The route with the split. Pure, but for `present`, which it changes.

    Args:
        site: The Canary.
        which: What the route is called.
        application: The application's route; its labels and annotations are taken over when ours is made.
        present: Ours, as it is; rules that people added to it stay.
        weights: Of the two backends.

    Raises:
        Problem: The application's route has no rule for the service alone.
    """
    rule = rule_of(site, application)
    backend = rule["backends"][0]
    split = own(
        deepcopy(rule),
        priority=PRIORITY,
        websocket=rule.get("websocket", False),
        backends=[
            {**backend, "serviceName": site.primary_service, "weight": weights.primary},
            {**backend, "serviceName": site.canary_service, "weight": weights.canary},
        ],
    )
    meta = application["metadata"]
    taken = {name: _taken(meta.get(name)) for name in ("labels", "annotations")} if present is None else {}
    found = begun(site, which, present, **taken)
    spec = inside(found, "spec")
    if CONTROLLER in application["spec"]:
        own(spec, **{CONTROLLER: application["spec"][CONTROLLER]})
    rules = placed(listed(spec, "http"), [split], ours=lambda each: _is_split(site, each), same=lambda _theirs, _ours: False)
    own(spec, http=rules)
    return found


def reweighted(site: Site, present: Object, weights: Weights) -> Object:
    """The route with other weights and nothing else changed. Pure, but for `present`, which it changes."""
    shares = {site.primary_service: weights.primary, site.canary_service: weights.canary}
    for rule in listed(present, "spec", "http"):
        if _is_split(site, rule):
            for backend in listed(rule, "backends"):
                if backend.get("serviceName") in shares:
                    own(backend, weight=shares[backend["serviceName"]])
    return present


def rule_of(site: Site, application: Object) -> Object:
    """The first rule of the application's route that leads to the service, and to nothing else; raises Problem."""
    where = named(_source(site))
    for rule in listed(application, "spec", "http"):
        backends = listed(rule, "backends")
        if any(each.get("serviceName") == site.apex for each in backends):
            if len(backends) != 1:
                raise Problem(f"{where} has {len(backends)} backends in the rule for {site.apex}: one is needed, to be split")
            return rule
    raise Problem(f"backend {site.apex} not found in {where}")


def _source(site: Site) -> Reference:
    reference = site.spec.route_ref
    if reference is None or not reference.name:
        raise Problem("apisix route selector is empty")
    return Reference(API_VERSION, KIND, site.namespace, reference.name)


def _is_split(site: Site, rule: Object) -> bool:
    return any(each.get("serviceName") == site.primary_service for each in listed(rule, "backends"))


def _taken(given: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (given or {}).items() if not any(part in name for part in _NOT_COPIED)}
