"""The metrics of one Canary in one tick: which queries there are, who answers them, and what the answers mean.

Order and texts are Flagger's: built-in and inline queries in the order of the manifest, then templates in that order. Unlike
there all of them are asked, side by side, so that each leaves a value and a verdict; a query that several ask for at the same
moment is sent once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from canary.api import Metric, MetricProvider, MetricTemplate
from canary.errors import Problem
from canary.judge import UNUSABLE, Judgement, Source, Subject, judge, threshold
from canary.metrics import builtin
from canary.metrics.base import Check, Provider, ProviderConfig, Sample, Verdict
from canary.metrics.flights import Flights
from canary.metrics.providers import PROMETHEUS, Providers
from canary.metrics.template import Model, RenderError, render
from canary.plan import interval_of
from canary.settings import CanarySettings
from canary.site import Site
from reconcile.api.meta import Key
from reconcile.errors import NotFound, ReconcileError
from reconcile.ports.clock import Clock
from reconcile.ports.cluster import Reference
from reconcile.ports.objects import Objects
from reconcile.ports.store import Store

Observed = Callable[[Site, str, float], None]
"""Told each value that came: of which Canary, of which metric, and the value, durations in seconds."""

PACE: Final = 0.02
"""Seconds after which a query follows another one that was not answered yet: a backend sees them in the manifest's order."""
_KNATIVE: Final = "serving.knative.dev/"


@dataclass(frozen=True, slots=True)
class Planned:
    """One query of one metric; no source means that the metric has none at all."""

    metric: Metric
    source: Source | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A query that can be sent."""

    provider: Provider
    config: ProviderConfig
    query: str
    interval: str

    @property
    def key(self) -> Hashable:
        """What makes two queries the same."""
        return self.config, self.query, self.interval


def plan(metrics: Sequence[Metric]) -> Iterator[Planned]:
    """What is asked for these metrics, in order; a metric with both a query and a template is asked for twice."""
    for metric in metrics:
        if metric.name in builtin.NAMES:
            yield Planned(metric, Source(metric.name))
        if metric.query:
            yield Planned(metric, Source.INLINE)
    for metric in metrics:
        if metric.template_ref is not None:
            yield Planned(metric, Source.TEMPLATE)
        elif metric.name not in builtin.NAMES and not metric.query:
            yield Planned(metric, None)


def subject_of(site: Site) -> Subject:
    """Whom the event texts of a Canary's metrics speak of."""
    ref = site.spec.target_ref
    core_service = ref.kind == "Service" and not ref.api_version.startswith(_KNATIVE)
    word = builtin.provider_word(site.spec.provider, site.settings.mesh_provider, core_service=core_service)
    return Subject(f"{site.name}.{site.namespace}", f"{site.target}.{site.namespace}", word)


