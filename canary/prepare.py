"""What every tick does first: everything that belongs to a Canary is there and as it should be. Costs nothing when it is.

The order is Flagger's, so that traffic never goes where nothing is: Services of both sides, the primary with what it refers to,
its autoscaler, and only when the primary is ready the Service of the clients, the target's size and the routes.
"""

from __future__ import annotations

from dataclasses import replace

from canary.errors import Problem
from canary.phases import Phase
from canary.plan import Strategy
from canary.site import Site
from canary.tick import Tick
from canary.workload.base import Readiness
from canary.workload.services import ensure_apex, ensure_backends
from reconcile.errors import NotFound


class PrimaryNotReady(Problem):
    """The first primary is not ready."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__(readiness.text, retriable=readiness.retriable)
        self.readiness = readiness


class TargetUnreadable(Problem):
    """The target cannot be read, or is no target.

    Attributes:
        missing: There is none, for sure.
    """

    def __init__(self, message: str, *, missing: bool) -> None:
        super().__init__(message)
        self.missing = missing


def validate(site: Site) -> str:
    """What is wrong with a Canary that no tick can mend; empty when nothing is. Texts follow Flagger's where it has some."""
    spec, knative = site.spec, is_knative(site)
    if site.settings.no_cross_namespace_refs:
        for thing, name, namespace in _references(site):
            if namespace and namespace != site.namespace:
                return f"can't access {thing} {name}.{namespace}, cross-namespace references are blocked"
    if knative and spec.provider != "knative":
        return f"can't use {spec.provider or site.provider} provider with Knative Service as target"
    if spec.provider == "knative" and not knative:
        return f"can't use {spec.target_ref.api_version}/{spec.target_ref.kind} as target if provider is set to knative"
    if knative and spec.autoscaler_ref is not None:
        return "can't use autoscaler with Knative Service"
    affinity = spec.analysis.session_affinity
    if affinity is not None and affinity.primary_cookie_name and affinity.cookie_name == affinity.primary_cookie_name:
        return f"cookieName and primaryCookieName are both {affinity.cookie_name}: give them different names"
    if spec.service is None and not knative:
        return "spec.service is missing: it says by which port clients reach the target"
    return ""


def _references(site: Site) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    if (upstream := site.spec.upstream_ref) is not None:
        found.append(("gloo upstream", upstream.name, upstream.namespace))
    templates = [metric.template_ref for metric in site.spec.analysis.metrics or () if metric.template_ref is not None]
    alerts = [alert.provider_ref for alert in site.spec.analysis.alerts or ()]
    found += [("metric template", ref.name, ref.namespace) for ref in templates]
    return found + [("alert provider", ref.name, ref.namespace) for ref in alerts]


def is_knative(site: Site) -> bool:
    """Whether the target is a Knative Service."""
    ref = site.spec.target_ref
    return ref.kind == "Service" and ref.api_version.startswith("serving.knative.dev/")


def cannot_mirror(tick: Tick) -> str:
    """Why mirroring, if it is asked for, would never let a run leave weight 0."""
    plan, provider = tick.plan, tick.site.provider
    if not plan.mirror or not plan.weighted:
        return ""
    if not tick.router.mirrors:
        return f"mirroring is not supported by provider {provider}: remove spec.analysis.mirror"
    if provider.startswith("gatewayapi") and plan.strategy is not Strategy.BLUE_GREEN:
        return f"mirroring with provider {provider} needs spec.analysis.iterations without match: remove spec.analysis.mirror"
    return ""


async def read_target(tick: Tick) -> None:
    """Find the target and what it refers to; raises TargetUnreadable."""
    try:
        target = await tick.workload.target(tick.canary)
    except Problem as error:
        raise TargetUnreadable(str(error), missing=isinstance(error.__cause__, NotFound)) from error
    tick.target = target
    tick.site = replace(tick.site, label=target.label, value=target.value, ports=target.ports)


async def prepare(tick: Tick) -> None:
    """Bring everything that belongs to the Canary to what it should be.

    Raises:
        TargetUnreadable: There is no target that could be worked with.
        PrimaryNotReady: The first primary is not ready; clients and the target are left alone until it is.
        Problem: Anything else, with the text of the event.
    """
    objects, services = tick.tools.objects, tick.site.spec.target_ref.kind != "Service"
    await read_target(tick)
    site, initializing = tick.site, tick.initializing
    if services:
        await ensure_backends(objects, site)
    if initializing and not tick.plan.skip and tick.phase is not Phase.FAILED:
        await _probe(tick)
    early = site.provider.startswith("appmesh")
    if early:
        await tick.router.reconcile(site)
    await tick.workload.initialize(site)
    if initializing:
        await _first_primary(tick)
    if tick.scaler is not None:
        await tick.scaler.initialize(site)
        if initializing:
            await tick.scaler.pause(site)
    if services:
        await ensure_apex(objects, site)
    if initializing:
        try:
            await tick.workload.scale_to_zero(site)
        except Problem as error:
            kind = site.spec.target_ref.kind.lower()
            raise Problem(f"scaling down canary {kind} {site.target}.{site.namespace} failed: {error}") from error
    if not early:
        await tick.router.reconcile(site)


async def _probe(tick: Tick) -> None:
    try:
        await tick.tools.checks.probe(tick.site)
    except Problem as error:
        await tick.say("Warning", f"Error checking metric providers: {error}")
    else:
        await tick.say("Normal", "all the metrics providers are available!")


async def _first_primary(tick: Tick) -> None:
    readiness = await tick.workload.primary_ready(tick.site)
    if readiness.ready:
        return
    if not readiness.retriable and not await tick.workload.same_as_primary(tick.site):
        # The target was mended meanwhile; nothing of it has been judged yet, so the primary may follow.
        await tick.workload.promote(tick.site)
        readiness = replace(readiness, retriable=True)
    raise PrimaryNotReady(readiness)
