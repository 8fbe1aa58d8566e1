"""What is live around a Canary, for an explanation: read with the person's own rights, each object once, nothing written."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from canary.api import API_VERSION
from canary.cli.facts import Facts, Said
from canary.cli.view import STARTING, View
from canary.errors import Problem
from canary.phases import Phase
from canary.plan import Strategy
from canary.prepare import validate
from canary.routing import make_router
from canary.routing.base import Weights
from canary.settings import CanarySettings
from canary.site import Site
from canary.status import known_configs
from canary.workload import make_workload
from canary.workload.base import Readiness, Target, Workload
from canary.workload.revision import is_ours
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.clock import SystemClock
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.objects import Notice, Objects, Stamp

Result = TypeVar("Result")


class ReadOnly:
    """Objects, each read by one request when it is first asked for; writes are refused."""

    def __init__(self, inner: Objects) -> None:
        self._inner = inner
        self._known: dict[Reference, Object | ReconcileError] = {}

    async def read(self, which: Reference) -> Object:
        """See `Objects`."""
        if which not in self._known:
            try:
                self._known[which] = await self._inner.read(which)
            except ReconcileError as error:
                self._known[which] = error
        found = self._known[which]
        if isinstance(found, ReconcileError):
            raise found
        return found

    async def get(self, which: Reference) -> Object:
        """See `Objects`."""
        return await self.read(which)

    async def find(self, which: Reference) -> Object | None:
        """See `Objects`."""
        try:
            return await self.read(which)
        except NotFound:
            return None

    async def stamp(self, which: Reference) -> Stamp | None:
        """See `Objects`."""
        found = await self.find(which)
        if found is None:
            return None
        meta = found["metadata"]
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        return Stamp(str(meta.get("uid", "")), str(meta.get("resourceVersion", "")), labels, annotations)

    async def create(self, wanted: Object, *, manager: str) -> Object:
        """Refused."""
        raise RuntimeError(f"an explanation writes nothing: {wanted}, {manager}")

    async def patch(self, which: Object | Reference, patch: Object, *, manager: str) -> Object:
        """Refused."""
        raise RuntimeError(f"an explanation writes nothing: {which}, {patch}, {manager}")

    async def delete(self, which: Object | Reference) -> bool:
        """Refused."""
        raise RuntimeError(f"an explanation writes nothing: {which}")

    def subscribe(self, notice: Notice) -> None:
        """Nothing is followed."""


@dataclass
class _Gathering:
    """What was found so far, and what the person may not read."""

    site: Site
    view: View
    workload: Workload
    objects: ReadOnly
    denied: list[str] = field(default_factory=list)

    async def ask(self, work: Awaitable[Result]) -> tuple[Result | None, str]:
        """A result, or why there is none; nothing at all when only our own rights were in the way."""
        try:
            return await work, ""
        except ReconcileError as error:
            if _is_denied(error):
                text = str(error)
                if text not in self.denied:
                    self.denied.append(text)
                return None, ""
            return None, str(error)


def _is_denied(error: BaseException | None) -> bool:
    """Whether the reader lacks a right, which says nothing of the service's."""
    while error is not None:
        if type(error).__name__ == "Denied":  # of the adapter that this layer has never heard of
            return True
        error = error.__cause__ or error.__context__
    return False


async def gather(objects: Objects, view: View, settings: CanarySettings, said: tuple[Said, ...], now: datetime) -> Facts:
    """All that an explanation may speak of. Never raises for what cannot be read: that is a fact, too."""
    canary, reader = view.canary, ReadOnly(objects)
    facts = Facts(view, now, invalid=validate(Site(canary, settings)), said=said)
    ref = canary.spec.target_ref
    try:
        workload = make_workload(ref.kind, ref.api_version, reader, settings, SystemClock())
    except Problem as error:
        return replace(facts, target_problem=str(error))
    gathering = _Gathering(Site(canary, settings), view, workload, reader)
    facts = await _workloads(gathering, facts)
    facts = await _routes(gathering, facts, settings)
    return replace(facts, missing_templates=await _templates(gathering), denied=tuple(gathering.denied))


async def _workloads(g: _Gathering, facts: Facts) -> Facts:
    target, problem = await g.ask(g.workload.target(g.view.canary))
    if target is None:
        return replace(facts, target_problem=problem)
    g.site = replace(g.site, label=target.label, value=target.value, ports=target.ports)
    configs, configs_problem = await g.ask(g.workload.configs(g.site))
    primary = await _readiness(g, g.workload.primary_ready(g.site))
    ready: Readiness | None = None
    if g.view.phase in {Phase.PROGRESSING, Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.FINALISING}:
        ready = await _readiness(g, g.workload.canary_ready(g.site))
    same = None
    if g.view.canary.status.last_promoted_spec:
        same, _ = await g.ask(g.workload.same_as_primary(g.site))
    unknown = configs is None and bool(g.denied)
    changed = None if unknown else changed_since(g.view, target, configs, same=bool(same))
    return replace(
        facts, target=target, configs_problem=configs_problem, primary=primary, ready=ready, same=same, changed=changed
    )


async def _readiness(g: _Gathering, work: Awaitable[Readiness]) -> Readiness | None:
    """Whether a workload is ready; one that cannot be found is not."""
    found, problem = await g.ask(work)
    return Readiness(False, problem) if problem else found


def changed_since(view: View, target: Target, configs: Mapping[str, str] | None, *, same: bool) -> bool:
    """Whether the service would see another revision, or another configuration, than the one in work. Pure."""
    status = view.canary.status
    applied = status.last_applied_spec or ""
    if not applied:
        return True
    revision_moved = target.revision != applied
    configs_moved = dict(configs or {}) != known_configs(status)
    if view.phase in {Phase.INITIALIZED, Phase.SUCCEEDED}:
        return (revision_moved or configs_moved) and not same
    untouched = not is_ours(applied) or (target.generation or -1) == status.target_generation
    return configs_moved or (revision_moved and not untouched)


async def _routes(g: _Gathering, facts: Facts, settings: CanarySettings) -> Facts:
    if facts.target is None or g.view.phase in STARTING:
        return facts  # routes come last when a Canary is set up
    router = make_router(g.site.provider, g.objects, settings)
    if g.view.plan.mirror and g.view.plan.weighted and not router.mirrors:
        return replace(facts, invalid=f"mirroring is not supported by provider {g.site.provider}: remove spec.analysis.mirror")
    live: Weights | None
    live, problem = await g.ask(router.weights(g.site))
    # Plain Services say nothing of weights, and what a match sends to the canary is no share of all traffic.
    shown = live if g.view.plan.weighted and g.view.plan.strategy is Strategy.CANARY else None
    return replace(facts, live=shown, routes_problem=problem)


async def _templates(g: _Gathering) -> tuple[str, ...]:
    missing = []
    for metric in g.view.canary.spec.analysis.metrics or ():
        if (ref := metric.template_ref) is None:
            continue
        namespace = ref.namespace or g.site.namespace
        found, _ = await g.ask(g.objects.find(Reference(API_VERSION, "MetricTemplate", namespace, ref.name)))
        if found is None and not g.denied:
            missing.append(f"{namespace}/{ref.name} (metric {metric.name})")
    return tuple(missing)