class Checks:
    """Asks and judges.

    Args:
        store: MetricTemplates and their Secrets.
        objects: Knative Services.
        settings: Of the service.
        clock: For providers that wait.
        observed: Told each value.
        providers: Makes the providers; its own when not given. Closed with this.
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        settings: CanarySettings,
        clock: Clock,
        observed: Observed,
        *,
        providers: Providers | None = None,
    ) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._observed = observed
        self._providers = providers or Providers(objects, clock)
        self._queries: Flights[Sample] = Flights()
        self._probes: Flights[None] = Flights()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._providers.aclose()

    async def probe(self, site: Site) -> None:
        """Whether the providers of all metrics can be used; raises Problem for the first that cannot.

        Built-in metrics and templates are looked at, inline queries not.
        """
        for metric in site.spec.analysis.metrics or ():
            if metric.name in builtin.NAMES:
                server = self._server(site)
                try:
                    await self._probes.share(server, self._providers.make(server).online)
                except ReconcileError as error:
                    raise Problem(f"prometheus not avaiable: {error}") from error
            if metric.template_ref is None:
                continue
            template = await self._template(site, metric)
            named = f"metric template {_named(template)}"
            config = await self._config(site, template)
            try:
                provider = self._providers.make(config)
            except ReconcileError as error:
                raise Problem(f"{named} provider {config.type} error: {error}") from error
            try:
                await self._probes.share(config, provider.online)
            except ReconcileError as error:
                raise Problem(f"{config.type} in {named} not avaiable: {error}") from error

    async def measure(self, site: Site, now: datetime) -> Sequence[Check]:
        """What the metrics say, in Flagger's order; a query that cannot be made or answered is a verdict too."""
        planned = list(plan(site.spec.analysis.metrics or ()))
        subject = subject_of(site)
        ready = await asyncio.gather(*(self._prepare(site, each, subject) for each in planned))
        asked: dict[Hashable, asyncio.Task[Sample | Exception]] = {}
        async with asyncio.TaskGroup() as group:
            for one in ready:
                if isinstance(one, Problem) or one.key in asked:
                    continue
                if asked:
                    await asyncio.wait({next(reversed(asked.values()))}, timeout=PACE)
                asked[one.key] = group.create_task(self._ask(one, now))
        outcomes = {key: task.result() for key, task in asked.items()}
        return [self._check(site, each, one, outcomes, subject, now) for each, one in zip(planned, ready, strict=True)]

    # --- one check

    async def _prepare(self, site: Site, planned: Planned, subject: Subject) -> _Ready | Problem:
        metric = planned.metric
        try:
            match planned.source:
                case None:
                    return Problem(UNUSABLE)
                case Source.TEMPLATE:
                    return await self._prepare_template(site, metric)
                case Source.INLINE:
                    model = await self._model(site, metric, metric.interval or builtin.DEFAULT_INTERVAL)
                    try:
                        query = render(metric.query or "", model)
                    except RenderError as error:
                        return Problem(f"Prometheus query failed for {metric.name}: {error}")
                case _:
                    model = await self._model(site, metric, metric.interval or builtin.DEFAULT_INTERVAL)
                    query = builtin.resolve(subject.provider, metric.name, model)
            config = self._server(site)
            try:
                provider = self._providers.make(config)
            except ReconcileError as error:
                return Problem(judge(metric, planned.source, error, subject).text)
            return _Ready(provider, config, builtin.collapse(query), model.interval)
        except ReconcileError as error:
            return Problem(str(error))

    async def _prepare_template(self, site: Site, metric: Metric) -> _Ready:
        try:
            template = await self._template(site, metric)
            config = await self._config(site, template)
        except Problem as error:
            raise Problem(str(error)[:1].upper() + str(error)[1:]) from error
        named = f"Metric template {_named(template)}"
        try:
            provider = self._providers.make(config)
        except ReconcileError as error:
            raise Problem(f"{named} provider {config.type} error: {error}") from error
        model = await self._model(site, metric, metric.interval or "")
        try:
            query = render(template.spec.query, model)
        except RenderError as error:
            raise Problem(f"{named} query render error: {error}") from error
        return _Ready(provider, config, builtin.collapse(query) if config.type == PROMETHEUS else query, model.interval)

    def _check(
        self,
        site: Site,
        planned: Planned,
        ready: _Ready | Problem,
        outcomes: Mapping[Hashable, Sample | Exception],
        subject: Subject,
        now: datetime,
    ) -> Check:
        metric, source = planned.metric, planned.source
        words = threshold(metric, source or Source.TEMPLATE)
        if isinstance(ready, Problem) or source is None:
            return Check(metric.name, "", None, words, Verdict.ERROR, str(ready), now)
        outcome = outcomes[ready.key]
        if isinstance(outcome, Sample) and source is Source.DURATION:
            outcome = _scaled(outcome, builtin.queries(subject.provider).factor)
        found = judge(metric, source, outcome, subject, site.spec.analysis.on_no_data)
        self._show(site, metric, source, found)
        count = outcome.count if isinstance(outcome, Sample) else 0
        return Check(metric.name, ready.query, found.value, words, found.verdict, found.text, now, count)

    async def _ask(self, ready: _Ready, now: datetime) -> Sample | Exception:
        try:
            return await self._queries.share(ready.key, lambda: ready.provider.query(ready.query, ready.interval, now))
        except ReconcileError as error:
            return error

    def _show(self, site: Site, metric: Metric, source: Source, found: Judgement) -> None:
        if found.value is None:
            return
        value = found.value
        if source is Source.DURATION and math.isfinite(value):
            seconds, rest = divmod(int(value), 1000)
            value = seconds + rest / 1000
        self._observed(site, metric.name, value)

    # --- what a query is made from

    def _server(self, site: Site) -> ProviderConfig:
        """The Prometheus of built-in and inline queries."""
        address = site.spec.metrics_server or self._settings.metrics_server
        return self._providers.config(MetricProvider(type=PROMETHEUS, address=address), timeout=_limit(site))

    async def _template(self, site: Site, metric: Metric) -> MetricTemplate:
        ref = metric.template_ref
        assert ref is not None  # noqa: S101 - the caller looked
        key = Key(ref.namespace or site.namespace, ref.name)
        if self._settings.no_cross_namespace_refs and key.namespace != site.namespace:
            raise Problem(f"can't access metric template {key.name}.{key.namespace}, cross-namespace references are blocked")
        try:
            return await self._store.get("MetricTemplate", key)
        except NotFound:
            why = f'metrictemplate.flagger.app "{key.name}" not found'
        except ReconcileError as error:
            why = str(error)
        raise Problem(f"metric template {key.name}.{key.namespace} error: {why}")

    async def _config(self, site: Site, template: MetricTemplate) -> ProviderConfig:
        provider = template.spec.provider
        secret = None
        if provider.secret_ref is not None:
            name = provider.secret_ref.name
            try:
                secret = (await self._store.secret(Key(template.meta.namespace, name))).data
            except ReconcileError as error:
                raise Problem(f"metric template {_named(template)} secret {name} error: {error}") from error
        return self._providers.config(provider, secret, timeout=_limit(site))

    async def _model(self, site: Site, metric: Metric, interval: str) -> Model:
        spec = site.spec
        return Model(
            name=site.name,
            namespace=site.namespace,
            target=site.target,
            service=site.apex,
            ingress=spec.ingress_ref.name if spec.ingress_ref is not None else site.target,
            route=await self._route(site),
            interval=interval,
            variables=metric.template_variables or {},
        )

    async def _route(self, site: Site) -> str:
        ref = site.spec.target_ref
        if not ref.api_version.startswith(_KNATIVE):
            return site.spec.route_ref.name if site.spec.route_ref is not None else site.target
        found = await self._objects.get(Reference(ref.api_version, ref.kind, site.namespace, ref.name))
        revision = (found.get("status") or {}).get("latestCreatedRevisionName")
        if not revision:
            raise Problem(f"Knative Service {site.target}.{site.namespace} has no revision yet")
        return str(revision)


def _limit(site: Site) -> float:
    return interval_of(site.spec.analysis) / 2


def _named(template: MetricTemplate) -> str:
    return f"{template.meta.name}.{template.meta.namespace}"


def _scaled(sample: Sample, factor: float) -> Sample:
    if factor == 1:
        return sample
    extremes = (sample.extremes[0] * factor, sample.extremes[1] * factor) if sample.extremes is not None else None
    return replace(sample, value=sample.value * factor, extremes=extremes)
